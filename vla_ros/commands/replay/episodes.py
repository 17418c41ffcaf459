"""The episode that the arguments of `vla-ros replay` name."""

from __future__ import annotations

import argparse
from pathlib import Path

from vla_ros.commands.episodes.options import chosen
from vla_ros.contract import load_contract, load_rig
from vla_ros.errors import ConfigError, VlaRosError
from vla_ros.policies.packages import packages_for
from vla_ros.recording.dataset import Dataset
from vla_ros.recording.formats.registry import load_format
from vla_ros.recording.recorded import RecordedEpisode
from vla_ros.recording.recorded_actions import RecordedActions, actions_of_frames, actions_of_recording
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel


def read_actions(args: argparse.Namespace) -> RecordedActions:
    """The actions of the episode.

    Raises:
        VlaRosError: if there is no such episode, or it can't be read.
    """
    if args.dataset is None:
        episode = read_bag(args.episode, args.folder, args.rig)
        return actions_of_recording(episode, model_of(episode).forward_kinematics)
    name, _, folder = str(args.dataset).partition(":")
    if not folder:
        raise VlaRosError(f"--from {args.dataset}: write FORMAT:DIR, like lerobot:datasets/blocks")
    with packages_for(f"dataset format {name}"):
        dataset = load_format(name).open_dataset(Path(folder))
    robot = args.robot or dataset.schema.robot
    joints = len(load_robot(robot).joints) if robot else 0
    contract = load_contract(args.contract) if args.contract else None
    return actions_of_frames(dataset.schema, dataset.read(_index(args.episode, dataset)), contract, joints)


def read_bag(word: str, folder: Path, rig: str | None = None) -> RecordedEpisode:
    """A recorded episode.

    Args:
        word: its number in a folder of episodes, or a bag's own folder.
        folder: of episodes.
        rig: name or file, for a bag that doesn't say of which rig it is.

    Raises:
        VlaRosError: if there is none, or it can't be read.
    """
    (path,) = chosen(folder, [word])
    with packages_for("reading bags"):
        from vla_ros.recording.reading import read_episode

        try:
            return read_episode(path)
        except ConfigError:
            if rig is None:
                raise
            return read_episode(path, load_rig(rig))


def model_of(episode: RecordedEpisode) -> RobotModel:
    """The arm as it was described in a recording."""
    if episode.description:
        return RobotModel(episode.robot, episode.description)
    return RobotModel.from_config(episode.robot)


def _index(word: str, dataset: Dataset) -> int:
    names = dataset.names
    if word in names:
        return names.index(word)
    if not word.isdecimal() or int(word) >= len(names):
        raise VlaRosError(f"episode {word!r}: the dataset has {len(names)}; give an index from 0 on, or a name")
    return int(word)
