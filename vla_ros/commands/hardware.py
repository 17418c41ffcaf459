"""`vla-ros hardware`: how the arm of the running stack is, arm it, recover it from a fault."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from vla_ros.launching.environment import defaults_without_ros, ros_for

_EPILOG = """\
A real arm starts in dry run: dry_run/joint_command shows what it would do, and nothing reaches it. `arm` lets commands
reach it, from where it stands; `disarm` brakes and shows again.

example:
  vla-ros hardware status       # every check, in its order
  vla-ros hardware arm
  vla-ros hardware recover      # after a reflex or a protective stop, when it is safe
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `hardware` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "hardware",
        help="say how the arm of the running stack is, arm it, recover it from a fault",
        description="Says how the arm of the running stack is, arms it, recovers it from a fault.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("status", "arm", "disarm", "recover"), help="what is to be done")
    parser.add_argument("--namespace", default="", metavar="NS", help="the stack's namespace (default none)")
    parser.add_argument("--json", dest="is_json", action="store_true", help="the result as one JSON object, last")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand.

    Returns:
        0, or 1 where `status` finds an arm that isn't ready.

    Raises:
        VlaRosError: if the stack isn't there or refuses.
    """
    os.environ.update(defaults_without_ros(os.environ))
    with ros_for("vla-ros hardware"):
        from vla_ros.nodes import hardware_client
    if args.what == "status":
        state = hardware_client.hardware_state(args.namespace)
        if args.is_json:
            print(state.to_json())
        else:
            for name, problem in state.checks.items():
                print(f"  {'ok ' if not problem else '-- '} {name:<13} {problem}")
            print("the arm may be led" if state.is_ready else f"the arm isn't led: {state.reason}")
        return 0 if state.is_ready else 1
    if args.what == "recover":
        said = hardware_client.recover(args.namespace)
    else:
        hardware_client.arm(args.what == "arm", args.namespace)
        said = "commands reach the arm now" if args.what == "arm" else "dry run: nothing reaches the arm now"
    print(json.dumps({"said": said}) if args.is_json else said)
    return 0
