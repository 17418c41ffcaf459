"""Fair timings: everything in the same run, tick by tick in random order, with the clock's own cost taken off.

Who runs first finds cold caches and who runs last a warm one; the order is drawn anew each tick, and an A/A control
says what is left of such effects.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.types import FloatArray

CLOCK = "clock"
# An A/A control outside of this range says that the machine was too uneven for the comparison beside it.
VOID_BELOW, VOID_ABOVE = 0.8, 1.25


@dataclass(frozen=True)
class Spread:
    """A figure of each block: its median over the blocks, and the quartiles."""

    median: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """The three as plain values."""
        return {"median": self.median, "low": self.low, "high": self.high}


def time_interleaved(
    calls: Mapping[str, Sequence[Callable[[int], object]]],
    rng: np.random.Generator,
    on_tick: Callable[[int], None] = lambda _tick: None,
) -> dict[str, FloatArray]:
    """Thread CPU time of each call at each tick.

    Args:
        calls: by name, what to call at each tick, with the tick's number.
        rng: draws the order within each tick.
        on_tick: called after each tick, untimed.

    Returns:
        (ticks,) seconds by name, not below 0, less the median that a call of nothing took around that tick; what those
        calls took is at `CLOCK`.
    """
    names = [*calls, CLOCK]
    ticks = len(next(iter(calls.values())))
    timed = [*calls.values(), [lambda _tick: None] * ticks]
    spent_ns = np.empty((len(timed), ticks), dtype=np.int64)
    orders = rng.permuted(np.tile(np.arange(len(timed)), (ticks, 1)), axis=1).tolist()
    clock = time.thread_time_ns
    for tick in range(ticks):
        for index in orders[tick]:
            call = timed[index][tick]
            start_ns = clock()
            call(tick)
            spent_ns[index, tick] = clock() - start_ns
        on_tick(tick)
    overhead_ns = _running_medians(spent_ns[-1].astype(np.float64), 500)
    spent_ns[:-1] = np.maximum(spent_ns[:-1] - overhead_ns, 0.0)
    return dict(zip(names, 1e-9 * spent_ns, strict=True))


def ratio_of_medians(numerator: FloatArray, denominator: FloatArray, blocks: int = 20) -> Spread:
    """Median over blocks of the ratio of the blocks' medians."""
    ratios = [
        float(np.median(above) / np.median(below))
        for above, below in zip(_blocks(numerator, blocks), _blocks(denominator, blocks), strict=True)
    ]
    low, median, high = np.percentile(ratios, [25.0, 50.0, 75.0])
    return Spread(float(median), float(low), float(high))


def a_a(values: FloatArray, rng: np.random.Generator, blocks: int = 20) -> Spread:
    """The control: one half of the values, drawn at random, over the other half."""
    is_first = rng.permuted(np.arange(len(values)) % 2 == 0)
    first, second = values[is_first], values[~is_first]
    return ratio_of_medians(first[: len(second)], second, blocks)


def is_void(control: float) -> bool:
    """Whether an A/A control says that a comparison is worth nothing."""
    return not VOID_BELOW <= control <= VOID_ABOVE


def _blocks(values: FloatArray, blocks: int) -> list[FloatArray]:
    return np.array_split(values, max(1, min(blocks, len(values))))


def _running_medians(values: FloatArray, length: int) -> FloatArray:
    """Of each stretch of about that length its median, repeated."""
    parts = np.array_split(values, max(1, len(values) // length))
    return np.concatenate([np.full(len(part), np.median(part)) for part in parts])
