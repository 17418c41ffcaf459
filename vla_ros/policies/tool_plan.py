"""Where the tcp is meant to be at every time: a path in absolute base coordinates that can be re-aimed while moving.

A plan is a value. Re-aiming returns a new one that agrees with the old up to a given time and leaves it there with the
same pose, speed and acceleration, so that chunks sampled from successive plans differ only after that time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vla_ros.geometry.rotations import angle_between, matrix_to_rotvec, rotvec_to_matrix
from vla_ros.geometry.se3 import make_pose
from vla_ros.types import FloatArray

_NS = 1e-9
# Peaks of the rest-to-rest quintic over a unit of way and time: speed 15/8, acceleration 10/sqrt(3).
_PEAK_SPEED, _PEAK_ACCELERATION = 1.875, 5.7735
_SHORTEST_S = 0.2
_SAMPLES = 25


@dataclass(frozen=True)
class MotionLimits:
    """Peaks along one stretch of motion."""

    speed_m_s: float
    acceleration_m_s2: float
    angular_speed_rad_s: float
    angular_acceleration_rad_s2: float


@dataclass(frozen=True)
class _Segment:
    """One stretch of [p, r], with R = exp(r) R_goal: the motion it found is braked while the way to the goal is gone.

    Attributes:
        start_ns: from when it is in force.
        start: (6,) p m and r rad there.
        rate: (6,) their rate.
        rate2: (6,) and its rate.
        brake_s: time in which that motion dies away.
        way: (6,) from where it would come to rest to the goal.
        ways_s: (2,) time for p and for r to go it.
        R_goal: (3, 3).
    """

    start_ns: int
    start: FloatArray
    rate: FloatArray
    rate2: FloatArray
    brake_s: float
    way: FloatArray
    ways_s: FloatArray
    R_goal: FloatArray

    @property
    def duration_s(self) -> float:
        return max(self.brake_s, float(np.max(self.ways_s)))

    def derivatives(self, times_s: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(n, 6) each: value, rate and its rate at (n,) seconds from the start."""
        u = np.clip(times_s / self.brake_s, 0.0, 1.0)[:, None]
        T = self.brake_s
        # Hermite cubics of the rate, from (rate, rate2) to rest, and their integrals and derivatives.
        value = (
            self.start
            + self.rate * T * (u - u**3 + u**4 / 2)
            + self.rate2 * T**2 * (u**2 / 2 - 2 * u**3 / 3 + u**4 / 4)
        )
        rate = self.rate * (1 - 3 * u**2 + 2 * u**3) + self.rate2 * T * (u - 2 * u**2 + u**3)
        rate2 = self.rate * (6 * u**2 - 6 * u) / T + self.rate2 * (1 - 4 * u + 3 * u**2)
        W = np.repeat(self.ways_s, 3)
        s = np.clip(times_s[:, None] / W, 0.0, 1.0)
        value = value + self.way * (10 * s**3 - 15 * s**4 + 6 * s**5)
        rate = rate + self.way / W * (30 * s**2 - 60 * s**3 + 30 * s**4)
        rate2 = rate2 + self.way / W**2 * (60 * s - 180 * s**2 + 120 * s**3)
        return value, rate, rate2

    def at(self, time_ns: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(6,) each, at a time; at rest before the start and after the end."""
        time_s = (time_ns - self.start_ns) * _NS
        value, rate, rate2 = (found[0] for found in self.derivatives(np.array([max(0.0, time_s)])))
        if time_s < 0.0 or time_s >= self.duration_s:
            return value, np.zeros(6), np.zeros(6)
        return value, rate, rate2


@dataclass(frozen=True)
class ToolPlan:
    """Successive segments, each in force from its start until the next one's."""

    segments: tuple[_Segment, ...]

    @classmethod
    def at_rest(cls, T_base_tcp: FloatArray, stamp_ns: int) -> ToolPlan:
        """Stays at a pose."""
        zero = np.zeros(6)
        start = np.concatenate([T_base_tcp[:3, 3], np.zeros(3)])
        shortest = np.full(2, _SHORTEST_S)
        return cls((_Segment(stamp_ns, start, zero, zero, _SHORTEST_S, zero, shortest, T_base_tcp[:3, :3].copy()),))

    @property
    def begin_ns(self) -> int:
        """The earliest time of which it still knows."""
        return self.segments[0].start_ns

    @property
    def end_ns(self) -> int:
        """When it comes to rest."""
        return self.segments[-1].start_ns + round(self.segments[-1].duration_s / _NS)

    @property
    def T_base_goal(self) -> FloatArray:
        return self.sample(self.end_ns)

    def sample(self, time_ns: int) -> FloatArray:
        """(4, 4) T_base_tcp meant at a time; before its start and after its end it rests."""
        segment = self._segment(time_ns)
        value = segment.at(time_ns)[0]
        return make_pose(value[:3], rotvec_to_matrix(value[3:]) @ segment.R_goal)

    def aim(self, T_base_goal: FloatArray, from_ns: int, limits: MotionLimits) -> ToolPlan:
        """The plan that follows this one until `from_ns` and then goes to rest at a goal.

        It is the quickest of those tried that keep the limits; motion that exceeds them at `from_ns` already is braked.
        The rotation's speed is carried over as if old and new axis were one; for yaw alone they are.
        """
        _, rate, rate2 = self._segment(from_ns).at(from_ns)
        T_base_start = self.sample(from_ns)
        R_goal = T_base_goal[:3, :3].copy()
        start = np.concatenate([T_base_start[:3, 3], matrix_to_rotvec(T_base_start[:3, :3] @ R_goal.T)])
        goal = np.concatenate([T_base_goal[:3, 3], np.zeros(3)])
        speed = np.array([limits.speed_m_s, limits.angular_speed_rad_s])
        acceleration = np.array([limits.acceleration_m_s2, limits.angular_acceleration_rad_s2])
        # The rate's Hermite cubic falls 1.5 times as steeply as a straight line; a third of rate2 may come on top.
        brake_s = max(_SHORTEST_S, float(np.max(1.5 * _norms(rate[None])[0] / (acceleration * 2 / 3))))
        braking = _Segment(from_ns, start, rate, rate2, brake_s, np.zeros(6), np.full(2, _SHORTEST_S), R_goal)
        way = goal - braking.derivatives(np.array([brake_s]))[0][0]
        way_norms = _norms(way[None])[0]
        ways_s = np.maximum(_SHORTEST_S, _PEAK_SPEED * way_norms / speed)
        ways_s = np.maximum(ways_s, np.sqrt(_PEAK_ACCELERATION * way_norms / acceleration))
        speed, acceleration = (
            np.maximum(limit, peak) for limit, peak in zip((speed, acceleration), _peaks(braking), strict=True)
        )
        segment = replace(braking, way=way, ways_s=ways_s)
        for _ in range(30):
            peak_speed, peak_acceleration = _peaks(segment)
            is_past = (peak_speed > 1.001 * speed) | (peak_acceleration > 1.001 * acceleration)
            if not is_past.any():
                break
            segment = replace(segment, ways_s=np.where(is_past, 1.06, 1.0) * segment.ways_s)
        kept = [segment for segment in self.segments if segment.start_ns < from_ns][-3:]
        return ToolPlan((*kept, segment))

    def distance_to(self, T_base_tcp: FloatArray, stamps_ns: list[int]) -> float:
        """Least distance of a position from the plan at the given times, m."""
        return min(float(np.linalg.norm(self.sample(stamp)[:3, 3] - T_base_tcp[:3, 3])) for stamp in stamps_ns)

    def is_aimed_at(self, T_base_goal: FloatArray, position_m: float, angle_rad: float) -> bool:
        """Whether its goal is the given one within tolerances."""
        own = self.T_base_goal
        return bool(
            np.linalg.norm(own[:3, 3] - T_base_goal[:3, 3]) <= position_m
            and angle_between(own[:3, :3], T_base_goal[:3, :3]) <= angle_rad
        )

    def _segment(self, time_ns: int) -> _Segment:
        started = [segment for segment in self.segments if segment.start_ns <= time_ns]
        return started[-1] if started else self.segments[0]


def _peaks(segment: _Segment) -> tuple[FloatArray, FloatArray]:
    """(2,) each: peak speed and acceleration of p and of r, over samples."""
    ends_s = (segment.brake_s, segment.duration_s)
    times_s = np.concatenate([np.linspace(0.0, end_s, _SAMPLES) for end_s in ends_s])
    _, rates, rates2 = segment.derivatives(times_s)
    return _norms(rates).max(axis=0), _norms(rates2).max(axis=0)


def _norms(values: FloatArray) -> FloatArray:
    """(n, 6) to (n, 2): lengths of the linear and of the angular part."""
    return np.stack([np.linalg.norm(values[:, :3], axis=1), np.linalg.norm(values[:, 3:], axis=1)], axis=1)
