"""`vla-ros episodes list`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from vla_ros.commands.episodes.options import add_common
from vla_ros.recording.listing import ListedEpisode, list_episodes


def add_parser(subparsers: Any) -> None:
    """Adds the action."""
    parser = subparsers.add_parser("list", help="a table of the episodes (default)")
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the action; 0 also for none."""
    rows = list_episodes(args.folder)
    if args.is_json:
        print(json.dumps({"folder": str(args.folder), "episodes": [asdict(row) for row in rows]}))
        return 0
    if not rows:
        print(f"no episodes in {args.folder}; `vla-ros record` records some, --folder looks elsewhere")
        return 0
    print(f"{'number':>6}  {'state':10}  {'seconds':>8}  {'messages':>9}  {'MB':>9}  {'robot':8}  task")
    for row in rows:
        print(_line(row))
    return 0


def _line(row: ListedEpisode) -> str:
    figures = f"{row.duration_s:8.2f}  {row.messages:9d}  {row.size_bytes / 1e6:9.1f}"
    note = f"  ({row.note})" if row.note else ""
    return f"{row.number:6d}  {row.state:10}  {figures}  {row.robot:8}  {row.task}{note}"
