"""What is asked at a seed: the five verbs as suites, their wordings, and the same scene with another object named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from vla_ros.errors import UnknownNameError, VlaRosError
from vla_ros.evaluation.rollout_settings import Attempt
from vla_ros.instruction import DIRECTIONS, THINGS, VERBS, Instruction, Verb, instruction_texts
from vla_ros.sim.content import SETTING_VERBS, SceneContent, Setting, draw_content, draw_task

SUITES: tuple[Verb, ...] = VERBS
SWAPPED, HELD_OUT = "swapped", "held-out"
"""Variants of an attempt: at the same scene another object is named; or the same, in words never trained on."""

# Streams of chance, so that what is asked, in which words and about which other object don't hang together.
_WORDS, _SWAP = 0x30D, 0x5A9


def find_suites(text: str, setting: Setting) -> tuple[Verb, ...]:
    """The suites of a list with commas; `all` for every one that the setting has.

    Raises:
        UnknownNameError: for a suite that isn't known.
        VlaRosError: for one that the setting has not.
    """
    possible = SETTING_VERBS[setting]
    if text == "all":
        return possible
    found = []
    for word in filter(None, map(str.strip, text.split(","))):
        verb = next((verb for verb in SUITES if verb == word), None)
        if verb is None:
            raise UnknownNameError("suite", word, (*SUITES, "all"))
        if verb not in possible:
            raise VlaRosError(
                f"suite {word} needs --setting varied: there is no bowl and nothing to stack in {setting}"
            )
        found.append(verb)
    if not found:
        raise VlaRosError(f"--task {text!r} names no suite; give one of {', '.join(SUITES)}, or all")
    return tuple(found)


def draw_attempts(
    suite: Verb, setting: Setting, seeds: Iterable[int], *, with_held_out: bool = False, with_swap: bool = False
) -> list[Attempt]:
    """What a suite asks for at seeds, the same whoever is asked.

    Args:
        suite: the verb.
        setting: of the scenes.
        seeds: one scene each.
        with_held_out: each scene once more, in a wording that no policy was trained on.
        with_swap: each scene once more, with another of its objects named, where there is one that it can be done with.
    """
    attempts = []
    for seed in seeds:
        needed = draw_task(suite, seed, setting)
        scene, other = str(needed), ""
        if with_swap:
            swapped = swap_thing(needed, draw_content(seed, setting, needed))
            if swapped is not None:
                other = str(swapped)
                attempts.append(Attempt(suite, seed, _word(swapped, seed), scene, SWAPPED, scene))
        attempts.append(Attempt(suite, seed, _word(needed, seed), scene, "", other))
        if with_held_out:
            attempts.append(Attempt(suite, seed, _word(needed, seed, True), scene, HELD_OUT))
    return attempts


def swap_thing(instruction: Instruction, content: SceneContent) -> Instruction | None:
    """The same with another thing of the scene, neither the one named nor the destination; None where there is none.

    In a varied scene what is pushed needs a free way: the same if there is one, else another.
    """
    names = {placed.name for placed in content.objects}
    taken = (instruction.thing, instruction.destination)
    others = [thing for thing in THINGS if thing.name in names and thing not in taken]
    wishes: list[Instruction] = [replace(instruction, thing=thing) for thing in others]
    if instruction.direction is not None and content.setting == "varied":
        ways = [(thing, way) for thing in others for way in DIRECTIONS if content.can_be_pushed(thing.name, way)]
        same = [way for way in ways if way[1] == instruction.direction]
        wishes = [replace(instruction, thing=thing, direction=way) for thing, way in same or ways]
    rng = np.random.default_rng([content.seed, _SWAP])
    return wishes[int(rng.integers(len(wishes)))] if wishes else None


def _word(instruction: Instruction, seed: int, held_out: bool = False) -> str:
    texts = instruction_texts(instruction, held_out)
    return texts[int(np.random.default_rng([seed, _WORDS]).integers(len(texts)))]
