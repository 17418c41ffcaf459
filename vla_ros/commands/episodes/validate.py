"""`vla-ros episodes validate`."""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from vla_ros.commands.episodes.options import add_common, chosen
from vla_ros.commands.progress import Progress
from vla_ros.policies.packages import packages_for
from vla_ros.recording.store import EpisodeStore

if TYPE_CHECKING:
    from vla_ros.recording.validation import Validation


def add_parser(subparsers: Any) -> None:
    """Adds the action."""
    parser = subparsers.add_parser("validate", help="check episodes: counts, stamps, topics, rates, gaps")
    parser.add_argument("episodes", nargs="*", metavar="EPISODE", help="numbers, or folders of bags (default: all)")
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the action: 0 if all are sound, 1 if not or if there is none.

    Raises:
        VlaRosError: for an episode that isn't there.
    """
    with packages_for("vla-ros episodes validate"):
        from vla_ros.recording.validation import validate

    store = EpisodeStore(args.folder)
    folders = chosen(args.folder, args.episodes) if args.episodes else [*store.finished(), *store.unfinished()]
    progress = Progress()
    found = [validate(folder, partial(progress, folder.name)) for folder in folders]
    progress.end()
    if args.is_json:
        print(json.dumps({"episodes": [item.as_json() for item in found]}))
    else:
        print("\n".join(map(_describe, found)) or f"no episodes in {args.folder}")
    return 0 if found and all(item.is_valid for item in found) else 1


def _describe(found: Validation) -> str:
    lines = [f"{found.folder}: {'sound' if found.is_valid else 'NOT SOUND'}"]
    lines += [f"  error: {text}" for text in found.errors] + [f"  warning: {text}" for text in found.warnings]
    for topic in found.topics:
        lines.append(f"  {topic.name:40} {topic.count:8d}  {topic.rate_hz:7.1f} Hz  gap {topic.longest_gap_s:.3f} s")
    return "\n".join(lines)
