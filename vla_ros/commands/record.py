"""`vla-ros record`: episodes of a running stack."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from vla_ros.commands.episodes.options import DEFAULT_FOLDER
from vla_ros.errors import VlaRosError
from vla_ros.launching.environment import defaults_without_ros, ros_for
from vla_ros.policies.packages import packages_for

_OUTCOMES = ("success", "failure", "unlabelled")
_EPILOG = """\
In a terminal keys start and end episodes: space or enter starts and stops, s ends as success, f as failure, d discards,
q quits; s, f and d also label the last one. With --seconds the clock does. --resume finishes what a crash left
unfinished, and counts what is in the folder already.

example:
  vla-ros record --robot panda --episodes 20 --task "pick up the red block"
  vla-ros record --robot panda --episodes 3 --task "reach the red block" --seconds 10 --outcome success
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `record` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "record",
        help="record episodes of a running stack",
        description="Records episodes of a running stack as rosbag2 bags; nothing that is written is lost by a crash.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--robot", required=True, metavar="NAME", help="a name from config/robots or a YAML file")
    parser.add_argument("--rig", metavar="NAME", help="a name from config/rigs or a YAML file (default ROBOT_table)")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="default %(default)s")
    parser.add_argument("--episodes", type=int, default=1, metavar="N", help="how many (default %(default)s)")
    parser.add_argument("--task", default="", metavar="TEXT", help="instruction (default: the one in force)")
    parser.add_argument("--operator", default=os.environ.get("USER", ""), metavar="NAME", help="default %(default)s")
    parser.add_argument("--note", default="", metavar="TEXT", help="what is to be said of these episodes")
    parser.add_argument("--policies", default="", metavar="NAME,...", help="policies that act, for their contracts")
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="default %(default)s")
    parser.add_argument("--images", choices=("raw", "jpeg", "png"), default="raw", help="default %(default)s")
    parser.add_argument("--compression", choices=("none", "zstd"), default="none", help="of MCAP chunks")
    parser.add_argument("--resume", action="store_true", help="finish unfinished episodes first, and count all")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of an episode; without it keys end them")
    parser.add_argument(
        "--outcome", choices=_OUTCOMES, default="unlabelled", help="with --seconds (default %(default)s)"
    )
    parser.add_argument("--pause", type=float, default=0.0, metavar="S", help="between two of those")
    parser.add_argument(
        "--timeout", type=float, default=20.0, metavar="S", help="until cameras and arm have to be heard; 0: never mind"
    )
    parser.add_argument("--hardware", choices=("sim", "mock", "real"), default="sim", help="as of the stack (sim)")
    parser.add_argument("--namespace", default="", metavar="NS", help="the stack's namespace (default none)")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="the stack's prefix (default none)")
    parser.add_argument("--json", dest="is_json", action="store_true", help="the result as one JSON object, last")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand: 0 if all wanted episodes are written.

    Raises:
        VlaRosError: if the stack isn't there, or an episode wasn't written.
    """
    if args.episodes < 1:
        raise VlaRosError(f"--episodes {args.episodes}: at least 1")
    for name in ("seconds", "pause", "timeout"):
        value = getattr(args, name)
        if value is not None and not 0.0 <= value < float("inf"):
            raise VlaRosError(f"--{name} {value}: at least 0")
    os.environ.update(defaults_without_ros(os.environ))
    with packages_for("vla-ros record"):
        from vla_ros.recording.repair import repair_folder
    with ros_for("vla-ros record", "ros,data"):
        from vla_ros.nodes.recording_session import SessionOptions, record
    there = 0
    if args.resume:
        from vla_ros.commands.progress import Progress
        from vla_ros.recording.store import EpisodeStore

        progress = Progress()
        for repaired in repair_folder(args.folder, progress):
            print(repaired, file=sys.stderr)
        progress.end()
        there = len(EpisodeStore(args.folder).finished())
    wanted = max(0, args.episodes - there)
    result: dict[str, Any] = {"folder": str(args.folder), "episodes": [], "wanted": 0, "is_complete": True}
    if wanted:
        options = SessionOptions(wanted, args.seconds, args.outcome, args.pause, args.timeout)
        result = record(_ros_words(args), options, lambda text: print(text, file=sys.stderr, flush=True))
    result["were_there"] = there
    if args.is_json:
        print(json.dumps(result))
    else:
        print(f"{len(result['episodes'])} of {wanted} episodes recorded into {result['folder']}; {there} were there")
    return 0 if result["is_complete"] else 1


def _ros_words(args: argparse.Namespace) -> list[str]:
    """The recorder's parameters as ROS arguments; as YAML strings, since a task may look like a number."""
    values = {name: getattr(args, name) for name in ("robot", "task", "operator", "note", "policies", "storage")}
    values |= {"images": args.images, "compression": args.compression, "folder": str(args.folder)}
    values |= {"hardware": args.hardware, "prefix": args.prefix}
    values["rig"] = args.rig or f"{Path(args.robot).stem}_table"
    words = ["--ros-args"]
    for name, value in values.items():
        if value:
            words += ["-p", f"{name}:={json.dumps(value)}"]
    if args.namespace.strip("/"):
        words += ["-r", f"__ns:=/{args.namespace.strip('/')}"]
    return words
