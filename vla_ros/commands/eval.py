"""`vla-ros eval`: a policy in closed loop on suites of tasks, judged from ground truth, alone or against another."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from vla_ros.commands.progress import Progress
from vla_ros.errors import VlaRosError

_EPILOG = """\
Each episode is a scene of a seed and an instruction; the simulator's ground truth says whether it was carried out. The
same seeds ask the same of every policy. Rates have 95 % Wilson intervals; two policies are compared pair by pair.
--mode process steps world, cameras, policy, filter and controller in one process, as fast as it goes, with the stack's
latencies; --mode ros runs the whole stack in real time, with --hardware mock before a mock of the arm's driver.

examples:
  vla-ros eval --policy scripted_visual --robot panda --task reach --setting blocks --episodes 20
  vla-ros eval --policy flow_vla --robot ur5e --task all --episodes 100 --seed 1000 --against bc --json
  vla-ros eval --policy flow_vla --robot panda --task pick --swap --held-out-templates --episodes 300
  vla-ros eval --checkpoints runs/flow_vla --robot panda --task reach,pick --episodes 50
  vla-ros eval --policy mine.yaml --task libero:libero_goal --episodes 10
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `eval` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "eval",
        help="run policies in closed loop in simulation: success with intervals, comparisons, a report",
        description="Runs policies in closed loop in simulation and writes a report.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--policy", metavar="P", help="a policy's name or YAML file, or the folder of a checkpoint")
    who.add_argument("--checkpoint", type=Path, metavar="DIR", help="the folder of a learned policy's checkpoint")
    who.add_argument(
        "--checkpoints", type=Path, metavar="DIR", help="a training run: every checkpoint of it, and which does best"
    )
    parser.add_argument("--robot", metavar="R", help="robot to move")
    parser.add_argument("--rig", metavar="NAME", help="rig (default ROBOT_table)")
    parser.add_argument(
        "--task", default="all", metavar="SUITE", help="reach, push, pick, place, stack, with commas, or all (default)"
    )
    parser.add_argument(
        "--most-steps", type=int, default=400, metavar="N", help="of an attempt in libero:NAME or robosuite:NAME (400)"
    )
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="scenes a suite (default %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="seed of the first scene (default %(default)s)"
    )
    parser.add_argument("--against", metavar="Q", help="another policy (as --policy), on the same seeds")
    parser.add_argument("--mode", choices=("process", "ros"), default="process", help="see below (default %(default)s)")
    parser.add_argument(
        "--hardware", choices=("sim", "mock"), default="sim", help="what moves, mode ros (default %(default)s)"
    )
    parser.add_argument(
        "--setting",
        choices=("varied", "blocks", "single"),
        default="varied",
        help="of the scenes (default %(default)s)",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes at a time, mode process (default: cores, at most 2)"
    )
    parser.add_argument("--time-limit", type=float, default=30.0, metavar="S", help="seconds an episode may take")
    parser.add_argument(
        "--held-out-templates", action="store_true", help="each scene also in wordings never trained on"
    )
    parser.add_argument("--swap", action="store_true", help="each scene also with another of its objects named")
    parser.add_argument("--blind", action="store_true", help="black images: what is reached without seeing")
    parser.add_argument(
        "--camera-offset", type=float, default=0.0, metavar="M", help="move the base camera by M metres"
    )
    parser.add_argument("--extra-latency", type=float, default=0.0, metavar="MS", help="make answers so much later")
    parser.add_argument(
        "--videos", type=int, default=10, metavar="N", help="videos of failures at most (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the report (default out/eval-TIME)")
    parser.add_argument("--json", dest="is_json", action="store_true", help="the figures as one JSON object, last")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand: 0 when all episodes were run, whatever came of them.

    Raises:
        VlaRosError: for what can't be used; nothing is run then.
    """
    _check(args)
    if ":" in args.task:
        return _run_external(args)
    if args.robot is None:
        raise VlaRosError("--robot is missing; give the name of the arm to move")
    # Imported late: they take a second, and an unknown argument should be told at once.
    from vla_ros.evaluation.evaluating import EvaluationOptions, evaluate

    out = args.out or Path("out") / time.strftime("eval-%Y%m%d-%H%M%S")
    options = EvaluationOptions(
        policy=str(args.checkpoint or args.policy or ""),
        checkpoints=args.checkpoints,
        against=args.against,
        robot=args.robot,
        rig=args.rig or f"{args.robot}_table",
        task=args.task,
        setting=args.setting,
        seeds=range(args.seed, args.seed + args.episodes),
        with_held_out=args.held_out_templates,
        with_swap=args.swap,
        is_blind=args.blind,
        camera_offset_m=args.camera_offset,
        extra_latency_s=1e-3 * args.extra_latency,
        time_limit_s=args.time_limit,
        mode=args.mode,
        hardware=args.hardware,
        jobs=args.jobs or (min(2, os.cpu_count() or 1) if importlib.util.find_spec("joblib") else 1),
        videos=args.videos,
        out=out,
    )
    progress = Progress()
    runner = None
    if args.mode == "ros":
        from vla_ros.nodes.stack_rollouts import run_in_stack

        runner = run_in_stack
    try:
        summary = evaluate(options, progress, runner)
    finally:
        progress.end()
    print(json.dumps(summary) if args.is_json else _describe(summary))
    return 0


def _run_external(args: argparse.Namespace) -> int:
    """A suite that others made, in its own environment."""
    from vla_ros.evaluation.candidates import find_candidate
    from vla_ros.evaluation.suites.evaluating import evaluate_external, open_suite
    from vla_ros.policies.registry import make_policy

    if args.policy is None and args.checkpoint is None:
        raise VlaRosError("--checkpoints isn't for external suites; give --policy or --checkpoint")
    ours = {
        "--against": args.against,
        "--held-out-templates": args.held_out_templates,
        "--swap": args.swap,
        "--blind": args.blind,
        "--camera-offset": args.camera_offset,
        "--extra-latency": args.extra_latency,
        "--mode ros": args.mode == "ros",
        "--hardware": args.hardware != "sim",
        "--out": args.out,
    }
    wrong = [option for option, value in ours.items() if value]
    if wrong:
        raise VlaRosError(f"{', '.join(wrong)}: not for external suites; leave it out")
    config = find_candidate(str(args.policy or args.checkpoint))
    suite = open_suite(args.task)
    progress = Progress()
    try:
        policy, contract = make_policy(config)
        executed = contract.action.steps_within(1.0 / config.rate_hz)
        seeds = range(args.seed, args.seed + args.episodes)
        summary = evaluate_external(suite, policy, config.name, seeds, args.most_steps, executed, progress)
    finally:
        suite.close()
        progress.end()
    summary = {"suite": args.task, **summary}
    if args.is_json:
        print(json.dumps(summary))
        return 0
    for task, values in (*summary["tasks"].items(), ("all", summary["all"])):
        lower, upper = values["success_interval"]
        share = f"{100 * values['success_rate']:5.1f} % ({100 * lower:.1f} to {100 * upper:.1f})"
        print(f"{share} of {values['episodes']:4d}  {task}")
    return 0


def _check(args: argparse.Namespace) -> None:
    least = {
        "--episodes": (args.episodes, 1),
        "--seed": (args.seed, 0),
        "--videos": (args.videos, 0),
        "--most-steps": (args.most_steps, 1),
    }
    if args.jobs is not None:
        least["--jobs"] = (args.jobs, 1)
    for name, (value, lowest) in least.items():
        if value < lowest:
            raise VlaRosError(f"{name} {value}: at least {lowest}")
    for name, number in (("--camera-offset", args.camera_offset), ("--extra-latency", args.extra_latency)):
        if not 0.0 <= number < math.inf:
            raise VlaRosError(f"{name} {number}: 0 or more")
    if not 0.0 < args.time_limit < math.inf:
        raise VlaRosError(f"--time-limit {args.time_limit}: must be positive")
    if args.hardware != "sim" and args.mode != "ros":
        raise VlaRosError(f"--hardware {args.hardware} needs --mode ros: a driver is mocked for the whole stack")
    if args.checkpoints is not None and args.against is not None:
        raise VlaRosError("--checkpoints compares all of a run; leave --against out")


def _describe(summary: dict[str, Any]) -> str:
    """The figures for a person."""
    lines = [f"{summary['robot']}, setting {summary['setting']}, mode {summary['mode']}"]
    for policy, figures in summary["policies"].items():
        for suite, values in (*figures["suites"].items(), ("all", figures["all"])):
            lower, upper = values["success_interval"]
            line = (
                f"{policy:24} {suite:6} {100 * values['success_rate']:5.1f} % "
                f"({100 * lower:.1f} to {100 * upper:.1f}) of {values['episodes']}"
            )
            if values["time_s"] is not None:
                line += f", {values['time_s']:.1f} s"
            if "language_sensitivity" in values:
                line += f", language {values['language_sensitivity']:.3f}"
            if "held_out" in values:
                held_out = values["held_out"]
                cost = 100 * max(0.0, held_out["against_known"]["costs_at_most"])
                line += f", new wordings {100 * held_out['success_rate']:.1f} % (cost at most {cost:.1f} points)"
            lines.append(line)
    lines += summary["compared"]
    if summary["best_checkpoint"]:
        lines.append(f"best by success: {summary['best_checkpoint']}")
    lines.append(f"report: {summary['out']}/index.html")
    return "\n".join(lines)
