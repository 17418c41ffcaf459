"""`vla-ros bench`: figures, each against a floor or a peer that is measured in the same run."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla_ros.benchmarks.options import Options
from vla_ros.benchmarks.registry import BENCHMARKS, load_benchmark
from vla_ros.benchmarks.requirement import Outcome, judge
from vla_ros.commands.progress import Progress
from vla_ros.errors import ConfigError, VlaRosError
from vla_ros.files import whole_file

_EPILOG = """\
Without NAME it says which benchmarks there are. What is compared runs interleaved, with an A/A control; every figure is
held against what it must be, and against what would make us proud. Writes results.json and plots into a folder.

example:
  vla-ros bench motion --quick
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `bench` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench",
        help="measure it against floors and peers",
        description="Measures this package against floors and peers in the same run.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"one of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="the same figures from less data, in under 45 s")
    parser.add_argument("--only", metavar="PART,...", default="", help="only some parts; the rest counts as not asked")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed (default %(default)s)")
    parser.add_argument("--ticks", type=int, metavar="N", help="ticks of the adversarial and of the timed parts")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (default out/bench-NAME-TIME)")
    parser.add_argument("--json", dest="is_json", action="store_true", help="the results as one JSON object, last")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand: 0 if every figure is what it must be, 1 if not.

    Raises:
        VlaRosError: for an argument that can't be used; nothing was measured then.
    """
    if args.name is None:
        listing = {"benchmarks": BENCHMARKS}
        print(json.dumps(listing) if args.is_json else _list_benchmarks())
        return 0
    benchmark = load_benchmark(args.name)
    if args.seed < 0:
        raise VlaRosError(f"--seed {args.seed}: at least 0")
    if args.ticks is not None and args.ticks < 1:
        raise VlaRosError(f"--ticks {args.ticks}: at least 1")
    parts = benchmark.chosen_parts([name for name in args.only.split(",") if name])
    out = args.out or Path("out") / time.strftime(f"bench-{args.name}-%Y%m%d-%H%M%S")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}", f"can't be made ({error.strerror})", "choose another") from error
    progress = Progress()
    options = Options(is_quick=args.quick, seed=args.seed, ticks=args.ticks, progress=progress)
    results, found = benchmark.run(parts, options)
    progress.end()
    outcomes = judge(results, benchmark.requirements(parts), is_quick=args.quick)
    results["requirements"] = {outcome.requirement.key: outcome.as_json() for outcome in outcomes}
    results["passed"] = all(outcome.holds_must for outcome in outcomes if outcome.is_due)
    results["out"] = str(out)
    results["plots"] = [str(path) for path in benchmark.draw(found, out)]
    results = _plain(results)
    with whole_file(out / "results.json") as partial:
        partial.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if args.is_json:
        print(json.dumps(results))
    else:
        print(_describe(results, outcomes))
    return 0 if results["passed"] else 1


def _plain(value: Any) -> Any:
    """The value as JSON has it: what isn't a finite number is null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _list_benchmarks() -> str:
    lines = [f"  {name:10} {summary}" for name, summary in BENCHMARKS.items()]
    return "\n".join(["benchmarks:", *lines, "run one with: vla-ros bench NAME --quick"])


def _describe(results: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    """The figures for a person."""
    rows = [("", "figure", "value", "must", "proud", "")]
    for outcome in outcomes:
        item = outcome.requirement
        sign = "≥" if item.is_least else "≤"
        rows.append(
            (
                "ok" if outcome.holds_must else "FAILED" if outcome.is_due else "short",
                item.key,
                _number(outcome.value, item.unit),
                f"{sign} {_number(item.must)}",
                f"{sign} {_number(item.proud)}{' ✓' if outcome.holds_proud else ''}",
                item.meaning,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column == 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join([*cells, row[5]]).rstrip())
    lines += [f"note: {problem}" for problem in results["problems"]]
    lines.append(f"results.json and {len(results['plots'])} plots in {results['out']}")
    return "\n".join(lines)


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "none"
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"{text} {unit}".strip()
