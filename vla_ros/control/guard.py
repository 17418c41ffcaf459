"""The joint guard, last to touch a command: position, velocity, acceleration and jerk of every joint, always.

Two ways lead from one tick to the next. A wanted position whose finite differences with the last three commands
keep the limits, and from which the joint can still stop inside its position limits, passes untouched. Otherwise the
joint takes the first tick of a ruckig trajectory to the wanted state. A ruckig trajectory after untouched ticks starts
from the cubic through the last four commands: that cubic and the trajectory meet with equal position, velocity and
acceleration, so every divided difference across the meeting is an average of derivatives that keep the limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import ruckig

from vla_ros.control.catching_up import end_of_cubic, gentlest_share, likely_motion
from vla_ros.control.stopping import BoolArray, GuardLimits, can_stop, stopping_reach
from vla_ros.types import FloatArray

_RETURN_RAD_S = 0.1
# Ruckig refuses a target state that rounding puts past a limit.
_BELOW = 1.0 - 1e-9
_STILL = 1e-9


@dataclass(frozen=True)
class JointMotion:
    """The commanded motion.

    Attributes:
        history: (4, n) rad, positions of the last four ticks, oldest first.
        velocities: (n,) rad/s at the last tick.
        accelerations: (n,) rad/s^2 at the last tick.
        wanted: (4, n) rad, what was wanted at the last four ticks, oldest first.
    """

    history: FloatArray
    velocities: FloatArray
    accelerations: FloatArray
    wanted: FloatArray

    @property
    def positions(self) -> FloatArray:
        """(n,) rad, commanded at the last tick."""
        return np.asarray(self.history[3])


def at_rest(positions: FloatArray) -> JointMotion:
    """Joints that have stood still at (n,) rad."""
    zero = np.zeros_like(positions)
    return JointMotion(np.tile(positions, (4, 1)), zero, zero, np.tile(positions, (4, 1)))


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
        count = len(limits.lower)
        self._is_free = (limits.velocity > 0.0) & (limits.acceleration > 0.0) & (limits.jerk > 0.0)
        self._planner = ruckig.Ruckig(count, dt_s)
        self._output = ruckig.OutputParameter(count)
        self._input = ruckig.InputParameter(count)
        self._input.synchronization = ruckig.Synchronization.No
        self._input.enabled = self._is_free.tolist()
        self._set_limits()
        # Joints further than this from their limits and slower than this can stop whatever they do.
        furthest = stopping_reach(limits.velocity, limits.acceleration, limits)
        self._nearly_lower, self._nearly_upper = limits.lower + furthest, limits.upper - furthest
        self._slow = limits.velocity - 0.5 * limits.acceleration**2 / np.where(self._is_free, limits.jerk, 1.0)

    def _can_stop(self, positions: FloatArray, velocities: FloatArray, accelerations: FloatArray) -> BoolArray:
        is_far = (positions < self._nearly_upper) & (positions > self._nearly_lower)
        if is_far.all() and (np.abs(velocities) < self._slow).all():
            return is_far
        return can_stop(positions, velocities, accelerations, self.limits)

    def _set_limits(self) -> None:
        for name in ("velocity", "acceleration", "jerk"):
            limit = getattr(self.limits, name)
            setattr(self._input, f"max_{name}", np.where(self._is_free, limit, 1.0).tolist())

    def step(self, motion: JointMotion, positions: FloatArray) -> tuple[JointMotion, bool]:
        """One tick.

        Args:
            motion: commanded up to the tick before.
            positions: (n,) rad, wanted at the end of this tick; finite. The nearest inside the limits is taken.

        Returns:
            The motion to command, and whether the wanted positions passed untouched.
        """
        positions = np.clip(positions, self.limits.lower, self.limits.upper)
        wanted = np.vstack([motion.wanted[1:], positions])
        chosen, velocities, accelerations = self._differences(motion.history, wanted)
        new = np.where(chosen, np.vstack([positions, velocities, accelerations]), 0.0)
        is_untouched = bool(chosen.all())
        for plan in (self._beside, self._towards, self._towards_rest, self._stop):
            if chosen.all():
                break
            planned = plan(motion, wanted)
            if planned is None:
                continue
            is_last = plan == self._stop
            fits = ~chosen & (is_last | self._can_stop(planned[0], planned[1], planned[2]))
            new = np.where(fits, planned, new)
            chosen |= fits
        return JointMotion(np.vstack([motion.history[1:], new[0]]), new[1], new[2], wanted), is_untouched

    def brake(self, motion: JointMotion) -> JointMotion:
        """One tick of coming to rest as soon as the limits allow, and of staying there.

        A joint that is outside its position limits comes back.
        """
        positions, velocities, accelerations = self._stop(motion, motion.wanted)
        return JointMotion(
            np.vstack([motion.history[1:], positions]),
            velocities,
            accelerations,
            np.vstack([motion.wanted[1:], positions]),
        )

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

    def _beside(self, motion: JointMotion, wanted: FloatArray) -> FloatArray | None:
        """The next tick of closing the gap to the wanted motion, planned in a frame that moves with it.

        What the wanted motion itself takes of velocity, acceleration and jerk is taken off the limits of the gap, so
        that the sum keeps them. None for joints of which it takes too much, or which are too fast for what is left.
        """
        limits, dt = self.limits, self.dt_s
        velocity, acceleration, jerk = likely_motion(wanted, limits, dt)
        velocity_before = velocity - acceleration * dt + 0.5 * jerk * dt * dt
        acceleration_before = acceleration - jerk * dt
        gap = np.array(
            [
                motion.positions - wanted[3] + dt * (velocity - 0.5 * dt * (acceleration - dt * jerk / 3.0)),
                motion.velocities - velocity_before,
                motion.accelerations - acceleration_before,
            ]
        )
        left_velocity = _BELOW * limits.velocity - np.maximum(np.abs(velocity), np.abs(velocity_before))
        left_acceleration = _BELOW * limits.acceleration - np.maximum(np.abs(acceleration), np.abs(acceleration_before))
        left_jerk = _BELOW * limits.jerk - np.abs(jerk)
        left = GuardLimits(limits.lower, limits.upper, left_velocity, left_acceleration, left_jerk)
        share = gentlest_share(gap, left)
        left_acceleration, left_jerk = share * left_acceleration, share * left_jerk
        with np.errstate(divide="ignore", invalid="ignore"):
            peak = np.abs(gap[1]) + 0.5 * gap[2] ** 2 / left_jerk
        fits = (
            self._is_free
            & (peak < left_velocity)
            & (np.abs(gap[2]) < left.acceleration)
            & (np.minimum(np.minimum(left_velocity, left_acceleration), left_jerk) > _STILL)
        )
        if not fits.any():
            return None
        gap = np.where(fits, gap, 0.0)
        planner = self._input
        planner.current_position, planner.current_velocity, planner.current_acceleration = gap.tolist()
        planner.max_velocity = np.where(fits, left_velocity, 1.0).tolist()
        planner.max_acceleration = np.where(fits, left_acceleration, 1.0).tolist()
        planner.max_jerk = np.where(fits, left_jerk, 1.0).tolist()
        zero = [0.0] * len(fits)
        planner.target_position = planner.target_velocity = planner.target_acceleration = zero
        planner.control_interface = ruckig.ControlInterface.Position
        is_planned = self._update()
        self._set_limits()
        if not is_planned:
            return None
        output = self._output
        moved = np.array([output.new_position, output.new_velocity, output.new_acceleration])
        return np.where(fits, moved + np.array([wanted[3], velocity, acceleration]), np.nan)

    def _towards(self, motion: JointMotion, wanted: FloatArray) -> FloatArray | None:
        """The next tick towards where the wanted motion is now."""
        return self._plan(motion, *self._steady(wanted[3], *end_of_cubic(wanted, self.dt_s)[:2]))

    def _steady(
        self, positions: FloatArray, velocities: FloatArray, accelerations: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """A state to aim at: the given one where a joint could go on from it inside its limits, else rest nearby."""
        limits = self.limits
        # Differences of equal positions leave rounding behind, which isn't motion.
        velocities = np.where(np.abs(velocities) < _STILL, 0.0, velocities)
        accelerations = np.where(np.abs(accelerations) < _STILL, 0.0, accelerations)
        clipped = np.clip(positions, limits.lower, limits.upper)
        is_steady = (
            (np.abs(accelerations) <= limits.acceleration)
            & (np.abs(velocities) <= limits.velocity)
            & can_stop(clipped, velocities, accelerations, limits)
        )
        return clipped, np.where(is_steady, _BELOW * velocities, 0.0), np.where(is_steady, _BELOW * accelerations, 0.0)

    def _towards_rest(self, motion: JointMotion, wanted: FloatArray) -> FloatArray | None:
        """The next tick towards standing still at the wanted position."""
        zero = np.zeros_like(wanted[3])
        return self._plan(motion, np.clip(wanted[3], self.limits.lower, self.limits.upper), zero, zero)

    def _stop(self, motion: JointMotion, wanted: FloatArray) -> FloatArray:
        """The next tick of braking; a joint that is outside its limits comes back at walking pace."""
        given = self._given(motion)
        is_out = (motion.positions < self.limits.lower) | (motion.positions > self.limits.upper)
        speed = np.where(motion.positions < self.limits.lower, _RETURN_RAD_S, -_RETURN_RAD_S)
        speed = np.clip(speed, -0.5 * self.limits.velocity, 0.5 * self.limits.velocity)
        given.control_interface = ruckig.ControlInterface.Velocity
        given.target_velocity = np.where(is_out, speed, 0.0).tolist()
        given.target_acceleration = [0.0] * len(motion.positions)
        if not self._update():
            raise RuntimeError(f"ruckig can't plan a stop from {motion}: the state before was outside the limits")
        return self._result(motion)

    def _plan(
        self, motion: JointMotion, positions: FloatArray, velocities: FloatArray, accelerations: FloatArray
    ) -> FloatArray | None:
        given = self._given(motion)
        given.control_interface = ruckig.ControlInterface.Position
        given.target_position = positions.tolist()
        given.target_velocity = velocities.tolist()
        given.target_acceleration = accelerations.tolist()
        return self._result(motion) if self._update() else None

    def _given(self, motion: JointMotion) -> ruckig.InputParameter:
        self._input.current_position = motion.positions.tolist()
        self._input.current_velocity = motion.velocities.tolist()
        self._input.current_acceleration = motion.accelerations.tolist()
        return self._input

    def _update(self) -> bool:
        self._planner.reset()
        try:
            result = self._planner.update(self._input, self._output)
        except (ruckig.RuckigError, ValueError):  # ValueError: a result that its Python side doesn't know.
            return False
        return result in (ruckig.Result.Working, ruckig.Result.Finished)

    def _result(self, motion: JointMotion) -> FloatArray:
        output = self._output
        moved = np.array([output.new_position, output.new_velocity, output.new_acceleration])
        still = np.vstack([motion.positions, np.zeros((2, len(motion.positions)))])
        return np.where(self._is_free, moved, still)
