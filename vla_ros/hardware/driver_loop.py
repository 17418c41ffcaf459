"""The control loop of a driver: the active controller's commands in, the arm's reference out, a cycle at a time."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vla_ros.hardware.commanded_motion import CommandedMotion
from vla_ros.hardware.controllers import Controller, ControllerManager
from vla_ros.hardware.differences import StreamLimits
from vla_ros.types import FloatArray


class Arm(Protocol):
    """The robot's side of a driver."""

    cycle_s: float
    controllers: ControllerManager
    limits: StreamLimits

    @property
    def speed(self) -> float:
        """At which the time of trajectories passes, 0..1."""

    def begin(self, positions: FloatArray) -> None:
        """A controller has become active, at rest at positions, (n,) rad."""

    def follow(self, wanted: FloatArray, measured: FloatArray) -> FloatArray | None:
        """Where the arm goes in a cycle, (n,) rad; None when it stops by itself."""


class DriverLoop:
    """Runs an arm's cycles.

    Args:
        arm: the robot's side.
        positions: (n,) rad, where the arm stands.
    """

    def __init__(self, arm: Arm, positions: FloatArray) -> None:
        self.arm = arm
        self.reset(positions)

    def reset(self, positions: FloatArray) -> None:
        """The arm stands elsewhere, (n,) rad, without having moved there."""
        self._mover: Controller | None = None
        self._activations = -1
        self._motion = CommandedMotion(positions, "")
        self._reference = positions

    def motion_of(self, name: str) -> CommandedMotion | None:
        """Where commands of a controller go; None while it isn't active."""
        return self._motion if self._mover is not None and self._mover.name == name else None

    def settle(self, positions: FloatArray) -> None:
        """Notices which controller is active, the arm being at positions, (n,) rad."""
        mover, activations = self.arm.controllers.mover, self.arm.controllers.activations
        if (mover, activations) != (self._mover, self._activations):
            self._mover, self._activations, self._reference = mover, activations, positions
            self._motion = CommandedMotion(positions, mover.follows if mover else "")
            if mover is not None:
                self.arm.begin(positions)

    def run(self, duration_s: float, positions: FloatArray) -> FloatArray:
        """The reference, (n,) rad, after some cycles.

        Args:
            duration_s: of these cycles together.
            positions: (n,) rad, measured before them.
        """
        self.settle(positions)
        for _ in range(round(duration_s / self.arm.cycle_s)):
            if self._mover is None:
                break
            wanted = self._motion.step(self.arm.cycle_s, self.arm.speed)
            reference = self.arm.follow(wanted, positions)
            if reference is None:
                self.settle(positions)
            else:
                self._reference = reference
        # A servo's ripple past a limit is no command past it.
        return np.clip(self._reference, self.arm.limits.lower, self.arm.limits.upper)
