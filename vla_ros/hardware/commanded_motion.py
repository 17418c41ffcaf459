"""Where a driver's active controller wants the arm, cycle by cycle.

A forward controller repeats the last value it heard, for ever: after a death positions stop dead and velocities run on.
A trajectory controller follows its trajectory in a time that passes at the speed of the teach pendant's slider.

Source: ros2_controllers, forward_command_controller (update) and joint_trajectory_controller (speed scaling).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_ros.errors import ConfigError
from vla_ros.hardware.controllers import Follows
from vla_ros.sim.trajectory import DesiredState, TrajectoryFollower
from vla_ros.types import FloatArray


class CommandedMotion:
    """The state of the active controller.

    Args:
        positions: (n,) rad, where it begins.
        follows: which commands it takes.
    """

    def __init__(self, positions: FloatArray, follows: Follows) -> None:
        self.follows = follows
        self._wanted = positions
        self._velocities = np.zeros(len(positions))
        self._follower = TrajectoryFollower(positions)
        self._time_s = 0.0

    def take(self, values: Sequence[float]) -> None:
        """Takes positions, rad, or velocities, rad/s, of a forward controller.

        Raises:
            ConfigError: if their number isn't that of the joints, which ends a real controller, or one isn't finite.
        """
        array = np.array(values, dtype=np.float64)
        if array.shape != self._wanted.shape:
            problem = f"has {len(array)} values for {len(self._wanted)} joints"
            raise ConfigError("joint command", problem, "send one each, in the order of the robot's YAML")
        if not np.isfinite(array).all():
            raise ConfigError("joint command", "isn't finite", "whoever sends it has a fault; it is left out")
        if self.follows == "position":
            self._wanted = array
        else:
            self._velocities = array

    def take_trajectory(self, offsets_s: Sequence[float], points: DesiredState) -> float:
        """Takes a trajectory whose points are due at times from now; returns how far, rad, some joint jumps at that.

        Raises:
            ConfigError: as `TrajectoryFollower.replace`; the one in force stays.
        """
        if points.positions.shape[1:] != self._wanted.shape:
            raise ConfigError("joint trajectory", f"is of {points.positions.shape[1]} joints", "give all, and no more")
        return self._follower.replace(self._time_s, [self._time_s + offset_s for offset_s in offsets_s], points)

    def step(self, dt_s: float, speed: float) -> FloatArray:
        """Where the arm is wanted, (n,) rad, a cycle later.

        Args:
            dt_s: the cycle.
            speed: at which a trajectory's time passes, 0..1.
        """
        if self.follows == "velocity":
            self._wanted = self._wanted + dt_s * self._velocities
        elif self.follows == "trajectory":
            self._time_s += dt_s * speed
            self._wanted = self._follower.sample(self._time_s).positions
        return self._wanted
