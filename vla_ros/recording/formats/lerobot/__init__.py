"""LeRobot datasets: v3.0 written and read, v2 read.

Source: lerobot 0.4.4, datasets/lerobot_dataset.py and datasets/utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_ros.recording.dataset import Schema
from vla_ros.recording.formats.lerobot.frames import LeRobotFrames
from vla_ros.recording.formats.lerobot.options import WriteOptions
from vla_ros.recording.formats.lerobot.reader import LeRobotDataset
from vla_ros.recording.formats.lerobot.writer import LeRobotWriter

__all__ = ["LeRobotDataset", "LeRobotFrames", "LeRobotWriter", "create", "open_dataset"]


def create(folder: Path, schema: Schema, options: Mapping[str, Any]) -> LeRobotWriter:
    """See `vla_ros.recording.dataset.Format`; the options are `WriteOptions`.

    Raises:
        DatasetError: if there is another dataset, somebody writes to it, or an option isn't understood.
    """
    return LeRobotWriter(folder, schema, WriteOptions.of(options))


def open_dataset(folder: Path) -> LeRobotDataset:
    """See `vla_ros.recording.dataset.Format`.

    Raises:
        DatasetError: if it isn't a LeRobot dataset, isn't complete, or holds what isn't understood.
    """
    return LeRobotDataset(folder)
