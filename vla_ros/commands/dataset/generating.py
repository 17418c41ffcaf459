"""`vla-ros dataset generate`: demonstrations out of the simulator."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_ros.commands.progress import Progress
from vla_ros.errors import DatasetError
from vla_ros.instruction import VERBS, Verb

if TYPE_CHECKING:
    from vla_ros.sim.content import Setting

_EPILOG = """\
A scripted expert that knows where everything is does the tasks in the simulator, from starts and through disturbances
that a policy will meet, and is recorded as a person would be. Each robot's episodes are a LeRobot dataset of their own,
DIR/ROBOT. The same seed gives the same episodes, however many processes make them; what is there already stays.

example:
  vla-ros dataset generate --robot panda --robot ur5e --tasks all --episodes 2000 --seed 0 --out datasets/generated
"""


def add_arguments(verbs: Any) -> argparse.ArgumentParser:
    """Adds the verb to what `ArgumentParser.add_subparsers` returned."""
    text = "demonstrations by a scripted expert in the simulator"
    parser: argparse.ArgumentParser = verbs.add_parser(
        "generate", help=text, description=text, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robot", action="append", required=True, metavar="NAME", help="may be given several times")
    parser.add_argument("--tasks", default="all", metavar="VERB,...", help=f"of {', '.join(VERBS)}, or all (default)")
    parser.add_argument("--episodes", type=int, required=True, metavar="N", help="of each robot")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a dataset a robot is made in it")
    parser.add_argument("--contract", default="small_vla", metavar="NAME", help="default: %(default)s")
    parser.add_argument(
        "--setting",
        choices=("varied", "blocks", "single"),
        default="varied",
        help="of the scenes (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--ray", default="", metavar="ADDRESS", help="of a Ray cluster that does the work")
    parser.add_argument("--json", dest="is_json", action="store_true", help="one JSON object, last on standard output")
    return parser


def generate(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Makes a dataset a robot.

    Raises:
        DatasetError: for tasks that there aren't, counts that make none, or a dataset that can't be written.
    """
    from vla_ros.contract import load_contract
    from vla_ros.generation.parallel import Job, generate

    verbs = _verbs(args.tasks, args.setting)
    workers = len(os.sched_getaffinity(0)) if args.workers is None else args.workers
    for option, value in (("--episodes", args.episodes), ("--workers", workers)):
        if value < 1:
            raise DatasetError(f"{option} {value}: at least 1")
    contract = load_contract(args.contract)
    found: dict[str, Any] = {"dataset": str(args.out), "seed": args.seed, "robots": {}}
    for robot in args.robot:
        folder: Path = args.out / Path(robot).stem
        begin_s = time.monotonic()
        made = generate(
            folder,
            Job(robot, contract, verbs, args.seed, args.setting),
            args.episodes,
            workers,
            _shown(progress, f"generating {folder.name}"),
            args.ray,
        )
        took_s = time.monotonic() - begin_s
        found["robots"][Path(robot).stem] = {
            "dataset": str(folder),
            "episodes": made.episodes + made.skipped,
            "skipped": made.skipped,
            "frames": made.frames,
            "simulated_s": round(made.frames * contract.action.period_s, 1),
            "took_s": round(took_s, 1),
            "success_from_home": {verb: f"{done} of {tried}" for verb, (done, tried) in sorted(made.successes.items())},
            "failed": made.failed,
            "processes_died": made.deaths,
        }
    return found


def _shown(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done / total)


def _verbs(text: str, setting: Setting) -> tuple[Verb, ...]:
    from vla_ros.sim.content import SETTING_VERBS

    asked = [word.strip() for word in text.split(",")]
    unknown = [word for word in asked if word not in (*VERBS, "all")]
    if unknown:
        raise DatasetError(f"--tasks {text}: {unknown[0]!r} is none of {', '.join(VERBS)}; all stands for all of them")
    possible = SETTING_VERBS[setting]
    impossible = [word for word in asked if word not in (*possible, "all")]
    if impossible:
        raise DatasetError(f"--tasks {text}: there is no {impossible[0]} in --setting {setting}; leave it out")
    return possible if "all" in asked else tuple(verb for verb in possible if verb in asked)
