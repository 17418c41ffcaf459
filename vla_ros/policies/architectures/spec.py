"""Which networks there are and what every one is told of its task. No torch: an exported network runs without it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vla_ros.errors import InstructionError, did_you_mean

# name -> "module:class"; a new network is a file and a line here, and the tests of all networks find it.
ARCHITECTURES = {
    "act": "vla_ros.policies.architectures.act:Act",
    "bc": "vla_ros.policies.architectures.bc:Bc",
    "diffusion": "vla_ros.policies.architectures.diffusion:DiffusionPolicy",
    "flow_vla": "vla_ros.policies.architectures.flow_vla:FlowVla",
}


@dataclass(frozen=True)
class ModelSpec:
    """What goes into a network and comes out of it.

    Attributes:
        images: names of the images, in the order in which the network is given them.
        image_size: height and width of every image, pixels.
        state_width: length of the state vector; give a policy without state a single zero.
        action_width: numbers in one action.
        horizon: actions in a chunk.
        vocabulary: words that the network knows; empty if it takes no language.
        max_words: longest instruction, in words; at least 1, also without language.
    """

    images: tuple[str, ...]
    image_size: tuple[int, int]
    state_width: int
    action_width: int
    horizon: int
    vocabulary: tuple[str, ...] = ()
    max_words: int = 1

    def __post_init__(self) -> None:
        if not self.images or len(set(self.images)) < len(self.images):
            raise ValueError(f"images {self.images}: at least one is needed, each name once")
        if min(self.image_size) < 8:
            raise ValueError(f"image_size {self.image_size}: at least 8 by 8 pixels are needed")
        for name in ("state_width", "action_width", "horizon", "max_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1")
        for i, word in enumerate(self.vocabulary):
            if split_words(word) != [word] or word in self.vocabulary[:i]:
                raise ValueError(f"vocabulary: {word!r} isn't one lower-case word, given once")

    @property
    def takes_language(self) -> bool:
        return bool(self.vocabulary)

    def word_ids(self, instruction: str) -> list[int]:
        """An instruction as `max_words` numbers: 0 for padding, k + 1 for the k-th word of the vocabulary.

        Without a vocabulary the network does one task only, and every instruction is all padding.

        Raises:
            InstructionError: for an empty or too long instruction, or a word outside of the vocabulary.
        """
        if not self.takes_language:
            return [0] * self.max_words
        words = split_words(instruction)
        if not words:
            raise InstructionError(instruction, "is empty", "say what to do")
        if len(words) > self.max_words:
            raise InstructionError(instruction, f"has {len(words)} words", f"use at most {self.max_words}")
        known = {word: i + 1 for i, word in enumerate(self.vocabulary)}
        for word in words:
            if word not in known:
                problem = f"the network was never taught the word {word!r}"
                raise InstructionError(instruction, problem, did_you_mean(word, known))
        return [known[word] for word in words] + [0] * (self.max_words - len(words))


def split_words(text: str) -> list[str]:
    """Lower-case words of a text; spacing and punctuation don't matter."""
    return re.sub(r"[^\w']+", " ", text.lower()).split()
