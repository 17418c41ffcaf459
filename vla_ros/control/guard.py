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
from numpy.typing import NDArray

from vla_ros.types import FloatArray

BoolArray = NDArray[np.bool_]

_RETURN_RAD_S = 0.1
_ROUNDING_RAD = 1e-9


@dataclass(frozen=True)
class GuardLimits:
    """What the guard keeps: (n,) each, rad and seconds."""

    lower: FloatArray
    upper: FloatArray
    velocity: FloatArray
    acceleration: FloatArray
    jerk: FloatArray


@dataclass(frozen=True)
class JointMotion:
    """The commanded motion.

    Attributes:
        history: (4, n) rad, positions of the last four ticks, oldest first.
        velocities: (n,) rad/s at the last tick.
        accelerations: (n,) rad/s^2 at the last tick.
        wanted: (3, n) rad, what was wanted at the last three ticks, oldest first.
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
    return JointMotion(np.tile(positions, (4, 1)), zero, zero, np.tile(positions, (3, 1)))


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
        is_free = (limits.velocity > 0.0) & (limits.acceleration > 0.0) & (limits.jerk > 0.0)
        self._is_free = is_free
        self._planner = ruckig.Ruckig(count, dt_s)
        self._output = ruckig.OutputParameter(count)
        self._input = ruckig.InputParameter(count)
        self._input.synchronization = ruckig.Synchronization.No
        self._input.enabled = is_free.tolist()
        self._input.max_velocity = np.where(is_free, limits.velocity, 1.0).tolist()
        self._input.max_acceleration = np.where(is_free, limits.acceleration, 1.0).tolist()
        self._input.max_jerk = np.where(is_free, limits.jerk, 1.0).tolist()

    def step(self, motion: JointMotion, positions: FloatArray) -> tuple[JointMotion, bool]:
        """One tick.

        Args:
            motion: commanded up to the tick before.
            positions: (n,) rad, wanted at the end of this tick; finite.

        Returns:
            The motion to command, and whether the wanted positions passed untouched.
        """
        wanted = np.vstack([motion.wanted[1:], positions])
        chosen, velocities, accelerations = self._differences(motion.history, positions)
        new = np.where(chosen, np.vstack([positions, velocities, accelerations]), 0.0)
        is_untouched = bool(chosen.all())
        for plan in (self._towards, self._towards_rest, self._stop):
            if chosen.all():
                break
            planned = plan(motion, wanted)
            if planned is None:
                continue
            is_last = plan == self._stop
            fits = ~chosen & (is_last | can_stop(planned[0], planned[1], planned[2], self.limits))
            new = np.where(fits, planned, new)
            chosen |= fits
        return JointMotion(np.vstack([motion.history[1:], new[0]]), new[1], new[2], wanted), is_untouched

    def _differences(self, history: FloatArray, positions: FloatArray) -> tuple[BoolArray, FloatArray, FloatArray]:
        """Which joints may take the wanted position as it is, and the state at its end if they do."""
        limits, dt = self.limits, self.dt_s
        steps = np.diff(np.vstack([history[1:], positions]), axis=0) / dt
        rates = np.diff(steps, axis=0) / dt
        jerk = (rates[1] - rates[0]) / dt
        acceleration = rates[1] + jerk * dt
        velocity = steps[2] + 0.5 * acceleration * dt - jerk * dt * dt / 6.0
        passed = (
            (np.maximum(np.abs(steps[2]), np.abs(velocity)) <= limits.velocity)
            & (np.maximum(np.abs(rates[1]), np.abs(acceleration)) <= limits.acceleration)
            & (np.abs(jerk) <= limits.jerk)
            & can_stop(positions, velocity, acceleration, limits)
        )
        return passed, velocity, acceleration

    def _towards(self, motion: JointMotion, wanted: FloatArray) -> FloatArray | None:
        """The next tick towards the wanted position, velocity and acceleration."""
        limits, dt = self.limits, self.dt_s
        acceleration = (wanted[2] - 2.0 * wanted[1] + wanted[0]) / dt**2
        velocity = (wanted[2] - wanted[1]) / dt + 0.5 * acceleration * dt
        positions = np.clip(wanted[2], limits.lower, limits.upper)
        is_steady = (
            (np.abs(acceleration) <= limits.acceleration)
            & (np.abs(velocity) + 0.5 * acceleration**2 / np.where(self._is_free, limits.jerk, 1.0) <= limits.velocity)
            & can_stop(positions, velocity, acceleration, limits)
        )
        return self._plan(
            motion,
            positions,
            np.where(is_steady, 0.999 * velocity, 0.0),
            np.where(is_steady, 0.999 * acceleration, 0.0),
        )

    def _towards_rest(self, motion: JointMotion, wanted: FloatArray) -> FloatArray | None:
        """The next tick towards standing still at the wanted position."""
        zero = np.zeros_like(wanted[2])
        return self._plan(motion, np.clip(wanted[2], self.limits.lower, self.limits.upper), zero, zero)

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
        except RuntimeError:
            return False
        return result in (ruckig.Result.Working, ruckig.Result.Finished)

    def _result(self, motion: JointMotion) -> FloatArray:
        output = self._output
        moved = np.array([output.new_position, output.new_velocity, output.new_acceleration])
        still = np.vstack([motion.positions, np.zeros((2, len(motion.positions)))])
        return np.where(self._is_free, moved, still)


def can_stop(
    positions: FloatArray, velocities: FloatArray, accelerations: FloatArray, limits: GuardLimits
) -> BoolArray:
    """Which joints stop inside their position limits when they brake now, (n,) bool."""
    above = positions + _stopping_reach(velocities, accelerations, limits) <= limits.upper + _ROUNDING_RAD
    below = positions - _stopping_reach(-velocities, -accelerations, limits) >= limits.lower - _ROUNDING_RAD
    return np.asarray(above & below)


def _stopping_reach(velocity: FloatArray, acceleration: FloatArray, limits: GuardLimits) -> FloatArray:
    """How far up, (n,) rad, each joint still goes when it brakes as hard as it may from now on.

    A joint at (velocity, acceleration) is on a stop that began, or after taking back its acceleration will begin, at
    acceleration zero with the velocity `speed`, `way` away from here; a stop from `speed` is a double S.

    Source: Biagiotti and Melchiorri, "Trajectory Planning for Automatic Machines and Robots", 2008, section 3.4.
    """
    a, j = limits.acceleration, limits.jerk
    size = np.abs(acceleration)
    with np.errstate(divide="ignore", invalid="ignore"):
        swing = 0.5 * size * size / j
        speed = velocity + swing
        way = np.sign(acceleration) * (velocity + 2.0 / 3.0 * swing) * size / j
        long_stop = 0.5 * speed * (speed / a + a / j)
        short_stop = speed * np.sqrt(np.maximum(speed, 0.0) / j)
        stop = way + np.where(speed >= a * a / j, long_stop, short_stop)
        # Braking harder than the speed needs: the joint turns round while the acceleration is taken back.
        turn_s = (size - np.sqrt(np.maximum(size * size - 2.0 * j * velocity, 0.0))) / j
        turn = velocity * turn_s - 0.5 * size * turn_s**2 + j * turn_s**3 / 6.0
    turns = (acceleration < 0.0) & (velocity <= swing)
    reach = np.where(turns, np.where(velocity > 0.0, turn, 0.0), np.where(speed > 0.0, stop, 0.0))
    is_still = (velocity == 0.0) & (acceleration == 0.0)
    return np.where(is_still, 0.0, np.maximum(np.where(np.isnan(reach), np.inf, reach), 0.0))
