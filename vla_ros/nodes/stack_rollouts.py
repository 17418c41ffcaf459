"""Rollouts through the whole stack in real time: one stack, one episode after the other, the figures of the others."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from vla_ros.contract import load_rig
from vla_ros.errors import VlaRosError
from vla_ros.evaluation.candidates import check_fit
from vla_ros.evaluation.figures import ChunkCounts, EpisodeFigures, episode_figures
from vla_ros.evaluation.rollout_film import Film, FilmPlan
from vla_ros.evaluation.rollout_settings import Attempt, RolloutSettings
from vla_ros.nodes.launched_stack import launched_stack
from vla_ros.nodes.stack_episode import run_stack_episode
from vla_ros.policies.registry import PolicyConfig
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import ImageArray

_FILM_FPS = 8.0
_DIAGNOSTICS_S = 1.1


def run_in_stack(
    settings: RolloutSettings,
    attempts: Sequence[Attempt],
    jobs: int,
    plan: FilmPlan | None,
    filmed: Collection[Attempt],
    progress: Callable[[float], None],
) -> list[EpisodeFigures]:
    """As `run_attempts`, through ROS and the clock; one at a time, however many jobs are allowed.

    Raises:
        VlaRosError: for what can't be used, if the stack doesn't start, or a node of it dies.
    """
    if settings.is_blind or settings.camera_offset_m:
        raise VlaRosError("--blind and --camera-offset need --mode process")
    rig, robot = load_rig(settings.rig), load_robot(settings.robot)
    check_fit(settings.policy, rig)
    model = RobotModel.from_config(robot)
    newest: dict[str, ImageArray] = {}
    found = []
    with TemporaryDirectory(prefix="vla_ros_eval_") as folder:
        arguments = {
            "robot": settings.robot,
            "rig": settings.rig,
            "policy": str(write_policy(settings.policy, Path(folder))),
            "interface": settings.interface,
            "hardware": settings.hardware,
            "setting": settings.setting,
            "extra_latency_ms": str(round(1e3 * settings.latency.extra_s)),
        }
        logs_dir = Path(folder) / "logs" if plan is None else plan.folder.parent / "logs" / settings.policy.name

        def on_frame(camera: str, _stamp_ns: int, image: ImageArray) -> None:
            newest[camera] = image

        stack = launched_stack(arguments, model, rig, settings.policy.name, logs_dir, on_frame, _tell)
        with stack as (client, alive):
            for attempt in attempts:
                film = None if plan is None else Film(plan, attempt.name, attempt.task, _FILM_FPS, attempt in filmed)
                watcher = _Watcher(newest, film)
                log, did_other = run_stack_episode(client, attempt, settings.time_limit_s, alive, watcher)
                # Diagnostics come once a second.
                client.listen_for(_DIAGNOSTICS_S, alive)
                counts = ChunkCounts(*client.chunk_counts())
                video = "" if film is None else film.finish(log.outcome)
                ages_s, infer_s = client.figure("policy_node", "age_p50_s"), client.figure("policy_node", "infer_p50_s")
                found.append(episode_figures(attempt, log, model, counts, [ages_s], [infer_s], video, did_other))
                progress(len(found) / len(attempts))
    return found


def write_policy(config: PolicyConfig, folder: Path) -> Path:
    """The policy as a YAML file, as which nodes can be given any."""
    path = folder / f"{config.name}.yaml"
    path.write_text(yaml.safe_dump(asdict(config), sort_keys=False), encoding="utf-8")
    return path


class _Watcher:
    """Films what the cameras see, some frames a second."""

    def __init__(self, newest: dict[str, ImageArray], film: Film | None) -> None:
        self._newest, self._film, self._next_s = newest, film, time.monotonic()

    def __call__(self, time_s: float, state: str) -> None:
        if self._film is not None and self._newest and time.monotonic() >= self._next_s:
            self._next_s += 1.0 / _FILM_FPS
            self._film.add(self._newest, time_s, state)


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
