"""A terminal's keyboard: what is held of keys whose release nobody tells, and what they mean.

A terminal sends a key's character when it is pressed and, after a pause, again and again while it is held. So each
motion key is its own dead-man switch: it counts as held for a moment after every character, and when no more come,
because the finger, the terminal or the network let go, the arm stops within that moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vla_ros.teleop.config import KeyboardConfig
from vla_ros.teleop.operator_input import OperatorInput

MOTION_KEYS: dict[str, tuple[int, float]] = {
    "w": (0, 1.0), "s": (0, -1.0), "a": (1, 1.0), "d": (1, -1.0), "r": (2, 1.0), "f": (2, -1.0),
    "o": (3, 1.0), "u": (3, -1.0), "i": (4, 1.0), "k": (4, -1.0), "j": (5, 1.0), "l": (5, -1.0),
    "up": (0, 1.0), "down": (0, -1.0), "left": (1, 1.0), "right": (1, -1.0),
}  # fmt: skip
"""Axis and sign by key."""

COMMAND_KEYS: dict[str, str] = {
    "g": "gripper", "+": "faster", "=": "faster", "-": "slower", "c": "frame", "1": "start", "2": "stop",
    "3": "success", "4": "failure", "5": "discard", "!": "halt", "#": "reset", "q": "quit", "ctrl-c": "quit",
}  # fmt: skip
"""Command by key. `g` is a dead-man switch, too: it moves the gripper while the tool stays."""

RELEASE = " "
"""Lets go of all keys at once."""

HELP = (
    "move: w/s forward/back  a/d left/right  r/f up/down    turn: u/o roll  i/k pitch  j/l yaw    space: let go",
    "g gripper  +/- speed  c frame  1 start  2 stop  3 success  4 failure  5 discard   ! stop the arm  # reset  q quit",
)

_ESCAPES = {"A": "up", "B": "down", "C": "right", "D": "left"}
_LONGEST_ESCAPE = 16


def decode_keys(text: str) -> tuple[list[str], str]:
    """The keys in what a terminal sent, lower case, and what is left of a sequence that has only begun.

    Sequences of other keys are dropped whole, so that their letters aren't taken for keys.
    """
    keys, place = [], 0
    while place < len(text):
        character = text[place]
        if character != "\x1b":
            keys.append("ctrl-c" if character in "\x03\x04" else character.lower())
            place += 1
            continue
        rest = text[place + 1 :]
        if not rest:
            return keys, text[place:]
        if rest[0] not in "[O":
            place += 1  # Escape itself, or Alt and a key.
            continue
        end = next((i for i, letter in enumerate(rest[1:], 1) if "@" <= letter <= "~"), None)
        if end is None:
            return keys, text[place:] if len(rest) < _LONGEST_ESCAPE else ""
        if end == 1 and rest[end] in _ESCAPES:
            keys.append(_ESCAPES[rest[end]])
        place += end + 2
    return keys, ""


@dataclass(frozen=True)
class KeyboardState:
    """Which keys count as held.

    Attributes:
        pressed_s: when each key was seen last.
        until_s: until when each key counts as held.
    """

    pressed_s: Mapping[str, float] = field(default_factory=dict)
    until_s: Mapping[str, float] = field(default_factory=dict)


def step(
    state: KeyboardState, keys: Sequence[str], now_s: float, config: KeyboardConfig
) -> tuple[KeyboardState, OperatorInput]:
    """Takes the keys that have come since the last step.

    Args:
        state: after the step before.
        keys: of `decode_keys`, in order.
        now_s: on any steady clock.
        config: how long a key counts as held.
    """
    pressed, until = dict(state.pressed_s), dict(state.until_s)
    commands = []
    for key in keys:
        if key == RELEASE:
            until.clear()
        elif key in MOTION_KEYS or COMMAND_KEYS.get(key) == "gripper":
            is_repeated = now_s - pressed.get(key, -np.inf) <= config.repeat_gap_s
            until[key] = now_s + (config.repeat_hold_s if is_repeated else config.press_hold_s)
            # The repetition of a key that is held isn't a second wish.
            if key not in MOTION_KEYS and not is_repeated:
                commands.append("gripper")
            pressed[key] = now_s
        elif key in COMMAND_KEYS:
            commands.append(COMMAND_KEYS[key])
    until = {key: end_s for key, end_s in until.items() if end_s > now_s}
    sticks = np.zeros(6)
    for key in until:
        axis, sign = MOTION_KEYS.get(key, (0, 0.0))
        sticks[axis] += sign
    said = OperatorInput(is_held=bool(until), sticks=np.clip(sticks, -1.0, 1.0), commands=tuple(commands))
    return replace(state, pressed_s=pressed, until_s=until), said
