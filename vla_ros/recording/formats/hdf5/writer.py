"""Writes robomimic-style HDF5, an episode at a time, each wholly in the file or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import DatasetError
from vla_ros.files import whole_file
from vla_ros.recording.dataset import EpisodeFrames, Schema
from vla_ros.recording.formats.fitting import check_fits, fitting_images
from vla_ros.recording.formats.hdf5 import layout
from vla_ros.recording.formats.hdf5.committed import CommittedFile
from vla_ros.recording.formats.lock import lock_folder
from vla_ros.recording.formats.schema import check_same_schema, schema_from_json, schema_to_json

_TEXT = h5py.string_dtype("utf-8")
_DEMO_NAME = np.dtype("S24")


@dataclass(frozen=True)
class Hdf5Options:
    """How it is written.

    Attributes:
        compression: of the images; all are lossless. `gzip` (level 1) takes a 640x480 camera image to nine tenths in
            20 ms, a simulated one further; `lzf` takes a quarter of that time, less off, and only h5py reads it.
    """

    compression: Literal["none", "lzf", "gzip"] = "none"


class Hdf5Writer:
    """One file; see `vla_ros.recording.dataset.DatasetWriter`."""

    def __init__(self, path: Path, schema: Schema, options: Hdf5Options) -> None:
        """Begins the file, or goes on with the one that is there.

        Raises:
            DatasetError: if it holds another schema, is in use or can't be written.
        """
        layout.check_paths(schema, str(path))
        self._path, self._schema, self._options = path, schema, options
        with self._named_errors("begun"):
            _begin(path, schema)
            self._file = CommittedFile(path)
        try:
            self._open()
            check_same_schema(str(path), self._schema_there(), schema)
            demos = [(int(name.removeprefix("demo_")), demo.attrs["name"]) for name, demo in self._data.items()]
        except BaseException:
            self.close()
            raise
        self._names = [name for _, name in sorted(demos)]
        self._next = max((number for number, _ in demos), default=-1) + 1

    def _open(self) -> None:
        try:
            self._hdf5 = h5py.File(self._file, "r+", libver="earliest")
            self._data = self._hdf5[layout.DATA]
        except (OSError, KeyError) as error:
            raise DatasetError(f"{self._path}: isn't a dataset in HDF5 ({error}); give another path") from error

    def _schema_there(self) -> Schema:
        text = self._data.attrs.get(layout.SCHEMA_ATTRIBUTE)
        if not isinstance(text, str):
            raise DatasetError(f"{self._path}: is a file of another program; give another path, it is left as it is")
        return schema_from_json(text, str(self._path))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def add(self, episode: EpisodeFrames) -> None:
        if episode.name in self._names:
            raise DatasetError(f"{self._path}: has an episode {episode.name}; leave it out, or name it otherwise")
        check_fits(self._schema, episode)
        try:
            with self._named_errors(f"given episode {episode.name}"):
                self._write(f"demo_{self._next}", episode)
                self._hdf5.flush()
                self._file.commit()
        except BaseException:
            self._undo()
            raise
        self._names.append(episode.name)
        self._next += 1

    def close(self) -> None:
        """Nothing is left to complete: the file is whole after each episode."""
        if not self._file.closed:
            with contextlib.suppress(OSError, RuntimeError, AttributeError):
                self._hdf5.close()
            self._file.close()

    def _undo(self) -> None:
        # The library's own memory is of the episode that failed, too.
        with contextlib.suppress(OSError, RuntimeError):
            self._hdf5.close()
        self._file.rollback()
        self._open()

    def _write(self, demo_name: str, episode: EpisodeFrames) -> None:
        demo = self._data.create_group(demo_name)
        demo.attrs["num_samples"] = len(episode)
        demo.attrs["name"] = episode.name
        demo.attrs["attributes"] = json.dumps(dict(episode.attributes))
        # Where robomimic's and RoboCasa's loaders look for the language.
        demo.attrs["ep_meta"] = json.dumps({"lang": episode.tasks[0]})
        demo.create_dataset(layout.TASKS, data=list(episode.tasks), dtype=_TEXT)
        for column in self._schema.columns:
            dtype = _TEXT if column.dtype == "string" else None
            demo.create_dataset(layout.path_of(column.name), data=episode.columns[column.name], dtype=dtype)
        outcome = episode.attributes.get("outcome")
        for path, last in (("rewards", outcome == "success"), ("dones", True)):
            if path not in demo:
                demo[path] = _only_at_the_end(len(episode), float(last))
        self._write_images(demo, episode)
        self._data.attrs["total"] = int(self._data.attrs["total"]) + len(episode)
        if outcome in ("success", "failure"):
            self._mark(outcome, demo_name)

    def _write_images(self, demo: Any, episode: EpisodeFrames) -> None:
        compression = None if self._options.compression == "none" else self._options.compression
        level = {"compression_opts": 1} if compression == "gzip" else {}
        datasets = {}
        for image in self._schema.images:
            shape = (image.height, image.width, 3)
            datasets[image.name] = demo.create_dataset(
                layout.path_of(image.name),
                (len(episode), *shape),
                np.uint8,
                chunks=(1, *shape),
                compression=compression,
                # HDF5 has no checksums unless one asks.
                fletcher32=True,
                **level,
            )
        for name, frame, pixels in fitting_images(self._schema, episode):
            datasets[name][frame] = pixels

    def _mark(self, outcome: str, demo_name: str) -> None:
        """Adds a demo to a filter key, which robomimic's `filter_by_attribute` names."""
        path = f"{layout.MASK}/{outcome}"
        if path not in self._hdf5:
            self._hdf5.create_dataset(path, (0,), _DEMO_NAME, maxshape=(None,), chunks=(256,))
        key = self._hdf5[path]
        key.resize(len(key) + 1, axis=0)
        key[-1] = demo_name.encode()

    @contextlib.contextmanager
    def _named_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            failure = getattr(getattr(self, "_file", None), "failure", None) or error
            mend = "what was in it before is whole; make room or mend the permissions, and go on"
            raise DatasetError(f"{self._path}: can't be {what} ({failure}); {mend}") from error


def _begin(path: Path, schema: Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = lock_folder(path.parent, is_waiting=True)
    try:
        # Somebody else may have begun it meanwhile.
        if not path.exists():
            _write_empty(path, schema)
    finally:
        os.close(descriptor)


def _write_empty(path: Path, schema: Schema) -> None:
    with whole_file(path) as partial, h5py.File(partial, "w", libver="earliest") as file:
        data = file.create_group(layout.DATA)
        data.attrs["total"] = 0
        data.attrs["env_args"] = layout.env_args(schema)
        data.attrs[layout.SCHEMA_ATTRIBUTE] = schema_to_json(schema)
        file.create_group(layout.MASK)


def _only_at_the_end(frames: int, last: float) -> NDArray[np.float64]:
    values = np.zeros(frames)
    values[-1] = last
    return values
