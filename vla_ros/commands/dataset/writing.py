"""Datasets written from others."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vla_ros.commands.format_options import format_options
from vla_ros.commands.progress import Progress
from vla_ros.errors import DatasetError, VlaRosError
from vla_ros.recording import editing
from vla_ros.recording.dataset import Dataset, DatasetWriter, Schema
from vla_ros.recording.formats.registry import load_format
from vla_ros.recording.opening import open_any


def merge(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """All episodes of several datasets in one."""
    opened = {folder: open_any(folder, args.from_format) for folder in args.datasets}
    if len(opened) < len(args.datasets):
        raise DatasetError("a dataset is given twice; give each once")
    sources: dict[str, Dataset] = {}
    for folder, (_, dataset) in opened.items():
        label = editing.label_of(folder)
        # Folders of one name lie in different ones.
        sources[str(folder) if label in sources else label] = dataset
    schema = editing.merged_schema(sources)
    name = args.format or next(iter(opened.values()))[0]
    _check_apart(args.to, args.datasets)
    writer = load_format(name).create(args.to, schema, format_options(args.option))
    with Closing(writer):
        copied = editing.merge(sources, writer, _shown(progress))
    return _written(args.to, name, writer, sum(len(names) for names in copied.values()))


def split(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Parts of a dataset, each in a folder of that name below --to."""
    name, dataset = _open_one(args)
    fractions = _parts(args.parts)
    indices = editing.split_indices(len(dataset.names), list(fractions.values()), args.seed)
    found = {}
    for part, chosen in zip(fractions, indices, strict=True):
        found[part] = _copy(args, name, dataset, args.to / part, chosen, progress)
    return {"parts": found}


def drop(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """A dataset without some episodes."""
    name, dataset = _open_one(args)
    return _copy(args, name, dataset, args.to, editing.remaining(dataset, args.episodes), progress)


def convert(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """A dataset in another format, or encoded otherwise."""
    name, dataset = _open_one(args)
    return _copy(args, name, dataset, args.to, None, progress)


def finish(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Completes a LeRobot dataset whose writer was interrupted."""
    from vla_ros.recording.formats.lerobot.info import read_info, schema_of

    folder: Path = args.datasets[0]
    schema: Schema = schema_of(read_info(folder), str(folder))
    writer = load_format("lerobot").create(folder, schema, {})
    with Closing(writer):
        pass
    return _written(folder, "lerobot", writer, 0)


def _open_one(args: argparse.Namespace) -> tuple[str, Dataset]:
    return open_any(args.datasets[0], args.from_format)


def _copy(
    args: argparse.Namespace, name: str, dataset: Dataset, to: Path, indices: list[int] | None, progress: Progress
) -> dict[str, Any]:
    name = args.format or name
    _check_apart(to, args.datasets)
    writer = load_format(name).create(to, dataset.schema, format_options(args.option))
    with Closing(writer):
        if indices is not None:
            _check_only(to, writer.names, {dataset.names[index] for index in indices})
        copied = editing.copy_episodes(dataset, writer, indices, None, _shown(progress))
    return _written(to, name, writer, len(copied))


def _written(to: Path, name: str, writer: DatasetWriter, copied: int) -> dict[str, Any]:
    return {"dataset": str(to), "format": name, "episodes": len(writer.names), "copied": copied}


def _check_only(to: Path, there: Iterable[str], wanted: set[str]) -> None:
    """What is gone on with was begun alike: an episode that was to be left out, or in another part, isn't there."""
    others = [name for name in there if name not in wanted]
    if others:
        raise DatasetError(
            f"{to} is there and holds {len(others)} episodes that aren't to be in it, the first {others[0]!r}: it was "
            "written with other words; choose another folder, or delete that one"
        )


def _check_apart(to: Path, sources: Iterable[Path]) -> None:
    for source in sources:
        if to.resolve() == source.resolve():
            raise DatasetError(f"--to {to} is a source itself; choose another folder")


def _parts(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError as error:
            raise DatasetError(f"--parts {text!r}: write NAME=PART,NAME=PART, e.g. train=0.9,val=0.1") from error
    return found


def _shown(progress: Progress) -> editing.OnEpisode:
    return lambda done, total: progress("copying episodes", done / total)


class Closing:
    """Completes what was written, also after an error: the episodes before it are whole."""

    def __init__(self, writer: DatasetWriter) -> None:
        self._writer = writer

    def __enter__(self) -> DatasetWriter:
        return self._writer

    def __exit__(self, kind: object, *_error: object) -> None:
        # What went wrong before matters more.
        with contextlib.suppress(VlaRosError) if kind is not None else contextlib.nullcontext():
            self._writer.close()
