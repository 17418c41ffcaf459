"""`vla-ros contract`: what a policy sees and does, where two differ, and whether one fits a rig or a checkpoint."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vla_ros.config import config_names
from vla_ros.contract import (
    Contract,
    action_layout,
    describe,
    find_differences,
    find_mismatches,
    load_contract,
    load_rig,
    state_layout,
)
from vla_ros.errors import ConfigError
from vla_ros.policies.fit import CONTRACT_FILE
from vla_ros.policies.statistics_file import STATISTICS_FILE, CheckpointStatistics
from vla_ros.robots.config import RobotConfig, load_robot

_EPILOG = """\
NAME is a name from config/contracts or the path of a YAML file. Two contracts with the same interface_hash are
interchangeable for a checkpoint. The exit code is 0 only where `diff` finds no difference, and `check` nothing that
doesn't fit.

example:
  vla-ros contract show libero --robot panda
  vla-ros contract diff droid_tool droid_joint
  vla-ros contract check --rig panda_table --contract libero --statistics out/statistics.json
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the subcommand `contract` to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "contract",
        help="show, compare and check contracts",
        description="Shows what a policy sees and does, compares two contracts, and checks one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="show|diff|check", required=True)
    show = _add(actions, "show", _show, "print a contract with its hash and layouts", "show libero --robot panda")
    show.add_argument("name", metavar="NAME", help=f"one of: {', '.join(config_names('contracts'))}; or a path")
    show.add_argument("--robot", metavar="NAME", help="whose joints count in the layouts")
    diff = _add(actions, "diff", _diff, "print where two interfaces differ", "diff droid_tool droid_joint")
    diff.add_argument("a", metavar="A", help="name or path")
    diff.add_argument("b", metavar="B", help="name or path")
    check = _add(
        actions, "check", _check, "say whether it fits, and where not", "check --rig panda_table --contract libero"
    )
    check.add_argument("--rig", required=True, metavar="RIG", help="name or path of the rig")
    check.add_argument("--contract", required=True, metavar="NAME", help="name or path of the contract")
    check.add_argument("--checkpoint", type=Path, metavar="DIR", help=f"holds {CONTRACT_FILE} and {STATISTICS_FILE}")
    check.add_argument("--statistics", type=Path, metavar="FILE", help="a statistics file by itself")
    return parser


def _add(actions: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  vla-ros contract {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", dest="is_json", action="store_true", help="one JSON object, last on standard output")
    parser.set_defaults(run=run)
    return parser


def _show(args: argparse.Namespace) -> int:
    contract = load_contract(args.name)
    joints = None if args.robot is None else len(load_robot(args.robot).joint_names)
    state = _layout(state_layout(contract.observation, joints or 0), joints)
    action = _layout(action_layout(contract.action, joints or 0), joints)
    if args.is_json:
        data = {"interface_hash": contract.interface_hash, "state_layout": state, "action_layout": action}
        print(json.dumps({**data, "contract": asdict(contract)}))
        return 0
    print(describe(contract))
    print(f"interface_hash: {contract.interface_hash}")
    for name, layout in (("state", state), ("action", action)):
        print(f"{name} layout: {_layout_text(layout)}")
    if joints is None:
        print("note: --robot NAME counts its joints and says at which entry each begins")
    return 0


def _layout(layout: dict[str, slice], joints: int | None) -> list[dict[str, Any]]:
    """Name, first entry and width of each part; without the number of joints, their word and no entries."""
    if joints is not None:
        return [{"name": name, "begin": part.start, "width": part.stop - part.start} for name, part in layout.items()]
    return [
        {"name": name, "begin": None, "width": "joints" if name.startswith("joint") else part.stop - part.start}
        for name, part in layout.items()
    ]


def _layout_text(layout: list[dict[str, Any]]) -> str:
    parts = []
    for part in layout:
        width, begin = part["width"], part["begin"]
        end = "" if begin is None else f" [{begin}:{begin + width}]"
        parts.append(f"{part['name']} {width}{end}")
    return ", ".join(parts) or "nothing"


def _diff(args: argparse.Namespace) -> int:
    a, b = load_contract(args.a), load_contract(args.b)
    differences = find_differences(a, b)
    if args.is_json:
        hashes = {"a": a.interface_hash, "b": b.interface_hash}
        print(json.dumps({"same": not differences, "interface_hash": hashes, "differences": differences}))
    else:
        print("\n".join(differences) if differences else f"the same interface: {a.interface_hash}")
    return 1 if differences else 0


def _check(args: argparse.Namespace) -> int:
    rig, contract = load_rig(args.rig), load_contract(args.contract)
    robot = load_robot(rig.robot)
    found = find_mismatches(rig, contract) + _robot_mismatches(robot, contract)
    statistics_paths = [] if args.statistics is None else [args.statistics]
    if args.checkpoint is not None:
        found += _checkpoint_mismatches(args.checkpoint, contract)
        path = args.checkpoint / STATISTICS_FILE
        normalisation = contract.normalisation
        if path.is_file():
            statistics_paths.append(path)
        elif {normalisation.state.formula, normalisation.action.formula} != {"none"}:
            found.append(f"checkpoint: contract {contract.name} normalises, and there is no {path}")
    hashes = {}
    for path in statistics_paths:
        statistics = CheckpointStatistics.load(path)
        hashes[str(path)] = statistics.stats_hash
        found += [f"{path}: {line}" for line in statistics.find_mismatches(contract, len(robot.joint_names))]
    if args.is_json:
        data = {"interface_hash": contract.interface_hash, "stats_hash": hashes, "mismatches": found}
        print(json.dumps({"fits": not found, **data}))
        return 1 if found else 0
    for line in found:
        print(line)
    verdict = "doesn't fit" if found else "fits"
    print(f"contract {contract.name} {contract.interface_hash} {verdict} rig {rig.name} with robot {rig.robot}")
    for path_text, stats_hash in hashes.items():
        print(f"statistics {stats_hash} of {path_text}")
    return 1 if found else 0


def _robot_mismatches(robot: RobotConfig, contract: Contract) -> list[str]:
    found = []
    kinds = [item.kind for item in contract.observation.state if item.kind.startswith("gripper")]
    if robot.gripper is None and (kinds or contract.action.has_gripper):
        uses = [*kinds, *(["action"] if contract.action.has_gripper else [])]
        found.append(f"contract {contract.name} has a gripper in {uses}, robot {robot.name} has none")
    scales, joints = contract.action.scales, len(robot.joint_names)
    if contract.action.space == "joint" and scales and len(scales) != joints:
        found.append(
            f"contract {contract.name}: scales has {len(scales)} entries, robot {robot.name} has {joints} joints"
        )
    return found


def _checkpoint_mismatches(folder: Path, contract: Contract) -> list[str]:
    path = folder / CONTRACT_FILE
    if not path.is_file():
        raise ConfigError(str(folder), f"holds no {CONTRACT_FILE}", "give the folder of a checkpoint")
    own = load_contract(str(path))
    found = [f"checkpoint: {line} (the contract's != the checkpoint's)" for line in find_differences(contract, own)]
    if contract.normalisation != own.normalisation:
        found.append(f"checkpoint: normalisation: {contract.normalisation} != {own.normalisation}")
    return found
