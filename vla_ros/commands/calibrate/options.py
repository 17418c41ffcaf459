"""Options that the subcommands of `vla-ros calibrate` have in common."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from vla_ros.calibration.boards import DEFAULT, FORM
from vla_ros.commands.stack_options import add_stack_options
from vla_ros.contract import Rig, RigCamera, load_rig
from vla_ros.errors import UnknownNameError, VlaRosError
from vla_ros.launching.environment import defaults_without_ros, ros_for


def new_parser(subjects: Any, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    """A subcommand's parser, with `--json`."""
    parser: argparse.ArgumentParser = subjects.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", dest="is_json", action="store_true", help="the result as one JSON object, last")
    return parser


def add_stack(parser: argparse.ArgumentParser, *, is_moving: bool = False, has_robot: bool = True) -> None:
    """What says which stack is meant."""
    if has_robot:
        parser.add_argument("--robot", required=True, metavar="NAME", help="a name from config/robots or a YAML file")
    add_stack_options(parser)
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="for the stack (default %(default)g)")
    if is_moving:
        parser.add_argument("--interface", default="", metavar="NAME", help="the launch file's, if it was given")
        parser.add_argument("--safety", default="", metavar="FILE", help="the stack's, if not config/safety.yaml")
    parser.add_argument("--yes", action="store_true", help="take every question as answered with yes")


def add_camera(parser: argparse.ArgumentParser) -> None:
    """Which camera, of which rig."""
    parser.add_argument("--rig", metavar="NAME", help="a name from config/rigs or a YAML file (default ROBOT_table)")
    parser.add_argument("--camera", default="", metavar="NAME", help="of the rig (default its only one)")


def add_board(parser: argparse.ArgumentParser) -> None:
    """Which board."""
    parser.add_argument("--board", default=DEFAULT, metavar="BOARD", help=f"{FORM} (default %(default)s)")


def add_writing(parser: argparse.ArgumentParser) -> None:
    """Where the result goes."""
    help_out = "file, or folder, to write to (default NAME.calibrated.yaml: beside the file, or here for a name)"
    parser.add_argument("--out", type=Path, metavar="PATH", help=help_out)
    parser.add_argument("--write", action="store_true", help="change the file itself; its comments stay")


def rig_word(args: argparse.Namespace) -> str:
    """Name or file of the rig."""
    if args.rig:
        return str(args.rig)
    robot = getattr(args, "robot", "")
    if not robot:
        raise VlaRosError("--rig is missing: a name from config/rigs or a YAML file")
    return f"{Path(robot).stem.removesuffix('.calibrated')}_table"


def chosen_camera(rig: Rig, name: str) -> tuple[str, RigCamera]:
    """The rig's camera of that name; without one the only one there is.

    Raises:
        VlaRosError: if there are several, or none of that name.
    """
    if not name and len(rig.cameras) == 1:
        (name,) = rig.cameras
    if not name:
        raise VlaRosError(f"rig {rig.name} has cameras {', '.join(rig.cameras) or '(none)'}; name one with --camera")
    if name not in rig.cameras:
        raise UnknownNameError(f"camera of rig {rig.name}", name, rig.cameras)
    return name, rig.cameras[name]


def rig_of(args: argparse.Namespace) -> Rig:
    """The rig that the options name."""
    return load_rig(rig_word(args), args.prefix)


def node_module(what: str) -> Any:
    """`vla_ros.nodes.calibration_node`, whose import needs ROS.

    Raises:
        MissingDependencyError: where there is none.
    """
    os.environ.update(defaults_without_ros(os.environ))
    with ros_for(f"vla-ros calibrate {what}"):
        from vla_ros.nodes import calibration_node
    return calibration_node
