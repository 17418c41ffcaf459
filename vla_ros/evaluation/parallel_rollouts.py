"""Many rollouts: one after the other, or in processes that each have a cell, a policy and one thread."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from multiprocessing.util import Finalize
from typing import Any

from vla_ros.errors import MissingDependencyError, VlaRosError
from vla_ros.evaluation.figures import EpisodeFigures
from vla_ros.evaluation.rollout_film import Film, FilmPlan
from vla_ros.evaluation.rollout_settings import Attempt, RolloutSettings
from vla_ros.evaluation.rollouts import Rollouts

# A process's own, kept from one episode to the next: making it takes seconds.
_kept: list[Rollouts] = []


class RolloutError(VlaRosError):
    """What a process that ran rollouts refused."""


def run_attempts(
    settings: RolloutSettings,
    attempts: Sequence[Attempt],
    jobs: int = 1,
    plan: FilmPlan | None = None,
    filmed: Collection[Attempt] = (),
    progress: Callable[[float], None] = lambda _fraction: None,
) -> list[EpisodeFigures]:
    """Runs episodes. The figures don't depend on how many processes there are.

    Args:
        settings: of all of them.
        attempts: one episode each.
        jobs: processes at a time; with 1 none is started.
        plan: which episodes get a video; None for none.
        filmed: attempts that get one whatever the outcome.
        progress: called with the share that is over.

    Returns:
        The figures, in the order of the attempts.

    Raises:
        VlaRosError: for what can't be used; of a process, as `RolloutError`.
    """
    found = []
    for figures in _run(settings, attempts, jobs, plan, filmed):
        found.append(figures)
        progress(len(found) / len(attempts))
    return found


def _run(
    settings: RolloutSettings,
    attempts: Sequence[Attempt],
    jobs: int,
    plan: FilmPlan | None,
    filmed: Collection[Attempt],
) -> Iterator[EpisodeFigures]:
    if jobs == 1:
        with Rollouts(settings) as rollouts:
            for attempt in attempts:
                yield rollouts.run(attempt, _film(settings, attempt, plan, attempt in filmed))
        return
    try:
        import joblib
    except ImportError as error:
        raise MissingDependencyError("joblib", "rollouts in several processes", "pip install joblib") from error
    calls: list[Any] = [
        joblib.delayed(_run_in_process)(settings, attempt, plan, attempt in filmed) for attempt in attempts
    ]
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        for answer in joblib.Parallel(n_jobs=jobs, return_as="generator")(calls):
            if isinstance(answer, str):
                raise RolloutError(answer)
            yield answer


def _run_in_process(
    settings: RolloutSettings, attempt: Attempt, plan: FilmPlan | None, is_filmed: bool
) -> EpisodeFigures | str:
    """One episode; the text of what was refused, since not every error can be sent from process to process."""
    try:
        if not _kept or _kept[0].settings != settings:
            if not _kept:
                # OpenGL contexts have to go while there are still threads to free them: before `atexit`.
                Finalize(None, _release, exitpriority=10)
            _release()
            _kept.append(Rollouts(settings))
        return _kept[0].run(attempt, _film(settings, attempt, plan, is_filmed))
    except VlaRosError as error:
        return str(error)


def _release() -> None:
    while _kept:
        _kept.pop().close()


def _film(settings: RolloutSettings, attempt: Attempt, plan: FilmPlan | None, is_filmed: bool) -> Film | None:
    if plan is None:
        return None
    return Film(plan, attempt.name, attempt.task, settings.policy.rate_hz, is_filmed)
