"""`vla-ros teleop`: a person, or a script, leads the arm of the running stack."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from vla_ros.errors import VlaRosError
from vla_ros.launching.environment import defaults_without_ros, ros_for
from vla_ros.teleop.config import DEVICES, FRAMES
from vla_ros.teleop.keyboard import HELP
from vla_ros.teleop.terminal import StatusLine

_EPILOG = """\
Nothing moves unless the dead-man switch is held: a motion key, the gamepad's right shoulder, the SpaceMouse's left
button, the clutch of a phone or a VR controller. Held, it takes over from any policy at once; let go, the arm brakes
and holds, and a policy goes on only when it is selected again. docs/teleop.md has the keys, mappings and frames.

example:
  vla-ros launch bringup robot:=panda           # in one terminal
  vla-ros teleop --robot panda                  # in another one
  vla-ros teleop --robot panda --device gamepad --frame camera --camera base
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `teleop` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "teleop",
        help="lead the arm of the running stack by keyboard, gamepad, SpaceMouse, phone or a script",
        description="Leads the arm of the running stack by keyboard, gamepad, SpaceMouse, phone or a script.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=DEVICES, default="keyboard", help="what leads (default %(default)s)")
    parser.add_argument(
        "--robot", required=True, metavar="NAME", help="robot: a name from config/robots or a YAML file"
    )
    parser.add_argument("--rig", metavar="NAME", help="rig with the operator's camera (default ROBOT_table)")
    parser.add_argument("--frame", choices=FRAMES, default="base", help="whose axes the motion is along (default base)")
    parser.add_argument("--camera", default="", metavar="NAME", help="camera of frame camera (default the rig's first)")
    parser.add_argument(
        "--speed", type=float, default=0.0, metavar="X", help="part of the full speed (config/teleop.yaml)"
    )
    parser.add_argument("--config", default="", metavar="FILE", help="another file than config/teleop.yaml")
    parser.add_argument(
        "--mapping", default="", metavar="NAME", help="gamepad: standard, xbox, playstation, or your own"
    )
    parser.add_argument("--script", default="", metavar="FILE", help="scripted: its YAML file")
    parser.add_argument("--hid", default="", metavar="PATH", help="spacemouse: /dev/hidraw* to read without a driver")
    parser.add_argument("--interface", default="", metavar="NAME", help="the launch file's interface, if it was given")
    parser.add_argument("--hardware", choices=("sim", "mock", "real"), default="sim", help="as of the stack (sim)")
    parser.add_argument("--namespace", default="", metavar="NS", help="the stack's namespace (default none)")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="the stack's prefix (default none)")
    parser.add_argument("--json", dest="is_json", action="store_true", help="what was done as one JSON object, last")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand; the exit code.

    Raises:
        VlaRosError: for an argument that can't be used; nothing moves then.
    """
    if args.device == "scripted" and not args.script:
        raise VlaRosError("--device scripted needs --script FILE; docs/teleop.md says what is in it")
    if not 0.0 <= args.speed <= 1.0:
        raise VlaRosError(f"--speed {args.speed}: a part of the full speed, at most 1")
    os.environ.update(defaults_without_ros(os.environ))
    with ros_for("vla-ros teleop"):
        from vla_ros.nodes.teleop_node import lead
    if args.device == "keyboard":
        line = StatusLine()
        for text in HELP:
            line.say(text)
    exit_code, figures = lead(["vla-ros", "--ros-args", *_ros_words(args)])
    if args.is_json:
        print(json.dumps({"device": args.device, "exit_code": exit_code, **figures}))
    return exit_code


def _ros_words(args: argparse.Namespace) -> list[str]:
    rig = f"{args.robot}_table" if args.rig is None and not args.robot.endswith((".yaml", ".yml")) else args.rig or ""
    values: dict[str, object] = {"rig": rig, "speed": args.speed}
    for name in ("robot", "device", "frame", "camera", "config", "mapping", "hid", "interface", "hardware", "prefix"):
        values[name] = getattr(args, name)
    values["script"] = str(Path(args.script).expanduser()) if args.script else ""
    # JSON's quotes keep text text, whatever it looks like.
    words = [word for name, value in values.items() for word in ("-p", f"{name}:={json.dumps(value)}")]
    if args.namespace.strip("/"):
        words += ["-r", f"__ns:=/{args.namespace.strip('/')}"]
    return words
