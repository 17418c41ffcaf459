"""`vla-ros calibrate gripper`: sense, range, speed and dead time."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from vla_ros.calibration.gripper import Stroke, fit_stroke, judge_gripper, speed_to_write
from vla_ros.calibration.verdict import CalibrateError, is_good
from vla_ros.commands.calibrate.options import add_stack, add_writing, new_parser, node_module
from vla_ros.commands.calibrate.telling import ask, say, tell
from vla_ros.commands.calibrate.writing import destination, with_description, write
from vla_ros.commands.stack_options import stack_words
from vla_ros.config import build
from vla_ros.errors import VlaRosError
from vla_ros.robots.config import RobotConfig, load_robot

_BEFORE_S, _AFTER_S, _AT_REST_S = 0.4, 4.0, 0.7
_STILL, _MOVED = 0.01, 0.1
_EPILOG = """\
Opens and closes the gripper three times through gripper/command, with nothing between the fingers, and asks whether it
did as it was told: the figures alone can't tell a gripper whose command and state are both the wrong way round.

example:
  vla-ros calibrate gripper --robot ur5e
  vla-ros calibrate gripper --robot my_arm.yaml --write
"""


def add_parser(subjects: Any) -> None:
    """Adds the subcommand."""
    parser = new_parser(subjects, "gripper", "find a gripper's sense, range, speed and dead time", _EPILOG)
    parser.add_argument("--strokes", type=int, default=3, metavar="N", help="each way (default %(default)s)")
    add_stack(parser)
    add_writing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrates; 0 if the verdict is good.

    Raises:
        VlaRosError: if it can't be done.
    """
    robot = load_robot(args.robot, args.prefix)
    if robot.gripper is None:
        raise CalibrateError("gripper", f"robot {robot.name} has none", "say in its YAML what it has")
    if args.strokes < 1:
        raise VlaRosError(f"--strokes {args.strokes}: at least 1")
    to = destination("robots", args.robot, args.out, args.write)
    nodes = node_module("gripper")
    with nodes.calibration_session(robot, None, words=stack_words(args), hears=("gripper",)) as session:
        session.wait_for(lambda: session.node.gripper_states, args.timeout, "gripper/state")
        session.wait_for(lambda: session.node.is_gripper_heard, args.timeout, "listener to gripper/command")
        if not ask("the gripper will move: is nothing between its fingers, and no hand near?", args.yes):
            raise VlaRosError("nothing was moved; --yes answers for scripts")
        strokes, seen = [], []
        # Once shut first, wherever it stood, so that every stroke that counts is a whole one.
        _stroke(session, 0.0)
        for number in range(args.strokes):
            for command, done in ((1.0, "open"), (0.0, "close")):
                stroke = _stroke(session, command)
                say(_told(stroke))
                strokes.append(stroke)
                answer = ask(f"did it {done}?", args.yes) if number == 0 else None
                if answer is not None:
                    seen.append((command, answer))
        _stroke(session, 1.0)
    fit = judge_gripper(strokes, robot.gripper, seen)
    speed = speed_to_write(fit, robot.gripper)
    values: dict[tuple[str, ...], Any] = {}
    if is_good(fit.checks) and speed is not None:
        values = with_description(to, {("gripper", "speed_per_s"): speed})
    written = [write(to, values, lambda data, where: build(RobotConfig, data, where))] if values else []
    figures = {
        "closed": fit.closed,
        "open": fit.opened,
        "speed_per_s": fit.speed_per_s,
        "dead_time_s": fit.dead_time_s,
        "is_reversed": fit.is_reversed,
        "strokes": [vars(stroke) for stroke in strokes],
    }
    return tell(args, f"gripper of {robot.name}", fit.checks, figures, written)


def _stroke(session: Any, command: float) -> Stroke:
    """Sends a command and waits until the gripper rests."""
    node = session.node
    node.forget()
    session.turn_for(_BEFORE_S)
    sent_ns = node.command_gripper(command)
    end_s = time.monotonic() + _AFTER_S
    session.turn_for(_AT_REST_S)
    while time.monotonic() < end_s:
        session.turn()
        states = node.gripper_states
        recent = [opening for stamp_ns, opening in states if stamp_ns > states[-1][0] - 5e8]
        # One that hasn't moved yet may be slow to begin.
        if len(recent) > 1 and np.ptp(recent) < _STILL and abs(states[-1][1] - states[0][1]) > _MOVED:
            break
    times_s = np.array([(stamp_ns - sent_ns) * 1e-9 for stamp_ns, _ in node.gripper_states])
    return fit_stroke(command, times_s, np.array([opening for _, opening in node.gripper_states]))


def _told(stroke: Stroke) -> str:
    way = f"told {stroke.command:g}: from {stroke.start:.2f} to {stroke.end:.2f}"
    return f"{way}, {stroke.speed_per_s:.2f} openings/s after {1e3 * stroke.dead_time_s:.0f} ms"
