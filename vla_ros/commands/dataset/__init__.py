"""`vla-ros dataset`: what is in one, and datasets merged, split, converted, with episodes dropped, statistics anew."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vla_ros.commands.dataset import generating
from vla_ros.commands.progress import Progress
from vla_ros.recording.formats.registry import FORMATS

_EPILOG = """\
A dataset's format is found out; where one is written it is the first source's, or --format. Sources are never changed:
everything but `stats --write` and `finish` writes another dataset, and goes on with it after an interruption.

example:
  vla-ros dataset info datasets/reach
  vla-ros dataset merge datasets/monday datasets/tuesday --to datasets/both
  vla-ros dataset split datasets/both --parts train=0.9,val=0.1 --to datasets --seed 0
  vla-ros dataset drop datasets/both 3 17 --to datasets/clean
  vla-ros dataset convert datasets/clean --format hdf5 --to datasets/clean_hdf5
  vla-ros dataset generate --robot panda --episodes 100 --out datasets/generated
  vla-ros dataset import public/aloha --to datasets/aloha
"""

Verb = Callable[[argparse.Namespace, Progress], dict[str, Any]]


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `dataset` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "dataset",
        help="look into datasets, merge, split and convert them",
        description="Looks into datasets, merges, splits, converts and imports them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    info = _verb(verbs, "info", "what is in a dataset")
    info.add_argument("--episodes", action="store_true", help="every episode, too")
    stats = _verb(verbs, "stats", "statistics from the values themselves")
    stats.add_argument("--write", action="store_true", help="into the dataset, where its format keeps them (lerobot)")
    _verb(verbs, "finish", "complete a LeRobot dataset whose writer was interrupted")
    merge = _verb(verbs, "merge", "all episodes of several datasets in one", many=True)
    split = _verb(verbs, "split", "parts of a dataset, each a dataset")
    split.add_argument("--parts", required=True, metavar="NAME=PART,...", help="e.g. train=0.9,val=0.1")
    split.add_argument("--seed", type=int, metavar="N", help="draw the episodes; as they come if not given")
    drop = _verb(verbs, "drop", "a dataset without some episodes")
    drop.add_argument("episodes", nargs="+", metavar="EPISODE", help="name or number, from 0 on")
    convert = _verb(verbs, "convert", "a dataset in another format, or encoded otherwise")
    importing = _verb(verbs, "import", "a public dataset, of any format, as one to train on and to replay")
    for writing in (merge, split, drop, convert, importing):
        writing.add_argument("--to", type=Path, required=True, metavar="DIR", help="the dataset to be written")
        writing.add_argument("--format", choices=sorted(FORMATS), help="of it (default: the first source's)")
        writing.add_argument(
            "--option", action="append", default=[], metavar="NAME=VALUE", help="of the format, e.g. codec=av1"
        )
    importing.set_defaults(format="lerobot")
    generating.add_arguments(verbs).set_defaults(run=run, verb="generate")
    return parser


def _verb(verbs: Any, name: str, summary: str, *, many: bool = False) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    parser.add_argument("datasets", nargs="+" if many else 1, type=Path, metavar="DATASET", help="folder or file")
    parser.add_argument("--from-format", choices=sorted(FORMATS), default="", help="of the source (default: found out)")
    parser.add_argument("--json", dest="is_json", action="store_true", help="one JSON object, last on standard output")
    parser.set_defaults(run=run, verb=name)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand; 0 when it is done, 1 if some episodes couldn't be generated.

    Raises:
        VlaRosError: why it can't be.
    """
    from vla_ros.policies.packages import packages_for

    with packages_for(f"vla-ros dataset {args.verb}"):
        from vla_ros.commands.dataset import describing, writing

        verbs: dict[str, Verb] = {
            "info": describing.info,
            "stats": describing.stats,
            "finish": writing.finish,
            "merge": writing.merge,
            "split": writing.split,
            "drop": writing.drop,
            "convert": writing.convert,
            "import": writing.convert,
            "generate": generating.generate,
        }
        progress = Progress()
        found = verbs[args.verb](args, progress)
        progress.end()
    print(json.dumps(found, ensure_ascii=False) if args.is_json else describing.as_text(found))
    return int(any(robot["failed"] for robot in found.get("robots", {}).values()))
