"""What lies between the motion in progress and a new path: an offset with its rates, and two ways for it to vanish."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import ruckig

from vla_ros.actions.decay_law import DecayLaw, norm
from vla_ros.actions.path import OffsetLimits
from vla_ros.types import FloatArray

# m or rad: an offset this small has gone; leaving it out in one tick of 4 ms is a jerk of 0.2 m/s^3.
_GONE = 1e-8
# Parts of a norm's limit that a swift offset's three axes take, the first along the gap; their squares sum to 1.
_AXIS_SHARES = np.array((0.9, math.sqrt(0.095), math.sqrt(0.095)))
# Part of the acceleration of the soft stop that a swift offset's axes are chosen by.
_SOFT_STOP = 0.2
# Time in which a swift offset's acceleration builds up, in half times of the gentle law.
_RAMP = 0.4
# Parts of a swift offset's way after which the gentle law is tried.
_HANDOVERS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class Offset(Protocol):
    """A curve to zero in value, velocity and acceleration.

    Attributes:
        start_s: when it begins.
    """

    start_s: float

    def has_gone(self, time_s: float) -> bool:
        """Whether it has by then."""

    def sample(self, time_s: float) -> FloatArray:
        """(3, d) value, first and second derivative; zeros once it has gone."""


class GentleOffset:
    """An offset that vanishes by a `DecayLaw`.

    Args:
        law: the law.
        start_s: when it begins.
        state: (3, d) offset and its rates then.
    """

    def __init__(self, law: DecayLaw, start_s: float, state: FloatArray) -> None:
        self.start_s, self._law = start_s, law
        self._modes = law.modes(state)
        largest = max(abs(a) + abs(b) + abs(c) for a, b, c in zip(*self._modes.tolist(), strict=True))
        self.end_s = start_s + (math.log(largest / _GONE) / law.slowest_per_s if largest > _GONE else 0.0)
        self._zero = np.zeros_like(state)

    def has_gone(self, time_s: float) -> bool:
        """See Offset."""
        return time_s >= self.end_s

    def sample(self, time_s: float) -> FloatArray:
        """See Offset."""
        if time_s >= self.end_s:
            return self._zero
        return self._law.sample(self._modes, max(0.0, time_s - self.start_s))


class SwiftOffset:
    """An offset that vanishes as fast as its limits allow: what is too large for the gentle way.

    Being time-optimal it is consistent: one that begins in the middle of another takes no longer than what was left of
    that, so a stream of chunks that confirm each other brings the motion onto their path and nothing swings out.

    Args:
        start_s: when it begins.
        state: (3, d) offset and its rates.
        limits: of each axis, positive; a velocity or acceleration past them is brought back first.
        axes: (d, d) orthonormal columns along which it moves, None for the coordinates' own.

    Raises:
        ValueError: if no such curve is found.

    Source: Berscheid and Kroeger, "Jerk-limited Real-time Trajectory Generation", RSS 2021 (ruckig).
    """

    def __init__(self, start_s: float, state: FloatArray, limits: OffsetLimits, axes: FloatArray | None = None) -> None:
        count = state.shape[1]
        along = state if axes is None else state @ axes
        given = ruckig.InputParameter(count)
        given.synchronization = ruckig.Synchronization.No
        given.current_position, given.current_velocity = along[0].tolist(), along[1].tolist()
        given.current_acceleration = along[2].tolist()
        given.target_position = given.target_velocity = given.target_acceleration = [0.0] * count
        given.max_velocity, given.max_acceleration = limits.velocity.tolist(), limits.acceleration.tolist()
        given.max_jerk = limits.jerk.tolist()
        self._trajectory = ruckig.Trajectory(count)
        try:
            result = ruckig.Ruckig(count).calculate(given, self._trajectory)
        except ruckig.RuckigError as error:
            raise ValueError(f"no way from offset {state[0]}, velocity {state[1]} to zero: {error}") from error
        if result not in (ruckig.Result.Working, ruckig.Result.Finished):
            raise ValueError(f"no way from offset {state[0]}, velocity {state[1]} to zero: {result}")
        self.start_s = start_s
        self.end_s = start_s + float(self._trajectory.duration)
        self._zero = np.zeros_like(state)
        self._to_coordinates = None if axes is None else axes.T

    def has_gone(self, time_s: float) -> bool:
        """See Offset."""
        return time_s >= self.end_s

    def sample(self, time_s: float) -> FloatArray:
        """See Offset."""
        if time_s >= self.end_s:
            return self._zero
        along = np.array(self._trajectory.at_time(max(0.0, time_s - self.start_s)))
        return along if self._to_coordinates is None else along @ self._to_coordinates


class SwiftThenGentle:
    """A swift offset that goes over to the gentle law as soon as that keeps the limits.

    When that is isn't asked before its time: the first command that follows a chunk shouldn't wait for it.

    Args:
        swift: the offset.
        law: the gentle law.
        limits: (d,) what it may take.
        is_vector: as in `lead_over`.
    """

    def __init__(self, swift: SwiftOffset, law: DecayLaw, limits: OffsetLimits, is_vector: bool) -> None:
        self.start_s = swift.start_s
        self._swift, self._law, self._limits, self._is_vector = swift, law, limits, is_vector
        duration_s = swift.end_s - swift.start_s
        self._untried_s = [swift.start_s + part * duration_s for part in reversed(_HANDOVERS)]
        self._gentle: GentleOffset | None = None

    def has_gone(self, time_s: float) -> bool:
        """See Offset."""
        return self._in_force(time_s).has_gone(time_s)

    def sample(self, time_s: float) -> FloatArray:
        """See Offset."""
        return self._in_force(time_s).sample(time_s)

    def _in_force(self, time_s: float) -> Offset:
        while self._gentle is None and self._untried_s and time_s >= self._untried_s[-1]:
            tried_s = self._untried_s.pop()
            reached = self._swift.sample(tried_s)
            if _keeps(self._law, reached, self._limits, self._is_vector):
                self._gentle = GentleOffset(self._law, tried_s, reached)
        return self._swift if self._gentle is None or time_s < self._gentle.start_s else self._gentle


class PoseOffset:
    """Of position and of rotation vector, each on its own way.

    Args:
        position: (3, 3) at a time.
        rotation: (3, 3) at a time.
    """

    def __init__(self, position: Offset, rotation: Offset) -> None:
        self.start_s = position.start_s
        self._position, self._rotation = position, rotation

    def has_gone(self, time_s: float) -> bool:
        """See Offset."""
        return self._position.has_gone(time_s) and self._rotation.has_gone(time_s)

    def sample(self, time_s: float) -> FloatArray:
        """See Offset."""
        return np.concatenate((self._position.sample(time_s), self._rotation.sample(time_s)), axis=1)


def lead_over(law: DecayLaw, start_s: float, state: FloatArray, limits: OffsetLimits, is_vector: bool) -> Offset:
    """The offset's way to zero: by the gentle law where that keeps the limits, else swiftly until it does.

    However paths jump about inside a ball, and however often, the motion that is led onto them stays inside 1.3 times
    the ball: measured against paths chosen by the motion's own velocity, and held to by a property test.

    Args:
        law: the gentle law.
        start_s: when it begins.
        state: (3, d) offset and its rates then.
        limits: (d,) what it may take.
        is_vector: whether d = 3 and the limits, all equal, hold for norms.

    Raises:
        ValueError: if there is none.
    """
    is_free = limits.are_positive
    if not is_free.all():
        # Who stands downstream holds what may not move at all.
        state = np.where(is_free, state, 0.0)
        limits = OffsetLimits(*(np.where(is_free, x, 1.0) for x in (limits.velocity, limits.acceleration, limits.jerk)))
    if _keeps(law, state, limits, is_vector):
        return GentleOffset(law, start_s, state)
    # A path that asks for more itself would be followed the wrong way while that is brought back.
    state = np.array((state[0], state[1], np.clip(state[2], -limits.acceleration, limits.acceleration)))
    jerk = np.minimum(limits.jerk, limits.acceleration / (_RAMP * law.half_s))
    limits = OffsetLimits(limits.velocity, limits.acceleration, jerk)
    if is_vector:
        shared = OffsetLimits(_AXIS_SHARES * limits.velocity, _AXIS_SHARES * limits.acceleration, jerk)
        # Along where a soft stop would leave it: axes along the gap alone would let a speed across it swing out.
        speed = math.sqrt(float(state[1] @ state[1]))
        ahead = state[0] + state[1] * (speed / (2.0 * _SOFT_STOP * float(limits.acceleration[0])))
        swift = SwiftOffset(start_s, state, shared, _axes_along(ahead))
    else:
        swift = SwiftOffset(start_s, state, limits)
    return SwiftThenGentle(swift, law, limits, is_vector)


def _keeps(law: DecayLaw, state: FloatArray, limits: OffsetLimits, is_vector: bool) -> bool:
    if is_vector:
        return law.keeps_norms(state, limits.norms)
    rates = law.rates(state)
    peaks = np.abs(rates).max(axis=1)
    return bool((peaks <= np.array((limits.velocity, limits.acceleration, limits.jerk))).all())


def _axes_along(v: FloatArray) -> FloatArray:
    """(3, 3) orthonormal columns, the first along v."""
    along = v.tolist()
    length = norm(along)
    if length < _GONE:
        return np.eye(3)
    # Householder reflection of the axis nearest to v onto it; source: Golub and Van Loan, "Matrix Computations", 5.1.
    w = [entry / length for entry in along]
    nearest = max(range(3), key=lambda axis: abs(w[axis]))
    w[nearest] += math.copysign(1.0, w[nearest])
    scale = 2.0 / sum(entry * entry for entry in w)
    columns = [[(row == column) - scale * w[row] * w[column] for row in range(3)] for column in range(3)]
    columns[0], columns[nearest] = columns[nearest], columns[0]
    return np.array(columns).T
