"""Instructions: what is understood, what it means, and that everything else is refused with an example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.errors import InstructionError
from vla_ros.instruction import (
    BOWL,
    COLOURS,
    DIRECTIONS,
    EXAMPLES,
    HELD_OUT_TEMPLATES,
    TEMPLATES,
    THINGS,
    VERBS,
    VOCABULARY,
    Instruction,
    Thing,
    instruction_texts,
    parse_instruction,
)

UNDERSTOOD = {
    "reach the red block": Instruction("reach", Thing("red")),
    "touch the green cube": Instruction("reach", Thing("green")),
    "go to the blue block": Instruction("reach", Thing("blue")),
    "move to blue": Instruction("reach", Thing("blue")),
    "point at the red cube": Instruction("reach", Thing("red")),
    "push the blue block left": Instruction("push", Thing("blue"), "left"),
    "slide the red cube to the right": Instruction("push", Thing("red"), "right"),
    "move the green block backward": Instruction("push", Thing("green"), "backward"),
    "push red away": Instruction("push", Thing("red"), "forward"),
    "pick up the green block": Instruction("pick", Thing("green")),
    "pick the green block up": Instruction("pick", Thing("green")),
    "grasp red": Instruction("pick", Thing("red")),
    "grab the blue cube": Instruction("pick", Thing("blue")),
    "take the red block": Instruction("pick", Thing("red")),
    "lift the red block": Instruction("pick", Thing("red")),
    "touch the purple cylinder": Instruction("reach", Thing("purple", "cylinder")),
    "push the yellow cylinder towards the robot": Instruction("push", Thing("yellow", "cylinder"), "backward"),
    "put the red cube into the bowl": Instruction("place", Thing("red"), destination=BOWL),
    "drop green in the bowl": Instruction("place", Thing("green"), destination=BOWL),
    "move the blue cylinder into the bowl": Instruction("place", Thing("blue", "cylinder"), destination=BOWL),
    "stack the red block on the blue cylinder": Instruction("stack", Thing("red"), None, Thing("blue", "cylinder")),
    "put red on top of blue": Instruction("stack", Thing("red"), None, Thing("blue")),
    "place the red cylinder onto the red block": Instruction("stack", Thing("red", "cylinder"), None, Thing("red")),
    "  Please PICK-UP the   Green block!! ": Instruction("pick", Thing("green")),
}

REFUSED = {
    "": "empty",
    " ?! ": "empty",
    "please": "empty",
    "sing": "'sing' isn't a verb",
    "the red block": "'the' isn't a verb",
    "don't touch the red block": "isn't a verb",
    "reach": "no colour",
    "reach the orange block": "no colour",
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
    "put the red block": "on what",
    "put the red block in": "bowl",
    "put the red block in the box": "'the box' is nothing that things go in",
    "put the red block in the red bowl": "is nothing that things go in",
    "stack the red block in the bowl": "'stack' takes what to stack on",
    "stack the red block on the red cube": "can't stand on itself",
    "stack the red block on the table": "no colour",
    "stack the red block and the green one on the blue block": "2 colours",
    "stack the red block on the blue block twice": "'twice' isn't understood",
    "put the red block quickly in the bowl": "'quickly' isn't understood",
    "reach the bowl": "no colour",
    "pick up the red sphere": "isn't a direction",
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


def all_instructions() -> list[Instruction]:
    found = []
    for thing in THINGS:
        found += [Instruction("reach", thing), Instruction("pick", thing), Instruction("place", thing, None, BOWL)]
        found += [Instruction("push", thing, direction) for direction in DIRECTIONS]
        found += [Instruction("stack", thing, None, other) for other in THINGS if other != thing]
    return found


def test_every_template_reads_back_as_what_it_was_made_of() -> None:
    for instruction in all_instructions():
        assert parse_instruction(str(instruction)) == instruction
        for held_out in (False, True):
            texts = instruction_texts(instruction, held_out)
            assert len(set(texts)) == len(texts)
            for text in texts:
                assert parse_instruction(text) == instruction, text
                assert len(text.split()) <= 14


def test_templates_are_many_and_held_out_ones_are_new_wordings_of_old_words() -> None:
    trained = {text for one in all_instructions() for text in instruction_texts(one)}
    held_out = {text for one in all_instructions() for text in instruction_texts(one, held_out=True)}
    assert not trained & held_out
    assert {word for text in trained for word in text.split()} == set(VOCABULARY)
    assert {word for text in held_out for word in text.split()} <= set(VOCABULARY)
    for verb in VERBS:
        assert 5 <= len(TEMPLATES[verb]) <= 8
        assert 3 <= len(HELD_OUT_TEMPLATES[verb]) <= 4


def test_the_examples_are_understood() -> None:
    assert {parse_instruction(example).verb for example in EXAMPLES} == set(VERBS)


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused_by_name(text: str) -> None:
    try:
        instruction = parse_instruction(text)
    except InstructionError:
        return
    assert instruction.colour in COLOURS
    assert instruction.colour in text.lower()
