"""`vla-ros demo`: the whole stack in simulation on an instruction, judged from ground truth."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_ros.config import load, package_share
from vla_ros.errors import VlaRosError
from vla_ros.instruction import parse_instruction

SETTINGS = ("blocks", "varied", "single")
_EPILOG = """\
Starts launch/bringup.launch.xml (all nodes as processes over DDS, MuJoCo, rendered cameras), gives the instruction,
judges success from the simulator's ground truth and writes a folder with a video, a plot, a table and summary.json.

example:
  vla-ros demo --robot ur5e --task "pick up the red block" --episodes 3
"""


@dataclass(frozen=True)
class DemoConfig:
    """What `config/demo.yaml` says: what to show when nobody says."""

    robot: str
    policy: str
    task: str
    setting: str


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `demo` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        help="run the whole stack in simulation on an instruction and judge it",
        description="Runs the whole stack in simulation on an instruction and judges it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--robot", metavar="NAME", help="robot to show (this and the next two: config/demo.yaml)")
    parser.add_argument("--policy", metavar="NAME", help="policy")
    parser.add_argument("--task", metavar="TEXT", help="instruction")
    parser.add_argument("--rig", metavar="NAME", help="rig (default ROBOT_table)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the first scene (default %(default)s)"
    )
    parser.add_argument("--episodes", type=int, default=1, metavar="N", help="scenes, one seed each (default 1)")
    parser.add_argument(
        "--interface", default="", metavar="NAME", help="how commands reach the arm (default: as the robot's YAML says)"
    )
    parser.add_argument(
        "--hardware",
        choices=("sim", "mock"),
        default="sim",
        help="what moves: the simulator, or a mock of the arm's driver (default %(default)s)",
    )
    parser.add_argument(
        "--setting",
        choices=SETTINGS,
        help="which scenes (default: those of config/demo.yaml for its policy, else blocks)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (default out/demo-TIME)")
    parser.add_argument("--time-limit", type=float, default=30.0, metavar="S", help="seconds an episode may take")
    parser.add_argument("--window", action="store_true", help="open the simulator's viewer on the display")
    parser.add_argument("--json", dest="is_json", action="store_true", help="the summary as one JSON object, last")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand: 0 if every episode succeeded, 1 if not.

    Raises:
        VlaRosError: for an argument that can't be used or a stack that doesn't start; nothing moves then.
    """
    # Imported late: they take a second, and an unknown argument should be told at once.
    from vla_ros.nodes.demo import Demo, DemoOptions, show_progress

    if args.episodes < 1:
        raise VlaRosError(f"--episodes {args.episodes}: at least 1")
    if args.seed < 0:
        raise VlaRosError(f"--seed {args.seed}: at least 0")
    if not args.time_limit > 0.0:
        raise VlaRosError(f"--time-limit {args.time_limit}: must be positive")
    shown = load(DemoConfig, package_share() / "config" / "demo.yaml")
    robot = shown.robot if args.robot is None else args.robot
    task = shown.task if args.task is None else args.task
    parse_instruction(task)
    policy = shown.policy if args.policy is None else args.policy
    setting = args.setting or (shown.setting if policy == shown.policy else SETTINGS[0])
    out = args.out or Path("out") / time.strftime("demo-%Y%m%d-%H%M%S")
    options = DemoOptions(
        robot=robot,
        rig=f"{robot}_table" if args.rig is None else args.rig,
        policy=policy,
        task=task,
        seeds=tuple(range(args.seed, args.seed + args.episodes)),
        out=out,
        time_limit_s=args.time_limit,
        has_window=args.window,
        interface=args.interface,
        hardware=args.hardware,
        setting=setting,
    )
    demo = Demo(options, show_progress)
    summary = demo.run()
    if args.is_json:
        print(json.dumps(summary))
    else:
        print(_describe(summary))
    return 0 if summary["successes"] == summary["episodes"] else 1


def _describe(summary: dict[str, Any]) -> str:
    """The figures for a person."""

    def percent(key: str) -> str:
        value = summary[key]
        return "unknown" if value is None else f"{100.0 * value:.0f} %"

    cameras = ", ".join(f"{name} {rate:.1f} Hz" for name, rate in summary["camera_rate_hz"].items() if rate)
    latency = summary["chunk_to_command_ms"]
    low, high = summary["success_interval"]
    judged = (
        f"{summary['robot']}: {summary['task']!r}: {summary['successes']} of {summary['episodes']} succeeded, "
        f"95 % interval {100 * low:.0f} to {100 * high:.0f} %"
    )
    limits = (
        f"joints at most at {percent('peak_velocity_fraction')} of their velocity limits, "
        f"{percent('peak_acceleration_fraction')} of acceleration, {percent('peak_jerk_fraction')} of jerk; "
        f"{summary['limit_violations']} violations"
    )
    timing = (
        f"control {summary['control_rate_hz']:.1f} Hz; cameras {cameras}; "
        f"chunk to command {latency['p50'] or 0:.1f} ms, p99 {latency['p99'] or 0:.1f} ms"
    )
    return "\n".join((judged, limits, timing, f"video, plot, table and summary.json in {summary['out']}"))
