"""`vla-ros calibrate board`: a board to print."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vla_ros.calibration.boards import parse_board
from vla_ros.calibration.printing import BAR_M, write_sheet
from vla_ros.commands.calibrate.options import add_board, new_parser

_EPILOG = """\
Print it at 100 % (no fitting to the page), measure the bar, glue it to something flat. If the bar isn't 100 mm, give
the other commands the squares' and markers' true sizes.

example:
  vla-ros calibrate board --out board.pdf
  vla-ros calibrate board --board apriltag:4x3:60:48 --out tags.png
"""


def add_parser(subjects: Any) -> None:
    """Adds the subcommand."""
    parser = new_parser(subjects, "board", "draw a board to print", _EPILOG)
    add_board(parser)
    parser.add_argument("--out", type=Path, default=Path("board.pdf"), metavar="FILE", help="default %(default)s")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draws it; 0.

    Raises:
        VlaRosError: for a board that there isn't, or a file of another kind.
    """
    board = parse_board(args.board)
    width_m, height_m = write_sheet(board, args.out)
    if args.is_json:
        values = {"board": str(board), "file": str(args.out), "width_mm": 1e3 * width_m, "height_mm": 1e3 * height_m}
        print(json.dumps(values))
        return 0
    size = f"{1e3 * width_m:.1f} x {1e3 * height_m:.1f} mm"
    print(f"{args.out}: {board}, the sheet {size}; print at 100 %: the bar has to be {1e3 * BAR_M:g} mm long")
    return 0
