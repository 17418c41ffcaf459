"""Figures about episodes: how sure a success rate is, how fast something came, how far something went."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

import numpy as np

from vla_ros.evaluation.differences import StampArray
from vla_ros.types import FloatArray


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a success rate. It stays inside [0, 1] and has a width at 0 and 100 % too.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.

    Returns:
        Lower and upper end; (0, 1) without trials.

    Raises:
        ValueError: unless 0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + 0.5 * confidence)
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    half = z * math.sqrt(rate * (1.0 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1.0 + z * z / trials
    # The ends at 0 and 1 are exact; rounding must not move them.
    lower = 0.0 if successes == 0 else (centre - half) / scale
    upper = 1.0 if successes == trials else (centre + half) / scale
    return lower, upper


def rate_hz(stamps_ns: Iterable[StampArray]) -> float:
    """Samples per second: steps over time within each stretch, without the pauses between them; NaN without a step."""
    steps, span_ns = 0, 0
    for stretch in stamps_ns:
        if len(stretch) > 1:
            steps += len(stretch) - 1
            span_ns += int(np.max(stretch)) - int(np.min(stretch))
    return 1e9 * steps / span_ns if span_ns > 0 else math.nan


def path_length_m(positions: FloatArray) -> float:
    """Length of the way through points (n, 3), m."""
    return float(np.sum(np.linalg.norm(np.diff(positions, axis=0), axis=1)))


def percentile(values: Iterable[float], percent: float) -> float:
    """A percentile, interpolated; NaN of nothing."""
    array = np.fromiter(values, dtype=np.float64)
    return float(np.percentile(array, percent)) if len(array) else math.nan
