"""What is known of an episode besides its messages: beside them, in the bag's metadata and its first event."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from vla_ros.config import build, plain
from vla_ros.contract import Contract, Rig
from vla_ros.errors import ConfigError
from vla_ros.files import whole_file

INFO_FILE = "episode.json"
METADATA_FILE = "metadata.yaml"
INFO_KEY = "vla_ros.episode"
"""In the metadata of a bag: what `episode.json` holds."""
PART_ENDING = ".part"
"""Ending of the folder of an episode that isn't finished."""

Outcome = Literal["open", "unlabelled", "success", "failure"]


@dataclass(frozen=True)
class EpisodeInfo:
    """An episode's own words.

    Attributes:
        number: of the episode in its folder, from 0 on.
        task: the instruction at its start.
        robot: name of the robot, or path of its YAML.
        rig: the cell, whole.
        contracts: of the policies that were to act, by policy name, whole; teleoperated episodes may have none.
        outcome: `open` while it is recorded; a discarded one is removed.
        started_ns: ROS time.
        ended_ns: ROS time of the last message; 0 while it is open.
        source: who had the arm at the start: a policy's name, `teleop`, or empty.
        operator: who recorded it.
        note: what the operator says of it.
        robot_config: the robot YAML's content, and the prefix of its links and joints where it has one.
        versions: of vla_ros, of its checkout (`git`), of Python, ROS and so on.
        recovered: what was mended after a crash, empty for nothing.
        hardware: what moved: `sim`, `mock` or `real`. A real arm's kinematics are those of the description in the bag.
    """

    number: int
    task: str
    robot: str
    rig: Rig
    started_ns: int
    contracts: dict[str, Contract] = field(default_factory=dict)
    outcome: Outcome = "open"
    ended_ns: int = 0
    source: str = ""
    operator: str = ""
    note: str = ""
    robot_config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    recovered: str = ""
    hardware: str = "sim"

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"episode_{self.number:06d}"

    @property
    def interface_hashes(self) -> dict[str, str]:
        """By policy name."""
        return {name: contract.interface_hash for name, contract in self.contracts.items()}

    def ended(self, outcome: Outcome, ended_ns: int) -> EpisodeInfo:
        """The same episode at its end."""
        return replace(self, outcome=outcome, ended_ns=ended_ns)

    def to_json(self) -> str:
        """One line; hashes are written for who reads it without this package."""
        values = {**plain(dataclasses.asdict(self)), "interface_hashes": self.interface_hashes}
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str) -> EpisodeInfo:
        """Reads what `to_json` wrote.

        Args:
            text: the JSON.
            where: for errors.

        Raises:
            ConfigError: if it isn't that.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(where, f"isn't JSON ({error})", "`vla-ros episodes repair` makes it anew") from error
        if isinstance(values, dict):
            values.pop("interface_hashes", None)
        return build(cls, values, where)


def write_info(info: EpisodeInfo, folder: Path) -> None:
    """Puts it into an episode's folder, whole or not at all."""
    with whole_file(folder / INFO_FILE) as path:
        path.write_text(info.to_json() + "\n", encoding="utf-8")


def read_info(folder: Path) -> EpisodeInfo:
    """From an episode's folder; from its bag's metadata where `episode.json` is missing or damaged.

    Raises:
        ConfigError: if neither says it.
    """
    try:
        return read_info_file(folder)
    except ConfigError:
        info = _info_of_metadata(folder)
        if info is None:
            raise
        return info


def read_info_file(folder: Path) -> EpisodeInfo:
    """From `episode.json` alone.

    Raises:
        ConfigError: if there is none, or it can't be read.
    """
    path = folder / INFO_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        mend = "a bag of other origin has none: name robot, rig and contract on the command line"
        raise ConfigError(str(path), f"can't be read ({error})", mend) from error
    return EpisodeInfo.from_json(text, str(path))


def _info_of_metadata(folder: Path) -> EpisodeInfo | None:
    path = folder / METADATA_FILE
    try:
        custom = yaml.safe_load(path.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]["custom_data"]
        return EpisodeInfo.from_json(custom[INFO_KEY], str(path))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, ConfigError):
        return None


def episode_number(folder: Path) -> int | None:
    """The number in a folder's name, finished or not; None for a name that isn't an episode's."""
    match = re.fullmatch(rf"episode_(\d{{6,}})({re.escape(PART_ENDING)})?", folder.name)
    return int(match[1]) if match else None
