"""The tables below meta/: tasks, episodes with their statistics, and what LeRobot has no place for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_ros.errors import DatasetError
from vla_ros.files import flush_to_disk, whole_file
from vla_ros.recording.statistics import STATISTICS, Statistics

TASKS_PATH, STATS_PATH, OWN_PATH = "meta/tasks.parquet", "meta/stats.json", "meta/vla_ros_episodes.jsonl"
EPISODES_FOLDER = "meta/episodes"
_INDEX = "__index_level_0__"
# LeRobot reads tasks with pandas, and their texts are the frame's index; pandas itself isn't needed to say so.
_PANDAS = {
    "index_columns": [_INDEX],
    "column_indexes": [
        {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    ],
    "columns": [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {"name": None, "field_name": _INDEX, "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ],
    "creator": {"library": "pyarrow", "version": pa.__version__},
    "pandas_version": "2.2.0",
}


@contextmanager
def durable_file(path: Path) -> Iterator[Path]:
    """`whole_file` that is on the disk when the block ends."""
    with whole_file(path) as partial:
        yield partial
        flush_to_disk(partial)
    flush_to_disk(path.parent)


def write_json(values: Any, path: Path) -> None:
    """Whole and durable."""
    with durable_file(path) as partial:
        partial.write_text(json.dumps(values, indent=4, ensure_ascii=False), encoding="utf-8")


def write_tasks(tasks: Sequence[str], folder: Path) -> None:
    """The texts in the order of their numbers."""
    columns = {"task_index": pa.array(range(len(tasks)), pa.int64()), _INDEX: pa.array(list(tasks), pa.string())}
    table = pa.table(columns).replace_schema_metadata({"pandas": json.dumps(_PANDAS)})
    with durable_file(folder / TASKS_PATH) as partial:
        pq.write_table(table, partial)


def read_tasks(folder: Path) -> list[str]:
    """The texts in the order of their numbers; none where there is no file.

    Raises:
        DatasetError: if it can't be read.
    """
    path = folder / TASKS_PATH
    if not path.exists():
        return []
    table = read_table(path)
    texts = [name for name in table.column_names if name != "task_index"]
    if "task_index" not in table.column_names or len(texts) != 1:
        raise DatasetError(f"{path} has columns {table.column_names}, needs task_index and the texts")
    numbered = dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))
    if sorted(numbered) != list(range(len(numbered))):
        raise DatasetError(f"{path}: its task_index isn't 0 to {len(numbered) - 1}")
    return [numbered[number] for number in range(len(numbered))]


def read_table(path: Path, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    """A parquet file.

    Raises:
        DatasetError: if it can't be read.
    """
    try:
        return pq.read_table(path, columns=columns, filters=filters, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} can't be read ({error}); copy the file anew") from error


def read_episodes(folder: Path, stats_of: Collection[str] | None = None) -> list[dict[str, Any]]:
    """meta/episodes as rows, in the episodes' order; the statistics under `stats`, by column.

    Args:
        folder: of the dataset.
        stats_of: columns whose statistics are wanted, of what may be very many; None for all.

    Raises:
        DatasetError: if they can't be read, or numbers are missing.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / EPISODES_FOLDER).glob("*/*.parquet")):
        wanted = [name for name in _names(path) if stats_of is None or _is_wanted(name, stats_of)]
        rows += [_nested(row) for row in read_table(path, wanted).to_pylist()]
    rows.sort(key=lambda row: int(row["episode_index"]))
    if [row["episode_index"] for row in rows] != list(range(len(rows))):
        raise DatasetError(f"{folder / EPISODES_FOLDER}: episode numbers aren't 0 to {len(rows) - 1}; copy it anew")
    return rows


def _names(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} can't be read ({error}); copy the file anew") from error


def _is_wanted(name: str, stats_of: Collection[str]) -> bool:
    return not name.startswith("stats/") or name.split("/", 2)[1] in stats_of


def write_episodes(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Rows as `read_episodes` gives them, into one file."""
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    columns = {name: pa.array([row.get(name) for row in flat], _type(name)) for name in names}
    with durable_file(path) as partial:
        pq.write_table(pa.table(columns), partial)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in row.items() if name != "stats"}
    for column, statistics in row["stats"].items():
        plain |= {f"stats/{column}/{name}": np.asarray(statistics[name]).tolist() for name in statistics}
    return plain


def _nested(row: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in row.items() if not name.startswith("stats/")}
    stats: dict[str, dict[str, Any]] = {}
    for name, value in row.items():
        if name.startswith("stats/") and value is not None:
            _, column, statistic = name.split("/", 2)
            stats.setdefault(column, {})[statistic] = np.asarray(value)
    # Others may have statistics of their own; LeRobot's are what we go on with.
    plain["stats"] = {
        column: {name: found[name] for name in STATISTICS if name in found}
        for column, found in stats.items()
        if {"min", "max", "mean", "std", "count"} <= found.keys()
    }
    return plain


def _type(name: str) -> Any:
    """Said for what may be empty; None where Arrow finds it by itself."""
    return pa.list_(pa.string()) if name == "tasks" else None


def stats_as_json(stats: Mapping[str, Statistics]) -> dict[str, Any]:
    """meta/stats.json."""
    return {
        column: {name: np.asarray(value).tolist() for name, value in found.items()} for column, found in stats.items()
    }
