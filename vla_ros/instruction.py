"""What a person may ask of the arm, read strictly: every word is understood, or the instruction is refused.

The scripted policy and the simulator's judges read instructions here, so that they agree on what was asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from vla_ros.errors import InstructionError

Verb = Literal["reach", "push", "pick"]
Colour = Literal["red", "green", "blue"]
Direction = Literal["left", "right", "forward", "backward"]

VERBS: tuple[Verb, ...] = get_args(Verb)
COLOURS: tuple[Colour, ...] = get_args(Colour)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

EXAMPLES = ("reach the red block", "push the blue block left", "pick up the green block")

# The longest phrase that fits is taken. `move` and `slide` push; `move to` reaches.
_VERB_PHRASES: dict[str, Verb] = {
    **dict.fromkeys(("reach", "reach for", "reach to", "touch", "go to", "move to", "point at", "point to"), "reach"),
    **dict.fromkeys(("push", "slide", "move", "shove"), "push"),
    **dict.fromkeys(("pick", "pick up", "grasp", "grab", "take", "lift", "lift up"), "pick"),
}
# `away` is away from the robot.
_DIRECTION_PHRASES: dict[str, Direction] = {
    **dict.fromkeys(("left", "to the left", "leftward", "leftwards"), "left"),
    **dict.fromkeys(("right", "to the right", "rightward", "rightwards"), "right"),
    **dict.fromkeys(("forward", "forwards", "ahead", "away", "away from the robot"), "forward"),
    **dict.fromkeys(("backward", "backwards", "back", "towards the robot", "toward the robot"), "backward"),
}
_POLITE = frozenset({"please", "now"})
_NOUNS = frozenset({"block", "cube"})


@dataclass(frozen=True)
class Instruction:
    """An instruction that was understood.

    Attributes:
        verb: what to do.
        colour: to the block of this colour.
        direction: where to push it, in base axes: `left` is +y, `forward` +x; None for the other verbs.
    """

    verb: Verb
    colour: Colour
    direction: Direction | None = None

    def __str__(self) -> str:
        verb = "pick up" if self.verb == "pick" else self.verb
        return f"{verb} the {self.colour} block" + (f" {self.direction}" if self.direction else "")


def parse_instruction(text: str) -> Instruction:
    """Reads verb, colour and direction; case, spacing and punctuation don't matter.

    Raises:
        InstructionError: if the text is empty, or a word of it isn't understood, or it isn't one verb on one block
            (with a direction for `push`, without one for the others).
    """
    words = [word for word in re.sub(r"[^\w']+", " ", text.lower()).split() if word not in _POLITE]
    if not words:
        raise _refuse(text, "is empty")
    verb_length = _match(words, _VERB_PHRASES)
    if not verb_length:
        raise _refuse(text, f"{words[0]!r} isn't a verb I know ({', '.join(VERBS)})")
    verb = _VERB_PHRASES[" ".join(words[:verb_length])]
    rest = words[verb_length:]
    colours: list[Colour] = [word for word in rest if word in COLOURS]
    if not colours:
        raise _refuse(text, f"names no colour I know ({', '.join(COLOURS)})")
    if len(colours) > 1:
        raise _refuse(text, f"names {len(colours)} colours ({', '.join(colours)}), and one block can be meant")
    rest = rest[rest[0] == "the" :]
    if rest[0] != colours[0]:
        raise _refuse(text, f"{rest[0]!r} isn't understood before the colour")
    rest = rest[1:]
    rest = rest[bool(rest) and rest[0] in _NOUNS :]
    if verb == "pick" and rest == ["up"]:
        rest = []
    return Instruction(verb, colours[0], _read_direction(text, verb, rest))


def _read_direction(text: str, verb: Verb, words: list[str]) -> Direction | None:
    phrase = " ".join(words)
    direction = _DIRECTION_PHRASES.get(phrase)
    if phrase and direction is None:
        raise _refuse(text, f"{phrase!r} isn't a direction I know ({', '.join(DIRECTIONS)}, away)")
    if verb == "push" and direction is None:
        raise _refuse(text, f"says no direction to push ({', '.join(DIRECTIONS)})")
    if verb != "push" and direction is not None:
        raise _refuse(text, f"{verb!r} takes no direction, found {phrase!r}")
    return direction


def _match(words: list[str], phrases: dict[str, Verb]) -> int:
    """Number of leading words that make the longest phrase, 0 if none fits."""
    longest = max(len(phrase.split()) for phrase in phrases)
    return next((n for n in range(longest, 0, -1) if " ".join(words[:n]) in phrases), 0)


def _refuse(text: str, problem: str) -> InstructionError:
    return InstructionError(text, problem, f"say for example {', '.join(repr(example) for example in EXAMPLES)}")
