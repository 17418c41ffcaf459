"""A policy in all tasks of an external suite: success with intervals, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from vla_ros.errors import UnknownNameError
from vla_ros.evaluation.evaluation_summary import rate
from vla_ros.evaluation.suites.drive import ExternalOutcome, drive
from vla_ros.evaluation.suites.libero import LiberoSuite
from vla_ros.evaluation.suites.protocol import ExternalSuite
from vla_ros.evaluation.suites.robosuite import RobosuiteSuite
from vla_ros.policies.base import Policy

FAMILIES: dict[str, Callable[[str], ExternalSuite]] = {
    "libero": LiberoSuite.from_name,
    "robosuite": RobosuiteSuite.from_name,
}
"""`FAMILY:NAME` on the command line -> the suite of that name."""


def open_suite(word: str) -> ExternalSuite:
    """A suite by `FAMILY:NAME`.

    Raises:
        UnknownNameError: for a family that there isn't.
        MissingDependencyError: if its package isn't installed.
    """
    family, _, name = word.partition(":")
    if family not in FAMILIES:
        raise UnknownNameError("family of suites", family, FAMILIES)
    return FAMILIES[family](name)


def evaluate_external(
    suite: ExternalSuite,
    policy: Policy,
    name: str,
    seeds: Sequence[int],
    most_steps: int,
    executed_steps: int,
    progress: Callable[[str, float], None],
) -> dict[str, Any]:
    """Attempts every task at every seed.

    Args:
        suite: holds the tasks.
        policy: is asked.
        name: of the policy.
        seeds: of the beginnings.
        most_steps: of an attempt.
        executed_steps: of each answer.
        progress: called with the policy's name and the share that is over.

    Returns:
        What `json.dumps` takes.
    """
    outcomes: list[ExternalOutcome] = []
    count = len(suite.instructions) * len(seeds)
    for task in range(len(suite.instructions)):
        for seed in seeds:
            outcomes.append(drive(suite, policy, task, seed, most_steps, executed_steps))
            progress(name, len(outcomes) / count)
    asked = Counter(suite.instructions)  # LIBERO asks the same in different rooms.
    tasks = {
        instruction if asked[instruction] == 1 else f"{instruction} (task {task})": _rate(
            [one for one in outcomes if one.task == task]
        )
        for task, instruction in enumerate(suite.instructions)
    }
    return {
        "policy": name,
        "tasks": tasks,
        "all": _rate(outcomes),
        "per_episode": [asdict(outcome) for outcome in outcomes],
    }


def _rate(outcomes: Sequence[ExternalOutcome]) -> dict[str, Any]:
    return rate(sum(one.is_success for one in outcomes), len(outcomes))
