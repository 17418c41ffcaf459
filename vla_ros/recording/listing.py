"""What there is in a folder of episodes, from their own words and the bags' metadata; no bag is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vla_ros.errors import ConfigError
from vla_ros.recording.episode import METADATA_FILE, PART_ENDING, EpisodeInfo, episode_number, read_info
from vla_ros.recording.store import EpisodeStore


@dataclass(frozen=True)
class ListedEpisode:
    """A row of the list.

    Attributes:
        number: of the episode.
        state: its outcome, or `unfinished`.
        task: at its start.
        robot: its name.
        duration_s: of the bag; 0 while it isn't finished.
        messages: in the bag, likewise.
        size_bytes: on the disk.
        started_ns: ROS time.
        note: the operator's, what was mended, and what is wrong.
    """

    number: int
    state: str
    task: str
    robot: str
    duration_s: float
    messages: int
    size_bytes: int
    started_ns: int
    note: str


def list_episodes(folder: Path) -> list[ListedEpisode]:
    """All episodes of a folder, the unfinished ones, too, by number."""
    store = EpisodeStore(folder)
    paths = sorted([*store.finished(), *store.unfinished()], key=lambda path: (episode_number(path) or 0, path.name))
    return [_row(path) for path in paths]


def _row(folder: Path) -> ListedEpisode:
    info: EpisodeInfo | None = None
    problem = ""
    try:
        info = read_info(folder)
    except ConfigError as error:
        problem = error.problem
    is_open = folder.name.endswith(PART_ENDING)
    metadata: dict[str, Any] = {}
    if not is_open:
        try:
            text = (folder / METADATA_FILE).read_text(encoding="utf-8")
            metadata = yaml.safe_load(text)["rosbag2_bagfile_information"]
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            problem = f"{METADATA_FILE} can't be read ({type(error).__name__}: {error})"
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    notes = [info.note, info.recovered] if info is not None else []
    return ListedEpisode(
        number=episode_number(folder) or 0,
        state="unfinished" if is_open else info.outcome if info is not None else "unknown",
        task=info.task if info is not None else "",
        robot=info.robot if info is not None else "",
        duration_s=metadata.get("duration", {}).get("nanoseconds", 0) * 1e-9,
        messages=metadata.get("message_count", 0),
        size_bytes=size,
        started_ns=info.started_ns if info is not None else 0,
        note="; ".join(filter(None, [*notes, problem])),
    )
