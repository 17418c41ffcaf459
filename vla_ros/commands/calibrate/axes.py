"""`vla-ros calibrate axes`: whether the base's and the tool's axes point where they are said to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.calibration.axes import STEP_M, AxisResult, judge_axes, measure, plan_moves
from vla_ros.calibration.verdict import CalibrateError
from vla_ros.commands.calibrate.options import add_stack, new_parser, node_module
from vla_ros.commands.calibrate.telling import ask, say, tell
from vla_ros.commands.stack_options import stack_words
from vla_ros.config import load, package_share
from vla_ros.errors import VlaRosError
from vla_ros.robots.config import load_robot
from vla_ros.safety.config import SafetyConfig
from vla_ros.teleop.script import ScriptStep
from vla_ros.types import FloatArray

_MOVE_S, _SETTLE_S = 2.0, 0.6
_EPILOG = f"""\
The tool goes {1e3 * STEP_M:.0f} mm along +x, +y and +z of the base frame, then of its own, and back each time. The text
says where that is for who stands behind the base and looks out over the work space (the safety YAML's workspace); you
say whether it went there. A `no` makes the verdict bad and names the likely cause, such as UR's base and base_link.

example:
  vla-ros calibrate axes --robot ur5e
"""


def add_parser(subjects: Any) -> None:
    """Adds the subcommand."""
    parser = new_parser(subjects, "axes", "check that the axes point where they are said to", _EPILOG)
    add_stack(parser, is_moving=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks; 0 if the verdict is good.

    Raises:
        VlaRosError: if it can't be done.
    """
    robot = load_robot(args.robot, args.prefix)
    path = Path(args.safety) if args.safety else package_share() / "config" / "safety.yaml"
    safety = load(SafetyConfig, path)
    lower, upper = np.array(safety.workspace_lower_m), np.array(safety.workspace_upper_m)
    nodes = node_module("axes")
    results: list[AxisResult] = []
    with nodes.calibration_session(
        robot,
        None,
        robot_name=args.robot,
        words=stack_words(args),
        interface=args.interface,
        safety=args.safety,
        is_led=True,
    ) as session:

        def tool() -> FloatArray:
            session.turn_for(_SETTLE_S)
            return session.model.forward_kinematics(session.newest_state(args.timeout).positions)

        here = tool()
        _check_place(here, lower, upper)
        if not ask(f"the tool moves by {1e3 * STEP_M:.0f} mm every way from here; is its way clear?", args.yes):
            raise VlaRosError("nothing was moved; --yes answers for scripts")
        for move in plan_moves(here, 0.5 * (lower + upper)):
            say(f"+{move.axis} of the {move.frame} frame: the tool goes {move.words}")
            before = tool()
            session.lead([_step(move.way_m)])
            measured_m, turned_deg = measure(before, tool())
            answer = ask(f"did it go {move.words}?", args.yes)
            results.append(AxisResult(move, measured_m, turned_deg, answer))
            session.lead([_step(-move.way_m)])
    moves = [
        {
            "frame": result.move.frame,
            "axis": result.move.axis,
            "words": result.move.words,
            "wanted_m": result.move.way_m.tolist(),
            "measured_m": result.measured_m.tolist(),
            "turned_deg": result.turned_deg,
            "is_seen": result.is_seen,
        }
        for result in results
    ]
    return tell(args, f"axes of {robot.name}", judge_axes(results), {"moves": moves}, [])


def _check_place(T_base_tcp: FloatArray, lower: FloatArray, upper: FloatArray) -> None:
    """Raises CalibrateError where the filter wouldn't let the tool move."""
    p = T_base_tcp[:3, 3]
    if not ((p - STEP_M >= lower) & (p + STEP_M <= upper)).all():
        where = ", ".join(f"{value:.3f}" for value in p)
        mirrored = p * [-1.0, -1.0, 1.0]
        is_turned = bool(((mirrored >= lower) & (mirrored <= upper)).all())
        mend = "lead it to the middle of the work space first (vla-ros teleop)"
        if is_turned:
            mend = "base_frame seems turned by half a turn: on a UR `base` and `base_link` are; else " + mend
        raise CalibrateError("axes", f"the tool is at ({where}) m, at the edge of the work space or outside", mend)


def _step(way_m: FloatArray) -> ScriptStep:
    x, y, z = way_m.tolist()
    return ScriptStep(duration_s=_MOVE_S, move=(x, y, z, 0.0, 0.0, 0.0))
