"""Which recordings are exported, what they are called in a dataset, and how they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from vla_ros.contract import Contract, Rig
from vla_ros.errors import ConfigError, DatasetError
from vla_ros.recording.bag import Bag, is_bag
from vla_ros.recording.cleaning import CleaningOptions, clean
from vla_ros.recording.dataset import EpisodeFrames, Schema
from vla_ros.recording.episode import METADATA_FILE, PART_ENDING, read_info
from vla_ros.recording.reading import read_episode
from vla_ros.recording.synchronise import FrameOptions, make_episodes
from vla_ros.robots.config import RobotConfig


@dataclass(frozen=True)
class Source:
    """How recordings are read.

    Attributes:
        contract: that says what a frame is.
        options: of the frames.
        cleaning: what is looked for in them, None for nothing.
        rig: for bags that don't say.
        robot: likewise.
        task: likewise.
        topics: relative name -> name in the bag, where it isn't found by itself.
    """

    contract: Contract
    options: FrameOptions
    cleaning: CleaningOptions | None = None
    rig: Rig | None = None
    robot: RobotConfig | None = None
    task: str = ""
    topics: Mapping[str, str] = field(default_factory=dict)

    def read(self, folder: Path) -> tuple[Schema, list[EpisodeFrames]]:
        """An episode's frames under the contract; several where gaps split it.

        Raises:
            VlaRosError: why not.
        """
        episode = read_episode(folder, self.rig, self.robot, self.contract, task=self.task, topics=self.topics)
        schema, parts = make_episodes(episode, self.contract, self.options)
        name = identity(folder)
        named = [
            dataclasses.replace(part, name=name if len(parts) == 1 else f"{name}#{number}")
            for number, part in enumerate(parts)
        ]
        if self.cleaning is None:
            return schema, named
        cleaned = [clean(schema, part, self.cleaning) for part in named]
        return (cleaned[0][0] if cleaned else schema), [part for _, part in cleaned]


def find_episodes(paths: Sequence[Path]) -> list[Path]:
    """The bags that are meant: a bag itself, or all in a folder of episodes, by name. Unfinished ones don't count.

    Raises:
        DatasetError: if there is none.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_file() and (path.parent / METADATA_FILE).is_file():
            path = path.parent
        if path.is_file() or (path / METADATA_FILE).is_file():
            found.append(path)
            continue
        inside = [child for child in (sorted(path.iterdir()) if path.is_dir() else []) if is_bag(child)]
        inside = [child for child in inside if child.is_dir() and not child.name.endswith(PART_ENDING)]
        if not inside:
            raise DatasetError(f"{path} is no bag and holds none; give an episode's folder or the folder of episodes")
        found += inside
    return list(dict.fromkeys(found))


def with_outcome(folders: Sequence[Path], outcome: str) -> list[Path]:
    """Those that were labelled so; bags of other origin have no label."""
    return [folder for folder in folders if _outcome(folder) == outcome]


def _outcome(folder: Path) -> str:
    try:
        return read_info(folder).outcome
    except ConfigError:
        return ""


def identity(folder: Path) -> str:
    """An episode's name in a dataset: the bag's, and when it began, since every folder of episodes counts from 0.

    Raises:
        DatasetError: if its metadata can't be read.
        RecordingError: likewise, of a bag that is one file.
    """
    path = folder / METADATA_FILE
    if not path.is_file():
        with Bag(folder) as bag:
            return f"{folder.stem}@{bag.started_ns}"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
        return f"{folder.name}@{int(values['starting_time']['nanoseconds_since_epoch'])}"
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise DatasetError(f"{path} can't be read ({error!r}); vla-ros episodes repair {folder}") from error
