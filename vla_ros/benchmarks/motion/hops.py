"""How long the motion path takes through ROS, over a bare relay: p99s of interleaved blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_ros.benchmarks.options import Options, Result
from vla_ros.benchmarks.timing import VOID_ABOVE, VOID_BELOW, is_void
from vla_ros.errors import VlaRosError
from vla_ros.launching.environment import ros_for
from vla_ros.types import FloatArray

# With fewer trials a p99 is little else than the greatest.
_BLOCK_TRIALS = 100
# Subscriptions are best effort, so an overloaded machine loses messages; with more than this nothing is to be had.
_MOST_LOST = 0.05


def run(options: Options) -> Result:
    """Measures, and once or twice again where the A/A control says that the machine was too uneven."""
    with ros_for("hop_ratio"):
        from vla_ros.nodes import bench_hops
    trials = max(4, min(options.count(14, 300), 400))
    tries = 1 if options.is_quick else 4
    attempts: list[dict[str, Any]] = []
    series: dict[str, Any] = {}
    problems: tuple[str, ...] = ()
    for attempt in range(tries):

        def on_trial(trial: int, attempt: int = attempt) -> None:
            options.progress(f"hops{f', attempt {attempt + 1}' if attempt else ''}", trial / trials)

        try:
            times = bench_hops.measure(trials, options.seed + attempt, on_trial)
        except VlaRosError as error:
            return Result({"hop_ratio": None}, {"attempts": attempts}, {}, (str(error),))
        attempts.append(compare(times.chunks, times.relay, times.relay_again, max(1, trials // _BLOCK_TRIALS)))
        series = {"chunks_ms": 1e3 * times.chunks, "relay_ms": 1e3 * times.relay.ravel()}
        if not attempts[-1]["is_void"]:
            break
    last = attempts[-1]
    if last["is_void"]:
        lost = f"{last['lost_chunks']} chunks and {last['lost_pings']} pings lost"
        control = f"the A/A control was {last['a_a']:.2f}, allowed {VOID_BELOW} to {VOID_ABOVE}"
        problems = (f"hop_ratio is void: {control}; {lost}; {tries} tries; end what else runs on this machine",)
    figures = {"hop_ratio": None if last["is_void"] else last["hop_ratio"]}
    return Result(figures, {"attempts": attempts}, series, problems)


def compare(chunks: FloatArray, relay: FloatArray, relay_again: FloatArray, blocks: int) -> dict[str, Any]:
    """Ratio of p99s, median over blocks, with its control.

    Args:
        chunks: (n,) s, NaN where no answer came.
        relay: (n, k) s; each of the k series is as long as that of the chunks, so their p99s are as sharp.
        relay_again: (n, k) s.
        blocks: stretches that are compared each by itself.
    """
    ratios, controls, p99s = [], [], []
    parts = (np.array_split(values, blocks) for values in (chunks, relay, relay_again))
    for chunk_block, relay_block, again_block in zip(*parts, strict=True):
        floor, again = _mean_p99(relay_block), _mean_p99(again_block)
        p99s.append(_mean_p99(chunk_block[:, None]))
        ratios.append(p99s[-1] / floor)
        controls.append(again / floor)
    control = float(np.median(controls))
    lost = max(float(np.isnan(values).mean()) for values in (chunks, relay, relay_again))
    return {
        "hop_ratio": float(np.median(ratios)),
        "spread": [float(value) for value in np.percentile(ratios, [25.0, 75.0])],
        "a_a": control,
        "is_void": bool(is_void(control) or lost > _MOST_LOST),
        "blocks": blocks,
        "trials": len(chunks),
        "lost_chunks": int(np.count_nonzero(np.isnan(chunks))),
        "lost_pings": int(np.count_nonzero(np.isnan(relay)) + np.count_nonzero(np.isnan(relay_again))),
        "chunk_ms": {"p50": 1e3 * float(np.nanmedian(chunks)), "p99": 1e3 * float(np.median(p99s))},
        "relay_ms": {"p50": 1e3 * float(np.nanmedian(relay)), "p99": 1e3 * float(np.nanpercentile(relay, 99.0))},
    }


def _mean_p99(values: FloatArray) -> float:
    """Mean over series (n, k) of their p99s."""
    return float(np.mean(np.nanpercentile(values, 99.0, axis=0)))
