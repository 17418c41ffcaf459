"""The figures of a set of episodes, as plain data for a JSON file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_ros.evaluation.episode_log import EpisodeLog
from vla_ros.evaluation.limits_judge import LimitReport
from vla_ros.evaluation.metrics import path_length_m, percentile, rate_hz, wilson_interval
from vla_ros.evaluation.versions import versions


@dataclass(frozen=True)
class Timing:
    """What was timed outside of the logs.

    Attributes:
        chunk_to_command_ms: from each chunk's arrival to the first command that follows it.
    """

    chunk_to_command_ms: Sequence[float] = ()


def summarise(
    robot: str,
    task: str,
    logs: Sequence[EpisodeLog],
    reports: Sequence[LimitReport],
    timing: Timing,
    *,
    policy: str,
) -> dict[str, Any]:
    """The figures of episodes of one task.

    Args:
        robot: its name.
        task: the instruction.
        logs: one per episode.
        reports: the judge's, one per log in the same order.
        timing: what the logs don't hold.
        policy: its name.

    Returns:
        What `json.dumps` takes; what isn't a finite number is None.

    Raises:
        ValueError: if there isn't one report per log.
    """
    if len(logs) != len(reports):
        raise ValueError(f"{len(logs)} logs and {len(reports)} reports; one report per log")
    successes = sum(log.outcome == "success" for log in logs)
    cameras = sorted({name for log in logs for name in log.camera_stamps_ns})
    summary: dict[str, Any] = {
        "robot": robot,
        "task": task,
        "policy": policy,
        "seeds": [log.seed for log in logs],
        "successes": successes,
        "episodes": len(logs),
        "success_rate": successes / len(logs) if logs else math.nan,
        "success_interval": wilson_interval(successes, len(logs)),
        "peak_velocity_fraction": _greatest(report.peak_velocity_fraction for report in reports),
        "peak_acceleration_fraction": _greatest(report.peak_acceleration_fraction for report in reports),
        "peak_jerk_fraction": _greatest(report.peak_jerk_fraction for report in reports),
        "limit_violations": sum(report.violation_count for report in reports),
        "violations": _violations(reports),
        "first_violations": [str(first) for report in reports for first in report.first_violations.values()],
        "control_rate_hz": rate_hz(log.command_stamps_ns for log in logs),
        "control_gaps": sum(report.gaps for report in reports),
        "camera_rate_hz": {
            name: rate_hz(log.camera_stamps_ns[name] for log in logs if name in log.camera_stamps_ns)
            for name in cameras
        },
        "chunk_to_command_ms": {f"p{p}": percentile(timing.chunk_to_command_ms, p) for p in (50, 99)},
        "per_episode": [_episode(log, report) for log, report in zip(logs, reports, strict=True)],
        "versions": versions(),
    }
    return {key: plain_data(value) for key, value in summary.items()}


def _episode(log: EpisodeLog, report: LimitReport) -> dict[str, Any]:
    return {
        "seed": log.seed,
        "outcome": log.outcome,
        "reason": log.reason,
        "time_s": round(log.duration_s, 6),
        "path_length_m": path_length_m(log.tcp_positions.values),
        "ticks": report.ticks,
        "limit_violations": report.violation_count,
        "peak_velocity_fraction": report.peak_velocity_fraction,
        "peak_acceleration_fraction": report.peak_acceleration_fraction,
        "peak_jerk_fraction": report.peak_jerk_fraction,
        "verdicts": [
            {"time_s": 1e-9 * (verdict.stamp_ns - log.start_ns), "state": verdict.state, "reasons": verdict.reasons}
            for verdict in log.verdicts
        ],
    }


def _violations(reports: Sequence[LimitReport]) -> dict[str, int]:
    counts: dict[str, int] = {"position": 0, "velocity": 0, "acceleration": 0, "jerk": 0, "stamps": 0}
    for report in reports:
        for quantity, count in report.violations.items():
            counts[quantity] += count
        counts["stamps"] += report.duplicate_stamps + report.backward_stamps
    return counts


def _greatest(values: Any) -> float:
    """The greatest that is a number, NaN of none."""
    numbers = [value for value in values if not math.isnan(value)]
    return max(numbers, default=math.nan)


def plain_data(value: Any) -> Any:
    """Values as JSON has them: mappings and lists, numpy's numbers as Python's, None for NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain_data(item) for item in value]
    if isinstance(value, np.generic):
        return plain_data(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
