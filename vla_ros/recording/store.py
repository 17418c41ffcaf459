"""A folder of episodes: their numbers, who records into it, and what is finished."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import yaml

from vla_ros.errors import ConfigError, RecordingError
from vla_ros.files import flush_to_disk, whole_file
from vla_ros.recording.episode import (
    INFO_KEY,
    METADATA_FILE,
    PART_ENDING,
    EpisodeInfo,
    Outcome,
    episode_number,
    read_info,
    write_info,
)

LOCK_FILE = ".recording.lock"


class EpisodeStore:
    """The episodes in a folder. One process at a time has its lock, the end of a process lets go of it.

    Args:
        folder: made when it is first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: TextIO | None = None

    def acquire(self, what: str) -> None:
        """Keeps others from recording into the folder, or repairing it, until `release`.

        Args:
            what: is being done, for who comes second: `recording episode 3`.

        Raises:
            RecordingError: if another has it; the text says who and what.
        """
        path = self.folder / LOCK_FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise RecordingError(
                f"{self.folder} can't be written to ({error.strerror}); name another folder"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            who = lock.read().strip() or "another process"
            lock.close()
            raise RecordingError(f"{self.folder}: {who}; stop that first, or name another folder") from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {os.uname().nodename} is {what}")
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Lets others."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> EpisodeStore:
        return self

    def __exit__(self, *_arguments: object) -> None:
        self.release()

    def next_number(self) -> int:
        """One more than any that is there, finished or not."""
        return max((number for path in self._paths() if (number := episode_number(path)) is not None), default=-1) + 1

    def finished(self) -> list[Path]:
        """The folders of the finished episodes, by number."""
        return [path for path in self._paths() if not path.name.endswith(PART_ENDING)]

    def unfinished(self) -> list[Path]:
        """The folders of those that are recorded now, or were when their process ended."""
        return [path for path in self._paths() if path.name.endswith(PART_ENDING)]

    def episode(self, number: int) -> Path:
        """The folder of a finished one.

        Raises:
            RecordingError: if there is none.
        """
        path = next((path for path in self.finished() if episode_number(path) == number), None)
        if path is None:
            numbers = ", ".join(str(episode_number(path)) for path in self.finished()) or "none"
            raise RecordingError(f"{self.folder} has no finished episode {number}; there are: {numbers}")
        return path

    def part(self, info: EpisodeInfo) -> Path:
        """Where an episode is written."""
        return self.folder / f"{info.name}{PART_ENDING}"

    def finish(self, part: Path, info: EpisodeInfo | None) -> Path:
        """Brings an episode whose bag is closed to the disk and gives it its name.

        Args:
            part: its folder.
            info: None where nothing is known.

        Raises:
            RecordingError: if that fails; it is then unfinished, and can be repaired.
        """
        target = part.with_name(part.name.removesuffix(PART_ENDING))
        try:
            if info is not None:
                write_info(info, part)
            for path in (*part.iterdir(), part):
                flush_to_disk(path)
            if target.exists():
                raise RecordingError(f"{target} is there already; {part.name} stays as it is: rename one of them")
            part.rename(target)
            flush_to_disk(self.folder)
        except OSError as error:
            mend = "make room and run `vla-ros episodes repair`"
            raise RecordingError(f"{part} can't be finished ({error.strerror}); {mend}") from error
        return target

    def remove(self, folder: Path) -> None:
        """Removes an episode that was discarded."""
        gone = folder.with_name(f".{folder.name}.discarded")
        try:
            shutil.rmtree(gone, ignore_errors=True)
            # What is removed halfway must not look like an episode.
            folder.rename(gone)
            shutil.rmtree(gone)
        except OSError as error:
            raise RecordingError(f"{folder} can't be removed ({error.strerror})") from error

    def label(self, folder: Path, outcome: Outcome) -> EpisodeInfo:
        """Says how a finished episode ended.

        Raises:
            RecordingError: if its own words can't be read or written.
        """
        try:
            info = read_info(folder)
            info = info.ended(outcome, info.ended_ns)
            write_info(info, folder)
            replace_custom_data(folder, info)
            flush_to_disk(folder)
        except (ConfigError, OSError) as error:
            raise RecordingError(f"{folder} can't be labelled {outcome}: {error}") from error
        return info

    def _paths(self) -> list[Path]:
        with suppress(FileNotFoundError):
            paths = [path for path in self.folder.iterdir() if episode_number(path) is not None and path.is_dir()]
            return sorted(paths, key=lambda path: (episode_number(path), path.name))
        return []


def replace_custom_data(folder: Path, info: EpisodeInfo) -> None:
    """Puts an episode's words into its bag's metadata, too."""
    path = folder / METADATA_FILE
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    custom = values["rosbag2_bagfile_information"]
    custom["custom_data"] = {**(custom.get("custom_data") or {}), INFO_KEY: info.to_json()}
    with whole_file(path) as partial:
        partial.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
