"""The demo: starts the launch file, drives episodes through the stack, and writes what happened into a folder."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_ros.config import package_share
from vla_ros.contract import Rig, find_mismatches, load_contract, load_rig
from vla_ros.errors import ConfigError, ContractError, VlaRosError
from vla_ros.evaluation.episode_log import EpisodeLog, EpisodeRecorder
from vla_ros.evaluation.limits_judge import LimitReport, judge_limits
from vla_ros.evaluation.plots import plot_joints
from vla_ros.evaluation.summary import Timing, summarise
from vla_ros.evaluation.video import VideoWriter, caption
from vla_ros.files import whole_file
from vla_ros.launching.environment import defaults_without_ros
from vla_ros.launching.resolve import resolve
from vla_ros.launching.supervisor import Supervisor
from vla_ros.policies.registry import load_policy_config
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.sim.tasks import Judge, Task
from vla_ros.types import ImageArray

_START_TIMEOUT_S = 60.0
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
        self._task = Task.parse(options.task, options.time_limit_s)
        self._robot: RobotConfig = load_robot(options.robot)
        self._robot.command.using(options.interface)
        self._rig: Rig = load_rig(options.rig)
        policy = load_policy_config(options.policy)
        mismatches = find_mismatches(self._rig, load_contract(policy.contract))
        if mismatches:
            raise ContractError("; ".join(mismatches))
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
            "headless": "false" if options.has_window else "true",
            "seed": str(options.seeds[0]),
        }
        graph = resolve(package_share() / "launch" / "bringup.launch.xml", arguments)
        os.environ.update(defaults_without_ros(os.environ))
        # Now that the environment is settled.
        import rclpy

        from vla_ros.nodes.rollout import RolloutClient

        logs_dir = options.out / "logs"
        with ExitStack() as stack:
            rclpy.init(args=[])
            stack.callback(rclpy.try_shutdown)
            client = RolloutClient(self._model, self._rig, self._source, self._on_frame)
            stack.callback(client.destroy_node)
            client.refuse_company()
            supervisor = Supervisor(graph, log_dir=logs_dir, is_quiet=True)
            self._progress(f"starting {len(graph.nodes)} nodes (logs in {logs_dir})")
            stack.enter_context(supervisor)

            def alive() -> None:
                death = supervisor.poll()
                if death is not None:
                    raise VlaRosError(f"{death}{_last_line(logs_dir / f'{death.label}.log')}")

            client.wait_until_ready(_START_TIMEOUT_S, alive)
            logs = [self._episode(client, seed, alive) for seed in options.seeds]
            timing = Timing(chunk_to_command_ms=[1e3 * latency_s for latency_s in client.chunk_latencies_s])
        return self._write(logs, timing)

    def _episode(self, client: Any, seed: int, alive: Callable[[], None]) -> EpisodeLog:
        options = self._options
        start_truth = client.begin(seed, alive)
        video_path = options.out / f"episode-{seed:04d}.mp4"
        start_ns = client.get_clock().now().nanoseconds
        recorder = EpisodeRecorder(options.task, seed, self._model.names, start_ns)
        blocks = {name: T for name, T in start_truth.items() if name != "tcp"}
        judge = Judge(self._task, blocks)
        outcome = "running"
        next_frame_s = time.monotonic()
        with VideoWriter(video_path, _VIDEO_FPS) as video:
            client.recorder = recorder
            client.start_task(options.task)
            judged_ns = 0
            ended_s: float | None = None

            def is_over() -> bool:
                nonlocal outcome, next_frame_s, judged_ns, ended_s
                time_s = (client.truth_stamp_ns - start_ns) * 1e-9
                if client.truth_stamp_ns > judged_ns and time_s >= 0.0 and ended_s is None:
                    judged_ns = client.truth_stamp_ns
                    truth = dict(client.truth)
                    T_base_tcp = truth.pop("tcp")
                    outcome = judge.update(truth, T_base_tcp, client.opening, time_s)
                    if outcome != "running":
                        ended_s = time.monotonic()
                if time.monotonic() >= next_frame_s and self._newest:
                    next_frame_s += 1.0 / _VIDEO_FPS
                    state = outcome if outcome != "running" else client.verdict.split(":")[0]
                    video.write(dict(self._newest), caption(options.task, max(0.0, time_s), state))
                return ended_s is not None and time.monotonic() - ended_s > _AFTER_SUCCESS_S

            is_judged = client.spin_until(is_over, options.time_limit_s + 15.0, alive)
            client.recorder = None
        if not is_judged:
            raise VlaRosError("the simulator's ground truth fell silent; see its log")
        duration_s = (judged_ns - start_ns) * 1e-9
        client.end_task(outcome, judge.reason)
        is_late = outcome == "failure" and duration_s > options.time_limit_s
        log = recorder.finish("timeout" if is_late else outcome, duration_s, judge.reason)  # type: ignore[arg-type]
        number = f"{options.seeds.index(seed) + 1}/{len(options.seeds)}"
        self._progress(f"[{number}] seed {seed}: {log.outcome} after {duration_s:.1f} s ({judge.reason})")
        return log

    def _write(self, logs: Sequence[EpisodeLog], timing: Timing) -> dict[str, Any]:
        options = self._options
        reports: list[LimitReport] = []
        for log in logs:
            reports.append(judge_limits(log.command_stamps_ns, log.command_positions.values, self._model))
            log.write_csv(options.out / f"episode-{log.seed:04d}.csv")
            plot_joints(log, self._model, options.out / f"episode-{log.seed:04d}.png")
        summary = summarise(self._robot.name, options.task, logs, reports, timing, policy=self._source)
        summary["rig"], summary["out"] = self._rig.name, str(options.out)
        with whole_file(options.out / "summary.json") as path:
            path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        return summary

    def _on_frame(self, camera: str, _stamp_ns: int, image: ImageArray) -> None:
        self._newest[camera] = image


def _last_line(log: Path) -> str:
    """What a node said last, for the end of an error text."""
    try:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return f": {lines[-1]} (more in {log})" if lines else ""


def show_progress(line: str) -> None:
    """A line for the person who watches, on standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
