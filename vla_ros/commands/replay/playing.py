"""Where `vla-ros replay` repeats recorded actions: here, in a simulator of its own, or through the running stack."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vla_ros.commands.progress import Progress
from vla_ros.commands.stack_options import stack_words
from vla_ros.config import load, package_share
from vla_ros.control.config import ControllerConfig
from vla_ros.errors import VlaRosError
from vla_ros.evaluation.rehearsal import IdealArm, rehearse, without_latency
from vla_ros.evaluation.replay_log import ReplayRun
from vla_ros.launching.environment import defaults_without_ros, ros_for
from vla_ros.launching.resolve import resolve
from vla_ros.launching.supervisor import Supervisor
from vla_ros.recording.recorded_actions import RecordedActions
from vla_ros.robots.model import RobotModel
from vla_ros.safety.config import SafetyConfig
from vla_ros.types import FloatArray

_START_TIMEOUT_S, _ARM_TIMEOUT_S = 60.0, 10.0


def rehearse_here(
    actions: RecordedActions, model: RobotModel, start: FloatArray, speed: float, progress: Progress
) -> tuple[ReplayRun, FloatArray]:
    """Steps filter and controller in this process, with an arm that is where it is told to be.

    Returns:
        What would come of it, and where the arm starts, (n,) rad.
    """
    folder = package_share() / "config"
    safety = without_latency(load(SafetyConfig, folder / "safety.yaml"))
    controller = load(ControllerConfig, folder / "controller.yaml")
    told = _told(progress, "rehearsing")
    return rehearse(actions, model, safety, controller, IdealArm(start), speed, told), start


def play_in_stack(
    args: argparse.Namespace, actions: RecordedActions, model: RobotModel, progress: Progress
) -> tuple[ReplayRun, FloatArray]:
    """Moves what the running stack moves, with --arm true; else rehearses from where that arm is.

    Returns:
        What came of it, and where the arm was, (n,) rad.

    Raises:
        VlaRosError: if there is no stack, or it refuses.
    """
    with _node(model, stack_words(args)) as node:
        start = node.wait_until_ready(_ARM_TIMEOUT_S, lambda: None).positions
        if args.arm == "true":
            return node.play(actions, args.speed, lambda: None, _told(progress, "replaying")), start
    return rehearse_here(actions, model, start, args.speed, progress)


def play_in_simulation(
    args: argparse.Namespace, actions: RecordedActions, model: RobotModel, progress: Progress
) -> tuple[ReplayRun, FloatArray]:
    """Starts a simulator with its motion path, and moves it. Returns and raises as `play_in_stack`."""
    robot = args.robot or actions.robot
    values = {
        "robot": robot,
        "rig": args.rig or f"{robot}_table",
        "headless": "false" if args.window else "true",
        "seed": str(args.seed),
    }
    graph = resolve(package_share() / "launch" / "replay.launch.xml", values)
    logs = (args.out or Path("out") / time.strftime("replay-%Y%m%d-%H%M%S")) / "logs"
    with _node(model) as node:
        node.refuse_company()
        with Supervisor(graph, log_dir=logs, is_quiet=True) as supervisor:

            def alive() -> None:
                death = supervisor.poll()
                if death is not None:
                    raise VlaRosError(f"{death}; its log is in {logs}")

            node.wait_until_ready(_START_TIMEOUT_S, alive)
            node.reset_safety(alive)
            start = node.wait_until_ready(_START_TIMEOUT_S, alive).positions
            return node.play(actions, args.speed, alive, _told(progress, "replaying")), start


def _node(model: RobotModel, words: Sequence[str] = ()) -> AbstractContextManager[Any]:
    os.environ.update(defaults_without_ros(os.environ))
    with ros_for("vla-ros replay --in"):
        from vla_ros.nodes.replay_node import replay_node
    return replay_node(model, words)


def _told(progress: Progress, part: str) -> Callable[[float], None]:
    return lambda fraction: progress(part, fraction)
