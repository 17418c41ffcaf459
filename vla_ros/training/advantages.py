"""How good each step of an episode was: values, advantages, the step at which it failed, and weights made of them.

A value lies between 0, which leads nowhere, and 1, done. What a critic says of each frame rises as the task comes
forward; where it drops, something went wrong. Everything here is of one episode of T steps, unless it says otherwise.

Source: pi*0.6 (Recap), arXiv 2511.14759 (values in steps to success, n-step advantages, the better ones marked); Peng
et al., Advantage-Weighted Regression, arXiv 1910.00177 (exponential weights); values as progress: Ma et al., arXiv
2411.04549.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_ros.types import FloatArray

BoolArray = NDArray[np.bool_]


def progress_targets(
    lengths: Sequence[int],
    outcomes: Sequence[bool | None],
    kind: Literal["time", "share"] = "time",
    floor: float = 0.5,
    longest: int | None = None,
) -> list[FloatArray]:
    """What a critic should say of each step of some episodes.

    A success rises to 1 at its end. What fails is worth 0 from its first step on: a critic that can't know yet then
    says how likely that is, and falls when it sees it.

    Args:
        lengths: T of each, at least 1.
        outcomes: whether each succeeded; None where nobody said, which gives NaN.
        kind: `time` counts the steps that are left to success, so that a slow way is worth less; `share` is the share
            of the episode's own steps that is done.
        floor: value of the first step of the longest success, in [0, 1): so much a failure costs at least, however
            early it comes. With 0 values are plain progress, and an early failure is hard to see in them.
        longest: steps of the longest success; None for the longest of these.

    Returns:
        An array (T,) for each.
    """
    if not 0.0 <= floor < 1.0:
        raise ValueError(f"floor {floor} isn't in [0, 1)")
    known = [length for length, outcome in zip(lengths, outcomes, strict=True) if outcome]
    most = max(known, default=1) if longest is None else longest
    targets = []
    for length, outcome in zip(lengths, outcomes, strict=True):
        left = np.arange(length - 1, -1, -1, dtype=np.float64)
        share = np.clip(1.0 - left / max((most if kind == "time" else length) - 1, 1), 0.0, 1.0)
        worth = floor + (1.0 - floor) * share if outcome else np.zeros(length)
        targets.append(np.full(length, np.nan) if outcome is None else worth)
    return targets


def advantages(values: ArrayLike, returns: ArrayLike, n: int) -> FloatArray:
    """How much better the next n steps went than the critic expected.

    A_t = (R_t - R_{t+n}) + V_{t+n} - V_t, and R_t - V_t where the episode ends before: R_t - R_{t+n} is what the steps
    themselves brought, which for `progress_targets` is the time that they took.

    Args:
        values: V, (T,), the critic's.
        returns: R, (T,), `progress_targets`.
        n: steps to look ahead, such as a chunk's; at least 1.

    Returns:
        (T,).
    """
    if n < 1:
        raise ValueError(f"n {n} is below 1")
    v, r = np.asarray(values, dtype=np.float64), np.asarray(returns, dtype=np.float64)
    found = r - v
    found[:-n] += v[n:] - r[n:]
    return found


def exponential_weights(advantage: ArrayLike, temperature: float = 0.1, largest: float = 20.0) -> FloatArray:
    """exp(A / temperature), at most `largest`. Source: arXiv 1910.00177."""
    if not temperature > 0.0:
        raise ValueError(f"temperature {temperature} isn't positive")
    exponent = np.asarray(advantage, dtype=np.float64) / temperature
    return np.exp(np.minimum(exponent, np.log(largest)))


def are_good(advantage: ArrayLike, share: float = 0.3) -> BoolArray:
    """Which steps of all episodes together are among the best, of the given share."""
    if not 0.0 < share < 1.0:
        raise ValueError(f"share {share} isn't between 0 and 1")
    found = np.asarray(advantage, dtype=np.float64)
    return found > np.quantile(found[np.isfinite(found)], 1.0 - share)


def failing_step(values: ArrayLike, window: int = 5, least_drop: float = 0.2) -> int | None:
    """The step at which a critic's values fall the most.

    Args:
        values: (T,).
        window: steps that are averaged on both sides, fewer at the ends.
        least_drop: of the averages; what falls less is noise.

    Returns:
        The first step of those after the drop, None if there is no such drop.
    """
    v = np.asarray(values, dtype=np.float64)
    if len(v) < 2:
        return None
    before = np.array([v[max(0, t - window) : t].mean() for t in range(1, len(v))])
    after = np.array([v[t : t + window].mean() for t in range(1, len(v))])
    drop = before - after
    worst = int(drop.argmax())
    return worst + 1 if drop[worst] >= least_drop else None


def is_before_failure(values: ArrayLike, horizon: int, window: int = 5, least_drop: float = 0.2) -> BoolArray:
    """(T,) whether a chunk of that many steps, begun at each step, ends before the failing step; all if none failed."""
    length = len(np.asarray(values))
    step = failing_step(values, window, least_drop)
    return np.arange(length) + horizon <= (length + horizon if step is None else step)
