"""What a run finds at every step: in a table that any program reads, and for TensorBoard where that is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_ros.files import whole_file


class Table:
    """A CSV file that grows by a line a step, and goes on where a run was interrupted.

    A column that turns up later is added to all lines, empty before. A line that a kill cut off is dropped.

    Args:
        path: of the file.
        until: the last step to keep of what is there.
    """

    def __init__(self, path: Path, until: int = -1) -> None:
        self._path = path
        self._columns: list[str] = []
        rows = _read(path, until)
        if rows:
            self._columns = list(rows[0])
            self._rewrite(rows)
        else:
            path.unlink(missing_ok=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a line; its first column is `step`."""
        if not set(row) <= set(self._columns):
            kept = _read(self._path, int(row["step"]))
            self._columns = [*self._columns, *(name for name in row if name not in self._columns)]
            self._rewrite(kept)
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, self._columns).writerow(row)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with whole_file(self._path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self._columns)
            writer.writeheader()
            writer.writerows(rows)


def _read(path: Path, until: int) -> list[dict[str, str]]:
    """Whole lines up to a step."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
    return [
        row for row in rows if None not in (*row, *row.values()) and row["step"].isdigit() and int(row["step"]) <= until
    ]


class Events:
    """The same for TensorBoard; where that isn't installed, nothing.

    Args:
        folder: for its files.
        since: a later step than this is cut off from what is there.
    """

    def __init__(self, folder: Path, since: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder), purge_step=since or None)

    @property
    def is_there(self) -> bool:
        """Whether anything is written."""
        return self._writer is not None

    def add(self, step: int, group: str, figures: Mapping[str, float]) -> None:
        """Adds figures of a step."""
        if self._writer is not None:
            for name, figure in figures.items():
                self._writer.add_scalar(f"{group}/{name}", figure, step)

    def flush(self) -> None:
        """Brings everything to the disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()
