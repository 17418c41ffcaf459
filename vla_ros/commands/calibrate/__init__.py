"""`vla-ros calibrate`: what a lab measures of its cell, guided, with residuals and a verdict. A module a subcommand."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

SUBJECTS = ("board", "camera", "hand-eye", "gripper", "latency", "axes")

_EPILOG = """\
In this order in a new cell: axes, gripper, board, camera, hand-eye, latency. Each says what to do next and what is
missing, ends with a verdict, and writes a new file beside the old one (NAME.calibrated.yaml), and shows the difference;
--write changes the file itself. Exit code 0 only if all is well. docs/calibration.md has the details.

example:
  vla-ros calibrate board --out board.pdf
  vla-ros calibrate camera --rig my_cell.yaml --camera wrist
  vla-ros calibrate hand-eye --robot ur5e --rig my_cell.calibrated.yaml --camera wrist --write
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `calibrate` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "calibrate",
        help="measure cameras, mounts, gripper, latencies and axes of a cell",
        description="Measures cameras, mounts, gripper, latencies and axes of a cell, beside a running stack.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subjects = parser.add_subparsers(metavar="WHAT", required=True)
    for subject in SUBJECTS:
        importlib.import_module(f"{__name__}.{subject.replace('-', '_')}").add_parser(subjects)
    return parser
