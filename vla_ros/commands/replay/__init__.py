"""`vla-ros replay`: an episode's recorded actions once more, or its observations into a policy."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vla_ros.commands.episodes.options import DEFAULT_FOLDER
from vla_ros.commands.progress import Progress
from vla_ros.commands.stack_options import add_stack_options
from vla_ros.errors import VlaRosError

_EPILOG = """\
EPISODE is the folder of an episode, its number in --folder, or with --from its index in a dataset. Without --in nothing
moves: filter and controller are stepped here, and what is told is how long it would take, how far the arm is from where
the episode begins, and which limits would act. --in sim starts a simulator and its motion path. --in arm goes through
the stack that runs, whatever it moves: it tells the same from where that arm is now, and moves it with --arm true only.
The arm first goes slowly to where the episode began. Teleoperation takes over at any time; at the end the arm holds.

examples:
  vla-ros replay 3
  vla-ros replay 3 --in sim --speed 0.5
  vla-ros replay 0 --from lerobot:datasets/blocks --in arm --arm true
  vla-ros replay 3 --policy scripted_visual --open-loop
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `replay` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "replay",
        help="repeat an episode's actions in simulation or on the arm, or compare a policy's with them",
        description="Repeats an episode's recorded actions through the safety filter; a dry run unless told otherwise.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("episode", metavar="EPISODE", help="an episode: folder, number, or index in a dataset")
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="where episodes are (default %(default)s)"
    )
    parser.add_argument(
        "--from",
        dest="dataset",
        metavar="FORMAT:DIR",
        help="a dataset: lerobot, hdf5 or rlds, and its folder",
    )
    parser.add_argument("--contract", metavar="NAME", help="what actions mean, of a dataset that doesn't say")
    parser.add_argument("--robot", metavar="NAME", help="another arm than the episode's; it repeats the tool's way")
    parser.add_argument(
        "--rig", metavar="NAME", help="of the simulation (default ROBOT_table), or of a bag that says none"
    )
    parser.add_argument("--in", dest="where", choices=("sim", "arm"), help="what to move (default: nothing)")
    parser.add_argument(
        "--arm", choices=("true", "false"), default="false", help="true: --in arm moves it (default %(default)s)"
    )
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="of the recorded pace (default 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the simulated scene (default 0)")
    parser.add_argument("--window", action="store_true", help="open the simulator's viewer on the display")
    add_stack_options(parser)
    parser.add_argument("--policy", metavar="NAME", help="with --open-loop: the policy to compare")
    parser.add_argument("--open-loop", action="store_true", help="compare its answers to what the episode saw")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for results (default out/replay-TIME)")
    parser.add_argument("--json", dest="is_json", action="store_true", help="the result as one JSON object, last")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand: 0 if the episode was (or could be) gone through to its end, 1 if not.

    Raises:
        VlaRosError: for an episode that can't be read, or a stack that isn't there or refuses.
    """
    if args.open_loop != (args.policy is not None):
        raise VlaRosError("--open-loop and --policy go together: which policy is to be shown the episode?")
    if args.arm == "true" and args.where != "arm":
        raise VlaRosError("--arm true moves an arm: say --in arm, too")
    if args.open_loop:
        from vla_ros.commands.replay.open_loop import run_open_loop

        return run_open_loop(args)
    # Imported late: they take a second, and an unknown argument should be told at once.
    from vla_ros.commands.replay.episodes import read_actions
    from vla_ros.commands.replay.playing import play_in_simulation, play_in_stack, rehearse_here
    from vla_ros.commands.replay.telling import describe, summarise
    from vla_ros.robots.config import load_robot
    from vla_ros.robots.model import RobotModel

    actions = read_actions(args)
    robot = load_robot(args.robot or actions.robot, args.prefix)
    if args.robot and args.robot != actions.robot:
        actions = actions.without_posture()
    progress = Progress()
    if args.where == "sim":
        moved, result = "sim", play_in_simulation(args, actions, robot, progress)
    elif args.where == "arm":
        moved, result = ("arm" if args.arm == "true" else ""), play_in_stack(args, actions, robot, progress)
    else:
        model = RobotModel.from_config(robot)
        moved, result = "", rehearse_here(actions, model, model.home, args.speed, progress)
    progress.end()
    values = summarise(actions, result.model, moved, args.speed, result.run, result.start)
    print(json.dumps(values) if args.is_json else describe(values))
    return 0 if values["completed"] else 1
