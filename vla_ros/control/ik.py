"""Differential inverse kinematics: a wanted tool twist to joint velocities, by two solvers behind one signature.

A solver is asked for the velocities it would take were there no bounds, and only where those are past a bound for the
best ones inside.
"""

from __future__ import annotations

from typing import Protocol

import daqp
import numpy as np
from scipy.linalg.lapack import dposv

from vla_ros.types import FloatArray

# What daqp has for "no bound".
_UNBOUNDED = 1e30
# Half-spaces that the program has room for; unused ones bind nothing.
MAX_ROWS = 4
# m^2 per rad^2, weight of staying near the unbounded solution.
_CLOSENESS = 0.005


class VelocitySolver(Protocol):
    """Least squares between the twist that the tool is to have and what the joints would rather do.

    Attributes:
        posture_weight: what the posture weighs; it is given times this, since who gives it has it so for nothing.
    """

    posture_weight: float

    def free(self, J: FloatArray, twist: FloatArray, posture: FloatArray) -> FloatArray:
        """Joint velocities (n,), rad/s, without bounds.

        Args:
            J: (6, n) Jacobian, rows linear then angular.
            twist: (6,) wanted velocity in the Jacobian's axes, m/s and rad/s.
            posture: (n,) rad/s, wanted where the twist leaves a choice, times `posture_weight`.
        """

    def bounded(
        self, lower: FloatArray, upper: FloatArray, rows: FloatArray | None = None, least: FloatArray | None = None
    ) -> FloatArray:
        """The same question as asked of `free` last, with lower <= velocities <= upper and rows @ velocities >= least.

        Args:
            lower: (n,) rad/s.
            upper: (n,) rad/s, at least `lower`.
            rows: (k, n), k at most MAX_ROWS; None for none.
            least: (k,).
        """


class QpSolver:
    """Box-constrained least squares with the damping in the cost: at a bound the other joints take over.

    minimise |J v - twist|^2 + damping^2 |v - posture|^2. The damping is small, since the bounds keep the joints slow;
    it settles what the twist leaves open, and there the posture is followed. At a bound a little of the distance to the
    unbounded solution v0, 0.005 |v - v0|^2, is added: else redundant joints would leap to make up for what is a few
    micrometres in a tick.

    Args:
        joints: how many.
        damping: m per rad.

    Source: Escande, Mansard and Wieber, "Hierarchical quadratic programming", IJRR 2014 (inequalities in inverse
    kinematics); Arnstroem, Bemporad and Axehill, "A Dual Active-Set Solver for Embedded Quadratic Programming Using
    Recursive LDL' Updates", IEEE TAC 2022 (daqp).
    """

    def __init__(self, joints: int, damping: float) -> None:
        self.posture_weight = damping**2
        self._damping2_eye, self._closeness_eye = damping**2 * np.eye(joints), _CLOSENESS * np.eye(joints)
        self._H, self._f, self._velocities = np.eye(joints), np.zeros(joints), np.zeros(joints)
        self._rows = np.zeros((MAX_ROWS, joints))
        # The box comes first, then the rows.
        self._lower, self._upper = np.empty(joints + MAX_ROWS), np.full(joints + MAX_ROWS, _UNBOUNDED)
        self._boxed, self._constrained = daqp.Model(), daqp.Model()
        # Given with every update, so that no solution depends on what was solved before.
        self._sense = sense = np.zeros(joints + MAX_ROWS, dtype=np.int32)
        free = np.full(joints, _UNBOUNDED)
        self._boxed.setup(self._H, self._f, np.zeros((0, joints)), free, -free, sense[:joints])
        self._constrained.setup(self._H, self._f, self._rows, self._upper, -self._upper, sense)

    def free(self, J: FloatArray, twist: FloatArray, posture: FloatArray) -> FloatArray:
        """See VelocitySolver."""
        # For matrices as small as these, `dot` takes half the time of `@`.
        self._H, self._f = H, f = J.T.dot(J), twist.dot(J)
        H += self._damping2_eye
        f += posture
        self._velocities = velocities = dposv(H, f)[1]
        return velocities

    def bounded(
        self, lower: FloatArray, upper: FloatArray, rows: FloatArray | None = None, least: FloatArray | None = None
    ) -> FloatArray:
        """See VelocitySolver. Where rows and box leave nothing, the rows give way."""
        # The solver's tolerance is an absolute one: bounds of a tick's way, 1e-4 rad and less, are brought to about 1.
        scale = 1.0 / max(float(upper.max()), -float(lower.min()), 1e-12)
        H, f = self._H + self._closeness_eye, -scale * (self._f + _CLOSENESS * self._velocities)
        joints = len(lower)
        if rows is not None and least is not None and len(rows):
            count = len(rows)
            self._rows[:count], self._rows[count:] = rows, 0.0
            self._lower[:joints], self._upper[:joints] = scale * lower, scale * upper
            self._lower[joints : joints + count], self._lower[joints + count :] = scale * least, -_UNBOUNDED
            self._constrained.update(H=H, f=f, A=self._rows, bupper=self._upper, blower=self._lower, sense=self._sense)
            velocities, _, flag, _ = self._constrained.solve()
            if flag > 0:
                return np.clip(velocities / scale, lower, upper)
        self._boxed.update(H=H, f=f, bupper=scale * upper, blower=scale * lower, sense=self._sense[:joints])
        velocities, _, flag, _ = self._boxed.solve()
        if flag <= 0:
            return np.clip(np.zeros_like(lower), lower, upper)
        return np.clip(velocities / scale, lower, upper)


class DampedSolver:
    """Least squares, damped in the weak directions only.

    Every singular direction keeps its exact inverse until its singular value falls below the threshold; from there the
    damping grows smoothly to its full value, so speed along a lost direction fades while the others stay exact. The
    posture is followed in the null space only. Velocities past a bound are all shortened alike, so the tool keeps its
    direction.

    Args:
        damping: at a singular value of 0, m per rad.
        sigma_threshold: singular value at which damping begins.

    Source: Nakamura and Hanafusa, J. Dyn. Sys. Meas. Control 1986 (damped least squares); Maciejewski and Klein,
    J. Robotic Systems 1988 (numerical filtering: damping of single directions).
    """

    def __init__(self, damping: float, sigma_threshold: float) -> None:
        self.posture_weight = 1.0
        self._damping, self._threshold = damping, sigma_threshold
        self._velocities = np.zeros(0)

    def free(self, J: FloatArray, twist: FloatArray, posture: FloatArray) -> FloatArray:
        """See VelocitySolver."""
        left, sigma, right = np.linalg.svd(J, full_matrices=False)
        weakness = np.clip(1.0 - sigma / self._threshold, 0.0, 1.0)
        inverse = sigma / (sigma**2 + (weakness * self._damping) ** 2 + 1e-12)
        task = right.T @ (inverse * (left.T @ twist))
        self._velocities = task + posture - right.T @ (right @ posture)
        return self._velocities

    def bounded(
        self, lower: FloatArray, upper: FloatArray, rows: FloatArray | None = None, least: FloatArray | None = None
    ) -> FloatArray:
        """See VelocitySolver."""
        velocities = self._velocities
        bound = np.where(velocities > 0.0, upper, lower)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.where(np.abs(velocities) > 0.0, bound / velocities, 1.0)
        velocities = min(1.0, max(0.0, float(shares.min()))) * velocities
        if rows is not None and least is not None and np.any(rows @ velocities < least):
            velocities = np.zeros_like(velocities)
        return np.clip(velocities, lower, upper)
