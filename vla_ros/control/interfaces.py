"""Which sender an arm needs, by the interface of its controller (docs/design.md, section 5), and the simple ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vla_ros.control.cartesian_controller import CartesianController, ControllerState
from vla_ros.control.sending import CommandSender, Sending
from vla_ros.control.trajectories import TrajectoryStream
from vla_ros.errors import ConfigError
from vla_ros.geometry.se3 import pose_error
from vla_ros.robots.config import CommandConfig
from vla_ros.types import FloatArray, JointCommand

# 1/s, and the most that it adds: velocities alone say nowhere to be, and what is lost on the way is to be made up for.
_GAIN_PER_S = 1.0
_MOST_RAD_S = 0.05
_MOST_TWIST = np.array([0.03, 0.03, 0.03, 0.1, 0.1, 0.1])


class PositionSender:
    """Sends the position in every newest tick. When commands end, the arm's own controller holds the last."""

    def begin(self, state: ControllerState, stamp_ns: int) -> None:
        """Nothing to prepare."""

    def observe(self, positions: FloatArray) -> None:
        """Positions say where the arm has to be."""

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


class RateSender(PositionSender):
    """Sends the mean rate of the tick, which held for a tick ends where the command is; and makes up for what is lost.

    Ticks that were missed are lost: to make up for them at once would be too fast.

    Args:
        dt_s: duration of a tick.
        place: what is to be reached, of joint positions (n,).
        difference: (from, to) -> (m,) way from one place to another.
        most_made_up: (m,) or one number, /s: the most that is added for what is lost.
        limits: (m,) rates that nothing is sent past; None for no more than the ticks' own and what is made up for.
    """

    def __init__(
        self,
        dt_s: float,
        place: Callable[[FloatArray], FloatArray],
        difference: Callable[[FloatArray, FloatArray], FloatArray],
        most_made_up: FloatArray | float,
        limits: FloatArray | None = None,
    ) -> None:
        self._dt_s, self._place, self._difference = dt_s, place, difference
        self._most_made_up, self._limits = most_made_up, limits

    def begin(self, state: ControllerState, stamp_ns: int) -> None:
        """Ways are counted from here."""
        self._at = self._place(state.command.positions)
        self._gap = self._difference(self._at, self._at)

    def observe(self, positions: FloatArray) -> None:
        """How far the arm is from the last command."""
        self._gap = self._difference(self._place(positions), self._at)

    def send(self, state: ControllerState, command: JointCommand, stamp_ns: int, is_newest: bool) -> Sending | None:
        """The rate of the tick."""
        before, self._at = self._at, self._place(command.positions)
        if not is_newest:
            return None
        rate = self._difference(before, self._at) / self._dt_s
        rate = rate + np.clip(_GAIN_PER_S * self._gap, -self._most_made_up, self._most_made_up)
        if self._limits is not None:
            rate = np.clip(rate, -self._limits, self._limits)
        return Sending(np.asarray(rate), ((stamp_ns, command),))


def velocity_sender(dt_s: float, limits_rad_s: FloatArray) -> RateSender:
    """Joint velocities, (n,) rad/s.

    Args:
        dt_s: duration of a tick.
        limits_rad_s: (n,) of the joints.
    """
    return RateSender(dt_s, lambda positions: positions, lambda a, b: b - a, _MOST_RAD_S, limits_rad_s)


def twist_sender(dt_s: float, forward_kinematics: Callable[[FloatArray], FloatArray]) -> RateSender:
    """The tcp's twists (6,) in base axes, m/s and rad/s, for a servo that stops by itself when twists end.

    Args:
        dt_s: duration of a tick.
        forward_kinematics: q (n,) -> T_base_tcp (4, 4).
    """
    return RateSender(dt_s, forward_kinematics, pose_error, _MOST_TWIST)


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
    if config.interface == "twist":
        return twist_sender(controller.dt_s, controller.model.forward_kinematics)
    if config.velocity_watchdog_s is None:
        raise ConfigError(
            "command: interface velocity",
            "the robot's YAML names no watchdog, and without one the arm moves on when commands end",
            "set velocity_watchdog_s if the arm's own controller has one, or choose position or trajectory",
        )
    return velocity_sender(controller.dt_s, controller.model.velocity)
