"""Gamepads, and SpaceMice as joysticks: axes and buttons as their mapping has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vla_ros.teleop.config import AXES, JoyMapping
from vla_ros.teleop.operator_input import OperatorInput, without_deadzone


@dataclass(frozen=True)
class JoystickState:
    """What a joystick said last.

    Attributes:
        axes: in [-1, 1].
        buttons: 0 or 1.
        came_s: when, on any steady clock; None before the first time.
        trigger_is_known: whether the gripper's trigger was seen released: before it is first moved, drivers say 0.
    """

    axes: tuple[float, ...] = ()
    buttons: tuple[int, ...] = ()
    came_s: float | None = None
    trigger_is_known: bool = False


def take(
    state: JoystickState, axes: Sequence[float], buttons: Sequence[int], now_s: float, mapping: JoyMapping
) -> tuple[JoystickState, tuple[str, ...]]:
    """Takes a message.

    Args:
        state: before.
        axes: in [-1, 1].
        buttons: 0 or 1.
        now_s: on any steady clock.
        mapping: what they mean.

    Returns:
        The new state, and the commands whose buttons went down.
    """
    commands = tuple(
        command
        for command, button in mapping.buttons.items()
        if state.came_s is not None and _is_down(buttons, button) and not _is_down(state.buttons, button)
    )
    trigger = mapping.gripper_axis
    is_released = trigger is not None and trigger < len(axes) and axes[trigger] > 0.9
    new = replace(state, axes=tuple(map(float, axes)), buttons=tuple(map(int, buttons)), came_s=now_s)
    return replace(new, trigger_is_known=state.trigger_is_known or is_released), commands


def read(
    state: JoystickState,
    now_s: float,
    mapping: JoyMapping,
    deadzone: float,
    timeout_s: float,
    topic: str,
    commands: tuple[str, ...] = (),
    is_silent_at_rest: bool = False,
) -> OperatorInput:
    """What the operator says by a joystick.

    Args:
        state: of `take`.
        now_s: on the same clock.
        mapping: what axes and buttons mean.
        deadzone: part of an axis' way that is silent.
        timeout_s: silence after which nothing is held.
        topic: for the text.
        commands: of `take`, since the last time.
        is_silent_at_rest: whether the device is heard while it is moved alone; silence then counts only where it is.
    """
    if state.came_s is None:
        return OperatorInput(commands=commands, problem=f"nothing on {topic} yet; is its driver running?")
    silence_s = now_s - state.came_s
    if silence_s > timeout_s and not (is_silent_at_rest and not any(state.axes)):
        mend = "is the device connected, and its driver's autorepeat_rate above 0?"
        problem = f"nothing on {topic} for {silence_s:.1f} s (limit {timeout_s:g} s); {mend}"
        return OperatorInput(commands=commands, problem=problem)
    wanted = [axis.axis for axis in mapping.move.values()]
    buttons = [] if mapping.dead_man is None else [mapping.dead_man]
    if max(wanted, default=-1) >= len(state.axes) or max(buttons, default=-1) >= len(state.buttons):
        has = f"{topic} has {len(state.axes)} axes and {len(state.buttons)} buttons"
        needs = f"the mapping needs axis {max(wanted, default=-1)}, button {max(buttons, default=-1)}"
        return OperatorInput(commands=commands, problem=f"{has}, {needs}; choose another mapping")
    if not all(map(math.isfinite, state.axes)):
        return OperatorInput(commands=commands, problem=f"{topic} has axes that aren't finite")
    sticks = np.zeros(6)
    for name, axis in mapping.move.items():
        sticks[AXES.index(name)] = axis.sign * without_deadzone(state.axes[axis.axis], deadzone)
    is_held = bool(sticks.any()) if mapping.dead_man is None else _is_down(state.buttons, mapping.dead_man)
    lever = None
    if mapping.gripper_axis is not None and state.trigger_is_known:
        lever = min(1.0, max(0.0, 0.5 * (state.axes[mapping.gripper_axis] + 1.0)))
    return OperatorInput(is_held=is_held, sticks=sticks, lever=lever, commands=commands)


def _is_down(buttons: Sequence[int], button: int) -> bool:
    return button < len(buttons) and buttons[button] > 0
