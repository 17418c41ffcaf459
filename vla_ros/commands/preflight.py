"""What can be known to be wrong with a launch before anything starts."""

from __future__ import annotations

from collections.abc import Callable

from vla_ros.contract import find_mismatches, load_contract, load_rig
from vla_ros.errors import ContractError
from vla_ros.launching.graph import LaunchGraph, NodeAction
from vla_ros.policies.registry import load_policy_config, make_policy
from vla_ros.robots.config import load_robot

_PACKAGE = "vla_ros"


def check_graph(graph: LaunchGraph) -> None:
    """Reads every robot, rig and policy that our nodes will be given, and lets the policy read its task.

    Raises:
        VlaRosError: the first thing that can't be used, in one line.
    """
    checks: dict[str, Callable[[str], object]] = {"robot": load_robot, "rig": load_rig, "policy": load_policy_config}
    for node in graph.nodes:
        if node.package != _PACKAGE:
            continue
        for name, check in checks.items():
            value = _text(node, name)
            if value:
                check(value)
    for node in graph.nodes:
        if node.package == _PACKAGE and node.executable == "policy_node":
            _check_policy(node)


def _check_policy(node: NodeAction) -> None:
    policy_name, rig_name, task = (_text(node, name) for name in ("policy", "rig", "task"))
    if not policy_name:
        return
    config = load_policy_config(policy_name)
    if rig_name:
        mismatches = find_mismatches(load_rig(rig_name), load_contract(config.contract))
        if mismatches:
            raise ContractError("; ".join(mismatches))
    # What has a checkpoint takes too long to be loaded here and in its node.
    if task.strip() and "checkpoint" not in config.parameters:
        policy, _ = make_policy(config)
        policy.reset(task.strip(), config.seed)


def _text(node: NodeAction, name: str) -> str:
    value = node.values.get(name, "")
    return value if isinstance(value, str) else ""
