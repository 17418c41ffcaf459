"""What a recorder says of an episode: the cell, the policies' contracts, the versions of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from vla_ros.config import find_config, load_yaml, plain
from vla_ros.contract import Contract, Rig, load_contract
from vla_ros.errors import VlaRosError
from vla_ros.evaluation.versions import installed_version, versions
from vla_ros.policies.checkpoint import git_version
from vla_ros.policies.registry import load_policy_config, policy_name
from vla_ros.recording.episode import EpisodeInfo


@dataclass
class EpisodeWords:
    """What all episodes of a recorder have in common.

    Attributes:
        robot: name or YAML file.
        prefix: before its links and joints.
        hardware: what moves.
        rig: the cell.
        policies: words for policies that are to act, names or YAML files.
        task: instruction; empty for the one in force.
        operator: who records.
        note: for the next episodes.
        tell: called with what can't be found.
    """

    robot: str
    prefix: str
    hardware: str
    rig: Rig
    policies: tuple[str, ...]
    task: str
    operator: str
    note: str
    tell: Callable[[str], None]

    def __post_init__(self) -> None:
        self._robot_config: dict[str, Any] = plain(load_yaml(find_config("robots", self.robot)))
        if self.prefix:
            self._robot_config["prefix"] = self.prefix
        self._versions = {
            **versions(),
            "git": git_version(),
            **{name: installed_version(name) for name in ("rosbags", "numpy")},
        }
        self._contracts: dict[str, Contract | None] = {}

    def info(self, number: int, now_ns: int, heard: Iterable[str], task: str, source: str) -> EpisodeInfo:
        """An episode's words at its start.

        Args:
            number: of the episode.
            now_ns: ROS time.
            heard: names of policies that publish.
            task: in force.
            source: who may move the arm.
        """
        words = {policy_name(word): word for word in self.policies}
        words = {name: name for name in heard} | words
        contracts = {name: self._contract(name, word) for name, word in sorted(words.items())}
        info = EpisodeInfo(number, self.task or task, self.robot, self.rig, now_ns)
        return replace(
            info,
            contracts={name: contract for name, contract in contracts.items() if contract is not None},
            source=source,
            operator=self.operator,
            note=self.note,
            robot_config=self._robot_config,
            hardware=self.hardware,
            versions=self._versions,
        )

    def _contract(self, name: str, word: str) -> Contract | None:
        if name not in self._contracts:
            try:
                self._contracts[name] = load_contract(load_policy_config(word).contract)
            except VlaRosError as error:
                self._contracts[name] = None
                self.tell(f"episodes don't have the contract of policy {name!r} ({error}); name its YAML in `policies`")
        return self._contracts[name]
