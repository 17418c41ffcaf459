"""Puts staged episodes into a dataset's files: data, videos, tasks, and the table of episodes as the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import Column, Schema
from vla_ros.recording.encoding import frame_rate
from vla_ros.recording.formats.lerobot.arrays import to_arrow
from vla_ros.recording.formats.lerobot.info import INDEX_COLUMNS, INFO_PATH
from vla_ros.recording.formats.lerobot.own import OwnEpisode, write_own
from vla_ros.recording.formats.lerobot.plan import Filling, Place, first_free
from vla_ros.recording.formats.lerobot.staging import DATA_FILE, TASK_COLUMN, StagedEpisode
from vla_ros.recording.formats.lerobot.tables import (
    EPISODES_FOLDER,
    STATS_PATH,
    durable_file,
    read_table,
    stats_as_json,
    write_episodes,
    write_json,
    write_tasks,
)
from vla_ros.recording.statistics import Statistics, column_statistics, combine
from vla_ros.recording.videos import VideoPart, join_videos, video_kind

_MB = 1024.0 * 1024.0


@dataclass
class Tables:
    """What a dataset's meta/ holds.

    Attributes:
        folder: of the dataset.
        info: info.json.
        rows: of meta/episodes, see `tables.read_episodes`.
        tasks: in the order of their numbers.
        own: names and attributes of the episodes.
    """

    folder: Path
    info: dict[str, Any]
    rows: list[dict[str, Any]]
    tasks: list[str]
    own: list[OwnEpisode]

    @property
    def frames(self) -> int:
        return int(self.rows[-1]["dataset_to_index"]) if self.rows else 0

    @property
    def video_keys(self) -> list[str]:
        return [name for name, feature in self.info["features"].items() if feature["dtype"] == "video"]

    def path(self, key: str, row: Mapping[str, Any]) -> Path:
        """The file that an episode's data or a video of it is in.

        Args:
            key: `data` or an image column.
            row: the episode's.
        """
        kind = "data" if key == "data" else f"videos/{key}"
        place = (int(row[f"{kind}/chunk_index"]), int(row[f"{kind}/file_index"]))
        return self.folder / self._name(key, place)

    def files(self) -> set[Path]:
        """All files that episodes are in."""
        return {self.path(key, row) for row in self.rows for key in ("data", *self.video_keys)}

    def write_summary(self) -> None:
        """info.json and the statistics, from the episodes."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row["stats"]))
        stats: dict[str, Statistics] = {}
        for name in columns:
            found = combine([row["stats"][name] for row in self.rows if name in row["stats"]])
            if found is not None:
                stats[name] = found
        if stats:
            write_json(stats_as_json(stats), self.folder / STATS_PATH)
        episodes = len(self.rows)
        self.info |= {
            "total_episodes": episodes,
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "splits": {"train": f"0:{episodes}"} if episodes else {},
        }
        for key in self.video_keys if self.rows else ():
            feature = self.info["features"][key]
            if not feature.get("info"):
                feature["info"] = _video_info(self.path(key, self.rows[0]), float(self.info["fps"]))
        write_json(self.info, self.folder / INFO_PATH)

    def replace_statistics(self, stats: Sequence[Mapping[str, Statistics]]) -> None:
        """Those of the episodes, in their files."""
        for row, found in zip(self.rows, stats, strict=True):
            row["stats"] = {**row["stats"], **found}
        # The rows say which file they are in; files of another's making may say so wrongly, and are then made anew.
        places: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            places.setdefault(episodes_file(row), []).append(row)
        for name, rows in places.items():
            write_episodes(rows, self.folder / EPISODES_FOLDER / name)

    def _name(self, key: str, place: Place) -> str:
        pattern = self.info["data_path"] if key == "data" else self.info["video_path"]
        return str(pattern.format(video_key=key, chunk_index=place[0], file_index=place[1]))


class Lot:
    """Staged episodes that go into files of their own.

    Args:
        tables: of the dataset; the episodes are added to them.
        schema: of the dataset.
        staged: the episodes.
    """

    def __init__(self, tables: Tables, schema: Schema, staged: Sequence[StagedEpisode]) -> None:
        self._tables, self._schema, self._staged = tables, schema, list(staged)
        self._fps = frame_rate(schema.fps)

    def write(self, own: Sequence[OwnEpisode]) -> None:
        """Writes everything but info.json and stats.json.

        Args:
            own: names and attributes of the episodes.

        Raises:
            DatasetError: if something can't be written; the dataset is as it was then.
        """
        tables = self._tables
        try:
            rows, tasks = self._plan()
            for path, members in _grouped(tables, "data", rows):
                self._write_data(path, [(rows[member], self._staged[member]) for member in members], tasks)
            for key in tables.video_keys:
                for path, members in _grouped(tables, key, rows):
                    self._write_video(path, [self._staged[member] for member in members], key)
            write_tasks(tasks, tables.folder)
            write_own([*tables.own, *own], tables.folder)
            write_episodes(rows, tables.folder / EPISODES_FOLDER / episodes_file(rows[0]))
        except (OSError, pa.ArrowException) as error:
            mend = "free disk space and write again; the episodes that were there are untouched"
            raise DatasetError(f"{tables.folder} can't be written ({error}); {mend}") from error
        tables.rows += rows
        tables.tasks, tables.own = tasks, [*tables.own, *own]

    def _plan(self) -> tuple[list[dict[str, Any]], list[str]]:
        """A row for each episode, its files and numbers in it, and all tasks."""
        tables, info = self._tables, self._tables.info
        chunk_files = int(info["chunks_size"])
        filling = {"data": self._filling("data", info["data_files_size_in_mb"])}
        for key in tables.video_keys:
            filling[key] = self._filling(f"videos/{key}", info["video_files_size_in_mb"])
        meta = first_free(tables.rows, "meta/episodes", chunk_files)
        tasks, first = list(tables.tasks), tables.frames
        rows: list[dict[str, Any]] = []
        for number, episode in enumerate(self._staged, start=len(tables.rows)):
            row: dict[str, Any] = {
                "episode_index": number,
                "tasks": list(episode.tasks),
                "length": episode.length,
                "dataset_from_index": first,
                "dataset_to_index": first + episode.length,
            }
            place, _ = filling["data"].put((episode.folder / DATA_FILE).stat().st_size, episode.length)
            row |= {"data/chunk_index": place[0], "data/file_index": place[1]}
            for key in tables.video_keys:
                video = episode.video(key)
                place, before = filling[key].put(video.stat().st_size, episode.length, video_kind(video))
                row |= {
                    f"videos/{key}/chunk_index": place[0],
                    f"videos/{key}/file_index": place[1],
                    f"videos/{key}/from_timestamp": float(before / self._fps),
                    f"videos/{key}/to_timestamp": float((before + episode.length) / self._fps),
                }
            row |= {"meta/episodes/chunk_index": meta[0], "meta/episodes/file_index": meta[1]}
            tasks += [task for task in episode.tasks if task not in tasks]
            row["stats"] = {**episode.stats, **self._index_statistics(row, episode, tasks)}
            rows.append(row)
            first += episode.length
        return rows, tasks

    def _filling(self, key: str, limit_mb: float) -> Filling:
        chunk_files = int(self._tables.info["chunks_size"])
        return Filling(first_free(self._tables.rows, key, chunk_files), _MB * float(limit_mb), chunk_files)

    def _index_columns(
        self, row: Mapping[str, Any], frame_tasks: Sequence[str], tasks: Sequence[str]
    ) -> dict[str, np.ndarray[Any, Any]]:
        frames = np.arange(len(frame_tasks), dtype=np.int64)
        numbers = {task: number for number, task in enumerate(tasks)}
        return {
            "timestamp": (frames / float(self._fps)).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full_like(frames, row["episode_index"]),
            "index": frames + row["dataset_from_index"],
            "task_index": np.array([numbers[task] for task in frame_tasks], dtype=np.int64),
        }

    def _index_statistics(
        self, row: Mapping[str, Any], episode: StagedEpisode, tasks: Sequence[str]
    ) -> dict[str, Statistics]:
        frame_tasks = read_table(episode.folder / DATA_FILE, [TASK_COLUMN])[TASK_COLUMN].to_pylist()
        columns = self._index_columns(row, frame_tasks, tasks)
        return {name: found for name, values in columns.items() if (found := column_statistics(values)) is not None}

    def _write_data(
        self, path: Path, members: Sequence[tuple[Mapping[str, Any], StagedEpisode]], tasks: Sequence[str]
    ) -> None:
        writer: pq.ParquetWriter | None = None
        with durable_file(path) as partial:
            try:
                for row, episode in members:
                    table = read_table(episode.folder / DATA_FILE)
                    added = self._index_columns(row, table[TASK_COLUMN].to_pylist(), tasks)
                    table = table.drop_columns([TASK_COLUMN])
                    for name, values in added.items():
                        table = table.append_column(name, to_arrow(Column(name, INDEX_COLUMNS[name]), values))
                    if writer is None:
                        writer = pq.ParquetWriter(partial, table.schema, compression="snappy", use_dictionary=True)
                    writer.write_table(table)  # A group of rows an episode, so that one is read alone.
            finally:
                if writer is not None:
                    writer.close()

    def _write_video(self, path: Path, members: Sequence[StagedEpisode], key: str) -> None:
        parts = [VideoPart(episode.video(key), 0, episode.length, self._fps) for episode in members]
        with durable_file(path) as partial:
            if not join_videos(parts, partial, self._fps):
                raise DatasetError(f"{members[0].video(key)} doesn't begin with a keyframe; write the episode again")


def episodes_file(row: Mapping[str, Any]) -> str:
    """Below meta/episodes, the file that an episode's row is in."""
    return f"chunk-{row['meta/episodes/chunk_index']:03d}/file-{row['meta/episodes/file_index']:03d}.parquet"


def _grouped(tables: Tables, key: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Path, list[int]]]:
    """The new files, and which of the episodes are in each."""
    found: dict[Path, list[int]] = {}
    for member, row in enumerate(rows):
        found.setdefault(tables.path(key, row), []).append(member)
    return list(found.items())


def _video_info(path: Path, fps: float) -> dict[str, Any]:
    kind = video_kind(path)
    return {
        "video.height": kind.height,
        "video.width": kind.width,
        "video.codec": kind.codec,
        "video.pix_fmt": kind.pixel_format,
        "video.is_depth_map": False,
        "video.fps": round(fps) if abs(fps - round(fps)) < 1e-9 else fps,
        "video.channels": 3,
        "has_audio": False,
    }
