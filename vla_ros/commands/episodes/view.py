"""`vla-ros episodes view`: a page about a recorded episode."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vla_ros.commands.episodes.options import add_common
from vla_ros.commands.progress import Progress
from vla_ros.policies.packages import packages_for

_EPILOG = """\
The page is a folder: index.html, the video of all cameras, and plots of targets, commands and measurements, gripper,
the filter's verdicts and who had the arm, on one time axis. It asks nothing of the network; open it with any browser.

example:
  vla-ros episodes view 3
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the verb `view` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "view",
        help="write a page about an episode: video, plots, verdicts, interventions",
        description="Writes a page about a recorded episode.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("episode", metavar="N", help="number of the episode, or its folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the page (default out/EPISODE)")
    parser.add_argument("--rig", metavar="NAME", help="of a bag that doesn't say")
    add_common(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the verb.

    Raises:
        VlaRosError: for an episode that can't be read, or a page that can't be written.
    """
    # Imported late: they take a second, and an unknown argument should be told at once.
    with packages_for("vla-ros episodes view"):
        from vla_ros.commands.replay.episodes import model_of, read_bag
        from vla_ros.evaluation.episode_page import INDEX, write_page

    episode = read_bag(args.episode, args.folder, args.rig)
    out = args.out or Path("out") / episode.info.name
    progress = Progress()
    facts = write_page(episode, model_of(episode), out, lambda fraction: progress("writing", fraction))
    progress.end()
    if args.is_json:
        print(json.dumps({**facts, "page": str(out / INDEX)}))
        return 0
    acted = f"{facts['interventions']} interventions, {len(facts['limits'])} limits acted"
    print(f"{facts['episode']}: {facts['outcome']}, {facts['duration_s']:.1f} s, {acted}\n{out / INDEX}")
    return 0
