"""Examples as OpenVLA reads and says them: a prompt, then action tokens or an answer. Only what is said is learnt.

    BOS  In: What action should the robot take to lift the cup?\\nOut:  "_"  a1 ... a7  EOS
    BOS  In: How many cups are there?\\nOut:                                 three      EOS

Source: OpenVLA's `RLDSBatchTransform` (actions) and Prismatic's `FinetuneDataset` (questions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vla_ros.policies.normalisation import Normaliser
from vla_ros.policies.openvla.config import ModelConfig
from vla_ros.policies.openvla.policy import ACTION_WIDTH
from vla_ros.policies.openvla.preprocessing import EOS_ID, Float32Array, PromptEncoder
from vla_ros.policies.representations.bins import VocabularyBins
from vla_ros.types import FloatArray

# What cross-entropy passes over, by torch's convention.
IGNORED = -100


@dataclass(frozen=True)
class TokenExample:
    """One example in tokens.

    Attributes:
        prompt: ids of what is given, BOS first.
        said: ids of what is to be said.
        is_learnt: which of `said` count for the loss.
        is_action: whether an action is said, and not an answer.
    """

    prompt: tuple[int, ...]
    said: tuple[int, ...]
    is_learnt: tuple[bool, ...]
    is_action: bool

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt + self.said

    @property
    def labels(self) -> tuple[int, ...]:
        """As long as `ids`: the id where it counts, else IGNORED."""
        said = (label if counts else IGNORED for label, counts in zip(self.said, self.is_learnt, strict=True))
        return (IGNORED,) * len(self.prompt) + tuple(said)


@dataclass(frozen=True)
class TokenBatch:
    """Examples side by side, the short ones filled up at their ends.

    Attributes:
        pixel_values: (B, 6, H, W) float32.
        input_ids: (B, n).
        labels: (B, n) ids that count for the loss, IGNORED elsewhere.
        is_action: (B,) bool.
    """

    pixel_values: Tensor
    input_ids: Tensor
    labels: Tensor
    is_action: Tensor

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same on another device."""
        tensors = (self.pixel_values, self.input_ids, self.labels, self.is_action)
        return TokenBatch(*(tensor.to(device) for tensor in tensors))


@dataclass(frozen=True)
class TokenMaker:
    """Makes examples.

    Attributes:
        config: of the model.
        encoder: of its prompts.
        normaliser: of the actions, to [-1, 1].
        learn_stop: whether EOS after an action counts for the loss, as in OpenVLA's own training; the policy doesn't
            need it, since it asks for seven tokens. After an answer EOS always counts.
    """

    config: ModelConfig
    encoder: PromptEncoder
    normaliser: Normaliser
    learn_stop: bool = False
    bins: VocabularyBins = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bins", VocabularyBins(self.config.action_vocabulary))

    def say_action(self, instruction: str, action: FloatArray) -> TokenExample:
        """An action (d,) in the contract's units as its tokens.

        Raises:
            InstructionError: for an empty or too long instruction.
            ChunkError: for an action that isn't finite.
        """
        said = [int(token) for token in self.bins.encode(self.normaliser.normalise(action))]
        is_learnt = (True,) * len(said) + (self.learn_stop,)
        return TokenExample(tuple(self.prompt(instruction)), (*said, EOS_ID), is_learnt, is_action=True)

    def prompt(self, instruction: str) -> list[int]:
        """Ids that ask for an action, with room for it. Raises as `say_action` does."""
        return self.encoder.encode(instruction, self._longest - ACTION_WIDTH - 1)

    def answer(self, question: str, answer: str) -> TokenExample:
        """A question about an image and its answer.

        Raises:
            InstructionError: where one is empty, or both together are too long.
        """
        prompt, said = self.encoder.encode_answered(question, answer, self._longest)
        return TokenExample(tuple(prompt), tuple(said), (True,) * len(said), is_action=False)

    @property
    def _longest(self) -> int:
        return self.config.language.max_positions - self.config.patches


def put_together(examples: Sequence[TokenExample], pixels: Sequence[Float32Array], config: ModelConfig) -> TokenBatch:
    """A batch of examples and their images (6, H, W); padding is the first id past the vocabulary, as OpenVLA's."""
    longest = max(len(example.ids) for example in examples)
    ids = np.full((len(examples), longest), config.action_vocabulary, dtype=np.int64)
    labels = np.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        labels[row, : len(example.ids)] = example.labels
    is_action = torch.tensor([example.is_action for example in examples])
    return TokenBatch(torch.from_numpy(np.stack(pixels)), torch.from_numpy(ids), torch.from_numpy(labels), is_action)
