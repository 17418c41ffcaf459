"""`vla-ros` and its subcommands, each a module of `vla_ros.commands` that is imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from vla_ros import __version__
from vla_ros.errors import VlaRosError

COMMANDS = {
    "bench": "measure it against floors and peers in the same run",
    "calibrate": "measure cameras, mounts, gripper, latencies and axes of a cell",
    "contract": "show what a policy sees and does, compare two, and check one against a rig or a checkpoint",
    "critic": "score the examples of datasets by a progress critic: which went well, and where a failure began",
    "dataset": "look into datasets, merge, split and convert them",
    "demo": "run the whole stack in simulation on an instruction and judge it",
    "doctor": "say what is installed, what is missing, and the command that mends it",
    "episodes": "list, check and repair recorded episodes",
    "eval": "run policies in closed loop in simulation: success with intervals, comparisons, a report",
    "export": "make a dataset of recorded episodes",
    "hardware": "say how the arm of the running stack is, arm it, recover it from a fault",
    "launch": "run a ROS 2 XML launch file, with or without ROS",
    "policies": "say which policies can be run here and why others can't; export checkpoints",
    "record": "record episodes of a running stack",
    "replay": "repeat an episode's actions in simulation or on the arm, or compare a policy's with them",
    "serve": "serve policies to other processes and machines",
    "swap": "let another policy of the running stack move the arm",
    "teleop": "lead the arm of the running stack by keyboard, gamepad, SpaceMouse, phone or a script",
    "train": "train a policy on datasets",
}


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of a subcommand; `run` among them is what carries it out."""
    wanted = next((word for word in words if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(prog="vla-ros", description="From a vision-language-action policy to a real arm.")
    parser.add_argument("--version", action="version", version=f"vla-ros {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name == wanted:
            importlib.import_module(f"vla_ros.commands.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser.parse_args(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Returns:
        Its exit code: 0 only for success, 2 for an error of the user's.
    """
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        return int(args.run(args))
    except VlaRosError as error:
        print(f"vla-ros: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
