"""Reads RLDS: our own to the same frames as were written, and public datasets as far as they speak."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import EpisodeFrames, Schema
from vla_ros.recording.formats.rlds import features, packing, pictures, public, shards
from vla_ros.recording.formats.rlds.example import Feature, read_example
from vla_ros.recording.formats.rlds.features import METADATA, STEPS, Leaf
from vla_ros.recording.formats.rlds.tfrecord import RecordFile
from vla_ros.recording.formats.schema import schema_from_json
from vla_ros.types import ImageArray


class RldsDataset:
    """One version's folder; see `vla_ros.recording.dataset.Dataset`."""

    def __init__(self, folder: Path) -> None:
        """Follows the records of all shards without reading them.

        Raises:
            DatasetError: if it isn't RLDS in TFRecord, or a shard is missing or cut.
        """
        folder = shards.version_folder(folder)
        features_path, schema_path = folder / shards.FEATURES_FILE, folder / shards.SCHEMA_FILE
        self._leaves = features.from_json(_read_text(features_path), str(features_path))
        self._records: list[tuple[RecordFile, int]] = []
        names: list[str] = []
        counts: Counter[str] = Counter()
        self._left_out: list[str] = []
        self._task_path: str | None = STEPS + features.INSTRUCTION
        for shard, file in shards.open_shards(folder):
            for index in range(len(file.records)):
                names.append(f"{shard.split}/{counts[shard.split]:06d}")
                counts[shard.split] += 1
                self._records.append((file, index))
        self._is_ours = schema_path.exists()
        if self._is_ours:
            self._schema = schema_from_json(_read_text(schema_path), str(schema_path))
            columns = [
                *(column.name for column in self._schema.columns),
                *(image.name for image in self._schema.images),
            ]
            self._paths = {name: STEPS + features.path_of(name) for name in columns}
            names = [self._name(index) for index in range(len(names))]
        else:
            found = public.find_schema(self._leaves, lambda: self._example(0), str(folder))
            self._schema, self._paths, self._task_path, self._left_out = found
        self._names = tuple(names)

    @property
    def schema(self) -> Schema:
        return self._schema

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def read(self, index: int) -> EpisodeFrames:
        found, where = self._example(index), f"{self._records[index][0].path}: record {self._records[index][1]}"
        frames = _count_frames(found, self._leaves)
        if not frames:
            raise DatasetError(f"{where}: has no steps; leave it out")
        columns = {}
        for column in self._schema.columns:
            values = self._values(found, self._paths[column.name], where)
            shape = (frames, *column.shape)
            if values.size != np.prod(shape) or len(values) != frames:
                raise DatasetError(
                    f"{where}, {self._paths[column.name]}: is of shape {values.shape}, {shape} was to be"
                )
            values = values.reshape(shape)
            columns[column.name] = values if column.dtype == "string" else values.astype(column.dtype)
        for image in self._schema.images:
            count = len(_feature(found, self._paths[image.name], where).items())
            if count != frames:
                raise DatasetError(f"{where}, {self._paths[image.name]}: has {count} images for {frames} steps")
        return EpisodeFrames(
            self._names[index],
            columns,
            self._tasks(found, frames, where),
            lambda: self._read_images(index, frames, where),
            self._attributes(found, where),
        )

    def _tasks(self, found: dict[str, Feature], frames: int, where: str) -> tuple[str, ...]:
        if self._task_path is None:
            return ("",) * frames
        tasks = tuple(self._values(found, self._task_path, where).reshape(-1).tolist())
        tasks = tasks * frames if self._task_path.startswith(METADATA) else tasks
        if len(tasks) != frames:
            raise DatasetError(f"{where}, {self._task_path}: has {len(tasks)} texts for {frames} steps")
        return tasks

    def _attributes(self, found: dict[str, Feature], where: str) -> dict[str, Any]:
        if self._is_ours:
            return dict(json.loads(self._values(found, METADATA + features.ATTRIBUTES, where)[0]))
        attributes: dict[str, Any] = {"left_out": self._left_out}
        for path, leaf in self._leaves.items():
            if not path.startswith(STEPS) and public.is_readable(leaf):
                values = self._values(found, path, where).tolist()
                attributes[path.removeprefix(METADATA)] = values[0] if len(values) == 1 else values
        return attributes

    def _read_images(self, index: int, frames: int, where: str) -> Iterator[tuple[str, int, ImageArray]]:
        if not self._schema.images:
            return
        found = self._example(index, is_checked=False)
        files = {image: found[self._paths[image.name]].items() for image in self._schema.images}
        for frame in range(frames):
            for image, items in files.items():
                place = f"{where}, {self._paths[image.name]}, frame {frame}"
                pixels = pictures.decode(items[frame], place)
                if pixels.shape != (image.height, image.width, 3):
                    wanted = f"{image.height} x {image.width}"
                    raise DatasetError(f"{place}: is {pixels.shape[0]} x {pixels.shape[1]}, the others are {wanted}")
                yield image.name, frame, pixels

    def _example(self, index: int, is_checked: bool = True) -> dict[str, Feature]:
        file, record = self._records[index]
        return read_example(file.read(record, is_checked))

    def _name(self, index: int) -> str:
        found = self._example(index, is_checked=False)
        return str(self._values(found, METADATA + features.NAME, str(self._records[index][0].path))[0])

    def _values(self, found: dict[str, Feature], path: str, where: str) -> NDArray[Any]:
        return packing.unpack(_feature(found, path, where), self._leaves[path], f"{where}, {path}")


def _feature(found: dict[str, Feature], path: str, where: str) -> Feature:
    if path not in found:
        raise DatasetError(f"{where}: lacks {path}, which features.json names; leave it out")
    return found[path]


def _count_frames(found: dict[str, Feature], leaves: dict[str, Leaf]) -> int:
    """Of an episode: as many as its shortest value that is one item or number a frame."""
    for path, leaf in leaves.items():
        if path in found and path.startswith(STEPS) and leaf.shape == () and public.is_readable(leaf):
            return len(packing.unpack(found[path], leaf, path))
    for path, leaf in leaves.items():
        if path in found and path.startswith(STEPS) and (leaf.kind == "image" or leaf.encoding in ("bytes", "zlib")):
            return len(found[path].items())
    return 0


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: can't be read ({error}); take it from a copy") from error
