"""What an episode came to, in numbers, whoever ran it; plain data that is kept, compared and shown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from vla_ros.evaluation.differences import mean_derivatives
from vla_ros.evaluation.episode_log import EpisodeLog, EpisodeOutcome
from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.evaluation.metrics import path_length_m, percentile
from vla_ros.evaluation.rollout_settings import Attempt
from vla_ros.robots.model import RobotModel

_RUNNING = "running"


@dataclass(frozen=True)
class ChunkCounts:
    """What became of a policy's answers.

    Attributes:
        sent: that were no rest.
        late: of these, that came too late to be executed.
        refused: of these, for another reason.
        unseen: questions that couldn't be asked, because an observation was missing.
        failed: questions at which the policy raised an error.
    """

    sent: int = 0
    late: int = 0
    refused: int = 0
    unseen: int = 0
    failed: int = 0


@dataclass(frozen=True)
class EpisodeFigures:
    """One episode.

    Attributes:
        suite: that asked for it.
        seed: of the scene.
        variant: as in the attempt.
        task: the instruction.
        outcome: how it ended.
        reason: for a person.
        time_s: from the task to the outcome.
        path_length_m: of the true tool.
        jerk_rms_rad_s3: of the joints' command, over all joints and ticks.
        jerk_max_rad_s3: the greatest of any joint.
        peak_jerk_fraction: the greatest as a part of its joint's limit.
        limit_violations: values past a limit of a joint; none, or something is broken.
        limit_hits: how often a limit of filter or controller began to act, by its name.
        holds: how often the filter took the motion from the policy: it was running and then held, stopped or faulted.
        chunks: what became of the answers.
        age_ms: median time from an exposure to the answer's arrival in the filter; None where it isn't known.
        infer_ms: median time that the policy took for an answer; None where it isn't known.
        video: file beside the report, empty for none.
        did_other: whether, before it ended, what the attempt's `other` asks for was done instead.
    """

    suite: str
    seed: int
    variant: str
    task: str
    outcome: EpisodeOutcome
    reason: str
    time_s: float
    path_length_m: float
    jerk_rms_rad_s3: float
    jerk_max_rad_s3: float
    peak_jerk_fraction: float
    limit_violations: int
    limit_hits: Mapping[str, int] = field(default_factory=dict)
    holds: int = 0
    chunks: ChunkCounts = field(default_factory=ChunkCounts)
    age_ms: float | None = None
    infer_ms: float | None = None
    video: str = ""
    did_other: bool = False

    @property
    def scene(self) -> tuple[str, int]:
        """By which attempts at one scene belong together."""
        return self.suite, self.seed

    @property
    def key(self) -> tuple[str, int, str]:
        """By which episodes of two policies belong together."""
        return self.suite, self.seed, self.variant

    @property
    def is_success(self) -> bool:
        return self.outcome == "success"

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        values = dataclasses.asdict(self)
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }


def episode_figures(
    attempt: Attempt,
    log: EpisodeLog,
    model: RobotModel,
    chunks: ChunkCounts,
    ages_s: Sequence[float] = (),
    infer_s: Sequence[float] = (),
    video: str = "",
    did_other: bool = False,
) -> EpisodeFigures:
    """The figures of an episode.

    Args:
        attempt: at what.
        log: what was heard.
        model: of the arm.
        chunks: what became of the policy's answers.
        ages_s: from each exposure to the answer's arrival in the filter.
        infer_s: that the policy took for each answer.
        video: its file's name.
        did_other: whether the other instruction was carried out instead.
    """
    stamps_ns, positions = log.command_stamps_ns, log.command_positions.values
    report = judge_limits(stamps_ns, positions, model)
    jerk = mean_derivatives(stamps_ns, positions, 3) if len(stamps_ns) > 3 else np.zeros((0, len(log.joint_names)))
    jerk = jerk[np.isfinite(jerk).all(axis=1)]
    states = [verdict.state for verdict in log.verdicts]
    return EpisodeFigures(
        suite=attempt.suite,
        seed=attempt.seed,
        variant=attempt.variant,
        task=log.task,
        outcome=log.outcome,
        reason=log.reason,
        time_s=log.duration_s,
        path_length_m=path_length_m(log.tcp_positions.values),
        jerk_rms_rad_s3=float(np.sqrt(np.mean(jerk**2))) if len(jerk) else math.nan,
        jerk_max_rad_s3=float(np.abs(jerk).max()) if len(jerk) else math.nan,
        peak_jerk_fraction=report.peak_jerk_fraction,
        limit_violations=report.violation_count,
        limit_hits=dict(sorted(log.limit_hits.items())),
        holds=sum(before == _RUNNING != after for before, after in pairwise(states)),
        chunks=chunks,
        age_ms=_median_ms(ages_s),
        infer_ms=_median_ms(infer_s),
        video=video,
        did_other=did_other,
    )


def _median_ms(times_s: Sequence[float]) -> float | None:
    return 1e3 * percentile(times_s, 50) if times_s else None
