"""Instructions: what is understood, what it means, and that everything else is refused with an example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.errors import InstructionError
from vla_ros.instruction import COLOURS, DIRECTIONS, EXAMPLES, VERBS, Instruction, parse_instruction

UNDERSTOOD = {
    "reach the red block": Instruction("reach", "red"),
    "touch the green cube": Instruction("reach", "green"),
    "go to the blue block": Instruction("reach", "blue"),
    "move to blue": Instruction("reach", "blue"),
    "point at the red cube": Instruction("reach", "red"),
    "push the blue block left": Instruction("push", "blue", "left"),
    "slide the red cube to the right": Instruction("push", "red", "right"),
    "move the green block backward": Instruction("push", "green", "backward"),
    "push red away": Instruction("push", "red", "forward"),
    "pick up the green block": Instruction("pick", "green"),
    "pick the green block up": Instruction("pick", "green"),
    "grasp red": Instruction("pick", "red"),
    "grab the blue cube": Instruction("pick", "blue"),
    "take the red block": Instruction("pick", "red"),
    "lift the red block": Instruction("pick", "red"),
    "  Please PICK-UP the   Green block!! ": Instruction("pick", "green"),
}

REFUSED = {
    "": "empty",
    " ?! ": "empty",
    "please": "empty",
    "sing": "'sing' isn't a verb",
    "the red block": "'the' isn't a verb",
    "don't touch the red block": "isn't a verb",
    "reach": "no colour",
    "reach the purple block": "no colour",
    "reach the red block and the blue block": "2 colours",
    "push the blue block": "no direction",
    "move the blue block": "no direction",
    "push the blue block sideways": "'sideways' isn't a direction",
    "push the blue block left right": "isn't a direction",
    "reach the red block left": "takes no direction",
    "pick the red block then push it left": "isn't a direction",
    "reach not the red block": "'not' isn't understood",
    "reach the the red block": "'the' isn't understood",
    "reach the redblock": "no colour",
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_synonyms_mean_what_they_say(text: str) -> None:
    assert parse_instruction(text) == UNDERSTOOD[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_understood_is_refused_with_the_reason_and_an_example(text: str) -> None:
    with pytest.raises(InstructionError) as caught:
        parse_instruction(text)
    assert REFUSED[text] in str(caught.value)
    assert EXAMPLES[0] in str(caught.value)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("colour", COLOURS)
def test_every_instruction_reads_back_from_its_own_text(verb: str, colour: str) -> None:
    for direction in DIRECTIONS if verb == "push" else (None,):
        instruction = Instruction(verb, colour, direction)  # type: ignore[arg-type]
        assert parse_instruction(str(instruction)) == instruction


def test_the_examples_are_understood() -> None:
    assert {parse_instruction(example).verb for example in EXAMPLES} == set(VERBS)


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused_by_name(text: str) -> None:
    try:
        instruction = parse_instruction(text)
    except InstructionError:
        return
    assert instruction.colour in text.lower()
