"""The joint guard, last to touch a command: position, velocity, acceleration and jerk of every joint, always.

Two ways lead from one tick to the next. A wanted position whose finite differences with the last three commands
keep the limits, and from which the joint can still stop inside its position limits, passes untouched. Otherwise the
joint takes the first tick of a ruckig trajectory to the wanted state. A ruckig trajectory after untouched ticks starts
from the cubic through the last four commands: that cubic and the trajectory meet with equal position, velocity and
acceleration, so every divided difference across the meeting is an average of derivatives that keep the limits.

Nearly every tick passes untouched, so that way is taken first, joint by joint in plain floats: a third of what NumPy's
calls would cost for seven numbers. What it can't grant for sure is judged once more, exactly, by the other way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vla_ros.control.catching_up import end_of_cubic
from vla_ros.control.planning import PlanState, TickPlanner
from vla_ros.control.stopping import BoolArray, GuardLimits, can_stop, stopping_reach
from vla_ros.types import FloatArray

Row = list[float]
Track = tuple[Row, Row, Row, Row]


class JointMotion(NamedTuple):
    """The commanded motion. Its numbers are plain floats, one a joint; who receives a list doesn't write to it.

    Attributes:
        history: rad, positions of the last four ticks, oldest first.
        velocities: rad/s at the last tick.
        accelerations: rad/s^2 at the last tick.
        wanted: rad, what was wanted at the last four ticks, oldest first; `history` itself if all of it was granted.
    """

    history: Track
    velocities: Row
    accelerations: Row
    wanted: Track

    @property
    def positions(self) -> FloatArray:
        """(n,) rad, commanded at the last tick."""
        return np.array(self.history[3])


def at_rest(positions: FloatArray) -> JointMotion:
    """Joints that have stood still at (n,) rad."""
    row = np.asarray(positions, dtype=np.float64).tolist()
    track, zero = (row, row, row, row), [0.0] * len(row)
    return JointMotion(track, zero, zero, track)


class JointGuard:
    """Moves joints towards a wanted motion inside their limits; feasible motion passes untouched.

    Every state it produces from one that can stop inside the position limits is again such a state. A joint that starts
    outside its position limits comes back inside; a joint with a limit of zero stands still.

    Args:
        limits: of the joints.
        dt_s: duration of a tick.
    """

    def __init__(self, limits: GuardLimits, dt_s: float) -> None:
        self.limits, self.dt_s = limits, dt_s
        self._planner = TickPlanner(limits, dt_s)
        # Joints further than this from their limits and slower than this can stop whatever they do.
        furthest = stopping_reach(limits.velocity, limits.acceleration, limits)
        self._nearly_lower, self._nearly_upper = limits.lower + furthest, limits.upper - furthest
        is_free = (limits.velocity > 0.0) & (limits.acceleration > 0.0) & (limits.jerk > 0.0)
        self._slow = limits.velocity - 0.5 * limits.acceleration**2 / np.where(is_free, limits.jerk, 1.0)
        self._rows = _pass_rows(limits, dt_s, is_free)

    def step(self, motion: JointMotion, positions: FloatArray) -> tuple[JointMotion, bool]:
        """One tick.

        Args:
            motion: commanded up to the tick before.
            positions: (n,) rad, wanted at the end of this tick; finite. The nearest inside the limits is taken.

        Returns:
            The motion to command, and whether the wanted positions passed untouched.
        """
        passed = self.granted(motion, positions.tolist())
        return (passed, True) if passed is not None else self.step_exactly(motion, positions)

    def granted(self, motion: JointMotion, positions: Row) -> JointMotion | None:
        """The motion after a tick at whose end the wanted positions are taken as they are.

        Args:
            motion: commanded up to the tick before.
            positions: rad, wanted at the end of this tick; NaN is never granted.

        Returns:
            None unless that keeps every limit, for sure and for good; `step_exactly` can then tell.
        """
        if motion.wanted is not motion.history:
            return None
        _, first, second, third = motion.history
        velocities, accelerations = [], []
        per_s, per_s2 = 1.0 / self.dt_s, 1.0 / (self.dt_s * self.dt_s)
        # In units of the tick: step is velocity, bend acceleration, twist jerk, the last two as of the tick's end.
        for (v_max, a_max, j_max, swing, still, k1, k2, middle, half), p0, p1, p2, p in zip(
            self._rows, first, second, third, positions, strict=True
        ):
            step, last = p - p2, p2 - p1
            bend = step - last
            twist = bend - last + p1 - p0
            acceleration = bend + twist
            velocity = step + 0.5 * acceleration - twist / 6.0
            # Velocity once the acceleration has been taken back.
            peak = velocity + swing * acceleration * abs(acceleration)
            if not (
                -v_max <= step <= v_max
                and -v_max <= velocity <= v_max
                and -v_max <= peak <= v_max
                and -a_max <= bend <= a_max
                and -a_max <= acceleration <= a_max
                and -j_max <= twist <= j_max
            ):
                return None
            speed = abs(velocity) + still
            if abs(p - middle) + speed * (k1 * speed + k2) > half:
                return None
            velocities.append(velocity * per_s)
            accelerations.append(acceleration * per_s2)
        track = (first, second, third, positions)
        return JointMotion(track, velocities, accelerations, track)

    def step_exactly(self, motion: JointMotion, positions: FloatArray) -> tuple[JointMotion, bool]:
        """`step` for what isn't granted at first sight."""
        positions = np.clip(positions, self.limits.lower, self.limits.upper)
        history = np.array(motion.history)
        wanted = np.vstack([np.array(motion.wanted[1:]), positions])
        state = _plan_state(motion)
        chosen, velocities, accelerations = self._differences(history, wanted)
        new = np.where(chosen, np.vstack([positions, velocities, accelerations]), 0.0)
        is_untouched = bool(chosen.all())
        planner = self._planner
        for plan in (planner.beside, planner.towards, planner.towards_rest, planner.stop):
            if chosen.all():
                break
            planned = plan(state, wanted)
            if planned is None:
                continue
            fits = ~chosen & ((plan == planner.stop) | self._can_stop(planned[0], planned[1], planned[2]))
            new = np.where(fits, planned, new)
            chosen |= fits
        return _moved(motion, new, wanted[3]), is_untouched

    def brake(self, motion: JointMotion) -> JointMotion:
        """One tick of coming to rest as soon as the limits allow, and of staying there.

        A joint that is outside its position limits comes back.
        """
        new = self._planner.stop(_plan_state(motion), np.array(motion.wanted))
        positions, velocities, accelerations = new.tolist()
        history = (*motion.history[1:], positions)
        return JointMotion(history, velocities, accelerations, history)

    def _can_stop(self, positions: FloatArray, velocities: FloatArray, accelerations: FloatArray) -> BoolArray:
        is_far = (positions < self._nearly_upper) & (positions > self._nearly_lower)
        if is_far.all() and (np.abs(velocities) < self._slow).all():
            return is_far
        return can_stop(positions, velocities, accelerations, self.limits)

    def _differences(self, history: FloatArray, wanted: FloatArray) -> tuple[BoolArray, FloatArray, FloatArray]:
        """Which joints may take the wanted position as it is, and the state at its end if they do.

        A joint that isn't on its wanted motion yet has to be able to go on with it, too: one that only crosses it, at
        another speed, would take it up and lose it again.
        """
        points = np.vstack([history[1:], wanted[3]])
        is_off = (points[:3] != wanted[:3]).any(axis=0)
        if not is_off.any():
            passed, velocity, acceleration = self._keep_limits(points)
            return passed & self._can_stop(wanted[3], velocity, acceleration), velocity, acceleration
        step, bend = wanted[3] - wanted[2], wanted[3] - 2.0 * wanted[2] + wanted[1]
        track = np.vstack([points, *(wanted[3] + k * step + 0.5 * k * (k + 1) * bend for k in (1, 2, 3))])
        keeps, velocities, accelerations = self._keep_limits(np.stack([track[k : k + 4] for k in range(4)], axis=1))
        passed, velocity, acceleration = keeps[0] & (~is_off | keeps.all(axis=0)), velocities[0], accelerations[0]
        return passed & self._can_stop(wanted[3], velocity, acceleration), velocity, acceleration

    def _keep_limits(self, points: FloatArray) -> tuple[BoolArray, FloatArray, FloatArray]:
        """Which joints keep their limits over four points, (4, ..., n), and velocity and acceleration at the last."""
        limits, dt = self.limits, self.dt_s
        velocity, acceleration, jerk = end_of_cubic(points, dt)
        step = (points[3] - points[2]) / dt
        rate = (points[3] - 2.0 * points[2] + points[1]) / dt**2
        keeps = (
            (np.maximum(np.abs(step), np.abs(velocity)) <= limits.velocity)
            & (np.maximum(np.abs(rate), np.abs(acceleration)) <= limits.acceleration)
            & (np.abs(jerk) <= limits.jerk)
        )
        return keeps, velocity, acceleration


def _plan_state(motion: JointMotion) -> PlanState:
    return PlanState(np.array(motion.history[3]), np.array(motion.velocities), np.array(motion.accelerations))


def _moved(motion: JointMotion, new: FloatArray, wanted: FloatArray) -> JointMotion:
    """The motion after a tick that ends at (3, n) `new`."""
    positions, velocities, accelerations = new.tolist()
    history = (*motion.history[1:], positions)
    track = (*motion.wanted[1:], wanted.tolist())
    return JointMotion(history, velocities, accelerations, history if history == track else track)


def _pass_rows(limits: GuardLimits, dt_s: float, is_free: BoolArray) -> list[tuple[float, ...]]:
    """What `granted` needs of each joint, in units of the tick.

    A stop takes at most `speed * (k1 * speed + k2)`, where speed is that of the end of the tick and `still`, what an
    acceleration at its limit may add to it: in `stopping_reach`, the way is at most speed a / j and a short stop at
    most a long one.
    """
    # A joint with a limit of zero is granted where it stands, and its other numbers don't matter.
    a, j, braking = (np.where(is_free, x, 1.0) for x in (limits.acceleration, limits.jerk, limits.greatest_braking))
    dt = dt_s
    rows = (
        np.where(is_free, limits.velocity * dt, 0.0),
        a * dt**2,
        j * dt**3,
        0.5 / (j * dt**3),
        0.5 * a**2 / j * dt,
        0.5 / (braking * dt**2),
        ((0.5 * braking + a) / j + np.where(is_free, limits.drift, 0.0)) / dt,
        0.5 * (limits.lower + limits.upper),
        0.5 * (limits.upper - limits.lower),
    )
    return [tuple(float(value) for value in row) for row in zip(*np.broadcast_arrays(*rows), strict=True)]
