"""An episode's name and attributes, which LeRobot has no place for: a line each in meta/vla_ros_episodes.jsonl.

Beside LeRobot's tables and not in them: its own tools write those with their own columns, and refuse a mixture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla_ros.errors import DatasetError
from vla_ros.recording.formats.lerobot.tables import OWN_PATH, durable_file


@dataclass(frozen=True)
class OwnEpisode:
    """What is known of an episode.

    Attributes:
        name: of it.
        length: frames, which shows whether the line still belongs to that episode.
        attributes: see `EpisodeFrames`.
    """

    name: str
    length: int
    attributes: Mapping[str, Any] = field(default_factory=dict)


def write_own(episodes: Sequence[OwnEpisode], folder: Path) -> None:
    """A line each, in the episodes' order."""
    with durable_file(folder / OWN_PATH) as partial, partial.open("w", encoding="utf-8") as stream:
        for index, episode in enumerate(episodes):
            values = {
                "episode_index": index,
                "name": episode.name,
                "length": episode.length,
                "attributes": dict(episode.attributes),
            }
            stream.write(json.dumps(values, ensure_ascii=False) + "\n")


def read_own(lengths: Sequence[int], folder: Path) -> list[OwnEpisode]:
    """Of all episodes; one that nothing is known of is named by its number.

    Args:
        lengths: of the episodes, in their order.
        folder: of the dataset.

    Raises:
        DatasetError: if the file is damaged.
    """
    found: dict[int, OwnEpisode] = {}
    path = folder / OWN_PATH
    if path.exists():
        try:
            # Not splitlines: a note may hold what that takes for the end of a line.
            for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
                values = json.loads(line)
                episode = OwnEpisode(str(values["name"]), int(values["length"]), values.get("attributes") or {})
                found[int(values["episode_index"])] = episode
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{path} can't be read ({error!r}); without it the episodes have numbers") from error
    plain = [OwnEpisode(f"episode_{index:06d}", length) for index, length in enumerate(lengths)]
    # Another tool has renumbered the episodes where a length differs, and then no line can be trusted.
    is_ours = all(index >= len(lengths) or found[index].length == lengths[index] for index in found)
    return [found.get(index, episode) for index, episode in enumerate(plain)] if is_ours else plain
