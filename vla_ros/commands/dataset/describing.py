"""What is in a dataset."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.commands.progress import Progress
from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import Dataset
from vla_ros.recording.editing import all_statistics, combined_statistics
from vla_ros.recording.opening import open_any


def info(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Schema, episodes, tasks and outcomes of a dataset."""
    name, dataset = open_any(args.datasets[0], args.from_format)
    schema = dataset.schema
    found: dict[str, Any] = {
        "dataset": str(args.datasets[0]),
        "format": name,
        "robot": schema.robot,
        "fps": schema.fps,
        "contract": schema.contract.name if schema.contract is not None else None,
        "interface_hash": schema.contract.interface_hash if schema.contract is not None else None,
        "columns": {column.name: f"{column.dtype} {list(column.shape)}" for column in schema.columns},
        "images": {image.name: f"{image.width}x{image.height} {image.camera}".strip() for image in schema.images},
    }
    episodes = _episodes(dataset, progress)
    found["episodes"], found["frames"] = len(episodes), sum(episode["frames"] for episode in episodes)
    found["duration_s"] = found["frames"] / schema.fps
    found["tasks"] = dict(Counter(task for episode in episodes for task in episode["tasks"]))
    outcomes = Counter(str(episode["outcome"]) for episode in episodes if episode["outcome"] is not None)
    if outcomes:
        found["outcomes"] = dict(outcomes)
    if args.episodes:
        found["episode_list"] = episodes
    return found


def _episodes(dataset: Dataset, progress: Progress) -> list[dict[str, Any]]:
    found = []
    for index, name in enumerate(dataset.names):
        episode = dataset.read(index)
        tasks = list(dict.fromkeys(episode.tasks))
        found.append(
            {"name": name, "frames": len(episode), "tasks": tasks, "outcome": episode.attributes.get("outcome")}
        )
        progress("reading episodes", (index + 1) / len(dataset.names))
    return found


def stats(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Statistics from the values themselves.

    Raises:
        DatasetError: if they are to be written into a dataset that keeps none.
    """
    folder: Path = args.datasets[0]
    name, dataset = open_any(folder, args.from_format)
    if args.write and name != "lerobot":
        raise DatasetError(f"{folder} is {name}, which keeps no statistics; leave --write out and take the JSON")
    found = all_statistics(dataset, lambda done, total: progress("reading episodes", done / total))
    if args.write:
        from vla_ros.recording.formats.lerobot.writer import replace_statistics

        replace_statistics(folder, dataset.schema, found)
    combined = combined_statistics(found)
    return {
        "dataset": str(folder),
        "episodes": len(found),
        "is_written": bool(args.write),
        "statistics": {
            column: {key: np.asarray(value).ravel().tolist() for key, value in values.items()}
            for column, values in combined.items()
        },
    }


def as_text(found: Mapping[str, Any]) -> str:
    """For a person."""
    lines: list[str] = []
    for key, value in found.items():
        if isinstance(value, Mapping):
            lines.append(f"{key}:")
            lines += [f"  {name}: {_short(item)}" for name, item in value.items()]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines.append(f"{key}:")
            lines += ["  " + "  ".join(str(_short(item)) for item in row.values()) for row in value]
        else:
            lines.append(f"{key}: {_short(value)}")
    return "\n".join(lines)


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "  ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list):
        return f"[{', '.join(str(_short(item)) for item in value)}]"
    return value
