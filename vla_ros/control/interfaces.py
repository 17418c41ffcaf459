"""Which sender an arm needs, by the interface of its controller (docs/design.md, section 5), and the simple ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vla_ros.control.cartesian_controller import CartesianController, ControllerState
from vla_ros.control.sending import CommandSender, Sending
from vla_ros.control.trajectories import TrajectoryStream
from vla_ros.errors import ConfigError
from vla_ros.robots.config import CommandConfig
from vla_ros.types import FloatArray, JointCommand


class PositionSender:
    """Sends the position in every newest tick. When commands end, the arm's own controller holds the last."""

    def begin(self, state: ControllerState, stamp_ns: int) -> None:
        """Nothing to prepare."""

    def approach(self, stamp_ns: int) -> Sending | None:
        """The first command is where the arm was measured."""
        return None

    def resume(self, state: ControllerState, stamp_ns: int, now_ns: int) -> tuple[ControllerState, bool]:
        """The arm does nothing by itself."""
        return state, False

    def send(self, state: ControllerState, command: JointCommand, stamp_ns: int, is_newest: bool) -> Sending | None:
        """The command in the form of the interface."""
        content = self._content(command)
        return Sending(content, ((stamp_ns, command),)) if is_newest else None

    def shift(self, jump_ns: int) -> None:
        """No stamps are remembered."""

    def _content(self, command: JointCommand) -> FloatArray:
        return command.positions


class VelocitySender(PositionSender):
    """Sends the mean velocity of the tick, which held for a tick ends where the command is.

    Args:
        dt_s: duration of a tick.
    """

    def __init__(self, dt_s: float) -> None:
        self._dt_s = dt_s

    def begin(self, state: ControllerState, stamp_ns: int) -> None:
        """Ways are counted from here."""
        self._positions = state.command.positions

    def _content(self, command: JointCommand) -> FloatArray:
        before, self._positions = self._positions, command.positions
        return np.asarray((command.positions - before) / self._dt_s)


class PoseSender(PositionSender):
    """Sends the tcp's pose of the guarded motion, for a controller that solves for the joints by itself.

    Args:
        forward_kinematics: q (n,) -> T_base_tcp (4, 4).
    """

    def __init__(self, forward_kinematics: Callable[[FloatArray], FloatArray]) -> None:
        self._forward_kinematics = forward_kinematics

    def _content(self, command: JointCommand) -> FloatArray:
        return self._forward_kinematics(command.positions)


def make_sender(config: CommandConfig, controller: CartesianController) -> CommandSender:
    """The sender of an interface.

    Raises:
        ConfigError: if the interface would leave an arm moving when commands end, or its timing can't be kept.
    """
    if config.interface == "position":
        return PositionSender()
    if config.interface == "trajectory":
        return TrajectoryStream(controller, config.trajectory_rate_hz, config.trajectory_lead_s)
    if config.interface == "cartesian":
        return PoseSender(controller.model.forward_kinematics)
    if config.velocity_watchdog_s is None:
        raise ConfigError(
            "command: interface velocity",
            "the robot's YAML names no watchdog, and without one the arm moves on when commands end",
            "set velocity_watchdog_s if the arm's own controller has one, or choose position or trajectory",
        )
    return VelocitySender(controller.dt_s)
