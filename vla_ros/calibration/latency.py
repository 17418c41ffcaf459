"""How late an arm follows its commands, and how late images are stamped: two records of one motion, shifted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from vla_ros.calibration.verdict import CalibrateError, Check, at_most
from vla_ros.types import FloatArray

Indices = NDArray[np.intp]

_ARM_RANGE_S, _CAMERA_RANGE_S = (-0.05, 0.5), (-0.2, 0.8)
_STEP_S = 0.005
_BLOCKS = 4
# rad, of a joint whose motion tells anything.
_MOVING_RAD = 0.01
# Measured in the simulator: with less the shift itself is off, by more than it scatters.
_EXPLAINED = 0.9
_STD_LIMIT_MS = {"arm": 5.0, "camera": 10.0}
# m, of the tool's whole way.
_LEAST_WAY_M = 0.05


@dataclass(frozen=True)
class Latency:
    """By how much one record of a motion is later than another.

    Attributes:
        latency_s: the shift under which they lie upon each other.
        std_s: of that, from parts of the motion that were shifted by themselves.
        explained: part of the later record's variance that the shifted earlier one accounts for.
        samples: of the later record.
        checks: the verdict.
    """

    latency_s: float
    std_s: float
    explained: float
    samples: int
    checks: tuple[Check, ...]


def arm_latency(
    command_times_s: FloatArray, commands: FloatArray, state_times_s: FloatArray, states: FloatArray
) -> Latency:
    """How long after a command the arm is where it says: q(t) = command(t - latency), but for a constant a joint.

    Args:
        command_times_s: (n,) stamps of `joint_command`, rising.
        commands: (n, joints) rad.
        state_times_s: (m,) stamps of `joint_states`, rising.
        states: (m, joints) rad.

    Raises:
        CalibrateError: if the arm hardly moved, or the records don't overlap.
    """
    moving = np.ptp(commands, axis=0) > _MOVING_RAD if len(commands) else np.zeros(0, dtype=bool)
    if not moving.any():
        raise CalibrateError("arm latency", f"no joint was commanded by {_MOVING_RAD} rad", "did the arm move?")
    wanted, found = commands[:, moving], states[:, moving]

    def misses(latency_s: float, part: Indices) -> tuple[float, float]:
        times = state_times_s[part] - latency_s
        shifted = np.stack([np.interp(times, command_times_s, column) for column in wanted.T], axis=-1)
        gaps, seen = found[part] - shifted, found[part]
        return float(np.sum((gaps - gaps.mean(axis=0)) ** 2)), float(np.sum((seen - seen.mean(axis=0)) ** 2))

    inside = _inside(state_times_s, command_times_s, _ARM_RANGE_S)
    return _shift("arm", misses, inside, _ARM_RANGE_S)


def camera_latency(
    stamps_s: FloatArray, motion: FloatArray, state_times_s: FloatArray, positions_m: FloatArray
) -> Latency:
    """How much later an image's stamp is than its exposure: between two images the picture moves as much as the arm.

    The motion from one image to the next is a + b |p(t_k - latency) - p(t_(k-1) - latency)|, with the way over just
    the time between the two exposures, so that a low rate of images costs no precision beyond its number of samples.

    Args:
        stamps_s: (n,) of the images, rising.
        motion: (n - 1,) how much the picture moved from each to the next, pixels, not negative.
        state_times_s: (m,) stamps of `joint_states`, rising.
        positions_m: (m, 3) of the tcp, or of the link that carries the camera.

    Raises:
        CalibrateError: if the arm hardly moved, or the records don't overlap.
    """
    way_m = float(np.sum(np.linalg.norm(np.diff(positions_m, axis=0), axis=1))) if len(positions_m) > 1 else 0.0
    if way_m < _LEAST_WAY_M:
        raise CalibrateError("camera latency", f"the tool moved by {1e3 * way_m:.0f} mm alone", "did the arm move?")
    begins, ends, seen = stamps_s[:-1], stamps_s[1:], np.asarray(motion, dtype=np.float64)
    known = np.isfinite(seen)
    begins, ends, seen = begins[known], ends[known], seen[known]

    def at(times_s: FloatArray) -> FloatArray:
        return np.stack([np.interp(times_s, state_times_s, column) for column in positions_m.T], axis=-1)

    def misses(latency_s: float, part: Indices) -> tuple[float, float]:
        ways = np.linalg.norm(at(ends[part] - latency_s) - at(begins[part] - latency_s), axis=1)
        basis = np.stack([np.ones(len(ways)), ways], axis=-1)
        factors = np.linalg.lstsq(basis, seen[part], rcond=None)[0]
        spread = float(np.sum((seen[part] - seen[part].mean()) ** 2))
        if factors[1] <= 0.0:  # A picture that stands still while the arm moves is another motion.
            return spread, spread
        return float(np.sum((seen[part] - basis @ factors) ** 2)), spread

    inside = _inside(ends, state_times_s, _CAMERA_RANGE_S, begins)
    return _shift("camera", misses, inside, _CAMERA_RANGE_S)


def _inside(
    times_s: FloatArray, known_s: FloatArray, range_s: tuple[float, float], begins_s: FloatArray | None = None
) -> Indices:
    """Indices of the times that are known whatever the shift."""
    if not len(known_s) or not len(times_s):
        return np.zeros(0, dtype=np.intp)
    first = times_s if begins_s is None else begins_s
    return np.flatnonzero((first - range_s[1] >= known_s[0]) & (times_s - range_s[0] <= known_s[-1]))


def _shift(
    what: str,
    misses: Callable[[float, Indices], tuple[float, float]],
    inside: Indices,
    range_s: tuple[float, float],
) -> Latency:
    """The shift with the least squares: on a grid, then by Brent's method about its best point."""
    if len(inside) < 10 * _BLOCKS:
        problem = f"{len(inside)} samples of one motion in both records (limit {10 * _BLOCKS})"
        raise CalibrateError(f"{what} latency", problem, "move for longer; are all stamps of one clock?")

    def best(part: Indices, low_s: float, high_s: float) -> float:
        grid = np.arange(low_s, high_s + 0.5 * _STEP_S, _STEP_S)
        place = float(grid[int(np.argmin([misses(shift, part)[0] for shift in grid]))])
        bounds = (place - _STEP_S, place + _STEP_S)
        found = minimize_scalar(lambda x: misses(x, part)[0], bounds=bounds, method="bounded", options={"xatol": 1e-5})
        return float(found.x)

    latency_s = best(inside, *range_s)
    near = (max(range_s[0], latency_s - 0.1), min(range_s[1], latency_s + 0.1))
    parts = [best(part, *near) for part in np.array_split(inside, _BLOCKS)]
    std_s = float(np.std(parts, ddof=1) / np.sqrt(_BLOCKS))
    left, spread = misses(latency_s, inside)
    explained = 1.0 - left / spread if spread > 0.0 else 0.0
    checks = (
        Check("motion_seen", explained >= _EXPLAINED, _told(what, explained)),
        at_most(
            "std", 1e3 * std_s, _STD_LIMIT_MS[what], f"{what} latency {1e3 * latency_s:.1f} ms, known to", "ms",
            "move for longer, or further",
        ),
        Check(
            "within_range",
            range_s[0] + 0.01 < latency_s < range_s[1] - 0.01,
            f"{1e3 * latency_s:.0f} ms lies in {1e3 * range_s[0]:.0f} .. {1e3 * range_s[1]:.0f} ms, which were tried; "
            "at their ends it is none",
        ),
    )  # fmt: skip
    return Latency(latency_s, std_s, explained, len(inside), checks)


def _told(what: str, explained: float) -> str:
    text = f"the arm's motion accounts for {100 * explained:.0f} % of what was seen (least {100 * _EXPLAINED:.0f} %)"
    if explained >= _EXPLAINED:
        return text
    mend = "is the arm in the image, and nothing else moving? a board on it helps (--board)"
    return f"{text}; {mend if what == 'camera' else 'does the arm follow its commands?'}"
