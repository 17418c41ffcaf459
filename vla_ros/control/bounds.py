"""How fast each joint may go in the next tick, so that the guard has nothing to change: bounds for the solver."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_ros.control.config import ControllerConfig
from vla_ros.control.guard import Track
from vla_ros.control.stopping import GuardLimits
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray, Intervention

# The guard's limits are the last word; the reference stays a little inside, so that rounding doesn't wake it.
_INSIDE = 0.995
_NAMES = ("joint_position", "joint_velocity", "joint_acceleration", "joint_jerk")
_UNITS = ("rad", "rad/s", "rad/s^2", "rad/s^3")


def guard_limits(model: RobotModel, config: ControllerConfig) -> GuardLimits:
    """The robot's limits with the margins of the configuration.

    A velocity limit that shrinks towards an end of the range, v <= offset + sqrt(gain way), is the same as a stop:
    (v - offset)^2 / gain <= way. So it is kept as a stop that brakes with half the gain, goes on for 2 |offset| / gain
    before, and ends offset^2 / gain sooner.
    """
    margin = np.minimum(config.position_margin_rad, 0.25 * (model.upper - model.lower))
    lower, upper = model.lower + margin, model.upper - margin
    acceleration = config.acceleration_fraction * model.acceleration
    braking, drift_s = acceleration.copy(), np.zeros_like(acceleration)
    for i, joint in enumerate(model.config.joints):
        curves = joint.velocity_by_position
        if curves is None:
            continue
        for curve in (curves.lower, curves.upper):
            gain = config.velocity_fraction**2 * curve.gain_rad_s2
            offset = config.velocity_fraction * max(0.0, -curve.offset_rad_s)
            braking[i] = min(braking[i], 0.5 * gain)
            drift_s[i] = max(drift_s[i], 2.0 * offset / gain if gain > 0.0 else np.inf)
            sooner = offset**2 / gain if gain > 0.0 else np.inf
            if curve is curves.lower:
                lower[i] = max(lower[i], curve.zero_rad + sooner)
            else:
                upper[i] = min(upper[i], curve.zero_rad - sooner)
    velocity, jerk = config.velocity_fraction * model.velocity, config.jerk_fraction * model.jerk
    return GuardLimits(lower, upper, velocity, acceleration, jerk, braking, drift_s)


class VelocityBounds:
    """Bounds on the next tick's joint velocities from the last ticks of the reference.

    Args:
        limits: the guard's.
        dt_s: duration of a tick.
        names: of the joints.
    """

    def __init__(self, limits: GuardLimits, dt_s: float, names: Sequence[str]) -> None:
        self._limits, self._dt_s, self._names = limits, dt_s, names
        a, j, dt = limits.acceleration, limits.jerk, dt_s
        braking = limits.greatest_braking
        with np.errstate(divide="ignore", invalid="ignore"):
            # Speed that taking back the greatest acceleration still adds.
            self._swing = np.minimum(np.where(j > 0.0, 0.5 * a * a / j, 0.0), 0.5 * limits.velocity)
            # Until a brake is at its full strength.
            self._delay_s = np.where(j > 0.0, (a + 0.5 * braking) / j, 0.0) + dt + limits.drift
        self._braking = _INSIDE * braking

    def at(self, wanted: Track) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Lower and upper bounds (n,), rad/s, and which limit each upper bound (0) and lower bound (1) is of, (2, n).

        Args:
            wanted: the last four positions of the reference.
        """
        limits, dt = self._limits, self._dt_s
        track = np.array(wanted[1:])
        v_max, a_max, j_max = limits.velocity, limits.acceleration, limits.jerk
        last = np.clip((track[2] - track[1]) / dt, -v_max, v_max)
        rate = np.clip((track[2] - 2.0 * track[1] + track[0]) / dt**2, -a_max, a_max)
        signs = np.array([[1.0], [-1.0]])
        room = np.stack([limits.upper - track[2], track[2] - limits.lower]).clip(0.0)
        # A stop from v takes v (v / 2a + delay).
        b, delay = self._braking, self._delay_s
        stopping = np.sqrt((b * delay) ** 2 + 2.0 * b * room) - b * delay
        last, rate = signs * last, signs * rate
        # As the guard judges: the velocity at the tick's end is v + 5/6 of what it has just grown, less a third of what
        # it grew before; the acceleration at its end goes on growing as it did.
        fastest = (v_max - self._swing + (5.0 * last + 2.0 * dt * rate) / 6.0) * (6.0 / 11.0)
        growing = last + 0.5 * dt * (_INSIDE * a_max + rate)
        jerking = last + dt * (rate + _INSIDE * dt * j_max)
        each = np.stack([stopping, fastest, growing, jerking])
        # What acceleration and jerk allow, they always do; what velocity and position would have besides comes second,
        # and has a reserve for it.
        most = np.minimum(growing, jerking)
        lower, upper = -most[1], most[0]
        slower = np.minimum(stopping, fastest)
        names = np.argmin(each, axis=0)
        return np.clip(-slower[1], lower, upper), np.clip(slower[0], lower, upper), names

    def intervention(
        self, joint: int, velocity: float, lower: FloatArray, upper: FloatArray, names: FloatArray
    ) -> Intervention:
        """What to say of the joint that is furthest past its bound."""
        is_up = velocity > upper[joint]
        kind = int(names[0 if is_up else 1, joint])
        limits = (self._limits.upper if is_up else self._limits.lower,)
        limit = (*limits, self._limits.velocity, self._limits.acceleration, self._limits.jerk)[kind][joint]
        bound = float(upper[joint] if is_up else lower[joint])
        return Intervention(
            _NAMES[kind],
            f"{self._names[joint]} wanted at {velocity:.3f} rad/s, {bound:.3f} rad/s is what its limit "
            f"of {limit:.3f} {_UNITS[kind]} allows",
        )
