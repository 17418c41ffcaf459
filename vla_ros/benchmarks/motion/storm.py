"""Chunks and targets as nobody should send them: random, far, malformed, not finite, huge, empty."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla_ros.geometry import se3
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray, JointChunk, JointTarget, ToolChunk, ToolTarget

_BAD = (np.nan, np.inf, -np.inf, 1e300, -1e300, 1e18, 1e6)
SOURCES = ("one", "two", "teleop")


class Storm:
    """Draws what is sent to an arm.

    Args:
        model: the arm.
        rng: draws everything.
    """

    def __init__(self, model: RobotModel, rng: np.random.Generator) -> None:
        self._model, self._rng = model, rng
        self._last: ToolChunk | JointChunk | None = None
        # How wild this storm is: the part of what it sends that is no sensible motion.
        self._wildness = float(rng.choice([0.0, 0.1, 0.3, 0.7]))
        self._joint_share = float(rng.choice([0.0, 0.3, 1.0]))

    def chunk(self, stamp_ns: int, q: FloatArray, selected: str) -> ToolChunk | JointChunk:
        """A chunk, sensible or not, mostly of the selected source, for an arm that is at q (n,) rad.

        Now and then it is the one before once more.
        """
        rng = self._rng
        if self._last is not None and rng.random() < 0.08:
            return self._last
        count = int(rng.choice([1, 2, 8, 16, 50]))
        step_s = float(rng.choice([0.001, 0.02, 0.05, 0.1, 0.1, 0.2, 1.0]))
        times_s = step_s * np.arange(rng.integers(0, 3), count + 2, dtype=np.float64)[:count]
        source = selected if rng.random() < 0.85 else str(rng.choice(SOURCES))
        is_joint = rng.random() < self._joint_share
        chunk = self._joints(stamp_ns, q, times_s, source) if is_joint else self._tool(stamp_ns, q, times_s, source)
        if rng.random() < self._wildness:
            chunk = self._spoilt(chunk)
        self._last = chunk
        return chunk

    def target(self, stamp_ns: int, q: FloatArray) -> ToolTarget | JointTarget | None:
        """What a controller might be told without any filter before it: near, far, jumping, or nonsense."""
        rng = self._rng
        if rng.random() < 0.05:
            return None
        near = rng.random() < 0.5
        opening = None if rng.random() < 0.3 else float(rng.random())
        if rng.random() < self._joint_share:
            spread = 0.02 if near else 6.0
            positions = q + rng.normal(0.0, spread, len(q))
            target: ToolTarget | JointTarget = JointTarget(stamp_ns, positions, rng.normal(0.0, 1.0, len(q)), opening)
        else:
            T = self._model.forward_kinematics(q) @ self._motion(0.01 if near else 1.0, 0.05 if near else 3.0)
            target = ToolTarget(stamp_ns, T, rng.normal(0.0, 1.0, 6) * rng.integers(0, 2), opening)
        if rng.random() < 0.2 * self._wildness:
            bad = rng.choice(_BAD)
            if isinstance(target, JointTarget):
                return replace(target, positions=_spoil(target.positions, bad, rng))
            if rng.random() < 0.5:
                return replace(target, T_base_tcp=_spoil(target.T_base_tcp, bad, rng))
            return replace(target, twist_tcp_in_base=_spoil(target.twist_tcp_in_base, bad, rng))
        return target

    def _motion(self, metres: float, radians: float) -> FloatArray:
        R = rotvec_to_matrix(self._rng.normal(0.0, radians, 3))
        return se3.make_pose(self._rng.normal(0.0, metres, 3), R)

    def _tool(self, stamp_ns: int, q: FloatArray, times_s: FloatArray, source: str) -> ToolChunk:
        rng = self._rng
        frame = str(rng.choice(["tcp", "base", "absolute"]))
        metres, radians = [(0.003, 0.02), (0.02, 0.1), (0.3, 1.0), (2.0, 3.0)][int(rng.integers(4))]
        transforms = np.stack([self._motion(metres, radians) for _ in times_s])
        if rng.random() < 0.6:  # A walk, as policies send it, and not points all over the place.
            for index in range(1, len(transforms)):
                transforms[index] = transforms[index - 1] @ transforms[index]
        T_base_tcp = self._model.forward_kinematics(q)
        if frame == "absolute":
            transforms = T_base_tcp @ transforms
        anchor = T_base_tcp @ self._motion(0.02, 0.1) if rng.random() < 0.2 else None
        return ToolChunk(stamp_ns, frame, transforms, self._openings(len(times_s)), times_s, source, anchor)

    def _joints(self, stamp_ns: int, q: FloatArray, times_s: FloatArray, source: str) -> JointChunk:
        size = float(self._rng.choice([0.005, 0.05, 0.5, 5.0]))
        steps = self._rng.normal(0.0, size, (len(times_s), len(q)))
        positions = q + (np.cumsum(steps, axis=0) if self._rng.random() < 0.6 else steps)
        return JointChunk(stamp_ns, positions, self._openings(len(times_s)), times_s, source)

    def _openings(self, count: int) -> FloatArray | None:
        if self._rng.random() < 0.3:
            return None
        return np.asarray(self._rng.integers(0, 2, count), dtype=np.float64)

    def _spoilt(self, chunk: ToolChunk | JointChunk) -> ToolChunk | JointChunk:
        """The chunk with something about it made wrong."""
        rng = self._rng
        bad = float(rng.choice(_BAD))
        values = chunk.transforms if isinstance(chunk, ToolChunk) else chunk.positions
        times_s = chunk.time_from_start_s
        kind = int(rng.integers(12))
        if kind == 0:
            return replace(_with_values(chunk, values[:0]), time_from_start_s=times_s[:0], openings=None)
        if kind == 1:
            return replace(chunk, time_from_start_s=_spoil(times_s, bad, rng))
        if kind == 2:
            return replace(chunk, time_from_start_s=times_s[::-1].copy())
        if kind == 3:
            return replace(chunk, time_from_start_s=np.repeat(times_s[:1], len(times_s)) - rng.integers(0, 2))
        if kind == 4:
            return _with_values(chunk, values[:-1])
        if kind == 5:
            return _with_values(chunk, values[..., :-1])
        if kind == 6:
            return replace(chunk, openings=np.full(len(times_s), rng.choice([-0.5, 1.5, *_BAD])))
        if kind == 7:
            return replace(chunk, openings=np.zeros(len(times_s) + 1))
        if kind == 8:
            return replace(chunk, stamp_ns=chunk.stamp_ns + int(rng.choice([-(10**12), -(10**9), 10**8, 10**12])))
        if kind == 9:
            return _with_values(chunk, values * float(rng.choice([0.0, -1.0, 1.5, 1e3, 1e150])))
        if kind == 10 and isinstance(chunk, ToolChunk):
            return replace(chunk, T_base_anchor=_spoil(np.eye(4), bad, rng))
        return _with_values(chunk, _spoil(values, bad, rng))


def _with_values(chunk: ToolChunk | JointChunk, values: FloatArray) -> ToolChunk | JointChunk:
    if isinstance(chunk, ToolChunk):
        return replace(chunk, transforms=values)
    return replace(chunk, positions=values)


def _spoil(values: FloatArray, bad: float, rng: np.random.Generator) -> FloatArray:
    """The values with one of them replaced."""
    spoilt = np.array(values, dtype=np.float64)
    if spoilt.size:
        spoilt.flat[int(rng.integers(spoilt.size))] = bad
    return spoilt
