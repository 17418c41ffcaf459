"""LeRobot v3 datasets, written an episode at a time.

An episode is first staged: complete and durable in a folder of its own below `.staged/`. Staged episodes go into the
dataset's files when these are full, or at `close`. Files that are there are never written to again: a new one begins
for every lot, as when LeRobot resumes. The lot's table of episodes comes last; a process killed at any moment leaves
files that no episode is in, which the next writer removes, and staged episodes, which it takes over.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from vla_ros.errors import DatasetError
from vla_ros.files import flush_to_disk
from vla_ros.recording.dataset import EpisodeFrames, Schema
from vla_ros.recording.formats.lerobot.info import INFO_PATH, make_info, read_info, schema_of
from vla_ros.recording.formats.lerobot.lot import Lot, Tables
from vla_ros.recording.formats.lerobot.options import WriteOptions
from vla_ros.recording.formats.lerobot.own import OwnEpisode, read_own
from vla_ros.recording.formats.lerobot.staging import DATA_FILE, StagedEpisode, read_staged, stage
from vla_ros.recording.formats.lerobot.tables import read_episodes, read_tasks, write_json
from vla_ros.recording.formats.lock import lock_folder
from vla_ros.recording.formats.schema import check_same_schema
from vla_ros.recording.statistics import Statistics

STAGED_FOLDER = ".staged"
_READY = "ready-"
_MB = 1024.0 * 1024.0


@dataclass(frozen=True)
class Stager:
    """Stages episodes of a dataset, in any process; `LeRobotWriter.adopt` puts them in order."""

    folder: Path
    schema: Schema
    options: WriteOptions

    def __call__(self, episode: EpisodeFrames, number: int) -> Path:
        """Writes one episode beside the dataset's files.

        Args:
            episode: it.
            number: no other episode of this process has that one at the same time.

        Returns:
            The folder that it is in.

        Raises:
            DatasetError: see `stage`.
        """
        path = self.folder / STAGED_FOLDER / f"{_READY}{os.getpid()}-{number:06d}"
        stage(path, self.schema, self.options, episode)
        return path


class LeRobotWriter:
    """A `DatasetWriter`; also a context manager, which closes it.

    Args:
        folder: of the dataset; made where it isn't there.
        schema: of the dataset.
        options: see `WriteOptions`.

    Raises:
        DatasetError: if another dataset is there, or somebody else is writing to it.
    """

    def __init__(self, folder: Path, schema: Schema, options: WriteOptions) -> None:
        self.folder, self.schema, self.options = folder, schema, options
        wanted = make_info(schema)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(folder)
        except OSError as error:
            raise DatasetError(f"{folder} can't be made ({error.strerror}); choose another folder") from error
        try:
            self._open(wanted)
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def names(self) -> tuple[str, ...]:
        return tuple([episode.name for episode in self._tables.own] + [episode.name for episode in self._staged])

    @property
    def attributes(self) -> dict[str, Mapping[str, Any]]:
        """Of each episode, by its name."""
        own = {episode.name: episode.attributes for episode in self._tables.own}
        return {**own, **{episode.name: episode.attributes for episode in self._staged}}

    @property
    def stager(self) -> Stager:
        """For other processes."""
        return Stager(self.folder, self.schema, self.options)

    def add(self, episode: EpisodeFrames) -> None:
        """See `DatasetWriter`."""
        if episode.name in self.names:
            raise DatasetError(f"{self.folder} holds {episode.name} already; leave it out")
        self.adopt(self.stager(episode, len(self.names)))

    def adopt(self, staged: Path) -> None:
        """Makes what `stager` has written the next episode.

        Raises:
            DatasetError: if the dataset holds one of that name, or the disk is full.
        """
        episode = read_staged(staged)
        if episode.name in self.names:
            raise DatasetError(f"{self.folder} holds {episode.name} already; leave it out")
        place = self._staged_folder / f"{len(self.names):06d}"
        staged.rename(place)
        flush_to_disk(self._staged_folder)  # Under its number it is the dataset's; else who resumes removes it.
        self._staged.append(read_staged(place))
        if self._is_full():
            self._commit()

    def close(self) -> None:
        """Puts all episodes into files; see `DatasetWriter`."""
        try:
            self._commit()
            shutil.rmtree(self._staged_folder, ignore_errors=True)
        finally:
            os.close(self._lock)

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            os.close(self._lock)

    def replace_statistics(self, stats: Sequence[Mapping[str, Statistics]]) -> None:
        """See the function of that name."""
        if self._staged or len(stats) != len(self._tables.rows):
            raise DatasetError(f"{self.folder} isn't finished; run what wrote it again first")
        self._tables.replace_statistics(stats)

    @property
    def _staged_folder(self) -> Path:
        return self.folder / STAGED_FOLDER

    def _open(self, wanted: dict[str, Any]) -> None:
        if (self.folder / INFO_PATH).exists():
            info = read_info(self.folder)
            if not str(info.get("codebase_version", "")).startswith("v3."):
                raise DatasetError(
                    f"{self.folder} is LeRobot {info.get('codebase_version')}, and v3.0 is written; convert it into "
                    "another folder: vla-ros dataset convert"
                )
            check_same_schema(str(self.folder), schema_of(info, str(self.folder / INFO_PATH)), self.schema)
        elif any(path.name != STAGED_FOLDER for path in self.folder.iterdir()):
            raise DatasetError(f"{self.folder} isn't empty and isn't a LeRobot dataset; choose another folder")
        else:
            info = wanted
        chosen = {
            "data_files_size_in_mb": self.options.data_file_mb,
            "video_files_size_in_mb": self.options.video_file_mb,
            "chunks_size": self.options.chunk_files,
        }
        for key, value in chosen.items():
            info[key] = info.get(key, wanted[key]) if value is None else value
        rows = read_episodes(self.folder)
        own = read_own([int(row["length"]) for row in rows], self.folder)
        self._tables = Tables(self.folder, info, rows, read_tasks(self.folder), own)
        if not (self.folder / INFO_PATH).exists():
            write_json(info, self.folder / INFO_PATH)
        _remove_strays(self.folder, self._tables)
        self._staged = self._take_over(len(rows))

    def _take_over(self, committed: int) -> list[StagedEpisode]:
        """The episodes that a writer has staged and not put into files."""
        self._staged_folder.mkdir(exist_ok=True)
        found = []
        for path in sorted(self._staged_folder.iterdir()):
            if not path.name.isdigit() or int(path.name) < committed:
                shutil.rmtree(path)  # Never adopted, or in the files already.
            else:
                found.append((int(path.name), read_staged(path)))
        found.sort(key=lambda item: item[0])
        numbers = [number for number, _ in found]
        if numbers != list(range(committed, committed + len(found))):
            raise DatasetError(
                f"{self._staged_folder}: episodes {numbers} don't follow {committed} episodes; look there"
            )
        return [episode for _, episode in found]

    def _is_full(self) -> bool:
        info = self._tables.info
        sizes = {"data": sum((episode.folder / DATA_FILE).stat().st_size for episode in self._staged)}
        for image in self.schema.images:
            sizes[image.name] = sum(episode.video(image.name).stat().st_size for episode in self._staged)
        return any(
            size >= _MB * info["data_files_size_in_mb" if name == "data" else "video_files_size_in_mb"]
            for name, size in sizes.items()
        )

    def _commit(self) -> None:
        if self._staged:
            own = [OwnEpisode(episode.name, episode.length, episode.attributes) for episode in self._staged]
            Lot(self._tables, self.schema, self._staged).write(own)
        self._tables.write_summary()
        for episode in self._staged:
            shutil.rmtree(episode.folder, ignore_errors=True)
        self._staged = []


def _remove_strays(folder: Path, tables: Tables) -> None:
    """Files that a killed writer left: LeRobot would read every parquet file that is there."""
    for kind in ("data", "videos", "meta"):
        for path in (folder / kind).rglob(".*.partial"):
            path.unlink(missing_ok=True)
    known = tables.files()
    for path in [*(folder / "data").glob("chunk-*/file-*.parquet"), *(folder / "videos").glob("*/chunk-*/file-*.mp4")]:
        if path not in known:
            path.unlink()


def unfinished(folder: Path) -> int:
    """How many episodes are staged and not in the dataset's files."""
    numbers = [int(path.name) for path in (folder / STAGED_FOLDER).glob("*") if path.name.isdigit()]
    committed = len(read_episodes(folder, stats_of=())) if numbers else 0
    return sum(number >= committed for number in numbers)


def replace_statistics(folder: Path, schema: Schema, stats: Sequence[Mapping[str, Statistics]]) -> None:
    """Writes other statistics of the episodes, and the dataset's, which follow.

    Args:
        folder: of the dataset.
        schema: of it.
        stats: of the episodes in order, by column; what isn't in them stays.

    Raises:
        DatasetError: if the files can't be read or written.
    """
    writer = LeRobotWriter(folder, schema, WriteOptions())
    try:
        writer.replace_statistics(stats)
    finally:
        writer.close()
