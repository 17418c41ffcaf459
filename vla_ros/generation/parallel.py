"""Episodes made side by side into one LeRobot dataset: each process simulates, renders and encodes whole episodes.

What an episode is depends on the dataset's seed and its number, whoever makes it; the dataset has them in order.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import cv2

from vla_ros.contract import Contract
from vla_ros.errors import DatasetError, MissingDependencyError, VlaRosError
from vla_ros.generation.episodes import Studio
from vla_ros.generation.plan import EpisodePlan, draw_plan
from vla_ros.generation.workers import Workers
from vla_ros.instruction import Verb
from vla_ros.recording.dataset import Schema
from vla_ros.recording.formats.registry import load_format
from vla_ros.sim.content import Setting

# A probe of so many seconds tells what the dataset's columns are.
_PROBE_S = 0.5


@dataclass(frozen=True)
class Job:
    """A dataset to be made.

    Attributes:
        robot: name or YAML file.
        contract: that says what a frame is.
        verbs: that are done.
        seed: of the dataset.
        setting: of the scenes.
    """

    robot: str
    contract: Contract
    verbs: tuple[Verb, ...]
    seed: int
    setting: Setting = "varied"

    def plan(self, number: int) -> EpisodePlan:
        """Of an episode."""
        return draw_plan(Path(self.robot).stem, self.seed, number, self.verbs, self.setting)


@dataclass
class Made:
    """What was made.

    Attributes:
        episodes: written now.
        skipped: that were there already.
        frames: of those written.
        successes: (done, all) of the episodes from home, by verb.
        failed: reason by name.
        deaths: of processes, whose episodes were made again.
    """

    episodes: int = 0
    skipped: int = 0
    frames: int = 0
    successes: dict[str, tuple[int, int]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    deaths: int = 0


@dataclass(frozen=True)
class _Staged:
    """One episode that another process has written beside the dataset's files."""

    name: str
    folder: Path | None
    frames: int
    verb: str
    is_whole: bool
    is_success: bool
    problem: str = ""


def generate(
    folder: Path,
    job: Job,
    episodes: int,
    workers: int,
    on_episode: Callable[[int, int], None] = lambda _done, _total: None,
    ray_address: str = "",
) -> Made:
    """Makes episodes 0 to `episodes` of a dataset; those that it holds are left as they are.

    Args:
        folder: of the dataset.
        job: what is made.
        episodes: how many there are to be.
        workers: processes; with Ray, tasks at a time.
        on_episode: called with how many are there, and how many there are to be.
        ray_address: of a Ray cluster whose machines see `folder` under the same name; empty for processes here.

    Raises:
        DatasetError: if another dataset is there, which this job wouldn't have made, or an episode goes on killing its
            process.
        MissingDependencyError: without joblib, or Ray where it is asked for.
    """
    joblib = _import_joblib()
    made = Made()
    try:
        schema = _schema(job)
    finally:
        _close_studios()  # Episodes are made in other processes.
    writer: Any = load_format("lerobot").create(folder, schema, {})
    try:
        there = writer.attributes
        _check_own(folder, job, there)
        missing = [number for number in range(episodes) if _name(number) not in there]
        made.skipped = episodes - len(missing)
        call = functools.partial(_stage, job, writer.stager)
        crew = Workers(call, _name, workers)
        outcomes = _by_ray(joblib, call, missing, workers, ray_address) if ray_address else crew.results(missing)
        with contextlib.closing(outcomes):
            for done, staged in enumerate(outcomes, start=made.skipped + 1):
                _note(made, staged)
                if staged.folder is not None:
                    writer.adopt(staged.folder)
                made.deaths = crew.deaths
                on_episode(done, episodes)
    except BaseException:
        with contextlib.suppress(VlaRosError):
            writer.close()
        raise
    writer.close()
    return made


def _check_own(folder: Path, job: Job, there: Mapping[str, Mapping[str, Any]]) -> None:
    """Episodes of another seed, of other tasks or of a person are not to be among those that are made now."""
    for name, attributes in there.items():
        match = re.fullmatch(r"episode_(\d{6,})", name)
        if match is not None:
            plan = job.plan(int(match[1]))
            note = str(attributes.get("note", ""))
            if attributes.get("task") == plan.text and note.endswith(f"scene {plan.scene_seed}"):
                continue
        raise DatasetError(
            f"{folder} holds {name}, which isn't what this seed, these tasks and this setting give; go on with those "
            "it was begun with, or choose another --out"
        )


def _note(made: Made, staged: _Staged) -> None:
    if staged.problem:
        made.failed[staged.name] = staged.problem
        return
    made.episodes += 1
    made.frames += staged.frames
    if staged.is_whole:
        done, tried = made.successes.get(staged.verb, (0, 0))
        made.successes[staged.verb] = done + staged.is_success, tried + 1


_studios: dict[str, Studio] = {}
"""Of this process: a simulated cell takes a while to build."""


def _studio(job: Job) -> Studio:
    key = f"{job.robot} {job.setting} {job.contract.interface_hash}"
    if key not in _studios:
        cv2.setNumThreads(1)  # The other cores have processes of their own.
        studio = _studios[key] = Studio(job.robot, job.contract, job.setting)
        # OpenGL complains when the interpreter ends before its contexts; a worker ends without a word.
        Finalize(studio, studio.close, exitpriority=10)
    return _studios[key]


def _close_studios() -> None:
    while _studios:
        _studios.popitem()[1].close()


def _stage(job: Job, stager: Callable[[Any, int], Path], number: int) -> _Staged:
    """In another process: everything but the episode's place in the dataset."""
    plan = job.plan(number)
    verb, is_whole = plan.instruction.verb, plan.start == "home"
    try:
        made, _, frames = _studio(job).take(plan)
        return _Staged(_name(number), stager(frames, number), len(frames), verb, is_whole, made.is_success)
    except VlaRosError as error:
        return _Staged(_name(number), None, 0, verb, is_whole, False, str(error))


def _schema(job: Job) -> Schema:
    plan = job.plan(0)
    _, schema, _ = _studio(job).take(replace(plan, start="anywhere", duration_s=_PROBE_S, disturbances=()))
    return schema


def _name(number: int) -> str:
    return f"episode_{number:06d}"


def _import_joblib() -> Any:
    try:
        import joblib
    except ImportError as error:
        raise MissingDependencyError("joblib", "dataset generate", "pip install joblib") from error
    return joblib


def _by_ray(
    joblib: Any, call: Callable[[int], _Staged], numbers: list[int], workers: int, address: str
) -> Generator[_Staged, None, None]:
    with _ray_backend(joblib, address):
        pool = joblib.Parallel(n_jobs=workers, return_as="generator", batch_size=1)
        try:
            yield from pool(joblib.delayed(call)(number) for number in numbers)
        except Exception as error:  # Ray's own class, which mayn't be installed.
            if type(error).__name__ != "WorkerCrashedError":
                raise
            raise DatasetError(
                f"a process that made episodes died ({error}), perhaps for want of memory; run it again with fewer "
                "--workers"
            ) from error


def _ray_backend(joblib: Any, address: str) -> contextlib.AbstractContextManager[Any]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        mend = "pip install ray, or leave --ray out for processes on this machine"
        raise MissingDependencyError("ray", f"--ray {address}", mend) from error
    ray.init(address=address, ignore_reinit_error=True)
    register_ray()
    backend: contextlib.AbstractContextManager[Any] = joblib.parallel_config("ray")
    return backend
