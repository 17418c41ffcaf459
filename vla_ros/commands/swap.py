"""`vla-ros swap`: another policy of the running stack moves the arm."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from vla_ros.errors import VlaRosError
from vla_ros.launching.environment import defaults_without_ros, ros_for

_EPILOG = """\
The arm holds from the change until the new policy's first chunk. A policy that isn't loaded yet is loaded first, while
the other one goes on; what `resident:=a,b` of the launch file names is loaded from the start, and changes in a moment.

example:
  vla-ros swap scripted_visual
  vla-ros swap scripted_visual --take     # after an operator has let go
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `swap` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "swap",
        help="let another policy of the running stack move the arm",
        description="Lets another policy of the running stack move the arm.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("policy", metavar="NAME", help="policy: a name from config/policies or a YAML file")
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="S", help="seconds it may take to load (default %(default)s)"
    )
    parser.add_argument("--take", action="store_true", help="take the arm from teleoperation, or whoever else has it")
    parser.add_argument("--namespace", default="", metavar="NS", help="the stack's namespace (default none)")
    parser.add_argument("--json", dest="is_json", action="store_true", help="the result as one JSON object, last")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        VlaRosError: if the stack isn't there or refuses; the arm then does what it did.
    """
    if not args.timeout > 0.0:
        raise VlaRosError(f"--timeout {args.timeout}: must be positive")
    os.environ.update(defaults_without_ros(os.environ))
    with ros_for("vla-ros swap"):
        from vla_ros.nodes.swap import swap
    result = swap(args.policy, args.timeout, args.namespace, args.take)
    if args.is_json:
        print(json.dumps(result))
        return 0
    who = result["source"] or "nobody"
    print(f"{result['from']} -> {result['to']} in {result['took_s']:.2f} s; who may move the arm: {who}")
    return 0
