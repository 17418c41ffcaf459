"""The demo: starts the launch file, drives episodes through the stack, and writes what happened into a folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_ros.contract import Rig, load_rig
from vla_ros.errors import ConfigError
from vla_ros.evaluation.candidates import check_fit
from vla_ros.evaluation.episode_log import EpisodeLog
from vla_ros.evaluation.limits_judge import LimitReport, judge_limits
from vla_ros.evaluation.plots import plot_joints
from vla_ros.evaluation.rollout_settings import Attempt
from vla_ros.evaluation.summary import Timing, summarise
from vla_ros.evaluation.video import VideoWriter, caption
from vla_ros.files import whole_file
from vla_ros.nodes.launched_stack import launched_stack
from vla_ros.nodes.stack_episode import run_stack_episode
from vla_ros.policies.registry import load_policy_config
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.sim.tasks import Task
from vla_ros.types import ImageArray

if TYPE_CHECKING:
    from vla_ros.nodes.rollout import RolloutClient

_AFTER_SUCCESS_S = 0.5
_VIDEO_FPS = 10.0


@dataclass(frozen=True)
class DemoOptions:
    """What is asked of a demo; the command line's arguments, checked."""

    robot: str
    rig: str
    policy: str
    task: str
    seeds: tuple[int, ...]
    out: Path
    time_limit_s: float
    has_window: bool
    interface: str
    hardware: str
    setting: str


class Demo:
    """One run of the demo.

    Args:
        options: what is asked for.
        progress: called with a line for the person who watches.

    Raises:
        VlaRosError: for anything that can't be used; nothing was started then.
    """

    def __init__(self, options: DemoOptions, progress: Callable[[str], None]) -> None:
        self._options, self._progress = options, progress
        Task.parse(options.task, options.time_limit_s)
        self._robot: RobotConfig = load_robot(options.robot)
        self._robot.command.using(options.interface)
        self._rig: Rig = load_rig(options.rig)
        policy = load_policy_config(options.policy)
        check_fit(policy, self._rig)
        self._source = policy.name
        self._model = RobotModel.from_config(self._robot)
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out {options.out}", f"can't be made ({error.strerror})", "choose another") from error
        self._newest: dict[str, ImageArray] = {}

    def run(self) -> dict[str, Any]:
        """Runs all episodes and writes the folder.

        Returns:
            The summary.

        Raises:
            VlaRosError: if the stack doesn't start, or a node of it dies.
        """
        options = self._options
        arguments = {
            "robot": options.robot,
            "rig": options.rig,
            "policy": options.policy,
            "interface": options.interface,
            "hardware": options.hardware,
            "setting": options.setting,
            "headless": "false" if options.has_window else "true",
            "seed": str(options.seeds[0]),
        }
        logs_dir = options.out / "logs"
        stack = launched_stack(
            arguments, self._model, self._rig, self._source, logs_dir, self._on_frame, self._progress
        )
        with stack as (client, alive):
            logs = [self._episode(client, seed, alive) for seed in options.seeds]
            timing = Timing(chunk_to_command_ms=[1e3 * latency_s for latency_s in client.chunk_latencies_s])
        return self._write(logs, timing)

    def _episode(self, client: RolloutClient, seed: int, alive: Callable[[], None]) -> EpisodeLog:
        options = self._options
        attempt = Attempt("demo", seed, options.task, options.task)
        next_frame_s = time.monotonic()
        with VideoWriter(options.out / f"episode-{seed:04d}.mp4", _VIDEO_FPS) as video:

            def watch(time_s: float, state: str) -> None:
                nonlocal next_frame_s
                if time.monotonic() >= next_frame_s and self._newest:
                    next_frame_s += 1.0 / _VIDEO_FPS
                    video.write(dict(self._newest), caption(options.task, time_s, state))

            log, _ = run_stack_episode(client, attempt, options.time_limit_s, alive, watch, _AFTER_SUCCESS_S)
        number = f"{options.seeds.index(seed) + 1}/{len(options.seeds)}"
        self._progress(f"[{number}] seed {seed}: {log.outcome} after {log.duration_s:.1f} s ({log.reason})")
        return log

    def _write(self, logs: Sequence[EpisodeLog], timing: Timing) -> dict[str, Any]:
        options = self._options
        reports: list[LimitReport] = []
        for log in logs:
            reports.append(judge_limits(log.command_stamps_ns, log.command_positions.values, self._model))
            log.write_csv(options.out / f"episode-{log.seed:04d}.csv")
            plot_joints(log, self._model, options.out / f"episode-{log.seed:04d}.png")
        summary = summarise(self._robot.name, options.task, logs, reports, timing, policy=self._source)
        summary |= {"rig": self._rig.name, "hardware": options.hardware, "out": str(options.out)}
        with whole_file(options.out / "summary.json") as path:
            path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        return summary

    def _on_frame(self, camera: str, _stamp_ns: int, image: ImageArray) -> None:
        self._newest[camera] = image


def show_progress(line: str) -> None:
    """A line for the person who watches, on standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
