"""The linear law by which what lies between a motion and its new path vanishes."""

from __future__ import annotations

import math

import numpy as np

from vla_ros.types import FloatArray


class DecayLaw:
    """A linear law e''' = -K (e, e', e'') by which an offset vanishes: little jerk for a given half time.

    Poles at -w / 2 and w (-1 +- i sqrt(3)) / 2: among three poles whose way from rest is straight home, without any
    turning back, about the least mean square jerk, 0.75 of a quintic's (minimum jerk over a fixed time) with the same
    half time. Being linear and time-invariant, the law is the same however often it is begun anew in the middle of
    itself: a stream of chunks can't make it swing.

    Args:
        half_s: time in which an offset from rest closes to half.
    """

    # Root of 2 e(t) = 1 for the poles above and w = 1.
    _half_time = 2.745792
    _grid_s = 0.2
    _reach_s = 7.0

    def __init__(self, half_s: float) -> None:
        self.half_s = half_s
        w = self._half_time / half_s
        self._decay, self._turn = -0.5 * w, math.sqrt(0.75) * w
        self.slowest_per_s = -self._decay
        self._from_state = np.linalg.inv(self._rows(0.0))
        # K is (s + w / 2) (s^2 + w s + w^2); at times that leave out no peak by more than some percent.
        self._K = np.array([0.5 * w**3, 1.5 * w**2, 1.5 * w])
        times = np.arange(0.0, self._reach_s, self._grid_s) / w
        rows = np.array([self._rows(t) for t in times.tolist()]) @ self._from_state
        jerk = -self._K @ rows
        self._peaks = np.concatenate([rows[:, 1], rows[:, 2], jerk])
        # The most that each of value, velocity and acceleration at the start can contribute, whatever the others are.
        self._most: list[list[float]] = np.abs(self._peaks).reshape(3, -1, 3).max(axis=1).tolist()

    def modes(self, state: FloatArray) -> FloatArray:
        """(3, d) weights of the law's three modes for an offset (3, d) and its rates."""
        return np.asarray(self._from_state @ state)

    def sample(self, modes: FloatArray, elapsed_s: float) -> FloatArray:
        """(3, d) the offset and its rates."""
        return np.asarray(self._rows(elapsed_s) @ modes)

    def rates(self, state: FloatArray) -> FloatArray:
        """(3, k, d) velocity, acceleration and jerk at k times of an offset's whole way."""
        return np.asarray((self._peaks @ state).reshape(3, -1, state.shape[1]))

    def keeps_norms(self, state: FloatArray, limits: tuple[float, float, float]) -> bool:
        """Whether the norms of velocity, acceleration and jerk of an offset (3, 3) keep limits on its whole way."""
        jerk = (self._K @ state).tolist()
        if norm(jerk) > limits[2]:
            return False
        x, v, a = map(norm, state.tolist())
        if all(a_x * x + a_v * v + a_a * a <= most for (a_x, a_v, a_a), most in zip(self._most, limits, strict=True)):
            return True
        rates = self.rates(state)
        squares = (rates * rates).sum(axis=2).max(axis=1).tolist()
        return all(square <= limit * limit for square, limit in zip(squares, limits, strict=True))

    def _rows(self, t: float) -> FloatArray:
        """(3, 3) the modes exp, exp cos and exp sin, and their first and second derivatives."""
        r, w = self._decay, self._turn
        size = math.exp(r * t)
        c, s = size * math.cos(w * t), size * math.sin(w * t)
        dc, ds = r * c - w * s, w * c + r * s
        return np.array(((size, c, s), (r * size, dc, ds), (r * r * size, r * dc - w * ds, w * dc + r * ds)))


def norm(v: list[float]) -> float:
    """Of three numbers."""
    x, y, z = v
    return math.sqrt(x * x + y * y + z * z)
