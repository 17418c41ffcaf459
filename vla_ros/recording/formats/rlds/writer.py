"""Writes RLDS, an episode a record, each wholly in its shard or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from vla_ros.errors import DatasetError
from vla_ros.files import flush_to_disk
from vla_ros.recording.dataset import EpisodeFrames, Schema
from vla_ros.recording.formats.fitting import check_fits, fitting_images
from vla_ros.recording.formats.lock import lock_folder
from vla_ros.recording.formats.rlds import example, features, packing, pictures, shards
from vla_ros.recording.formats.rlds.tfrecord import RecordFile, write_record
from vla_ros.recording.formats.schema import check_same_schema, schema_from_json, schema_to_json

MAX_RECORD = (1 << 31) - 1
"""Protobuf reads no longer message."""
_PIECE = 1 << 22


@dataclass(frozen=True)
class RldsOptions:
    """How it is written.

    Attributes:
        images: png loses nothing; jpeg is a seventh of that and ten times as fast.
        quality: of JPEG, to 100.
        shard_mb: a shard is closed after the episode that takes it past that.
    """

    images: Literal["png", "jpeg"] = "png"
    quality: int = 95
    shard_mb: int = 1024

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is {self.quality}, allowed [1, 100]")
        if self.shard_mb < 1:
            raise ValueError(f"shard_mb is {self.shard_mb}, at least 1")


class RldsWriter:
    """One version's folder; see `vla_ros.recording.dataset.DatasetWriter`."""

    def __init__(self, folder: Path, schema: Schema, options: RldsOptions) -> None:
        """Begins `folder/1.0.0`, or goes on with what is there.

        Raises:
            DatasetError: if it holds another dataset, is in use or can't be written.
        """
        self._leaves = features.leaves_of(schema, options.images)
        self._folder, self._schema, self._options = folder / shards.VERSION, schema, options
        self._name = shards.dataset_name(folder)
        self._lock: int | None = None
        self._file: BinaryIO | None = None
        with self._named_errors("begun"):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(self._folder)
        try:
            with self._named_errors("begun"):
                self._begin()
                self._names = list(self._recovered_names())
        except BaseException:
            self._give_back()
            raise

    def _begin(self) -> None:
        schema_path, features_path = self._folder / shards.SCHEMA_FILE, self._folder / shards.FEATURES_FILE
        text = features.to_json(self._leaves)
        if features_path.exists():
            if not schema_path.exists():
                raise DatasetError(f"{self._folder}: holds a dataset of another program; give another folder")
            there = schema_from_json(schema_path.read_text(encoding="utf-8"), str(schema_path))
            check_same_schema(str(self._folder), there, self._schema)
            if features_path.read_text(encoding="utf-8") != text:
                raise DatasetError(f"{self._folder}: its images aren't {self._options.images}; give the other encoding")
            return
        shards.write_whole(schema_path, schema_to_json(self._schema))
        # Last, since it is what makes this a dataset.
        shards.write_whole(features_path, text)

    def _recovered_names(self) -> Iterator[str]:
        for shard in shards.find_shards(self._folder):
            records = RecordFile(shard.path)
            if shard.is_part:
                _cut_torn_end(records)
            records.check_whole()
            if shard.is_part and not records.records:
                shard.path.unlink()
            for index in range(len(records.records)):
                found = example.read_example(records.read(index, is_checked=False))
                yield str(found[features.METADATA + features.NAME].items()[0], "utf-8")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def add(self, episode: EpisodeFrames) -> None:
        if episode.name in self._names:
            raise DatasetError(f"{self._folder}: has an episode {episode.name}; leave it out, or name it otherwise")
        check_fits(self._schema, episode)
        with self._named_errors(f"given episode {episode.name}"), contextlib.ExitStack() as stack:
            contents = packing.pack_episode(self._schema, episode)
            spools = self._encode_images(episode, stack)
            sizes = {name: (kind, len(content)) for name, (kind, content) in contents.items()}
            sizes |= {name: (example.BYTES, spool.tell()) for name, spool in spools.items()}
            length = example.example_length(sizes)
            if length > MAX_RECORD:
                mend = "images=jpeg, smaller images or shorter episodes make it fit"
                raise DatasetError(
                    f"{episode.name}: is a record of {length} bytes, protobuf's limit is {MAX_RECORD}; {mend}"
                )
            self._append(length, _pieces(sizes, contents, spools))
        self._names.append(episode.name)

    def _append(self, length: int, pieces: Iterator[bytes]) -> None:
        file = self._shard()
        start = file.tell()
        try:
            write_record(file, length, pieces)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            # What stands in the buffer is of this record, too.
            self._file = None
            with contextlib.suppress(OSError):
                file.close()
            os.truncate(file.name, start)
            raise

    def _shard(self) -> BinaryIO:
        """The shard that the next episode goes to: the last one, unless it is large or finished."""
        if self._file is not None and self._file.tell() > self._options.shard_mb << 20:
            self._file.close()
            self._file = None
            is_new = True
        else:
            is_new = False
        if self._file is None:
            there = shards.find_shards(self._folder)
            if is_new or not there or not there[-1].is_part:
                path = self._folder / shards.part_name(self._name, len(there))
            else:
                path = there[-1].path
            self._file = path.open("ab")
            flush_to_disk(self._folder)
        return self._file

    def close(self) -> None:
        """Names the shards and writes dataset_info.json."""
        if self._lock is None:
            return
        try:
            with self._named_errors("completed"):
                if self._file is not None:
                    self._file.close()
                shards.finish(self._folder, self._name)
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _encode_images(self, episode: EpisodeFrames, stack: contextlib.ExitStack) -> dict[str, BinaryIO]:
        """Each column's images in a file without a name, as they go into the record."""
        paths = {image.name: features.STEPS + features.path_of(image.name) for image in self._schema.images}
        spools = {}
        for name in paths:
            spools[name] = stack.enter_context(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115
        images = fitting_images(self._schema, episode)
        for name, data in pictures.encode_all(images, self._options.images, self._options.quality):
            spools[name].write(example.delimited(1, len(data)) + data)
        return {path: spools[name] for name, path in paths.items()}

    @contextlib.contextmanager
    def _named_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            mend = "what was in it before is whole; make room or mend that, and go on"
            raise DatasetError(f"{self._folder}: can't be {what} ({error}); {mend}") from error


def _cut_torn_end(records: RecordFile) -> None:
    """Takes off what a crash left of an episode that wasn't finished."""
    whole = records.whole_bytes
    if records.records:
        try:
            records.read(len(records.records) - 1)
        except DatasetError:
            # Its length came to the disk before its data.
            start, _ = records.records.pop()
            whole = start - 12
    with records.path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    records.whole_bytes, records.trouble = whole, ""


def _pieces(
    sizes: dict[str, tuple[int, int]], contents: dict[str, tuple[int, bytes]], spools: dict[str, BinaryIO]
) -> Iterator[bytes]:
    yield example.example_head(sizes)
    for name, (kind, size) in sizes.items():
        yield example.feature_head(name, kind, size)
        if name in contents:
            yield contents[name][1]
            continue
        spools[name].seek(0)
        while piece := spools[name].read(_PIECE):
            yield piece
