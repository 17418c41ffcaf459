"""`vla-ros episodes`: what was recorded, whether it is sound, and what a crash left unfinished. A module a verb."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from vla_ros.commands.episodes import listing
from vla_ros.commands.episodes.options import add_common

VERBS = ("list", "repair", "validate", "view")
_MODULES = {"list": "listing"}

_EPILOG = """\
An episode is a folder with a rosbag2 bag and episode.json; it is recorded into a folder that ends in .part.

example:
  vla-ros episodes
  vla-ros episodes validate --folder episodes 3
  vla-ros episodes repair
  vla-ros episodes view 3
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `episodes` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "episodes",
        help="list, check, repair and look at recorded episodes",
        description="Lists, checks and repairs recorded episodes, and writes pages about them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(parser, is_action=False)
    actions = parser.add_subparsers(metavar="ACTION")
    for verb in VERBS:
        importlib.import_module(f"{__name__}.{_MODULES.get(verb, verb)}").add_parser(actions)
    parser.set_defaults(run=listing.run)
    return parser
