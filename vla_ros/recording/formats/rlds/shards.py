"""A dataset's folder as TFDS has it: the files of a version, their names, and dataset_info.json.

While a dataset is written, its newest shards are called `NAME-train.tfrecord-00003.part`, which TFDS passes over; how
many there are, and so their last names, is known at the end.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_ros.errors import DatasetError
from vla_ros.files import flush_to_disk, whole_file
from vla_ros.recording.formats.rlds.tfrecord import OVERHEAD, RecordFile

VERSION = "1.0.0"
FEATURES_FILE, INFO_FILE, SCHEMA_FILE = "features.json", "dataset_info.json", "vla_ros.json"
SPLIT = "train"
PART_ENDING = ".part"
_SHARD = re.compile(r"(?P<name>\w+)-(?P<split>[\w-]+)\.tfrecord-(?P<index>\d{5,})(-of-(?P<count>\d{5,})|\.part)")


@dataclass(frozen=True)
class Shard:
    """A file of records.

    Attributes:
        path: the file.
        split: e.g. `train`.
        index: from 0 on.
        is_part: it isn't finished, so that its end may be torn.
    """

    path: Path
    split: str
    index: int
    is_part: bool


def dataset_name(folder: Path) -> str:
    """A folder's name as TFDS allows one: letters, digits and underscores, a letter first."""
    name = re.sub(r"\W", "_", folder.name.lower(), flags=re.ASCII)
    return name if re.match(r"[a-z]", name) else f"d_{name}"


def part_name(name: str, index: int) -> str:
    """Of a shard that isn't finished."""
    return f"{name}-{SPLIT}.tfrecord-{index:05d}{PART_ENDING}"


def version_folder(folder: Path) -> Path:
    """The folder with the files: this one, its newest version, or that of the one dataset in it.

    Raises:
        DatasetError: if there is none, or several datasets.
    """
    found = [path.parent for depth in ("", "*/", "*/*/", "*/*/*/") for path in folder.glob(f"{depth}{FEATURES_FILE}")]
    if not found:
        raise DatasetError(f"{folder}: no {FEATURES_FILE} is in it or up to three folders below; check the path")
    parents = sorted({path.parent for path in found})
    if len(parents) > 1 and folder not in found:
        listing = ", ".join(str(parent.relative_to(folder)) for parent in parents)
        raise DatasetError(f"{folder}: holds {len(parents)} datasets ({listing}); name one of them")
    return folder if folder in found else max(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])


def find_shards(folder: Path) -> list[Shard]:
    """The shards in a version's folder, by split and index.

    Raises:
        DatasetError: if one is missing or there twice.
    """
    shards: list[Shard] = []
    counts: dict[str, int] = {}
    for path in folder.iterdir():
        if match := _SHARD.fullmatch(path.name):
            shards.append(Shard(path, match["split"], int(match["index"]), match["count"] is None))
            counts[match["split"]] = max(counts.get(match["split"], 0), int(match["count"] or 0))
    shards.sort(key=lambda shard: (shard.split != SPLIT, shard.split, shard.index))
    for split, count in counts.items():
        there = [shard.index for shard in shards if shard.split == split]
        if there != list(range(len(there))) or len(there) < count:
            missing = sorted(set(range(max(count, max(there) + 1))) - set(there))
            what = f"lacks shard {missing[0]}" if missing else "has a shard twice"
            raise DatasetError(f"{folder}: split {split!r} {what} of {count or len(there)}; take it from a copy")
    return shards


def open_shards(folder: Path) -> list[tuple[Shard, RecordFile]]:
    """The shards and their records; of one that isn't finished those that are whole.

    Raises:
        DatasetError: if there are none, or one is missing, cut or shorter than dataset_info.json says.
    """
    lengths = _known_lengths(folder)
    opened = [(shard, RecordFile(shard.path)) for shard in find_shards(folder)]
    for split, known in lengths.items():
        there = sum(shard.split == split for shard, _ in opened)
        if there < len(known):
            raise DatasetError(f"{folder}: split {split!r} has {there} of {len(known)} shards; take it from a copy")
    for shard, file in opened:
        if shard.is_part:
            continue
        file.check_whole()
        known = lengths.get(shard.split, [])
        if shard.index < len(known) and len(file.records) != known[shard.index]:
            told = f"{len(file.records)} records, dataset_info.json says {known[shard.index]}"
            raise DatasetError(f"{shard.path}: has {told}; take it from a copy")
    return opened


def _known_lengths(folder: Path) -> dict[str, list[int]]:
    """By split, as dataset_info.json has them; a dataset that is being written has none yet."""
    path = folder / INFO_FILE
    if not path.exists():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        form = info.get("fileFormat", "tfrecord")
        lengths = {split["name"]: [int(n) for n in split.get("shardLengths", [])] for split in info.get("splits", [])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: can't be read ({error!r}); take it from a copy") from error
    if form != "tfrecord":
        raise DatasetError(f"{folder}: its files are {form}, only tfrecord is read; convert it with TFDS")
    return lengths


def finish(folder: Path, name: str) -> None:
    """Gives all shards of a dataset of ours their last names, and writes dataset_info.json.

    A crash in the middle leaves what `find_shards` reads; the next call completes it.
    """
    shards, lengths, size = find_shards(folder), [], 0
    while shards and shards[-1].is_part and not shards[-1].path.stat().st_size:
        shards.pop().path.unlink()
    for shard in shards:
        final = folder / f"{name}-{SPLIT}.tfrecord-{shard.index:05d}-of-{len(shards):05d}"
        if shard.path != final:
            shard.path.rename(final)
        records = RecordFile(final)
        records.check_whole()
        lengths.append(str(len(records.records)))
        size += records.whole_bytes - OVERHEAD * len(records.records)
    write_info(folder, name, lengths, size)


def write_info(folder: Path, name: str, lengths: list[str], size: int) -> None:
    """Writes dataset_info.json; protobuf's JSON has 64-bit numbers as text."""
    split = {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": SPLIT,
        "numBytes": str(size),
        "shardLengths": lengths,
    }
    info: dict[str, Any] = {
        "description": "Episodes in RLDS, written by vla_ros.",
        "fileFormat": "tfrecord",
        "name": name,
        "splits": [split] if lengths else [],
        "version": VERSION,
    }
    write_whole(folder / INFO_FILE, json.dumps(info, indent=2))


def write_whole(path: Path, text: str) -> None:
    """Writes a file, all of it on the disk or nothing."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    flush_to_disk(path.parent)
