"""LeRobot datasets read, ours and anybody's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import EpisodeFrames, ImageColumn, Schema
from vla_ros.recording.encoding import frame_rate
from vla_ros.recording.formats.lerobot.arrays import from_arrow
from vla_ros.recording.formats.lerobot.frames import LeRobotFrames
from vla_ros.recording.formats.lerobot.info import INFO_PATH, read_info, schema_of
from vla_ros.recording.formats.lerobot.own import read_own
from vla_ros.recording.formats.lerobot.places import EpisodePlace, find_places
from vla_ros.recording.formats.lerobot.rows import DataFile
from vla_ros.recording.formats.lerobot.writer import unfinished
from vla_ros.recording.videos import VideoPart, read_video
from vla_ros.types import ImageArray


class LeRobotDataset:
    """A `Dataset`.

    Args:
        folder: with `meta/info.json`.

    Raises:
        DatasetError: see `open_dataset`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        info = read_info(folder)
        waiting = unfinished(folder)
        if waiting:
            raise DatasetError(
                f"{folder} isn't finished: {waiting} of its episodes are staged; run what wrote it again, or "
                f"`vla-ros dataset finish {folder}`"
            )
        self._schema = schema_of(info, str(folder / INFO_PATH))
        self._places, self._tasks = find_places(folder, info)
        self._own = read_own([place.length for place in self._places], folder)
        self._fps = frame_rate(self._schema.fps)
        self._file: DataFile | None = None

    @property
    def schema(self) -> Schema:
        return self._schema

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(episode.name for episode in self._own)

    def read(self, index: int) -> EpisodeFrames:
        """See `vla_ros.recording.dataset.Dataset`."""
        if not 0 <= index < len(self._places):
            raise DatasetError(f"{self.folder} has {len(self._places)} episodes, and no episode {index}")
        place, own = self._places[index], self._own[index]
        names = [column.name for column in self._schema.columns]
        table = self._rows(place, index, [*names, "task_index"])
        where = f"{place.data}, episode {index}"
        columns = {column.name: from_arrow(column, table[column.name], where) for column in self._schema.columns}
        tasks = tuple(self._task(number, where) for number in table["task_index"].to_pylist())
        videos = {
            key: VideoPart(path, round(start_s * self._fps), place.length, self._fps)
            for key, (path, start_s) in place.videos.items()
        }
        known = {key: stats for key, stats in place.stats.items() if key in videos}

        def read_images() -> Iterator[tuple[str, int, ImageArray]]:
            # In turn, so that who encodes them can do so side by side.
            streams = {
                image.name: read_video(videos[image.name])
                if image.name in videos
                else self._stored_images(place, index, image)
                for image in self._schema.images
            }
            for frame in range(place.length):
                for name, stream in streams.items():
                    yield name, frame, next(stream)

        return LeRobotFrames(own.name, columns, tasks, read_images, dict(own.attributes), videos, known)

    def _rows(self, place: EpisodePlace, index: int, names: list[str]) -> pa.Table:
        if self._file is None or self._file.path != place.data:
            self._file = DataFile(place.data)
        table = self._file.read(index, [*names, "frame_index"])
        frames = table["frame_index"].to_pylist()
        if frames != list(range(place.length)):
            raise DatasetError(
                f"{place.data}: episode {index} has {len(frames)} rows that aren't its {place.length} frames in order; "
                "copy it anew"
            )
        return table

    def _task(self, number: Any, where: str) -> str:
        if not isinstance(number, int) or not 0 <= number < len(self._tasks):
            raise DatasetError(f"{where}: task_index {number} isn't one of {len(self._tasks)} tasks")
        return self._tasks[number]

    def _stored_images(self, place: EpisodePlace, index: int, image: ImageColumn) -> Iterator[ImageArray]:
        """Of a column that keeps every image as a file of its own."""
        for item in self._rows(place, index, [image.name])[image.name].to_pylist():
            yield _decoded(item, self.folder, f"{place.data}, episode {index}: {image.name}")


def _decoded(item: Mapping[str, Any] | None, folder: Path, where: str) -> NDArray[np.uint8]:
    data = (item or {}).get("bytes")
    if data is None and item and item.get("path"):
        path = folder / str(item["path"])
        if path.resolve().is_relative_to(folder.resolve()) and path.is_file():
            data = path.read_bytes()
    image = None if data is None else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{where} holds no image that can be read; copy it anew")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
