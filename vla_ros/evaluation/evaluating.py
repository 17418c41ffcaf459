"""An evaluation from its options to its report: who, at what, in which way, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from vla_ros.contract import load_rig
from vla_ros.errors import ConfigError, VlaRosError
from vla_ros.evaluation.candidates import check_fit, find_candidate, find_checkpoints, policy_of_checkpoint
from vla_ros.evaluation.evaluation_page import VIDEOS, compared, write_report
from vla_ros.evaluation.evaluation_summary import by_suite, compare, summarise_suite
from vla_ros.evaluation.figures import EpisodeFigures
from vla_ros.evaluation.parallel_rollouts import run_attempts
from vla_ros.evaluation.rollout_film import FilmPlan
from vla_ros.evaluation.rollout_settings import Attempt, Latency, RolloutSettings
from vla_ros.evaluation.summary import plain_data
from vla_ros.evaluation.task_suites import draw_attempts, find_suites
from vla_ros.evaluation.versions import versions
from vla_ros.policies.registry import PolicyConfig
from vla_ros.robots.config import load_robot
from vla_ros.sim.content import Setting

BEST = "best_success"
"""Name of the pointer in a training run's folder to the checkpoint that succeeds most."""

_FILMED_SUCCESSES = 2  # A suite.


@dataclass(frozen=True)
class EvaluationOptions:
    """What is asked of an evaluation; the command line's arguments, checked.

    Attributes:
        policy: name, YAML file or checkpoint's folder; empty with `checkpoints`.
        checkpoints: a training run of which every checkpoint is a policy; None for one policy.
        against: another policy on the same attempts; None for none.
        robot: the arm.
        rig: its cell.
        task: suites, with commas, or `all`.
        setting: of the scenes.
        seeds: of each suite's scenes.
        with_held_out: each scene also in wordings never trained on.
        with_swap: each scene also with another object named.
        is_blind: black images.
        camera_offset_m: of the base camera.
        extra_latency_s: of every answer.
        time_limit_s: of an episode.
        mode: `process` or `ros`.
        hardware: what moves in mode `ros`: `sim` or `mock`.
        jobs: processes at a time.
        videos: of failures, at most, a policy.
        out: folder for the report.
    """

    policy: str
    checkpoints: Path | None
    against: str | None
    robot: str
    rig: str
    task: str
    setting: Setting
    seeds: Sequence[int]
    with_held_out: bool
    with_swap: bool
    is_blind: bool
    camera_offset_m: float
    extra_latency_s: float
    time_limit_s: float
    mode: str
    hardware: str
    jobs: int
    videos: int
    out: Path


class Runner(Protocol):
    """Runs attempts, as `run_attempts` does."""

    def __call__(
        self,
        settings: RolloutSettings,
        attempts: Sequence[Attempt],
        jobs: int,
        plan: FilmPlan | None,
        filmed: Collection[Attempt],
        progress: Callable[[float], None],
    ) -> list[EpisodeFigures]: ...


def evaluate(
    options: EvaluationOptions, progress: Callable[[str, float], None], runner: Runner | None = None
) -> dict[str, Any]:
    """Runs an evaluation and writes its report.

    Args:
        options: what is asked for.
        progress: called with the policy's name and the share that is over.
        runner: of the attempts; None for rollouts in this machine's processes.

    Returns:
        The summary, as the report's summary.json has it.

    Raises:
        VlaRosError: for what can't be used.
    """
    attempts = _attempts(options)
    candidates = _candidates(options)
    load_robot(options.robot)
    rig = load_rig(options.rig)
    for config in candidates:
        check_fit(config, rig)
    try:
        (options.out / VIDEOS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {options.out}", f"can't be made ({error.strerror})", "choose another") from error
    filmed = _filmed(attempts) if options.videos else []
    results = {}
    for config in candidates:
        settings = RolloutSettings(
            options.robot,
            options.rig,
            config,
            options.setting,
            time_limit_s=options.time_limit_s,
            latency=Latency(extra_s=options.extra_latency_s),
            is_blind=options.is_blind,
            camera_offset_m=options.camera_offset_m,
            hardware=options.hardware,
        )
        plan = FilmPlan(options.out / VIDEOS, config.name, options.videos) if options.videos else None
        for video in plan.videos() if plan else ():
            video.unlink()  # Of an evaluation before this one: its page is written over, too.
        run: Runner = runner or run_attempts
        results[config.name] = run(settings, attempts, options.jobs, plan, filmed, partial(progress, config.name))
    summary = summarise_evaluation(options, results)
    if options.checkpoints is not None:
        summary["best_checkpoint"] = str(choose_checkpoint(options.checkpoints, results))
    title = f"{' and '.join(results) if len(results) < 3 else f'{len(results)} policies'} on {options.robot}"
    write_report(options.out, title, summary, results)
    return summary


def summarise_evaluation(options: EvaluationOptions, results: dict[str, list[EpisodeFigures]]) -> dict[str, Any]:
    """Everything that is known of the results, for a machine."""
    (first, episodes), *others = results.items()
    summary = {
        "policy": first,
        "robot": options.robot,
        "rig": options.rig,
        "setting": options.setting,
        "mode": options.mode,
        "hardware": options.hardware,
        "seed": options.seeds[0],
        "episodes": len(options.seeds),
        "is_blind": options.is_blind,
        "camera_offset_m": options.camera_offset_m,
        "extra_latency_ms": 1e3 * options.extra_latency_s,
        "policies": {
            policy: {
                "suites": {suite: summarise_suite(found) for suite, found in by_suite(tried).items()},
                "all": summarise_suite(tried),
            }
            for policy, tried in results.items()
        },
        "comparisons": {
            other: {
                "suites": {suite: compare(found, tried).plain() for suite, found in by_suite(episodes).items()},
                "all": compare(episodes, tried).plain(),
            }
            for other, tried in others
        },
        "compared": compared(results),
        "best_checkpoint": "",
        "per_episode": {policy: [episode.plain() for episode in tried] for policy, tried in results.items()},
        "versions": versions(),
        "out": str(options.out),
    }
    return {key: plain_data(value) for key, value in summary.items()}


def choose_checkpoint(run: Path, results: dict[str, list[EpisodeFigures]]) -> Path:
    """The checkpoint that succeeds most, the later of two that do so equally; told in the run's best_success.json."""
    from vla_ros.training.run_folder import RunFolder

    ranked = []
    for (step, folder), episodes in zip(find_checkpoints(run), results.values(), strict=True):
        ranked.append((sum(episode.is_success for episode in episodes), step, folder, len(episodes)))
    successes, step, folder, trials = max(ranked, key=lambda item: item[:2])
    RunFolder(run).write_pointer(BEST, step, successes=successes, episodes=trials)
    return folder


def _attempts(options: EvaluationOptions) -> list[Attempt]:
    return [
        attempt
        for suite in find_suites(options.task, options.setting)
        for attempt in draw_attempts(
            suite,
            options.setting,
            options.seeds,
            with_held_out=options.with_held_out,
            with_swap=options.with_swap,
        )
    ]


def _candidates(options: EvaluationOptions) -> list[PolicyConfig]:
    if options.checkpoints is not None:
        return [policy_of_checkpoint(folder) for _, folder in find_checkpoints(options.checkpoints)]
    words = [options.policy] + ([options.against] if options.against else [])
    found = [find_candidate(word) for word in words]
    if len({config.name for config in found}) < len(found):
        raise VlaRosError(f"--policy and --against are both called {found[0].name!r}; rename one's file or folder")
    return found


def _filmed(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The first few of each suite, so that there is something to see of a policy that never fails."""
    return [
        attempt
        for suite in dict.fromkeys(attempt.suite for attempt in attempts)
        for attempt in [one for one in attempts if one.suite == suite and not one.variant][:_FILMED_SUCCESSES]
    ]
