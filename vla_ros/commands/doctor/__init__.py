"""`vla-ros doctor`: says what is installed and what is missing, each with the command that mends it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vla_ros.commands.doctor.finding import Finding, examine
from vla_ros.commands.doctor.machine_checks import MACHINE_CHECKS
from vla_ros.commands.doctor.python_checks import PYTHON_CHECKS
from vla_ros.commands.doctor.ros_checks import DEEP_CHECKS, ROS_CHECKS

_EPILOG = """\
`missing` is needed and not there or not working; `optional` is a gain that can wait. Everything that could crash runs
in a process of its own. The exit code is 0 when nothing is missing, else 1.

example:
  vla-ros doctor
  vla-ros doctor --deep --json
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `doctor` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        help="say what is installed, what is missing, and the command that mends it",
        description="Says what is installed, what is missing, and the command that mends it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--deep", dest="is_deep", action="store_true", help="also exchange messages between processes")
    parser.add_argument("--json", dest="is_json", action="store_true", help="one JSON object, last on standard output")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand; the exit code."""
    checks = [*PYTHON_CHECKS, *ROS_CHECKS, *(DEEP_CHECKS if args.is_deep else ()), *MACHINE_CHECKS]
    findings = []
    for finding in examine(checks):
        findings.append(finding)
        if not args.is_json:
            print(line(finding), flush=True)
    missing = [finding.name for finding in findings if finding.status == "missing"]
    if args.is_json:
        print(json.dumps({"ok": not missing, "missing": missing, "checks": [vars(finding) for finding in findings]}))
    else:
        print(f"missing: {', '.join(missing)}" if missing else "nothing is missing")
    return 1 if missing else 0


def line(finding: Finding) -> str:
    """One finding for a person."""
    text = f"{finding.status:<9} {finding.name:<14} {finding.detail}"
    return f"{text}; mend: {finding.mend}" if finding.mend else text
