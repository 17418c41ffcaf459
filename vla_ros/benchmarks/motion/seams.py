"""Seams between noisy, late chunks: jerk of the joints, lag of the path and delay of a new intent, after the guard.

A stream is what a policy would send of a smooth path: chunks whose poses are off by a gap of their own, stamped at an
observation and arriving late. All strategies get the same streams, behind the same controller and guard. The safety
filter stands aside for the figures that are required: its limits, the package's low ones above all, smooth plain
switching as well, and the ratio would say little of the seam. The figures with the filter are beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vla_ros.actions.seams import Ensemble, Seam, Switch
from vla_ros.benchmarks.motion.seam_peers import LinearBlend, Mix
from vla_ros.benchmarks.motion.seam_streams import WARM_UP_S, Cell, Noise, Reference, Run, step_aside, stream
from vla_ros.types import FloatArray

_STEP_M, _STEP_S, _LATENCY_S = 0.02, 1.0, 0.15
_DIRECTIONS = (np.array([1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0]))
# 1 cm and 3 degrees, root mean square: of the gap from chunk to chunk, which is what a seam has to close; of a chunk's
# own offset, with gaps of 1.4 cm; of each axis of that, with gaps of 2.4 cm.
_NOISE = Noise(0.01 / np.sqrt(6.0), np.radians(3.0) / np.sqrt(6.0))
_NOISE_OF_CHUNKS = Noise(0.01 / np.sqrt(3.0), np.radians(3.0) / np.sqrt(3.0))
_NOISE_PER_AXIS = Noise(0.01, np.radians(3.0))
_NOISE_OF_POINTS = replace(_NOISE, point_m=0.0003)


@dataclass(frozen=True)
class Figures:
    """A strategy's figures over all streams.

    Attributes:
        jerk_rms: of the joints, rad/s^3.
        jerk_peak: median over seams of the largest of any joint, rad/s^3.
        lag_ms: shift of best fit to the noise-free path.
        half_ms: time to half of a new intent.
        guard_share: part of the ticks in which the guard acted.
        limits_share: part of the ticks in which any limit of the controller acted.
    """

    jerk_rms: float
    jerk_peak: float
    lag_ms: float
    half_ms: float
    guard_share: float
    limits_share: float

    def over(self, plain: Figures) -> dict[str, float]:
        """These and how they compare to plain switching."""
        rms, peak = self.jerk_rms / plain.jerk_rms, self.jerk_peak / plain.jerk_peak
        return {
            **vars(self),
            "jerk_ratio": max(rms, peak),
            "jerk_rms_ratio": rms,
            "jerk_peak_ratio": peak,
            "lag_over_plain_ms": self.lag_ms - plain.lag_ms,
            "delay_over_plain_ms": self.half_ms - plain.half_ms,
        }


def run(quick: bool, seed: int) -> dict[str, Any]:
    """Every strategy on the same streams.

    Args:
        quick: one short stream a robot instead of six long ones.
        seed: of the streams.

    Returns:
        `seam_jerk_ratio` (the larger of `seam_jerk_rms_ratio` and `seam_jerk_peak_ratio`), `seam_lag_ms`,
        `intent_delay_ms`, `guard_acts_share` and `aa_jerk_ratio` (switching with other noise over switching), of
        `blend` on the Panda; `strategies`, robot -> strategy -> figures; `variants`, other noise and the filter in the
        loop -> robot -> strategy -> figures; `plots`, arrays.
    """
    streams, duration_s = (1, 8.0) if quick else (6, 20.0)
    blend = Cell("panda", has_filter=False).safety.make_timeline().seam
    peers: dict[str, Seam] = {"ensemble": Ensemble(), "linear": LinearBlend(), "mix": Mix()}
    ours: dict[str, Seam] = {"switch": Switch(), "blend": blend}
    seeds = range(seed, seed + streams)
    strategies: dict[str, Any] = {}
    plots: dict[str, Any] = {}
    for robot in ("panda", "ur5e"):
        cell = Cell(robot, has_filter=False)
        named = {**ours, **peers} if robot == "panda" or not quick else ours
        strategies[robot], runs = compare(cell, named, seeds, duration_s, _NOISE)
        if robot == "panda":
            other = [seed + 1000 + number for number in range(streams)]
            again = measure(cell, Switch(), _runs(cell, Switch(), other, duration_s, _NOISE, paths=seeds))
            plots = {name: _plot(found[0][0]) for name, found in runs.items()}
            times_s = runs["switch"][0][0].times_s
            plots["meant"] = {"times_s": times_s, "p_tcp": runs["switch"][0][1].poses(times_s)[:, :3, 3]}
    variants: dict[str, Any] = {}
    for name, noise, has_filter in (
        ("with_package_filter", _NOISE, True),
        ("noise_per_axis", _NOISE_PER_AXIS, False),
        ("noise_of_chunks", _NOISE_OF_CHUNKS, False),
        ("noise_of_points", _NOISE_OF_POINTS, False),
    ):
        robots = ("panda",) if quick else ("panda", "ur5e")
        variants[name] = {
            robot: compare(Cell(robot, has_filter), ours, seeds, duration_s, noise)[0] for robot in robots
        }
    plain, ratios = strategies["panda"]["switch"], strategies["panda"]["blend"]
    return {
        "seam_jerk_ratio": ratios["jerk_ratio"],
        "seam_jerk_rms_ratio": ratios["jerk_rms_ratio"],
        "seam_jerk_peak_ratio": ratios["jerk_peak_ratio"],
        "seam_lag_ms": ratios["lag_over_plain_ms"],
        "intent_delay_ms": ratios["delay_over_plain_ms"],
        "guard_acts_share": ratios["guard_share"],
        "aa_jerk_ratio": again.jerk_rms / plain["jerk_rms"],
        "strategies": strategies,
        "variants": variants,
        "plots": plots,
    }


def compare(
    cell: Cell, seams: dict[str, Seam], seeds: range, duration_s: float, noise: Noise
) -> tuple[dict[str, dict[str, float]], dict[str, list[tuple[Run, Reference]]]]:
    """Figures of strategies over those of the first of them, and their runs."""
    runs = {name: _runs(cell, seam, list(seeds), duration_s, noise, paths=seeds) for name, seam in seams.items()}
    figures = {name: measure(cell, seams[name], found) for name, found in runs.items()}
    plain = next(iter(figures.values()))
    return {name: found.over(plain) for name, found in figures.items()}, runs


def measure(cell: Cell, seam: Seam, runs: list[tuple[Run, Reference]]) -> Figures:
    """A strategy's figures."""
    jerks = [jerk_figures(run) for run, _ in runs]
    return Figures(
        float(np.sqrt(np.mean([rms**2 for rms, _ in jerks]))),
        float(np.median(np.concatenate([peaks for _, peaks in jerks]))),
        1e3 * float(np.mean([lag_s(run, reference) for run, reference in runs])),
        1e3 * float(np.mean([half_response_s(cell, seam, direction) for direction in _DIRECTIONS])),
        float(np.mean([run.guard_share for run, _ in runs])),
        float(np.mean([run.limits_share for run, _ in runs])),
    )


def _runs(
    cell: Cell, seam: Seam, seeds: list[int], duration_s: float, noise: Noise, paths: range
) -> list[tuple[Run, Reference]]:
    found = []
    for path_seed, noise_seed in zip(paths, seeds, strict=True):
        reference = Reference(cell.T_base_home, np.random.default_rng(path_seed))
        arrivals = stream(reference, duration_s, noise, np.random.default_rng([noise_seed, 1]))
        found.append((cell.execute(seam, arrivals, duration_s), reference))
    return found


def jerk_figures(run: Run) -> tuple[float, FloatArray]:
    """RMS of the joints' jerk, and its peak after each seam, rad/s^3."""
    dt_s = run.times_s[1] - run.times_s[0]
    jerk = np.abs(np.diff(run.positions, 3, axis=0)) / dt_s**3
    times_s = run.times_s[3:]
    starts = sorted({seam for seam in run.seams_s if WARM_UP_S < seam < times_s[-1]})
    largest = jerk.max(axis=1)
    peaks = [
        largest[(times_s >= start) & (times_s < end)].max()
        for start, end in zip(starts, [*starts[1:], times_s[-1]], strict=True)
    ]
    return float(np.sqrt(np.mean(jerk[times_s > WARM_UP_S] ** 2))), np.array(peaks)


def lag_s(run: Run, reference: Reference) -> float:
    """By how much later than the noise-free path the tool is, by the best fit."""
    shifts = np.arange(-0.15, 0.45, 0.002)
    is_used = (run.times_s > WARM_UP_S) & (run.times_s < run.times_s[-1] - 0.2)
    times_s, p = run.times_s[is_used], run.p_tcp[is_used]
    wide_s = np.arange(times_s[0] - 0.5, times_s[-1] + 0.2, 0.004)
    path = reference.poses(wide_s)[:, :3, 3]
    errors = np.array(
        [
            sum(np.mean((p[:, k] - np.interp(times_s - shift, wide_s, path[:, k])) ** 2) for k in range(3))
            for shift in shifts
        ]
    )
    best = int(np.clip(np.argmin(errors), 1, len(shifts) - 2))
    before, here, after = errors[best - 1 : best + 2]
    return float(shifts[best] + 0.5 * (shifts[1] - shifts[0]) * (before - after) / (before - 2.0 * here + after))


def half_response_s(cell: Cell, seam: Seam, direction: FloatArray) -> float:
    """Time from the arrival of a chunk that means a path 2 cm aside until the tool is half there."""
    arrivals = step_aside(cell.T_base_home, _STEP_M * direction, _STEP_S, _LATENCY_S)
    run = cell.execute(seam, arrivals, _STEP_S + 1.0)
    moved = (run.p_tcp - cell.T_base_home[:3, 3]) @ direction
    half = int(np.argmax(moved >= 0.5 * _STEP_M))
    if half == 0:
        return float("inf")
    before, after = moved[half - 1], moved[half]
    here_s = run.times_s[half - 1] + cell.controller.dt_s * (0.5 * _STEP_M - before) / (after - before)
    return float(here_s - (_STEP_S + _LATENCY_S))


def _plot(run: Run) -> dict[str, FloatArray]:
    return {
        "times_s": run.times_s,
        "positions": run.positions,
        "p_tcp": run.p_tcp,
        "seams_s": np.array(run.seams_s),
    }
