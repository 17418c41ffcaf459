"""Whether joint commands kept the limits, judged from their positions and nominal times alone, trusting no sender.

A mean of a derivative can't exceed a limit that the derivative keeps, so lost ticks never make a violation: what is
found here did happen. The times have to be the ticks' own: 10 us of jitter fake eight times the jerk limit of a Panda.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_ros.evaluation.differences import StampArray, increasing_windows, mean_derivatives, rounding_bounds
from vla_ros.types import FloatArray

Quantity = Literal["position", "velocity", "acceleration", "jerk"]

UNITS: dict[Quantity, str] = {"position": "rad", "velocity": "rad/s", "acceleration": "rad/s^2", "jerk": "rad/s^3"}
RELATIVE_TOLERANCE = 1e-4
POSITION_QUANTUM_RAD = 1e-12  # Positions of a few rad as float64, with the rounding of what computed them.
GAP_RATIO = 1.5  # A step longer than this many median steps is a gap.


class JointLimits(Protocol):
    """The limits of `RobotModel`.

    Where it also has `velocity_bounds`, (m, n) rad -> lower (at most 0) and upper (at least 0) of (m, n) rad/s each,
    velocities are held against those too.
    """

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def lower(self) -> FloatArray: ...
    @property
    def upper(self) -> FloatArray: ...
    @property
    def velocity(self) -> FloatArray: ...
    @property
    def acceleration(self) -> FloatArray: ...
    @property
    def jerk(self) -> FloatArray: ...


@dataclass(frozen=True)
class Violation:
    """One value past a limit.

    Attributes:
        quantity: what is limited.
        joint: exact name.
        time_s: since the first tick; of a derivative, the last of the ticks that show it.
        value: in rad/s^m, m the order.
        limit: the limit passed, in the same unit; with the sign of the side.
    """

    quantity: Quantity
    joint: str
    time_s: float
    value: float
    limit: float

    def __str__(self) -> str:
        unit = UNITS[self.quantity]
        return (
            f"{self.quantity} of {self.joint} is {self.value:.6g} {unit} at {self.time_s:.3f} s, limit {self.limit:g}"
        )


@dataclass(frozen=True)
class LimitReport:
    """What `judge_limits` found. A peak is NaN where there were too few ticks to see any, infinite past a limit of 0.

    Attributes:
        joint_names: (j).
        ticks: how many were received.
        span_s: from the first tick to the last.
        peak_velocity_fractions: (j) greatest absolute value over the limit.
        peak_acceleration_fractions: likewise.
        peak_jerk_fractions: likewise.
        violations: how many values were past each limit, over all joints.
        first_violations: the first of each quantity that has any.
        duplicate_stamps: ticks with the stamp of the tick before.
        backward_stamps: ticks older than the tick before.
        gaps: steps longer than 1.5 median ones.
        longest_step_s: between two ticks; 0 with fewer than two.
    """

    joint_names: tuple[str, ...]
    ticks: int
    span_s: float
    peak_velocity_fractions: tuple[float, ...]
    peak_acceleration_fractions: tuple[float, ...]
    peak_jerk_fractions: tuple[float, ...]
    violations: dict[Quantity, int]
    first_violations: dict[Quantity, Violation]
    duplicate_stamps: int
    backward_stamps: int
    gaps: int
    longest_step_s: float

    @property
    def peak_velocity_fraction(self) -> float:
        return max(self.peak_velocity_fractions)

    @property
    def peak_acceleration_fraction(self) -> float:
        return max(self.peak_acceleration_fractions)

    @property
    def peak_jerk_fraction(self) -> float:
        return max(self.peak_jerk_fractions)

    @property
    def violation_count(self) -> int:
        """Values past limits, and stamps that don't increase: around those, limits can't be judged."""
        return sum(self.violations.values()) + self.duplicate_stamps + self.backward_stamps

    @property
    def is_clean(self) -> bool:
        return self.violation_count == 0


def judge_limits(
    stamps_ns: StampArray,
    positions: FloatArray,
    limits: JointLimits,
    position_quantum_rad: float = POSITION_QUANTUM_RAD,
) -> LimitReport:
    """Judges commands in the order in which they were received.

    Derivatives may be past a limit by 1e-4 of it and by what rounding of the positions makes (`rounding_bounds`).
    Velocity bounds that depend on the position are taken where they are looser of a step's two ends: such a bound falls
    towards the position limit it protects, so nowhere between the two ends was more allowed, and a mean velocity that
    is past it can't have been within the bounds all the way. A value that isn't a number is past every limit. A tick
    with the stamp of the one before is left out; no derivative is taken across a stamp that goes back.

    Args:
        stamps_ns: (n,) nominal times of the ticks.
        positions: (n, j) rad, in the order of `limits.names`.
        limits: such as a RobotModel.
        position_quantum_rad: rounding of the positions, peak to peak.

    Raises:
        ValueError: if the shapes don't fit each other.
    """
    stamps_ns, positions = np.asarray(stamps_ns, dtype=np.int64), np.asarray(positions, dtype=np.float64)
    names = tuple(limits.names)
    if positions.shape != (len(stamps_ns), len(names)):
        raise ValueError(f"positions are {positions.shape}, stamps and joint names need {(len(stamps_ns), len(names))}")
    steps_ns = np.diff(stamps_ns)
    is_new = np.ones(len(stamps_ns), dtype=bool)
    is_new[1:] = steps_ns != 0
    kept_ns, kept = stamps_ns[is_new], positions[is_new]

    findings = [_judge_positions(kept, limits, 0.5 * position_quantum_rad)]
    orders: tuple[tuple[Quantity, tuple[FloatArray, FloatArray]], ...] = (
        ("velocity", _velocity_bounds(kept, limits)),
        ("acceleration", (-limits.acceleration, limits.acceleration)),
        ("jerk", (-limits.jerk, limits.jerk)),
    )
    for order, (quantity, bounds) in enumerate(orders, start=1):
        findings.append(_judge_derivative(quantity, order, kept_ns, kept, bounds, position_quantum_rad))
    peaks = [finding.peak_fractions for finding in findings]
    forward_ns = steps_ns[steps_ns > 0]
    return LimitReport(
        joint_names=names,
        ticks=len(stamps_ns),
        span_s=1e-9 * float(stamps_ns.max() - stamps_ns.min()) if len(stamps_ns) else 0.0,
        peak_velocity_fractions=peaks[1],
        peak_acceleration_fractions=peaks[2],
        peak_jerk_fractions=peaks[3],
        violations={finding.quantity: int(np.count_nonzero(finding.is_past)) for finding in findings},
        first_violations={
            finding.quantity: finding.first(names, kept_ns) for finding in findings if np.any(finding.is_past)
        },
        duplicate_stamps=int(np.count_nonzero(steps_ns == 0)),
        backward_stamps=int(np.count_nonzero(steps_ns < 0)),
        gaps=int(np.count_nonzero(forward_ns > GAP_RATIO * np.median(forward_ns))) if len(forward_ns) else 0,
        longest_step_s=1e-9 * float(forward_ns.max()) if len(forward_ns) else 0.0,
    )


@dataclass(frozen=True)
class _Finding:
    """One quantity, judged: (n - order, j) values, the limits they were held against, and which are past them."""

    quantity: Quantity
    value: FloatArray
    limit: FloatArray
    is_past: NDArray[np.bool_]
    peak_fractions: tuple[float, ...] = ()

    def first(self, names: Sequence[str], stamps_ns: StampArray) -> Violation:
        row, joint = (int(index) for index in np.argwhere(self.is_past)[0])
        tick = row + len(stamps_ns) - len(self.value)
        time_s = 1e-9 * float(stamps_ns[tick] - stamps_ns[0])
        return Violation(
            self.quantity, names[joint], time_s, float(self.value[row, joint]), float(self.limit[row, joint])
        )


def _judge_positions(positions: FloatArray, limits: JointLimits, slack_rad: float) -> _Finding:
    is_past = ~((positions >= limits.lower - slack_rad) & (positions <= limits.upper + slack_rad))
    return _Finding("position", positions, np.where(positions < limits.lower, limits.lower, limits.upper), is_past)


def _velocity_bounds(positions: FloatArray, limits: JointLimits) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bound of the mean velocity of each step, (n,) or (ticks - 1, n)."""
    at = getattr(limits, "velocity_bounds", None)
    if at is None or len(positions) < 2:
        return -limits.velocity, limits.velocity
    # A bound where the position isn't a number is none; that the position isn't is a violation of its own.
    lower, upper = (np.asarray(side, dtype=np.float64) for side in at(np.nan_to_num(positions, posinf=0.0, neginf=0.0)))
    lower = np.maximum(np.minimum(lower[:-1], lower[1:]), -limits.velocity)
    return lower, np.minimum(np.maximum(upper[:-1], upper[1:]), limits.velocity)


def _judge_derivative(
    quantity: Quantity,
    order: int,
    stamps_ns: StampArray,
    positions: FloatArray,
    bounds: tuple[FloatArray, FloatArray],
    quantum_rad: float,
) -> _Finding:
    is_judged = increasing_windows(stamps_ns, order)
    value = mean_derivatives(stamps_ns, positions, order)
    # The bound of the side on which the value is.
    limit = np.where(value < 0.0, *(np.broadcast_to(bound, value.shape) for bound in bounds))
    allowed = np.abs(limit) * (1.0 + RELATIVE_TOLERANCE) + rounding_bounds(stamps_ns, quantum_rad, order)
    is_past = is_judged[:, None] & ~(np.abs(value) <= allowed)
    peaks = _peak_fractions(value[is_judged], limit[is_judged], is_past[is_judged])
    return _Finding(quantity, value, limit, is_past, peaks)


def _peak_fractions(value: FloatArray, limit: FloatArray, is_past: NDArray[np.bool_]) -> tuple[float, ...]:
    if not len(value):
        return (float("nan"),) * value.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction = value / limit
    # Not finite: a position that wasn't, or a limit of 0, within which rounding is nothing.
    fraction = np.where(np.isfinite(fraction), fraction, np.where(is_past, np.inf, 0.0))
    return tuple(float(peak) for peak in fraction.max(axis=0))
