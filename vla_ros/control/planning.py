"""The next tick of a joint that can't have its wanted position: ways on inside the limits, each asked of ruckig."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import ruckig

from vla_ros.control.catching_up import end_of_cubic, gentlest_share, likely_motion
from vla_ros.control.stopping import GuardLimits, can_stop
from vla_ros.types import FloatArray

_RETURN_RAD_S = 0.1
# Ruckig refuses a target state that rounding puts past a limit.
_BELOW = 1.0 - 1e-9
_STILL = 1e-9


class PlanState(NamedTuple):
    """What a plan starts from: (n,) positions, velocities and accelerations commanded last."""

    positions: FloatArray
    velocities: FloatArray
    accelerations: FloatArray


class TickPlanner:
    """Plans single ticks. Every plan is (3, n): position, velocity and acceleration at the tick's end.

    Args:
        limits: of the joints; one with a limit of zero stands still.
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

    def _set_limits(self) -> None:
        for name in ("velocity", "acceleration", "jerk"):
            limit = getattr(self.limits, name)
            setattr(self._input, f"max_{name}", np.where(self._is_free, limit, 1.0).tolist())

    def beside(self, motion: PlanState, wanted: FloatArray) -> FloatArray | None:
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

    def towards(self, motion: PlanState, wanted: FloatArray) -> FloatArray | None:
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

    def towards_rest(self, motion: PlanState, wanted: FloatArray) -> FloatArray | None:
        """The next tick towards standing still at the wanted position."""
        zero = np.zeros_like(wanted[3])
        return self._plan(motion, np.clip(wanted[3], self.limits.lower, self.limits.upper), zero, zero)

    def stop(self, motion: PlanState, wanted: FloatArray) -> FloatArray:
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
        self, motion: PlanState, positions: FloatArray, velocities: FloatArray, accelerations: FloatArray
    ) -> FloatArray | None:
        given = self._given(motion)
        given.control_interface = ruckig.ControlInterface.Position
        given.target_position = positions.tolist()
        given.target_velocity = velocities.tolist()
        given.target_acceleration = accelerations.tolist()
        return self._result(motion) if self._update() else None

    def _given(self, motion: PlanState) -> ruckig.InputParameter:
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

    def _result(self, motion: PlanState) -> FloatArray:
        output = self._output
        moved = np.array([output.new_position, output.new_velocity, output.new_acceleration])
        still = np.vstack([motion.positions, np.zeros((2, len(motion.positions)))])
        return np.where(self._is_free, moved, still)
