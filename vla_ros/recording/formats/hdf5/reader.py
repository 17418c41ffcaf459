"""Reads robomimic-style HDF5: our own to the same frames as were written, and public files as far as they speak."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import EpisodeFrames, Schema
from vla_ros.recording.formats.hdf5 import layout, public
from vla_ros.recording.formats.hdf5.journal import finish_commit, journal_of
from vla_ros.recording.formats.schema import schema_from_json
from vla_ros.types import ImageArray


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, for reading.

    Raises:
        DatasetError: if it can't be read, with HDF5's own word for it.
    """
    try:
        if journal_of(path).is_file():
            _mend(path)
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        is_locked = isinstance(error, BlockingIOError) or "lock" in text
        mend = "wait for who writes it" if is_locked else "it is damaged or no dataset; take it from a copy"
        raise DatasetError(f"{path}: can't be read ({text}); {mend}") from error


def _mend(path: Path) -> None:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finish_commit(path)


class Hdf5Dataset:
    """One file or several of one schema; see `vla_ros.recording.dataset.Dataset`."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        """Looks at the files' attributes and at the first demo.

        Raises:
            DatasetError: if one isn't a dataset.
        """
        self._demos: list[tuple[Path, str]] = []
        names: list[str] = []
        for path in paths:
            with opened(path) as file:
                demos = _demo_names(file, path)
                self._demos += [(path, demo) for demo in demos]
                prefix = f"{path.stem}/" if len(paths) > 1 else ""
                names += [prefix + str(file[layout.DATA][demo].attrs.get("name", demo)) for demo in demos]
        self._names = tuple(names)
        self._is_ours, self._schema = _find_schema(paths)

    @property
    def schema(self) -> Schema:
        return self._schema

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def read(self, index: int) -> EpisodeFrames:
        path, demo_name = self._demos[index]
        where = f"{path}: {demo_name}"
        with opened(path) as file:
            demo = file[layout.DATA][demo_name]
            frames = int(demo.attrs["num_samples"])
            columns = {}
            for column in self._schema.columns:
                values = _dataset(demo, public.find_path(demo, column.name, self._is_ours), where)[()]
                columns[column.name] = _as_column(
                    values, column.dtype, (frames, *column.shape), f"{where}/{column.name}"
                )
            images = {}
            for image in self._schema.images:
                image_path = public.find_path(demo, image.name, self._is_ours)
                shape = _dataset(demo, image_path, where).shape
                if shape != (frames, image.height, image.width, 3):
                    wanted = (frames, image.height, image.width, 3)
                    raise DatasetError(f"{where}/{image_path}: is of shape {shape}, the dataset's others are {wanted}")
                images[image.name] = image_path
            if self._is_ours:
                tasks = tuple(item.decode() for item in demo[layout.TASKS][()])
                attributes = json.loads(demo.attrs["attributes"])
            else:
                tasks = (public.find_task(file[layout.DATA], demo),) * frames
                attributes = public.find_attributes(file, demo_name, self._schema)
        if len(tasks) != frames:
            raise DatasetError(f"{where}: has {len(tasks)} tasks for {frames} frames; take it from a copy")
        return EpisodeFrames(
            self._names[index], columns, tasks, lambda: _read_images(path, demo_name, images, frames), attributes
        )


def _find_schema(paths: tuple[Path, ...]) -> tuple[bool, Schema]:
    """Whether the files are ours, and what they have in common."""
    ours, schemas = set(), {}
    for path in paths:
        with opened(path) as file:
            text = file[layout.DATA].attrs.get(layout.SCHEMA_ATTRIBUTE)
            ours.add(isinstance(text, str))
            if isinstance(text, str):
                schemas[str(path)] = schema_from_json(text, str(path))
            else:
                schemas[str(path)] = public.find_schema(file[layout.DATA], str(path))
    if len(ours) > 1:
        raise DatasetError(f"{paths[0].parent}: holds files of vla_ros and of others; open one of them")
    is_ours = ours.pop()
    return is_ours, public.common_schema(schemas, is_ours)


def _demo_names(file: Any, path: Path) -> list[str]:
    if layout.DATA not in file:
        raise DatasetError(f"{path}: has no group `data`, so it isn't of robomimic's layout; holds {sorted(file)}")
    names = sorted(file[layout.DATA], key=lambda name: (int(name.split("_")[-1]), name))
    if not names and layout.SCHEMA_ATTRIBUTE not in file[layout.DATA].attrs:
        raise DatasetError(f"{path}: has no demos in `data`, and nothing tells its columns; give another file")
    return names


def _dataset(demo: Any, path: str, where: str) -> Any:
    found = demo.get(path)
    if not isinstance(found, h5py.Dataset):
        raise DatasetError(f"{where}: lacks {path}, which the dataset's first episode has; leave this file out")
    return found


def _as_column(values: NDArray[Any], dtype: str, shape: tuple[int, ...], where: str) -> NDArray[Any]:
    if dtype == "string":
        texts = [item.decode() if isinstance(item, bytes) else str(item) for item in values.reshape(-1)]
        values = np.array(texts, object).reshape(values.shape)
    else:
        values = values.astype(dtype)
    if values.size != np.prod(shape) or len(values) != shape[0]:
        raise DatasetError(f"{where}: is of shape {values.shape}, the dataset's others are {shape}")
    return values.reshape(shape)


def _read_images(
    path: Path, demo_name: str, images: dict[str, str], frames: int
) -> Iterator[tuple[str, int, ImageArray]]:
    if not images:
        return
    with opened(path) as file:
        demo = file[layout.DATA][demo_name]
        datasets = {name: demo[image_path] for name, image_path in images.items()}
        for frame in range(frames):
            for name, dataset in datasets.items():
                yield name, frame, dataset[frame]
