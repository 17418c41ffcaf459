"""What an operator says at an instant, whatever the device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from vla_ros.types import FloatArray

MOTION_COMMANDS = ("gripper", "open", "close", "faster", "slower", "frame")
"""What changes how the tool is led."""

SERVICES = {
    "start": "episode/start",
    "stop": "episode/stop",
    "success": "episode/success",
    "failure": "episode/failure",
    "discard": "episode/discard",
    "halt": "safety/stop",
    "reset": "safety/reset",
}
"""Commands that other nodes carry out, by a service (std_srvs/Trigger)."""

COMMANDS = (*MOTION_COMMANDS, *SERVICES, "quit")
"""What keys and buttons may mean besides motion."""


def check_known(what: str, commands: Iterable[str]) -> None:
    """Refuses names that aren't commands."""
    unknown = sorted(set(commands) - set(COMMANDS))
    if unknown:
        raise ValueError(f"{what}: unknown {', '.join(unknown)}; there is: {', '.join(COMMANDS)}")


def _still() -> FloatArray:
    return np.zeros(6)


@dataclass(frozen=True)
class OperatorInput:
    """What the operator wants now.

    Attributes:
        is_held: whether the dead-man switch is held. Nothing moves unless it is.
        sticks: (6,) parts of the full speed in [-1, 1] along and about the axes of the operator's frame: forward, left,
            up.
        speed: part of the full speed that 1 stands for; None for the level that the operator has chosen.
        T_track_hand: (4, 4) pose of the hand in its tracker's axes, for devices that give poses.
        T_base_wanted: (4, 4) pose of the tcp in base to be at now; `sticks` then say how that moves, in base axes.
        opening: gripper opening in [0, 1] that is asked for now; None to leave it.
        lever: gripper opening in [0, 1] that an analog trigger stands at; it asks for it when it is moved.
        commands: of COMMANDS, as they were pressed since the last time.
        problem: why the device can't be relied upon; nothing is held then.
    """

    is_held: bool = False
    sticks: FloatArray = field(default_factory=_still)
    speed: float | None = None
    T_track_hand: FloatArray | None = None
    T_base_wanted: FloatArray | None = None
    opening: float | None = None
    lever: float | None = None
    commands: tuple[str, ...] = ()
    problem: str = ""


def without_deadzone(value: float, deadzone: float) -> float:
    """An axis in [-1, 1] whose middle is silent; beyond it begins at 0, so that nothing starts with a step."""
    size = min(1.0, abs(value))
    if not size > deadzone:
        return 0.0
    return float(np.copysign((size - deadzone) / (1.0 - deadzone), value))
