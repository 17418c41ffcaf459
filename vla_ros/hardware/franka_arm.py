"""A Franka behind its driver: modes, reflexes, recovery, and what it refuses while it moves."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from vla_ros.hardware.controllers import FRANKA, FRANKA_ACTIVE, ControllerManager, SwitchError
from vla_ros.hardware.franka_stream import COLLISION, CYCLE_S, FrankaStream, Reflex
from vla_ros.robots.config import RobotConfig
from vla_ros.types import FloatArray

# Before anybody sets others, in every joint, N m: those of libfranka's examples (examples_common.cpp).
_THRESHOLD_NM = 20.0
# By which outside torques follow the physics in 2 ms: a time constant of 20 ms, since the robot filters them too.
_TORQUE_SHARE = 0.1


class RobotMode(IntEnum):
    """As in franka_msgs/FrankaRobotState."""

    IDLE = 1
    MOVE = 2
    REFLEX = 4


class RejectedError(Exception):
    """What the robot refuses; the text is the service's."""


class FrankaArm:
    """The robot's side of the driver.

    Args:
        robot: the arm.
    """

    cycle_s = CYCLE_S
    speed = 1.0

    def __init__(self, robot: RobotConfig) -> None:
        self.controllers = ControllerManager(FRANKA, FRANKA_ACTIVE, self._check_ready)
        self._stream = FrankaStream(robot.joints)
        self.limits = self._stream.limits
        self._joint = robot.joint_names[0]
        self._thresholds_nm = np.full(len(robot.joints), _THRESHOLD_NM)
        self._torques_nm = np.zeros(len(robot.joints))
        self.reflex: Reflex | None = None
        """What stopped the arm, until it has recovered."""

        self.last_errors: tuple[str, ...] = ()
        """The errors that ended the last motion."""

    @property
    def mode(self) -> RobotMode:
        """Whether it is idle, moving or stopped by a reflex."""
        if self.reflex is not None:
            return RobotMode.REFLEX
        return RobotMode.IDLE if self.controllers.mover is None else RobotMode.MOVE

    def begin(self, positions: FloatArray) -> None:
        """A controller has become active, at rest at positions, (n,) rad."""
        self._stream.begin(positions)
        self.last_errors = ()

    def follow(self, wanted: FloatArray, _measured: FloatArray) -> FloatArray | None:
        """Where the arm goes in a cycle, (n,) rad; None when a reflex stops it.

        Args:
            wanted: (n,) rad, by the active controller.
        """
        reflex = self._stream.step(wanted)
        if reflex is not None:
            self.stop(reflex)
            return None
        return wanted

    def feel(self, positions: FloatArray, velocities: FloatArray, torques_nm: FloatArray) -> None:
        """What is measured in a physics step: (n,) rad, rad/s, and torques from outside, N m."""
        self._torques_nm = self._torques_nm + _TORQUE_SHARE * (torques_nm - self._torques_nm)
        if self.mode is RobotMode.MOVE:
            collision = self._stream.collide(self._torques_nm, self._thresholds_nm)
            reflex = self._stream.measure(positions, velocities) or collision
            if reflex is not None:
                self.stop(reflex)

    def stop(self, reflex: Reflex) -> None:
        """A reflex: the arm brakes, and the driver deactivates what moved it."""
        self.reflex, self.last_errors = reflex, reflex.errors
        self.controllers.stop_all_but(FRANKA_ACTIVE)

    def collide(self) -> str:
        """As if something had been hit; returns what happened."""
        self.stop(
            Reflex(COLLISION, self._joint, float(self._thresholds_nm[0]), float(self._thresholds_nm[0]), (COLLISION,))
        )
        return f"reflex: {COLLISION}"

    def recover(self) -> None:
        """Automatic error recovery; without an error it does nothing."""
        self.reflex = None

    def set_thresholds(self, torques_nm: FloatArray) -> None:
        """Torques, (n,) N m, at which a collision stops it.

        Raises:
            RejectedError: if they aren't positive, or while it moves.
        """
        self.check_settable("Set Collision Behavior", bool((torques_nm > 0.0).all()))
        self._thresholds_nm = torques_nm

    def check_settable(self, what: str, is_valid: bool) -> None:
        """Whether a parameter can be set now.

        Raises:
            RejectedError: if it isn't valid, or in a mode in which the robot takes none.
        """
        if self.mode is not RobotMode.IDLE:
            mode = {RobotMode.MOVE: "Move", RobotMode.REFLEX: "Reflex"}[self.mode]
            why = f'command rejected: command not possible in the current mode ("{mode}")!'
            raise RejectedError(f"libfranka: {what} {why}")
        if not is_valid:
            raise RejectedError(f"libfranka: {what} command rejected: invalid argument!")

    def _check_ready(self) -> None:
        if self.reflex is not None:
            errors = ", ".join(self.reflex.errors)
            raise SwitchError(f"the robot is in reflex mode ({errors}); recover with action_server/error_recovery")
