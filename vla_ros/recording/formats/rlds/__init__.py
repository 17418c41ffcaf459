"""RLDS as TFDS stores it, the form of Open X-Embodiment: TFRecord files of episodes, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_ros.recording.dataset import Schema
from vla_ros.recording.formats.rlds.reader import RldsDataset
from vla_ros.recording.formats.rlds.writer import RldsOptions, RldsWriter
from vla_ros.recording.formats.schema import read_options


def create(folder: Path, schema: Schema, options: Mapping[str, Any]) -> RldsWriter:
    """Begins `folder/1.0.0`, or goes on with it. The folder's name is the dataset's: `tfds.load(name, data_dir=above)`.

    Args:
        folder: is made where it isn't there.
        schema: of all episodes.
        options: of `RldsOptions`.

    Raises:
        DatasetError: if it holds another dataset or is in use, or an option isn't understood.
    """
    return RldsWriter(folder, schema, read_options(RldsOptions, options, "rlds"))


def open_dataset(folder: Path) -> RldsDataset:
    """Reads a version's folder, or the newest version of the dataset that is in the folder.

    Raises:
        DatasetError: if there is none, or it can't be read.
    """
    return RldsDataset(folder)
