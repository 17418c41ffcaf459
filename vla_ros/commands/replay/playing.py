"""Where `vla-ros replay` repeats recorded actions: here, in a simulator of its own, or through the running stack."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
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
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.model import RobotModel
from vla_ros.safety.config import SafetyConfig
from vla_ros.types import FloatArray

_START_TIMEOUT_S, _ARM_TIMEOUT_S = 60.0, 10.0


@dataclass(frozen=True, eq=False)
class Repeated:
    """What came of it.

    Attributes:
        run: what was sent and done.
        start: (n,) rad, where the arm was before.
        model: of the arm: a real one's driver knows its kinematics best.
    """

    run: ReplayRun
    start: FloatArray
    model: RobotModel


def rehearse_here(
    actions: RecordedActions, model: RobotModel, start: FloatArray, speed: float, progress: Progress
) -> Repeated:
    """Steps filter and controller in this process, with an arm that is where it is told to be."""
    folder = package_share() / "config"
    safety = without_latency(load(SafetyConfig, folder / "safety.yaml"))
    controller = load(ControllerConfig, folder / "controller.yaml")
    told = _told(progress, "rehearsing")
    return Repeated(rehearse(actions, model, safety, controller, IdealArm(start), speed, told), start, model)


def play_in_stack(
    args: argparse.Namespace, actions: RecordedActions, robot: RobotConfig, progress: Progress
) -> Repeated:
    """Moves what the running stack moves, with --arm true; else rehearses from where that arm is.

    Raises:
        VlaRosError: if there is no stack, or it refuses.
    """
    with _node(robot, stack_words(args)) as node:
        start = node.wait_until_ready(_ARM_TIMEOUT_S, lambda: None).positions
        if args.arm == "true":
            run = node.play(actions, args.speed, lambda: None, _told(progress, "replaying"))
            return Repeated(run, start, node.model)
    return rehearse_here(actions, node.model, start, args.speed, progress)


def play_in_simulation(
    args: argparse.Namespace, actions: RecordedActions, robot: RobotConfig, progress: Progress
) -> Repeated:
    """Starts a simulator with its motion path, and moves it. Raises as `play_in_stack`."""
    name = args.robot or actions.robot
    values = {
        "robot": name,
        "rig": args.rig or f"{name}_table",
        "headless": "false" if args.window else "true",
        "seed": str(args.seed),
    }
    graph = resolve(package_share() / "launch" / "replay.launch.xml", values)
    logs = (args.out or Path("out") / time.strftime("replay-%Y%m%d-%H%M%S")) / "logs"
    with _node(robot) as node:
        node.refuse_company()
        with Supervisor(graph, log_dir=logs, is_quiet=True) as supervisor:

            def alive() -> None:
                death = supervisor.poll()
                if death is not None:
                    raise VlaRosError(f"{death}; its log is in {logs}")

            node.wait_until_ready(_START_TIMEOUT_S, alive)
            node.reset_safety(alive)
            start = node.wait_until_ready(_START_TIMEOUT_S, alive).positions
            return Repeated(node.play(actions, args.speed, alive, _told(progress, "replaying")), start, node.model)


def _node(robot: RobotConfig, words: Sequence[str] = ()) -> AbstractContextManager[Any]:
    os.environ.update(defaults_without_ros(os.environ))
    with ros_for("vla-ros replay --in"):
        from vla_ros.nodes.replay_node import replay_node
    return replay_node(robot, words)


def _told(progress: Progress, part: str) -> Callable[[float], None]:
    return lambda fraction: progress(part, fraction)
