"""`vla-ros episodes repair`."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from vla_ros.commands.episodes.options import add_common
from vla_ros.commands.progress import Progress
from vla_ros.errors import RecordingError
from vla_ros.policies.packages import packages_for


def add_parser(subparsers: Any) -> None:
    """Adds the action."""
    parser = subparsers.add_parser("repair", help="finish what a crash left unfinished; finished ones aren't touched")
    parser.add_argument("bags", nargs="*", type=Path, metavar="BAG", help="folders of other bags that weren't closed")
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the action: 0 if nothing is left unfinished.

    Raises:
        VlaRosError: if somebody is recording into the folder.
    """
    with packages_for("vla-ros episodes repair"):
        from vla_ros.recording.repair import Repaired, repair_bag, repair_folder

    progress = Progress()
    if args.bags:
        found = []
        for bag in args.bags:
            try:
                found.append(repair_bag(bag, partial(progress, bag.name)))
            except (RecordingError, OSError) as error:
                found.append(Repaired(bag.name, bag, problem=f"left as it is: {error}", is_left=True))
    else:
        found = repair_folder(args.folder, progress)
    progress.end()
    if args.is_json:
        rows = [{**vars(item), "folder": str(item.folder) if item.folder else None} for item in found]
        print(json.dumps({"repaired": rows}))
    else:
        print("\n".join(map(str, found)) or f"{args.folder} has nothing unfinished")
    return 1 if any(item.is_left for item in found) else 0
