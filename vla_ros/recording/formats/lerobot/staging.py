"""One episode on its own, complete and durable, before it goes into the dataset's files.

It has no number yet, so that several processes can stage episodes side by side and one puts them in order.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_ros.errors import DatasetError
from vla_ros.files import whole_folder
from vla_ros.recording.dataset import EpisodeFrames, Schema
from vla_ros.recording.encoding import VideoEncoder, frame_rate
from vla_ros.recording.formats.fitting import check_fits, fitting_images
from vla_ros.recording.formats.lerobot.arrays import to_arrow
from vla_ros.recording.formats.lerobot.frames import LeRobotFrames
from vla_ros.recording.formats.lerobot.options import WriteOptions
from vla_ros.recording.statistics import ImageStatistics, Statistics, column_statistics, sampled_frames
from vla_ros.recording.videos import VideoPart, join_videos, read_video
from vla_ros.types import ImageArray

DATA_FILE, EPISODE_FILE = "data.parquet", "episode.json"
TASK_COLUMN = "task"
_QUEUE = 8  # Images a stream: enough to level out their readers, little memory.


@dataclass(frozen=True)
class StagedEpisode:
    """What `stage` has written.

    Attributes:
        folder: where.
        name: of the episode.
        length: frames.
        tasks: its texts in the order in which they come.
        attributes: see `EpisodeFrames`.
        stats: by column.
    """

    folder: Path
    name: str
    length: int
    tasks: tuple[str, ...]
    attributes: dict[str, Any]
    stats: dict[str, Statistics]

    def video(self, column: str) -> Path:
        """Of an image column."""
        return self.folder / f"{column}.mp4"


def stage(folder: Path, schema: Schema, options: WriteOptions, episode: EpisodeFrames) -> None:
    """Writes an episode into a folder of its own, whole or not at all.

    Raises:
        DatasetError: if it doesn't fit the schema, its images aren't complete, or the disk is full.
    """
    check_fits(schema, episode)
    try:
        with whole_folder(folder) as partial:
            _write_data(partial / DATA_FILE, schema, episode)
            stats = {
                column.name: found
                for column in schema.columns
                if column.dtype != "string"
                and (found := column_statistics(np.asarray(episode.columns[column.name]))) is not None
            }
            stats |= _write_videos(partial, schema, options, episode)
            values = {
                "name": episode.name,
                "length": len(episode),
                "tasks": list(dict.fromkeys(episode.tasks)),
                "attributes": dict(episode.attributes),
                "stats": {name: {key: value.tolist() for key, value in found.items()} for name, found in stats.items()},
            }
            (partial / EPISODE_FILE).write_text(json.dumps(values), encoding="utf-8")
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{episode.name} can't be written to {folder.parent.parent} ({error})") from error
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{episode.name} can't be written ({error})") from error


def read_staged(folder: Path) -> StagedEpisode:
    """What `stage` has written into a folder.

    Raises:
        DatasetError: if it isn't complete.
    """
    try:
        values = json.loads((folder / EPISODE_FILE).read_text(encoding="utf-8"))
        stats: dict[str, Statistics] = {
            column: {key: np.asarray(value) for key, value in found.items()}
            for column, found in values["stats"].items()
        }
        name, length, tasks = values["name"], values["length"], tuple(values["tasks"])
        return StagedEpisode(folder, name, length, tasks, values["attributes"], stats)
    except (OSError, ValueError, KeyError) as error:
        mend = "remove that folder and write the episode again"
        raise DatasetError(f"{folder} isn't a whole episode ({error!r}); {mend}") from error


def _write_data(path: Path, schema: Schema, episode: EpisodeFrames) -> None:
    columns = {column.name: to_arrow(column, episode.columns[column.name]) for column in schema.columns}
    columns[TASK_COLUMN] = pa.array(list(episode.tasks), pa.string())
    pq.write_table(pa.table(columns), path)


def _write_videos(
    folder: Path, schema: Schema, options: WriteOptions, episode: EpisodeFrames
) -> Mapping[str, Statistics]:
    """Videos of all image columns, copied where that can be done, and the images' statistics."""
    if not schema.images:
        return {}
    if isinstance(episode, LeRobotFrames) and not options.is_video_chosen:
        copied = _copy_videos(folder, schema, episode)
        if copied is not None:
            return copied
    streams = {
        image.name: _Stream(
            VideoEncoder(folder / f"{image.name}.mp4", schema.fps, image.width, image.height, options.video),
            len(episode),
        )
        for image in schema.images
    }
    try:
        for name, _, image in fitting_images(schema, episode):
            streams[name].put(image)
    finally:
        for stream in streams.values():
            stream.end()
    return {name: stream.result() for name, stream in streams.items()}


def _copy_videos(folder: Path, schema: Schema, episode: LeRobotFrames) -> Mapping[str, Statistics] | None:
    """None where some video has to be encoded."""
    fps = frame_rate(schema.fps)
    found: dict[str, Statistics] = {}
    for image in schema.images:
        part = episode.videos.get(image.name)
        # LeRobot counts on a video's time being its frame's number over the dataset's rate.
        if part is None or part.fps != fps or part.count != len(episode):
            return None
        if not join_videos([part], folder / f"{image.name}.mp4", fps):
            return None
        known = episode.image_statistics.get(image.name)
        found[image.name] = known if known is not None else _statistics_of(part)
    return found


def _statistics_of(part: VideoPart) -> Statistics:
    wanted, statistics = set(sampled_frames(part.count).tolist()), ImageStatistics()
    for number, image in enumerate(read_video(part)):
        if number in wanted:
            statistics.add(image)
    return _some(statistics.result(), str(part.path))


def _some(found: Statistics | None, what: str) -> Statistics:
    if found is None:
        raise DatasetError(f"{what} has no image")
    return found


class _Stream:
    """Encodes one column's images in a thread: OpenCV and the encoder leave the interpreter to the others."""

    def __init__(self, encoder: VideoEncoder, frames: int) -> None:
        self._encoder = encoder
        self._sampled = set(sampled_frames(frames).tolist())
        self._statistics = ImageStatistics()
        self._images: queue.Queue[ImageArray | None] = queue.Queue(_QUEUE)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"encoding {encoder.path.name}", daemon=True)
        self._thread.start()

    def put(self, image: ImageArray) -> None:
        """Waits while the encoder is behind.

        Raises:
            DatasetError: what ended the encoding.
        """
        if self._error is not None:
            raise self._error
        self._images.put(image)

    def end(self) -> None:
        """After the last image; waits for the encoder."""
        if self._thread.is_alive():
            self._images.put(None)
            self._thread.join()

    def result(self) -> Statistics:
        """After `end`.

        Raises:
            DatasetError: what ended the encoding.
        """
        if self._error is not None:
            raise self._error
        return _some(self._statistics.result(), self._encoder.path.name)

    def _run(self) -> None:
        number = 0
        try:
            with self._encoder:
                while (image := self._images.get()) is not None:
                    self._encoder.write(image)
                    if number in self._sampled:
                        self._statistics.add(image)
                    number += 1
        except Exception as error:  # Handed to the thread that gives the images, which mustn't wait for ever.
            self._error = error
            while self._images.get() is not None:
                pass
