"""Which of a dataset's files an episode goes into: numbers of chunk and file, as LeRobot counts them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Place = tuple[int, int]
"""Chunk and file."""


def next_place(place: Place, chunk_files: int) -> Place:
    """The file after that one."""
    chunk, file = place
    return (chunk, file + 1) if file + 1 < chunk_files else (chunk + 1, 0)


def first_free(rows: Iterable[Mapping[str, Any]], key: str, chunk_files: int) -> Place:
    """The file after all that episodes are in.

    Args:
        rows: of meta/episodes.
        key: `data`, `meta/episodes` or `videos/<column>`.
        chunk_files: files in a folder.
    """
    used = [(int(row[f"{key}/chunk_index"]), int(row[f"{key}/file_index"])) for row in rows]
    return next_place(max(used), chunk_files) if used else (0, 0)


@dataclass
class Filling:
    """Fills one file after the other.

    Args:
        place: of the first file.
        limit_bytes: at which a file is full.
        chunk_files: files in a folder.
    """

    place: Place
    limit_bytes: float
    chunk_files: int

    def __post_init__(self) -> None:
        self._bytes, self._frames = 0, 0
        self._kind: Hashable = None

    def put(self, size_bytes: int, frames: int, kind: Hashable = None) -> tuple[Place, int]:
        """Gives an episode its file.

        Args:
            size_bytes: of it.
            frames: of it.
            kind: files hold episodes of one kind.

        Returns:
            The file, and the frames in it before this episode.
        """
        is_full = self._bytes + size_bytes >= self.limit_bytes or kind != self._kind
        if self._bytes > 0 and is_full:
            self.place, self._bytes, self._frames = next_place(self.place, self.chunk_files), 0, 0
        self._kind = kind
        before, self._bytes = self._frames, self._bytes + size_bytes
        self._frames += frames
        return self.place, before
