"""What a person may ask of the arm, read strictly: every word is understood, or the instruction is refused.

The scripted policy, the simulator's judges and the learned policies' data share this grammar, so that they agree on
what was asked. `TEMPLATES` are the wordings that policies are trained on; `HELD_OUT_TEMPLATES` are other wordings in
the same words, kept from training to test with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from vla_ros.errors import InstructionError

Verb = Literal["reach", "push", "pick", "place", "stack"]
Colour = Literal["red", "green", "blue", "yellow", "purple"]
Shape = Literal["block", "cylinder"]
Direction = Literal["left", "right", "forward", "backward"]

VERBS: tuple[Verb, ...] = get_args(Verb)
COLOURS: tuple[Colour, ...] = get_args(Colour)
SHAPES: tuple[Shape, ...] = get_args(Shape)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

EXAMPLES = (
    "reach the red block",
    "push the blue block left",
    "pick up the green block",
    "put the yellow cylinder in the bowl",
    "stack the red block on the blue cylinder",
)


@dataclass(frozen=True)
class Thing:
    """Something that can be named: a block is a cube of 4 cm, a cylinder stands 4 cm wide and high."""

    colour: Colour
    shape: Shape = "block"

    @property
    def name(self) -> str:
        """Its name in the simulator and in its ground truth: `block_red`."""
        return f"{self.shape}_{self.colour}"

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Bowl:
    """The bowl, of which there is one at most."""

    name: str = "bowl"

    def __str__(self) -> str:
        return self.name


BOWL = Bowl()
THINGS = tuple(Thing(colour, shape) for colour in COLOURS for shape in SHAPES)


@dataclass(frozen=True)
class Instruction:
    """An instruction that was understood.

    Attributes:
        verb: what to do.
        thing: with what.
        direction: where to push it, in base axes: `left` is +y, `forward` +x; None for the other verbs.
        destination: what to stack it on, `BOWL` for place; None for the other verbs.
    """

    verb: Verb
    thing: Thing
    direction: Direction | None = None
    destination: Thing | Bowl | None = None

    @property
    def colour(self) -> Colour:
        """Of the thing."""
        return self.thing.colour

    def __str__(self) -> str:
        return instruction_texts(self)[0]


# `{way}` is the direction in other words.
TEMPLATES: dict[Verb, tuple[str, ...]] = {
    "reach": (
        "reach the {thing}",
        "reach for the {thing}",
        "touch the {thing}",
        "go to the {thing}",
        "move to the {thing}",
        "point at the {thing}",
    ),
    "push": (
        "push the {thing} {direction}",
        "push the {thing} {way}",
        "slide the {thing} {direction}",
        "slide the {thing} {way}",
        "move the {thing} {direction}",
        "shove the {thing} {direction}",
    ),
    "pick": (
        "pick up the {thing}",
        "pick the {thing} up",
        "grasp the {thing}",
        "grab the {thing}",
        "take the {thing}",
        "lift the {thing}",
        "please pick up the {thing}",
    ),
    "place": (
        "put the {thing} in the bowl",
        "put the {thing} into the bowl",
        "place the {thing} in the bowl",
        "drop the {thing} into the bowl",
        "set the {thing} in the bowl",
        "move the {thing} into the bowl",
    ),
    "stack": (
        "stack the {thing} on the {destination}",
        "stack the {thing} on top of the {destination}",
        "put the {thing} on the {destination}",
        "place the {thing} on top of the {destination}",
        "set the {thing} onto the {destination}",
        "put the {thing} onto the {destination}",
    ),
}
HELD_OUT_TEMPLATES: dict[Verb, tuple[str, ...]] = {
    "reach": ("reach to the {thing}", "point to the {thing}", "please touch the {thing}", "go for the {thing}"),
    "push": ("shove the {thing} {way}", "move the {thing} {way}", "please push the {thing} {direction}"),
    "pick": ("lift up the {thing}", "lift the {thing} up", "please grab the {thing}", "take up the {thing}"),
    "place": (
        "place the {thing} into the bowl",
        "drop the {thing} in the bowl",
        "set the {thing} into the bowl",
        "please put the {thing} in the bowl",
    ),
    "stack": (
        "place the {thing} on the {destination}",
        "put the {thing} on top of the {destination}",
        "stack the {thing} onto the {destination}",
        "set the {thing} on top of the {destination}",
    ),
}
WAYS: dict[Direction, str] = {
    "left": "to the left",
    "right": "to the right",
    "forward": "away from the robot",
    "backward": "towards the robot",
}
VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {*COLOURS, *SHAPES, *DIRECTIONS}
        | {word for way in WAYS.values() for word in way.split()}
        | {word for texts in TEMPLATES.values() for text in texts for word in re.findall(r"(?<!{)\b\w+\b(?!})", text)}
    )
)
"""All words that instructions of the templates are made of, sorted."""


def instruction_texts(instruction: Instruction, held_out: bool = False) -> tuple[str, ...]:
    """Every wording of an instruction, the plainest first: all templates of its verb, filled in."""
    templates = (HELD_OUT_TEMPLATES if held_out else TEMPLATES)[instruction.verb]
    direction = instruction.direction
    way = WAYS[direction] if direction else ""
    return tuple(
        text.format(thing=instruction.thing, direction=direction, way=way, destination=instruction.destination)
        for text in templates
    )


# The longest phrase that fits is taken. `move` and `slide` push; `move to` reaches; what is put or moved into the bowl
# is placed, and what is put on a thing is stacked.
_VERB_PHRASES: dict[str, Verb] = {
    **dict.fromkeys(
        ("reach", "reach for", "reach to", "touch", "go to", "go for", "move to", "point at", "point to"), "reach"
    ),
    **dict.fromkeys(("push", "slide", "move", "shove"), "push"),
    **dict.fromkeys(("pick", "pick up", "grasp", "grab", "take", "take up", "lift", "lift up"), "pick"),
    **dict.fromkeys(("put", "place", "drop", "set", "lay"), "place"),
    "stack": "stack",
}
# `away` is away from the robot.
_DIRECTION_PHRASES: dict[str, Direction] = {
    **dict.fromkeys(("left", "to the left", "leftward", "leftwards"), "left"),
    **dict.fromkeys(("right", "to the right", "rightward", "rightwards"), "right"),
    **dict.fromkeys(("forward", "forwards", "ahead", "away", "away from the robot"), "forward"),
    **dict.fromkeys(("backward", "backwards", "back", "towards the robot", "toward the robot"), "backward"),
}
_RELATION_PHRASES: dict[str, Verb] = {
    **dict.fromkeys(("in", "into", "inside"), "place"),
    **dict.fromkeys(("on", "onto", "upon", "on top of"), "stack"),
}
_POLITE = frozenset({"please", "now"})
_NOUNS: dict[str, Shape] = {"block": "block", "cube": "block", "cylinder": "cylinder"}


def parse_instruction(text: str) -> Instruction:
    """Reads verb, thing, direction and destination; case, spacing and punctuation don't matter.

    A thing without a shape is the block of its colour.

    Raises:
        InstructionError: if the text is empty, or a word of it isn't understood, or it isn't one verb on one thing
            (with a direction for `push`, a destination for `place` and `stack`, and without for the others).
    """
    words = [word for word in re.sub(r"[^\w']+", " ", text.lower()).split() if word not in _POLITE]
    if not words:
        raise _refuse(text, "is empty")
    verb_length = _match(words, _VERB_PHRASES)
    if not verb_length:
        raise _refuse(text, f"{words[0]!r} isn't a verb I know ({', '.join(VERBS)})")
    phrase = " ".join(words[:verb_length])
    verb, rest = _VERB_PHRASES[phrase], words[verb_length:]
    if verb in ("place", "stack") or phrase == "move":
        at = next((i for i in range(len(rest)) if _match(rest[i:], _RELATION_PHRASES)), None)
        if at is not None:
            return _read_putting(text, phrase, rest[:at], rest[at:])
        if verb != "push":
            raise _refuse(text, "says neither `in the bowl` nor on what")
    thing, rest = _read_thing(text, rest)
    if verb == "pick" and rest == ["up"]:
        rest = []
    return Instruction(verb, thing, _read_direction(text, verb, rest))


def _read_putting(text: str, verb_phrase: str, words: list[str], where: list[str]) -> Instruction:
    thing, rest = _read_thing(text, words)
    if rest:
        raise _refuse(text, f"{rest[0]!r} isn't understood after the {thing}")
    length = _match(where, _RELATION_PHRASES)
    relation, where = " ".join(where[:length]), where[length:]
    verb = _RELATION_PHRASES[relation]
    if verb == "place":
        if verb_phrase == "stack":
            raise _refuse(text, f"'stack' takes what to stack on, found {relation!r}")
        if [word for word in where if word != "the"] != ["bowl"]:
            raise _refuse(text, f"{' '.join(where)!r} is nothing that things go {relation}, which is the bowl")
        return Instruction("place", thing, destination=BOWL)
    destination, rest = _read_thing(text, where)
    if rest:
        raise _refuse(text, f"{rest[0]!r} isn't understood after the {destination}")
    if destination == thing:
        raise _refuse(text, f"the {thing} can't stand on itself")
    return Instruction("stack", thing, destination=destination)


def _read_thing(text: str, words: list[str]) -> tuple[Thing, list[str]]:
    """The thing that words begin with, and the words after it."""
    colours: list[Colour] = [word for word in words if word in COLOURS]
    if not colours:
        raise _refuse(text, f"names no colour I know ({', '.join(COLOURS)})")
    if len(colours) > 1:
        raise _refuse(text, f"names {len(colours)} colours ({', '.join(colours)}), and one thing can be meant")
    words = words[words[0] == "the" :]
    if words[0] != colours[0]:
        raise _refuse(text, f"{words[0]!r} isn't understood before the colour")
    shape = _NOUNS.get(words[1]) if len(words) > 1 else None
    return Thing(colours[0], shape or "block"), words[2 if shape else 1 :]


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


def _match(words: list[str], phrases: Mapping[str, Verb]) -> int:
    """Number of leading words that make the longest phrase, 0 if none fits."""
    longest = max(len(phrase.split()) for phrase in phrases)
    return next((n for n in range(longest, 0, -1) if " ".join(words[:n]) in phrases), 0)


def _refuse(text: str, problem: str) -> InstructionError:
    return InstructionError(text, problem, f"say for example {', '.join(repr(example) for example in EXAMPLES)}")
