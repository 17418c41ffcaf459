"""`vla-ros export`: a dataset of recorded episodes."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_ros.commands.format_options import format_options
from vla_ros.commands.progress import Progress
from vla_ros.config import config_names
from vla_ros.errors import VlaRosError
from vla_ros.recording.formats.registry import FORMATS

if TYPE_CHECKING:
    from vla_ros.commands.export_source import Source
    from vla_ros.commands.exporting import Report
    from vla_ros.recording.cleaning import CleaningOptions

_EPILOG = """\
Frames lie on the contract's grid, by the reference camera's stamps; what the columns mean is in docs/datasets.md. An
export that was interrupted goes on where it was, and more episodes are added to the same dataset later. An episode that
can't be exported is named with its reason, the others are written, and the exit code is 1.

example:
  vla-ros export episodes --format lerobot --to datasets/reach --contract libero --outcome success
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `export` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "export",
        help="make a dataset of recorded episodes",
        description="Makes a dataset of recorded episodes, ours or anybody's rosbag2 bags.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("episodes", nargs="+", type=Path, metavar="EPISODES", help="bags, or folders of episodes")
    parser.add_argument("--format", choices=sorted(FORMATS), default="lerobot", help="default: %(default)s")
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the dataset; gone on with if it is there"
    )
    contracts = ", ".join(config_names("contracts"))
    parser.add_argument("--contract", required=True, metavar="NAME", help=f"or a YAML file; known: {contracts}")
    parser.add_argument("--outcome", choices=("success", "failure", "unlabelled"), help="only those (default: all)")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the format")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="that read and encode side by side (default: one a core)"
    )
    _add_frame_options(parser)
    parser.add_argument("--rig", metavar="NAME", help="of bags that don't say; a name or a YAML file")
    parser.add_argument("--robot", metavar="NAME", help="likewise")
    parser.add_argument("--task", default="", metavar="TEXT", help="likewise")
    parser.add_argument(
        "--topic", action="append", default=[], metavar="NAME=TOPIC", help="likewise, e.g. task=/prompt"
    )
    parser.add_argument("--namespace", metavar="NS", help="of the robot, where a bag has several")
    parser.add_argument("--json", dest="is_json", action="store_true", help="one JSON object, last on standard output")
    parser.set_defaults(run=run)
    return parser


def _add_frame_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clean",
        default="",
        metavar="WHAT=HOW,...",
        help="flag or drop idle, outliers, jumps, duplicates: e.g. idle=drop,outliers=flag (default: nothing)",
    )
    parser.add_argument(
        "--gaps", choices=("split", "drop", "refuse"), default="split", help="what a gap does (default: %(default)s)"
    )
    parser.add_argument("--tolerance-s", type=float, metavar="S", help="how far a stamp may lie from the grid")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand: 0 if all episodes are in the dataset, 1 if some failed.

    Raises:
        VlaRosError: if nothing can be exported as it was asked for.
    """
    from vla_ros.policies.packages import packages_for

    cores = len(os.sched_getaffinity(0))
    processes = cores if args.processes is None else args.processes
    if processes < 1:
        raise VlaRosError(f"--processes {processes}: at least 1")
    if args.tolerance_s is not None and not 0.0 <= args.tolerance_s < math.inf:
        raise VlaRosError(f"--tolerance-s {args.tolerance_s:g}: at least 0, and finite")
    options = format_options(args.option)
    with packages_for("vla-ros export"):
        from vla_ros.commands.export_source import find_episodes, with_outcome
        from vla_ros.commands.exporting import export
        from vla_ros.recording.formats.registry import load_format

        chosen = load_format(args.format)
        source = _source(args)
        found = find_episodes(args.episodes)
        folders = with_outcome(found, args.outcome) if args.outcome else found
        progress = Progress()
        report = export(
            folders,
            source,
            lambda schema: chosen.create(args.to, schema, options),
            processes,
            lambda done, total: progress("exporting", done / total),
        )
        progress.end()
    result = _result(args, report, len(found) - len(folders))
    print(json.dumps(result, ensure_ascii=False) if args.is_json else _describe(result, folders))
    return 1 if report.failed else 0


def _source(args: argparse.Namespace) -> Source:
    from vla_ros.commands.export_source import Source
    from vla_ros.contract import load_contract, load_rig
    from vla_ros.recording.synchronise import FrameOptions
    from vla_ros.robots.config import load_robot

    topics = {name: str(place) for name, place in format_options(args.topic, "--topic").items()}
    if args.namespace is not None:
        topics[""] = args.namespace
    chosen = {} if args.tolerance_s is None else {"tolerance_s": args.tolerance_s}
    return Source(
        load_contract(args.contract),
        FrameOptions(gaps=args.gaps, **chosen),
        _cleaning(args.clean),
        load_rig(args.rig) if args.rig else None,
        load_robot(args.robot) if args.robot else None,
        args.task,
        topics,
    )


def _cleaning(words: str) -> CleaningOptions | None:
    from vla_ros.recording.cleaning import CleaningOptions

    known = ("idle", "outliers", "jumps", "duplicates")
    chosen: dict[str, Any] = dict.fromkeys(known, "off")
    for word in filter(None, (word.strip() for word in words.split(","))):
        name, _, how = word.partition("=")
        if name not in known or how not in ("flag", "drop"):
            raise VlaRosError(f"--clean {word!r}: write WHAT=flag or WHAT=drop, WHAT one of {', '.join(known)}")
        chosen[name] = how
    if "drop" in chosen.values() and chosen["jumps"] == "off":
        # What is dropped inside an episode leaves a jump, and all episodes have the same columns.
        chosen["jumps"] = "flag"
    return CleaningOptions(**chosen) if words.strip() else None


def _result(args: argparse.Namespace, report: Report, left_out: int) -> dict[str, Any]:
    return {
        "dataset": str(args.to),
        "format": args.format,
        "contract": args.contract,
        "written": report.written,
        "frames": report.frames,
        "skipped": report.skipped,
        "dropped": report.dropped,
        "left_out": left_out,
        "failed": report.failed,
        "findings": report.findings,
    }


def _finding(finding: Any) -> str:
    if not isinstance(finding, dict) or "text" not in finding:
        return str(finding)
    return ": ".join(filter(None, (finding.get("topic"), finding["text"])))


def _describe(result: dict[str, Any], folders: Sequence[Path]) -> str:
    lines = [
        f"{result['dataset']}: {len(result['written'])} of {len(folders)} episodes written, {result['frames']} frames"
    ]
    if result["skipped"]:
        lines.append(f"{len(result['skipped'])} were there already")
    lines += [f"no piece of it is long enough, or dropped for its gaps: {folder}" for folder in result["dropped"]]
    if result["left_out"]:
        lines.append(f"{result['left_out']} have another outcome")
    for name, findings in result["findings"].items():
        lines += [f"found in {name}: {_finding(each)}" for each in findings]
    lines += [f"FAILED {folder}: {reason}" for folder, reason in result["failed"].items()]
    return "\n".join(lines)
