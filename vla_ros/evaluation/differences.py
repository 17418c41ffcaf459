"""Divided differences: what samples at uneven times say of the derivatives of what was sampled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_ros.types import FloatArray

StampArray = NDArray[np.int64]
"""(n,) times in ns. Kept whole: as float64 seconds since 1970 they would be a quarter of a microsecond coarse."""


def mean_derivatives(stamps_ns: StampArray, values: FloatArray, order: int) -> FloatArray:
    """Weighted averages of a derivative over each `order + 1` consecutive samples.

    `order!` times the divided difference is the mean of the derivative under a B-spline over the samples' span, so it
    lies between the derivative's least and greatest value there, whatever the spacing.

    Source: C. de Boor, A Practical Guide to Splines, chapter I (ii) and chapter IX (iii).

    Args:
        stamps_ns: (n,) increasing.
        values: (n, d).
        order: 1 for velocities, 2 for accelerations, 3 for jerks.

    Returns:
        (n - order, d), per s^order; row i is of samples i to i + order. NaN where stamps don't increase.
    """
    return _difference(stamps_ns, values, order, sign=-1.0)


def rounding_bounds(stamps_ns: StampArray, quantum: float, order: int) -> FloatArray:
    """How far `mean_derivatives` may be off, because each value is off by up to half a quantum.

    With steps of h this is 2^order quantum / (2 h^order).

    Returns:
        (n - order, 1), in units of the quantum per s^order.
    """
    return _difference(stamps_ns, np.full((len(stamps_ns), 1), 0.5 * quantum), order, sign=1.0)


def increasing_windows(stamps_ns: StampArray, order: int) -> NDArray[np.bool_]:
    """(n - order,) whether the stamps of samples i to i + order increase throughout."""
    backward = np.concatenate(([0], np.cumsum(np.diff(stamps_ns) <= 0)))
    is_increasing: NDArray[np.bool_] = backward[order:] == backward[: max(0, len(backward) - order)]
    return is_increasing


def _difference(stamps_ns: StampArray, values: FloatArray, order: int, sign: float) -> FloatArray:
    """Neville's recursion. The coefficients alternate in sign, so with `sign=1` it sums their absolute values."""
    result = np.asarray(values, dtype=np.float64)
    count = len(stamps_ns)
    for m in range(1, order + 1):
        span_s = 1e-9 * (stamps_ns[m:] - stamps_ns[: max(0, count - m)])
        with np.errstate(divide="ignore", invalid="ignore"):
            result = m * (result[1:] + sign * result[:-1]) / span_s[:, None]
    result[~increasing_windows(stamps_ns, order)] = np.nan
    return result
