"""Where a dataset's episodes lie, of version 3 and 2."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla_ros.errors import DatasetError
from vla_ros.recording.formats.lerobot.tables import read_episodes, read_tasks
from vla_ros.recording.statistics import Statistics


@dataclass(frozen=True)
class EpisodePlace:
    """Where one episode is.

    Attributes:
        length: frames.
        data: its parquet file.
        videos: by image column, the file and when it begins in it, s.
        stats: what the dataset says of it.
    """

    length: int
    data: Path
    videos: Mapping[str, tuple[Path, float]]
    stats: Mapping[str, Statistics] = field(default_factory=dict)


def find_places(folder: Path, info: Mapping[str, Any]) -> tuple[list[EpisodePlace], list[str]]:
    """All episodes in order, and the tasks in the order of their numbers.

    Raises:
        DatasetError: if it is of a version that isn't known, or its tables are damaged.
    """
    version = str(info.get("codebase_version", ""))
    keys = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    if version.startswith("v3."):
        return _places_3(folder, info, keys), read_tasks(folder)
    if version.startswith("v2."):
        return _places_2(folder, info, keys), _tasks_2(folder)
    raise DatasetError(f"{folder} is LeRobot {version or 'of no version'}; v3.0, v2.1 and v2.0 are read")


def _places_3(folder: Path, info: Mapping[str, Any], keys: Sequence[str]) -> list[EpisodePlace]:
    found = []
    for row in read_episodes(folder, stats_of=keys):
        try:
            numbers = {"chunk_index": int(row["data/chunk_index"]), "file_index": int(row["data/file_index"])}
            data = _path(folder, info, "data_path", **numbers)
            videos = {}
            for key in keys:
                place = {name: int(row[f"videos/{key}/{name}"]) for name in ("chunk_index", "file_index")}
                path = _path(folder, info, "video_path", video_key=key, **place)
                videos[key] = (path, float(row[f"videos/{key}/from_timestamp"]))
            found.append(EpisodePlace(int(row["length"]), data, videos, row["stats"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{folder}: episode {len(found)} lacks {error} in meta/episodes; copy it anew"
            ) from error
    return found


def _places_2(folder: Path, info: Mapping[str, Any], keys: Sequence[str]) -> list[EpisodePlace]:
    found = []
    for row in sorted(_lines(folder / "meta/episodes.jsonl"), key=lambda row: int(row["episode_index"])):
        index = int(row["episode_index"])
        numbers = {"episode_chunk": index // int(info.get("chunks_size") or 1000), "episode_index": index}
        videos = {key: (_path(folder, info, "video_path", video_key=key, **numbers), 0.0) for key in keys}
        found.append(EpisodePlace(int(row["length"]), _path(folder, info, "data_path", **numbers), videos))
    return found


def _tasks_2(folder: Path) -> list[str]:
    rows = {int(row["task_index"]): str(row["task"]) for row in _lines(folder / "meta/tasks.jsonl")}
    return [rows.get(number, "") for number in range(max(rows, default=-1) + 1)]


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in filter(str.strip, path.read_text(encoding="utf-8").split("\n"))]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} can't be read ({error}); copy the dataset anew") from error


def _path(folder: Path, info: Mapping[str, Any], kind: str, **values: Any) -> Path:
    """A file by the pattern in info.json, which may be anybody's, and has no business outside of its folder."""
    try:
        path = folder / str(info[kind]).format(**values)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{folder}: {kind} {info.get(kind)!r} in info.json can't be filled in ({error!r})"
        ) from error
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"{folder}: {kind} {info[kind]!r} in info.json leads out of the dataset")
    return path
