"""The tool led along the direction that a singularity takes: whose error is least, with every limit kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_ros.benchmarks.motion.arms import (
    SINGULARITIES,
    Singularity,
    lost_direction,
    singular_configuration,
)
from vla_ros.benchmarks.motion.tracking import OURS, Goal, Track, bench_of, summary
from vla_ros.benchmarks.options import Options, Result
from vla_ros.geometry import se3
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.types import FloatArray

SPEED = 0.1  # Along the unit twist: m/s and rad/s.
_LED_S, _SETTLED_S = 1.0, 0.5
_BESIDE_RAD = 0.02
# What no arm can tell apart: the data sheets give a UR5e's repeatability as 0.03 mm and a Panda's as 0.1 mm.
_ROUNDING_M = 3e-5


def run(options: Options) -> Result:
    """Every singularity, both ways along its lost direction.

    What counts is the error after the second, begun right at the singularity. What becomes of it half a second later,
    and in a full run what becomes of one begun beside the singularity, is among the details.
    """
    given = [(singularity, options.is_quick, options.seed) for singularity in SINGULARITIES]
    found = options.pool.spread(run_case, given, lambda part: options.progress("lost_direction", part))
    cases: dict[str, float] = {}
    beside: dict[str, float] = {}
    settled: dict[str, float] = {}
    variants: dict[str, Any] = {}
    series: dict[str, Any] = {}
    problems: set[str] = set()
    for singularity, (details, errors, missing) in zip(SINGULARITIES, found, strict=True):
        name = f"{singularity.robot}_{singularity.name}"
        cases[name] = max(detail["over_best_peer"] for key, detail in details.items() if key.startswith("at_"))
        others = [detail["over_best_peer"] for key, detail in details.items() if not key.startswith("at_")]
        beside[name] = max(others, default=0.0)
        settled[name] = max(detail["settled_over_best_peer"] for detail in details.values())
        variants |= {f"{name}_{key}": detail for key, detail in details.items()}
        series |= {f"{name}_{key}": value for key, value in errors.items()}
        problems |= set(missing)
    figures = {
        "lost_direction": cases,
        "end_error_over_best_peer": None if problems else max(cases.values()),
        "lost_direction_violations": sum(detail["solvers"][OURS]["violations"] for detail in variants.values()),
    }
    more = {"beside": beside, "settled": settled, "variants": variants}
    return Result(figures, more, series, tuple(sorted(problems)))


def run_case(given: tuple[Singularity, bool, int]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """One singularity: details and errors over time by variant, and which peers are missing.

    Args:
        given: the singularity, whether the run is quick, and its seed.
    """
    singularity, is_quick, seed = given
    bench = bench_of(singularity.robot, is_quick, True)
    model = bench.model
    at = singular_configuration(model, singularity)
    beside = at + np.random.default_rng(seed).choice([-1.0, 1.0], len(at)) * _BESIDE_RAD
    led_tick = round(_LED_S / bench.dt_s)
    details: dict[str, Any] = {}
    series: dict[str, Any] = {}
    starts = {"at": at} if is_quick else {"at": at, "beside": beside}
    for where, q in starts.items():
        start = np.clip(q, bench.controller.limits.lower, bench.controller.limits.upper)
        for side, sign in (("plus", 1.0), ("minus", -1.0)):
            goal = along(model.forward_kinematics(start), sign * SPEED * lost_direction(model, start))
            tracks = bench.tracks(start, goal, _LED_S + _SETTLED_S)
            ratio, best = over_best_peer(tracks, led_tick)
            settled_ratio, settled_best = over_best_peer(tracks, len(tracks[0].errors) - 1)
            details[f"{where}_{side}"] = {
                "over_best_peer": ratio,
                "best_peer": best,
                "settled_over_best_peer": settled_ratio,
                "settled_best_peer": settled_best,
                "end_error_m": {track.name: track.error_until(led_tick) for track in tracks},
                "settled_error_m": {track.name: track.error_until(len(track.errors) - 1) for track in tracks},
                "solvers": {track.name: summary(track) for track in tracks},
            }
            series[f"{where}_{side}"] = {track.name: track.errors for track in tracks}
    return details, series, bench.problems


def along(T_base_tcp: FloatArray, twist: FloatArray) -> Goal:
    """From a pose (4, 4) with a constant twist (6,) in base axes for a second, then at rest."""

    def goal(time_s: float) -> tuple[FloatArray, FloatArray]:
        t = min(time_s, _LED_S)
        R = rotvec_to_matrix(t * twist[3:]) @ T_base_tcp[:3, :3]
        return se3.make_pose(T_base_tcp[:3, 3] + t * twist[:3], R), twist if time_s <= _LED_S else np.zeros(6)

    return goal


def over_best_peer(tracks: list[Track], tick: int) -> tuple[float, str]:
    """Our error over the least of the peers', at most 1 where no arm could tell them apart; and that peer's name.

    A peer counts only if it kept the limits.
    """
    ours = next(track for track in tracks if track.name == OURS).error_until(tick)
    peers = [track for track in tracks if track.name != OURS and track.report.is_clean]
    if not peers:
        return 0.0, ""
    best = min(peers, key=lambda track: track.error_until(tick))
    error = best.error_until(tick)
    ratio = ours / max(error, _ROUNDING_M)
    return (min(ratio, 1.0) if ours <= error + _ROUNDING_M else ratio), best.name
