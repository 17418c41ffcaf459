"""What is asked at a seed: the five verbs as suites, their wordings, and the same scene with another object named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from vla_ros.errors import UnknownNameError, VlaRosError
from vla_ros.evaluation.rollout_settings import Attempt
from vla_ros.instruction import THINGS, VERBS, Instruction, Thing, Verb, instruction_texts
from vla_ros.sim.content import Setting, draw_content, draw_task

SUITES: tuple[Verb, ...] = VERBS
SWAPPED, HELD_OUT = "swapped", "held-out"
"""Variants of an attempt: at the same scene another object is named; or the same, in words never trained on."""

_BLOCK_VERBS: tuple[Verb, ...] = ("reach", "push", "pick")
# Streams of chance, so that what is asked, in which words and about which other object don't hang together.
_WORDS, _SWAP = 0x30D, 0x5A9


def find_suites(text: str, setting: Setting) -> tuple[Verb, ...]:
    """The suites of a list with commas; `all` for every one that the setting has.

    Raises:
        UnknownNameError: for a suite that isn't known.
        VlaRosError: for one that the setting has not.
    """
    possible = SUITES if setting == "varied" else _BLOCK_VERBS
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
        with_swap: each scene once more, with another of its objects named.
    """
    attempts = []
    for seed in seeds:
        needed = draw_task(suite, seed, setting)
        scene, other = str(needed), ""
        if with_swap:
            swapped = swap_thing(needed, scene_things(setting, seed, needed), seed)
            other = str(swapped)
            attempts.append(Attempt(suite, seed, _word(swapped, seed), scene, SWAPPED, scene))
        attempts.append(Attempt(suite, seed, _word(needed, seed), scene, "", other))
        if with_held_out:
            attempts.append(Attempt(suite, seed, _word(needed, seed, True), scene, HELD_OUT))
    return attempts


def scene_things(setting: Setting, seed: int, needed: Instruction) -> tuple[Thing, ...]:
    """What can be named in the scene of a seed that holds what an instruction needs."""
    names = {placed.name for placed in draw_content(seed, setting, needed).objects}
    return tuple(thing for thing in THINGS if thing.name in names)


def swap_thing(instruction: Instruction, things: Iterable[Thing], seed: int) -> Instruction:
    """The same with another of the things that are there, neither the one named nor the destination.

    Raises:
        VlaRosError: if there is no other.
    """
    others = [thing for thing in things if thing not in (instruction.thing, instruction.destination)]
    if not others:
        raise VlaRosError(f"the scene of seed {seed} has nothing else than {instruction} names")
    rng = np.random.default_rng([seed, _SWAP])
    return replace(instruction, thing=others[int(rng.integers(len(others)))])


def _word(instruction: Instruction, seed: int, held_out: bool = False) -> str:
    texts = instruction_texts(instruction, held_out)
    return texts[int(np.random.default_rng([seed, _WORDS]).integers(len(texts)))]
