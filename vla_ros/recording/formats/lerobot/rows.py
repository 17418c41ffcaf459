"""The rows of single episodes out of a data file, whose head is read once: it is long where episodes are many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq

from vla_ros.errors import DatasetError
from vla_ros.types import FloatArray

_EPISODE = "episode_index"


class DataFile:
    """A parquet file of frames. It isn't held open.

    Args:
        path: of it.

    Raises:
        DatasetError: if it can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fragment = pyarrow.dataset.ParquetFileFormat().make_fragment(str(path), pyarrow.fs.LocalFileSystem())
            self._fragment.ensure_complete_metadata()
            self._first, self._last = _episodes_of_groups(self._fragment.metadata)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def read(self, episode: int, columns: list[str]) -> pa.Table:
        """The rows of an episode, by its number.

        Raises:
            DatasetError: if they can't be read.
        """
        groups = np.flatnonzero((self._first <= episode) & (episode <= self._last)).tolist()
        try:
            part = self._fragment.subset(row_group_ids=groups)
            return part.to_table(columns=columns, filter=pc.field(_EPISODE) == episode)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DatasetError:
        return DatasetError(f"{self.path} can't be read ({error}); copy the file anew")


def _episodes_of_groups(head: pq.FileMetaData) -> tuple[FloatArray, FloatArray]:
    """(groups,) first and last episode in each group of rows; all of them where the file doesn't say."""
    names = [head.schema.column(index).path for index in range(head.num_columns)]
    bounds = np.tile([-np.inf, np.inf], (head.num_row_groups, 1))
    if _EPISODE in names:
        place = names.index(_EPISODE)
        for group in range(head.num_row_groups):
            statistics = head.row_group(group).column(place).statistics
            if statistics is not None and statistics.has_min_max:
                bounds[group] = statistics.min, statistics.max
    return bounds[:, 0], bounds[:, 1]
