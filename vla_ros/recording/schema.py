"""A dataset's schema as JSON, where two of them differ, and whether an episode fits one; for all formats."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.config import build, plain
from vla_ros.contract import find_differences
from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import EpisodeFrames, Schema
from vla_ros.types import ImageArray


def schema_to_json(schema: Schema) -> dict[str, Any]:
    """Plain values, the contract whole; for who reads it without this package its hash is beside it."""
    values: dict[str, Any] = plain(dataclasses.asdict(schema))
    if schema.contract is not None:
        values["interface_hash"] = schema.contract.interface_hash
    return values


def schema_from_json(values: Any, where: str) -> Schema:
    """Reads what `schema_to_json` gave.

    Args:
        values: plain values.
        where: file and key, for errors.

    Raises:
        ConfigError: if it isn't that.
    """
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if key != "interface_hash"}
    return build(Schema, values, where)


def check_same_schema(folder: Path, there: Schema, wanted: Schema) -> None:
    """Refuses to go on with a dataset of another schema.

    Raises:
        DatasetError: naming every difference.
    """
    found = schema_differences(there, wanted)
    if found:
        raise DatasetError(
            f"{folder} holds another dataset: {'; '.join(found)} (there != wanted); choose another folder, or the "
            "contract, robot and rig that it was made with"
        )


def schema_differences(a: Schema, b: Schema) -> list[str]:
    """`what: value in a != value in b`, empty if they are the same. Of a contract its meaning counts, not its name."""
    found = []
    if abs(a.fps - b.fps) > 1e-6 * abs(b.fps):
        found.append(f"fps: {a.fps:g} != {b.fps:g}")
    if a.robot != b.robot:
        found.append(f"robot: {a.robot or 'none'} != {b.robot or 'none'}")
    for kind, ours, theirs in (("column", a.columns, b.columns), ("image", a.images, b.images)):
        columns_a, columns_b = ({column.name: column for column in columns} for columns in (ours, theirs))
        for name in sorted(columns_a.keys() | columns_b.keys()):
            if name not in columns_a or name not in columns_b:
                found.append(f"{kind} {name}: " + ("absent != there" if name not in columns_a else "there != absent"))
            elif columns_a[name] != columns_b[name]:
                parts = (dataclasses.asdict(columns[name]) for columns in (columns_a, columns_b))
                one, other = parts
                keys = [key for key in one if one[key] != other[key]]
                found += [f"{kind} {name}: {key} {one[key]} != {other[key]}" for key in keys]
    if (a.contract is None) != (b.contract is None):
        found.append("contract: " + ("none != one" if a.contract is None else "one != none"))
    elif a.contract is not None and b.contract is not None:
        found += [f"contract: {line}" for line in find_differences(a.contract, b.contract)]
    return found


def check_frames(schema: Schema, episode: EpisodeFrames) -> None:
    """Whether an episode's columns are what the schema says; its images are looked at as they come.

    Raises:
        DatasetError: naming episode, column and what is wrong with it.
    """
    frames = len(episode)
    if frames == 0:
        raise DatasetError(f"{episode.name} has no frame; leave it out")
    names = {column.name for column in schema.columns}
    for name in sorted(names ^ set(episode.columns)):
        problem = "is missing" if name in names else "isn't in the dataset's schema"
        raise DatasetError(f"{episode.name}: column {name} {problem}; export all episodes under one contract")
    for column in schema.columns:
        values = episode.columns[column.name]
        if values.shape != (frames, *column.shape):
            raise DatasetError(
                f"{episode.name}: column {column.name} has shape {values.shape}, needs {(frames, *column.shape)}"
            )
        if column.dtype == "string":
            if not all(isinstance(text, str) for text in values.ravel()):
                raise DatasetError(f"{episode.name}: column {column.name} holds something that isn't text")
        elif values.dtype != np.dtype(column.dtype):
            raise DatasetError(f"{episode.name}: column {column.name} is {values.dtype}, needs {column.dtype}")


class ImageCheck:
    """Whether an episode's images come as they should: every column's frames in order, none left out.

    Args:
        schema: of the dataset.
        episode: whose images they are.
    """

    def __init__(self, schema: Schema, episode: EpisodeFrames) -> None:
        self._name, self._frames = episode.name, len(episode)
        self._columns = {column.name: column for column in schema.images}
        self._seen = dict.fromkeys(self._columns, 0)

    def __call__(self, name: str, frame: int, image: ImageArray) -> None:
        """Looks at the next image.

        Raises:
            DatasetError: naming episode, column and frame.
        """
        column = self._columns.get(name)
        if column is None:
            raise DatasetError(f"{self._name}: image column {name} isn't in the dataset's schema")
        if frame != self._seen[name] or frame >= self._frames:
            raise DatasetError(
                f"{self._name}: {name} gives frame {frame} after {self._seen[name]} of {self._frames} frames"
            )
        if image.shape != (column.height, column.width, 3) or image.dtype != np.uint8:
            raise DatasetError(
                f"{self._name}: frame {frame} of {name} is {image.dtype} {image.shape}, needs uint8 "
                f"{(column.height, column.width, 3)}"
            )
        self._seen[name] += 1

    def end(self) -> None:
        """After the last image.

        Raises:
            DatasetError: if some are missing.
        """
        for name, seen in self._seen.items():
            if seen != self._frames:
                raise DatasetError(f"{self._name}: {name} has {seen} of {self._frames} images")
