"""`vla-ros launch`: runs ROS 2 XML launch files, with and without ROS."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from vla_ros.commands.preflight import check_graph
from vla_ros.launching.output import show
from vla_ros.launching.report import arguments_data, arguments_text, graph_data, graph_text
from vla_ros.launching.resolve import declared_arguments, find_launch_file, parse_assignments, resolve
from vla_ros.launching.supervisor import OWN_LABEL, Supervisor

# Exit code for an argument or a file that can't be used, of nodes as of commands.
UNUSABLE = 2

_EPILOG = """\
FILE is a path or the name of a file in share/vla_ros/launch. The file is the one that `ros2 launch` starts; what this
command doesn't know of it is refused by name. A node with <env name="VLA_ROS_REQUIRED" value="true"/> in it ends all
others when it ends, and the exit code is 1, or 2 where the node ended with 2: something it was given can't be used.
Ctrl-C ends everything, and the exit code is 0.

example:
  vla-ros launch bringup robot:=panda hardware:=sim
  vla-ros launch bringup robot:=panda --print
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `launch` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "launch",
        help="run a ROS 2 XML launch file, with or without ROS",
        description="Runs a ROS 2 XML launch file, with or without ROS.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="launch file: a path or a bare name like bringup")
    parser.add_argument("assignments", metavar="key:=value", nargs="*", help="values of the file's arguments")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--print", dest="is_print", action="store_true", help="show what would be started; start nothing")
    mode.add_argument("--show-args", "-s", action="store_true", help="list the file's arguments; start nothing")
    parser.add_argument("--json", dest="is_json", action="store_true", help="one JSON object, last on standard output")
    parser.add_argument("--quiet", dest="is_quiet", action="store_true", help="keep what nodes print off the screen")
    parser.add_argument("--log-dir", type=Path, metavar="DIR", help="keep what nodes print in DIR, one file a node")
    parser.set_defaults(run=run)
    _allow_options_between(parser)
    return parser


def _allow_options_between(parser: argparse.ArgumentParser) -> None:
    """Lets `FILE --print key:=value` pass: argparse gives up on positional arguments that an option interrupts."""
    parse = parser.parse_known_args

    def parse_known_args(args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else args
        found, rest = parse([word for word in words if ":=" not in word], namespace)
        found.assignments += [word for word in words if ":=" in word]
        return found, rest

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign]


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand; the exit code."""
    path = find_launch_file(args.file)
    given = parse_assignments(args.assignments)
    if args.show_args:
        arguments = declared_arguments(path, given)
        print(json.dumps(arguments_data(arguments)) if args.is_json else arguments_text(arguments))
        return 0
    graph = resolve(path, given)
    if args.is_print:
        print(json.dumps(graph_data(graph)) if args.is_json else graph_text(graph))
        return 0
    check_graph(graph)
    supervisor = Supervisor(graph, log_dir=args.log_dir, is_quiet=args.is_quiet)
    exit_code = _supervise(supervisor)
    for death in supervisor.deaths[:1]:
        if death.is_required:
            exit_code = UNUSABLE if death.exit_code == UNUSABLE else exit_code
            # Once more and last, since what the others said while they stopped has pushed it up.
            reason = supervisor.last_error(death.label)
            print(f"vla-ros: {death}{': ' if reason else ''}{reason}", file=sys.stderr)
    if args.is_json:
        ended = [{"node": death.label, "exit_code": death.exit_code} for death in supervisor.deaths]
        print(json.dumps({"exit_code": exit_code, "ended": ended}))
    return exit_code


def _supervise(supervisor: Supervisor) -> int:
    received: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        received.append(number)

    # SIGINT, SIGTERM and SIGHUP all mean the same: stop in order. A second one is ignored, as in ROS; what doesn't
    # stop is killed after ten seconds.
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        with supervisor:
            death = supervisor.wait(lambda: bool(received))
            if death is not None:
                show(OWN_LABEL, "stopping the rest", is_error=True)
            elif received:
                show(OWN_LABEL, f"{signal.Signals(received[0]).name}: stopping")
            return supervisor.stop()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
