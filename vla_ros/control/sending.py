"""What all command interfaces have in common: the protocol between our ticks and an arm's own controller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vla_ros.control.cartesian_controller import ControllerState
from vla_ros.types import FloatArray, JointCommand


@dataclass(frozen=True)
class JointPoints:
    """A trajectory that ends at rest.

    Attributes:
        stamp_ns: time from which `offsets_ns` count.
        offsets_ns: of each point, increasing.
        positions: (points, n) rad.
        velocities: (points, n) rad/s.
        accelerations: (points, n) rad/s^2.
    """

    stamp_ns: int
    offsets_ns: list[int]
    positions: FloatArray
    velocities: FloatArray
    accelerations: FloatArray


Content = FloatArray | JointPoints | None


@dataclass(frozen=True)
class Sending:
    """What leaves for the arm.

    Attributes:
        content: (n,) rad or rad/s, (6,) twist of the tcp in base axes, (4, 4) T_base_tcp, or points, as the interface
            has it; None for nothing.
        ticks: stamps, ns, and commands that leave with it, oldest first.
    """

    content: Content
    ticks: tuple[tuple[int, JointCommand], ...] = ()


class CommandSender(Protocol):
    """Turns commands into what an interface takes. It is told every tick, and never looks at a clock."""

    def begin(self, state: ControllerState, stamp_ns: int) -> None:
        """Starts anew from a state at rest, at a tick."""

    def observe(self, positions: FloatArray) -> None:
        """Before a tick, takes where the arm is measured, (n,) rad."""

    def approach(self, stamp_ns: int) -> Sending | None:
        """What to send instead of commands until the arm is where they begin; None when it is."""

    def resume(self, state: ControllerState, stamp_ns: int, now_ns: int) -> tuple[ControllerState, bool]:
        """Before a tick, takes account of what the arm has begun by itself for want of commands.

        Args:
            state: after the tick before.
            stamp_ns: nominal time of the tick.
            now_ns: present time on the clock of the stamps.

        Returns:
            The state to go on from, and whether this tick has to brake.
        """

    def send(self, state: ControllerState, command: JointCommand, stamp_ns: int, is_newest: bool) -> Sending | None:
        """What leaves after a tick, None for nothing.

        Args:
            state: after the tick.
            command: the tick's.
            stamp_ns: nominal time of the tick.
            is_newest: False while missed ticks are caught up with.
        """

    def shift(self, jump_ns: int) -> None:
        """Moves all stamps that are remembered, after a jump of the clock."""
