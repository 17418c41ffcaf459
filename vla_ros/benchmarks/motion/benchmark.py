"""The parts of `vla-ros bench motion` and what they have to show."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from vla_ros.benchmarks.motion.plots import draw
from vla_ros.benchmarks.options import Options, Result
from vla_ros.benchmarks.parallel import Pool
from vla_ros.benchmarks.parts import Benchmark, Part
from vla_ros.benchmarks.requirement import Requirement

__all__ = ["PARTS", "chosen_parts", "draw", "requirements", "run"]


PARTS: dict[str, Part] = {
    "tick": Part(
        "tick",
        "a tick of the controller over bare pinocchio, pink and mink",
        (
            Requirement("ik_over_floor", 12.0, 9.0, "tick over bare FK + Jacobian"),
            Requirement("ik_over_pink", 0.5, 0.3, "tick over pink's"),
            Requirement("ik_over_mink", 0.5, 0.3, "tick over mink's"),
        ),
    ),
    "tick_p99": Part(
        "pacing",
        "filter and controller paced at 250 Hz",
        (Requirement("tick_p99_ms", 0.6, 0.4, "p99 of filter and controller at 250 Hz", "ms"),),
    ),
    "hops": Part(
        "hops",
        "chunk on the wire to joint command, over a bare relay",
        (Requirement("hop_ratio", 2.0, 1.4, "p99 through the motion path over a two-hop relay"),),
    ),
    "lost_direction": Part(
        "lost_direction",
        "along the direction that a singularity takes",
        (
            Requirement("end_error_over_best_peer", 1.0, 1.0, "error after 1 s over the best peer's, worst case"),
            Requirement("lost_direction_violations", 0.0, 0.0, "limits not kept meanwhile"),
        ),
    ),
    "there_and_back": Part(
        "there_and_back",
        "out of reach or into joint limits and back",
        (
            Requirement("there_and_back.position_mm", 1.0, 0.1, "distance from the start afterwards", "mm"),
            Requirement("there_and_back.angle_deg", 0.1, 0.01, "angle from the start afterwards", "deg"),
            Requirement("there_and_back_violations", 0.0, 0.0, "limits not kept meanwhile"),
        ),
    ),
    "seams": Part(
        "seams",
        "noisy late chunks joined, beside plain switching",
        (
            Requirement("seam_jerk_ratio", 0.05, 0.025, "jerk over plain switching's"),
            Requirement("seam_lag_ms", 8.0, 0.0, "lag behind the path, less plain switching's", "ms"),
            Requirement("intent_delay_ms", 40.0, 30.0, "delay of a new intent, less plain switching's", "ms"),
            Requirement("guard_acts_share", 0.01, 0.0, "part of the ticks that the guard changed"),
        ),
    ),
    "adversarial": Part(
        "adversarial",
        "everything that may arrive",
        (
            Requirement("adversarial_ticks", 1e6, 1e6, "ticks under adversity", is_least=True, is_full_only=True),
            Requirement("violations", 0.0, 0.0, "limits not kept, numbers not finite, exceptions"),
        ),
    ),
}
TIMED = ("tick", "tick_p99", "hops")


BENCHMARK = Benchmark("motion", __package__, PARTS, ("numpy", "pin", "ruckig", "daqp", "pin-pink", "mink", "qpsolvers"))
chosen_parts, requirements = BENCHMARK.chosen, BENCHMARK.requirements


def run(parts: Sequence[str], options: Options) -> tuple[dict[str, Any], dict[str, Result]]:
    """Runs parts: the timed ones alone, one after the other, then the rest on two processes.

    Returns:
        The results as one object, and what each part found.
    """
    found: dict[str, Result] = {}
    seconds: dict[str, float] = {}
    with Pool() as pool:
        options = replace(options, pool=pool)
        seams: Future[dict[str, Any]] | None = None
        for name in parts:
            start_s = time.monotonic()
            options.progress(name, 0.0)
            if seams is None and "seams" in parts and name not in TIMED:
                # It is one piece of work, so it goes beside the others.
                seams = pool.submit(run_seams, options.is_quick, options.seed)
            if name == "seams" and seams is not None:
                found[name] = _seams_result(seams.result())
            else:
                found[name] = BENCHMARK.run_part(name, options)
            seconds[name] = round(time.monotonic() - start_s, 2)
            options.progress(name, 1.0)
    return BENCHMARK.results(found, seconds, options), found


def run_seams(is_quick: bool, seed: int) -> dict[str, Any]:
    """See `seams.run`."""
    from vla_ros.benchmarks.motion import seams

    return seams.run(is_quick, seed)


def _seams_result(given: dict[str, Any]) -> Result:
    figures = {key: value for key, value in given.items() if isinstance(value, float)}
    return Result(figures, {key: given[key] for key in ("strategies", "variants")}, given["plots"])
