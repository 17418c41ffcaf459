"""How the arm closes an error that one tick can't: each direction as fast as its joints can brake, singular or not.

The singular value decomposition of the Jacobian gives the tool six directions u, each with joints v that move it and a
singular value s, the tool's way per rad. Along a weak one the tool's way bends: after x rad it is s x + k x^2 / 2, with
a curvature k. Where what is wanted can be had, the root of that parabola is the way to it, even from the very
singularity, where the first order knows none. Where it can't, the summit is as near as the arm comes. Either way it is
known how far the joints have to go, so they come to rest there; a first-order solution hunts about the summit, the
faster the less it is damped.

Turning the joints v also turns the lost direction u away, so that other joints come to move the tool along it. What
that brings is of second order, too, and is added to the curvature: where t is the change of u J with x, the joints of
the strong directions make |t|^2 / s^2 of it, each with its own s, times what is wanted.

Source: Nenchev, Tsumaki and Uchiyama, "Singularity-consistent parameterization of robot motion and control", IJRR 2000
(motion along the null direction at a singularity); the parabola is the Taylor series of the tool's way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from vla_ros.robots.config import ToolLimits
from vla_ros.types import FloatArray

# rad, between the two postures of which the difference of Jacobians is the curvature.
_PROBE_RAD = 1e-4
# m per rad^2: less curvature leaves the first order as it is.
_FLAT = 1e-3
# m^2 per rad^2, square of a slope that is none.
_LEVEL = 1e-18
# A root on either side is as good as the other while s is less than this share of the slope at the root.
_EVEN = 0.05
# Away from singularities a way may end faster; and that is from this many times the weak singular value on.
_BRISK_S = 0.016
_BESIDE = 2.0
# Share of the joints' jerk that taking back an acceleration counts on.
_JERK_SHARE = 0.5
# Time constant of the last bit of a way; with less, what the tool's bend does to the others shows as chatter.
_SETTLING_S = 0.05
# m and rad, up to which it is believed how much that brings.
_BELIEVED_M = 0.1
# m and rad: for less than this along a direction that is lost, no joints are turned so that it is found again.
_WORTH_TURNING_M = 0.005


class Lead(Protocol):
    """Makes a least-squares problem of an error that one tick can't close."""

    def problem(
        self, q: FloatArray, J: FloatArray, error: FloatArray, twist: FloatArray, posture: FloatArray, now: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Jacobian (6, n) and twist (6,), in tcp axes, to be asked of the solver.

        Args:
            q: (n,) rad.
            J: (6, n) at q, in tcp axes.
            error: (6,) from the tcp to the target at the end of the tick, m and rad in tcp axes.
            twist: (6,) of the target itself, m/s and rad/s in tcp axes.
            posture: (n,) rad/s, what the joints would rather do.
            now: (n,) rad/s, what they do.
        """


class ShortenedTwist:
    """For the damped solver: the whole error in one tick, but no faster than the tool may ever be.

    Args:
        tool: its limits.
        dt_s: duration of a tick.

    Source: Buss and Kim, "Selectively Damped Least Squares for Inverse Kinematics", J. Graphics Tools 2005, 3 (the
    clamping of targets).
    """

    def __init__(self, tool: ToolLimits, dt_s: float) -> None:
        self._tool, self._dt_s = tool, dt_s

    def problem(
        self, q: FloatArray, J: FloatArray, error: FloatArray, twist: FloatArray, posture: FloatArray, now: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """See Lead."""
        twist = error / self._dt_s
        for rows, share in zip((slice(0, 3), slice(3, 6)), _permitted(twist, self._tool), strict=True):
            twist[rows] *= share
        return J, twist


class WayBack:
    """For the box-constrained solver: each direction at a speed from which its joints can brake where their way ends.

    Weak singular values are raised, so that the solver takes the second-order steps as they are. Where the tool would
    be faster than it may ever be, all of the way is gone more slowly.

    Args:
        jacobian: q (n,) -> (6, n) in tcp axes.
        weak_below: singular value, m per rad, below which a direction is taken to second order.
        acceleration: (n,) rad/s^2 that braking at the end of the way may count on.
        jerk: (n,) rad/s^3.
        tool: its limits.
        dt_s: duration of a tick.
    """

    def __init__(
        self,
        jacobian: Callable[[FloatArray], FloatArray],
        weak_below: float,
        acceleration: FloatArray,
        jerk: FloatArray,
        tool: ToolLimits,
        dt_s: float,
    ) -> None:
        self._jacobian, self._weak_below, self._tool, self._dt_s = jacobian, weak_below, tool, dt_s
        self._acceleration, self._jerk = acceleration, jerk

    def problem(
        self, q: FloatArray, J: FloatArray, error: FloatArray, twist: FloatArray, posture: FloatArray, now: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """See Lead. Of two equal ways out of a singularity an arm takes the one it is on, or that its posture likes."""
        left, sigma, right = np.linalg.svd(J, full_matrices=False)
        rest = ((error - self._dt_s * twist) @ left).tolist()
        own, doing = (twist @ left).tolist(), (right @ now).tolist()
        # rad/s^2 along each v, at which no joint is past its acceleration.
        size = np.abs(right)
        braking = 1.0 / (size / self._acceleration).max(axis=1)
        settling_s = _BRISK_S if sigma[-1] >= _BESIDE * self._weak_below else _SETTLING_S
        per_jerk = np.maximum((size / self._jerk).max(axis=1), 1e-12)
        delays = (1.5 * per_jerk * braking + settling_s).tolist()
        speeds, weights = [0.0] * 6, sigma.tolist()
        turning = np.flatnonzero(sigma >= self._weak_below)
        for i, s in enumerate(weights):
            b, delay = float(braking[i]), delays[i]
            way, slope = rest[i] / s if s > 0.0 else 0.0, s
            if s < self._weak_below:
                v = right[i]
                bend = right @ (left[:, i] @ (self._jacobian(q + _PROBE_RAD * v) - J)) / _PROBE_RAD
                k = float(bend[i])
                if abs(rest[i]) > _WORTH_TURNING_M:
                    # Joints of strong directions come to move the tool along u, too, once it has turned.
                    turn = bend[turning] / sigma[turning]
                    k += max(-_BELIEVED_M, min(_BELIEVED_M, rest[i])) * float(turn @ turn)
                # An arm that is on its way out goes on, unless its posture is far away on the other side.
                way, slope = _second_order(rest[i], s, k, doing[i] + float(posture @ v))
                weights[i] = self._weak_below
            closing = b * (math.sqrt(delay * delay + 2.0 * abs(way) / b) - delay)
            asked = math.copysign(closing, way) + (own[i] / slope if slope != 0.0 else 0.0)
            # An acceleration takes its time to be taken back: with more than this the speed would be overshot.
            change = asked - doing[i]
            most = self._dt_s * math.sqrt(2.0 * _JERK_SHARE * abs(change) / float(per_jerk[i]))
            speeds[i] = asked if abs(change) <= most else doing[i] + math.copysign(most, change)
        raised, going = np.array(weights), np.array(speeds)
        going *= min(_permitted(left @ (sigma * going), self._tool))
        return (left * raised) @ right, left @ (raised * going)


def _permitted(twist: FloatArray, tool: ToolLimits) -> tuple[float, float]:
    """Shares, at most 1, with which the two parts of a twist (6,) are no faster than the tool may ever be."""
    linear, angular = math.hypot(*twist[:3]), math.hypot(*twist[3:])
    return (
        tool.velocity_m_s / linear if linear > tool.velocity_m_s else 1.0,
        tool.angular_velocity_rad_s / angular if angular > tool.angular_velocity_rad_s else 1.0,
    )


def _second_order(asked: float, s: float, k: float, liking: float) -> tuple[float, float]:
    """rad to the root of asked = s x + k x^2 / 2, and the slope there; or to the parabola's nearest point, and 0."""
    if abs(k) < _FLAT:
        return (asked / s, s) if s > _FLAT else (0.0, 0.0)
    inside = s * s + 2.0 * k * asked
    if inside <= _LEVEL:
        return -s / k, 0.0
    slope = math.sqrt(inside)
    way = 2.0 * asked / (s + slope)
    if s < _EVEN * slope and liking * way < 0.0:
        return -(s + slope) / k, -slope
    return way, slope
