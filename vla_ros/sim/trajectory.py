"""What joint_trajectory_controller makes of trajectories that replace each other, for the simulated arm.

As there, a trajectory replaces the one in force when it arrives, points whose time has passed are skipped, what lies
before the first point that is still to come is interpolated from the state desired at the arrival
(`interpolate_from_desired_state`), and the last point is held.

Source: control.ros.org, joint_trajectory_controller, "Trajectory Representation" and "Trajectory Replacement".
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from vla_ros.errors import ConfigError
from vla_ros.types import FloatArray

_WHERE = "joint trajectory"


@dataclass(frozen=True)
class DesiredState:
    """Where the arm is wanted, at a point (n,) or at several (points, n): rad, rad/s and rad/s^2; None: not known."""

    positions: FloatArray
    velocities: FloatArray | None = None
    accelerations: FloatArray | None = None

    def at(self, index: int) -> DesiredState:
        """One of several points."""
        return DesiredState(
            self.positions[index],
            None if self.velocities is None else self.velocities[index],
            None if self.accelerations is None else self.accelerations[index],
        )


class TrajectoryFollower:
    """The desired motion of an arm.

    Args:
        positions: (n,) rad, held until a trajectory comes.
    """

    def __init__(self, positions: FloatArray) -> None:
        zero = np.zeros(len(positions))
        self._times_s = [0.0]
        self._states = [DesiredState(positions.copy(), zero, zero)]
        self._segment, self._coefficients = -1, np.zeros((6, len(positions)))

    def replace(self, now_s: float, times_s: list[float], points: DesiredState) -> float:
        """Takes a trajectory from now on; one without points holds.

        Args:
            now_s: present time.
            times_s: of the points, on the same clock.
            points: where the arm is wanted at these times.

        Returns:
            How far, rad, the desired positions of some joint jump at that.

        Raises:
            ConfigError: for one that can't be followed; the one in force stays.
        """
        desired = self.sample(now_s)
        if not times_s:
            zero = np.zeros_like(desired.positions)
            self._take([now_s], [DesiredState(desired.positions, zero, zero)])
            return 0.0
        _check(now_s, times_s, points)
        states = [points.at(index) for index in range(len(times_s))]
        if times_s[0] > now_s:
            times_s, states = [now_s, *times_s], [desired, *states]
        self._take(list(times_s), states)
        return float(np.abs(self.sample(now_s).positions - desired.positions).max())

    def sample(self, time_s: float) -> DesiredState:
        """The state desired at a time, which doesn't go back."""
        segment = bisect_right(self._times_s, time_s) - 1
        last = len(self._times_s) - 1
        if segment >= last or segment < 0:
            state = self._states[min(max(segment, 0), last)]
            zero = np.zeros_like(state.positions)
            return DesiredState(state.positions, zero, zero)
        if segment != self._segment:
            duration_s = self._times_s[segment + 1] - self._times_s[segment]
            self._coefficients = _coefficients(self._states[segment], self._states[segment + 1], duration_s)
            self._segment = segment
        t = time_s - self._times_s[segment]
        c0, c1, c2, c3, c4, c5 = self._coefficients
        return DesiredState(
            c0 + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * c5)))),
            c1 + t * (2.0 * c2 + t * (3.0 * c3 + t * (4.0 * c4 + t * 5.0 * c5))),
            2.0 * c2 + t * (6.0 * c3 + t * (12.0 * c4 + t * 20.0 * c5)),
        )

    def _take(self, times_s: list[float], states: list[DesiredState]) -> None:
        self._times_s, self._states, self._segment = times_s, states, -1


def _coefficients(a: DesiredState, b: DesiredState, T: float) -> FloatArray:
    """(6, n) of the polynomial in t through two states T apart: quintic, cubic or linear, by what both points give.

    Source: Biagiotti and Melchiorri, "Trajectory Planning for Automatic Machines and Robots", 2008, section 2.1.
    """
    zero = np.zeros_like(a.positions)
    way = b.positions - a.positions
    if a.velocities is None or b.velocities is None:
        return np.array([a.positions, way / T, zero, zero, zero, zero])
    v0, v1 = a.velocities, b.velocities
    if a.accelerations is None or b.accelerations is None:
        second = (3.0 * way - (2.0 * v0 + v1) * T) / T**2
        third = ((v0 + v1) * T - 2.0 * way) / T**3
        return np.array([a.positions, v0, second, third, zero, zero])
    a0, a1 = a.accelerations, b.accelerations
    return np.array(
        [
            a.positions,
            v0,
            0.5 * a0,
            (20.0 * way - (8.0 * v1 + 12.0 * v0) * T - (3.0 * a0 - a1) * T**2) / (2.0 * T**3),
            (-30.0 * way + (14.0 * v1 + 16.0 * v0) * T + (3.0 * a0 - 2.0 * a1) * T**2) / (2.0 * T**4),
            (12.0 * way - 6.0 * (v1 + v0) * T + (a1 - a0) * T**2) / (2.0 * T**5),
        ]
    )


def _check(now_s: float, times_s: list[float], points: DesiredState) -> None:
    if np.any(np.diff(times_s) <= 0.0):
        raise ConfigError(_WHERE, "the times of its points don't increase", "sort them and leave doubles out")
    if times_s[-1] < now_s:
        late_s = now_s - times_s[-1]
        raise ConfigError(_WHERE, f"its last point was due {late_s:.3f} s ago", "are the clocks synchronised?")
    positions, velocities = points.positions, points.velocities
    if velocities is None and points.accelerations is not None:
        raise ConfigError(_WHERE, "it has accelerations but no velocities", "give both, or positions alone")
    for name, values in (("positions", positions), ("velocities", velocities), ("accelerations", points.accelerations)):
        if values is None:
            continue
        if values.shape != positions.shape or len(values) != len(times_s):
            raise ConfigError(_WHERE, f"{name} have shape {values.shape}", f"give {len(times_s)} points of all joints")
        if not np.isfinite(values).all():
            raise ConfigError(_WHERE, f"{name} aren't all finite", "whoever sends it has a fault")
    if velocities is not None and np.any(velocities[-1] != 0.0):
        raise ConfigError(_WHERE, "it ends in motion", "let the velocities of the last point be 0")
