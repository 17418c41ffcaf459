"""Rosbag2 bags as rosbags writes them, with what crash safety needs besides: names, flushing, checksums, syncing.

`rosbags` keeps MCAP in memory until a chunk of 1 MiB is full, minutes of a slow topic, and commits SQLite once, at the
end. Here both are brought to the file when asked, and chunks have the checksum that tells a torn one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args
from zlib import crc32

from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import Stores, get_typestore

from vla_ros.errors import RecordingError
from vla_ros.recording.episode import PART_ENDING

Storage = Literal["mcap", "sqlite3"]
STORAGES: tuple[Storage, ...] = get_args(Storage)
ENDINGS: Mapping[Storage, str] = {"mcap": ".mcap", "sqlite3": ".db3"}

# The newest that Humble reads: later ones have words for the quality of service.
VERSION: Literal[8] = 8
TYPESTORE = get_typestore(Stores.ROS2_KILTED)

# Opcode, length, two times and the size come before a chunk's checksum.
_CRC_OFFSET = 33
# Large pages: an interior page then points to so many others that a table of some minutes has one level of them.
_PAGE_BYTES = 65536


@dataclass(frozen=True)
class Topic:
    """Where messages are from.

    Attributes:
        name: resolved.
        type: `package/msg/Name`.
        qos: what its publishers offered.
    """

    name: str
    type: str
    qos: tuple[Qos, ...] = ()


def storage_path(folder: Path, storage: Storage) -> Path:
    """The file with the messages, of an episode that is open or finished."""
    return folder / f"{folder.name.removesuffix(PART_ENDING)}{ENDINGS[storage]}"


class McapFile(McapWriter):
    """MCAP whose chunks are checked and can be brought to the file at any time."""

    _is_torn = False

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(path, compression)
        self.path = self.path.rename(storage_path(path, "mcap"))

    def close_chunk(self) -> None:
        """Writes the pending chunk and its indices, and then its checksum: a chunk that is torn has none or fails."""
        self._is_torn = True
        checksum = crc32(self.chunk.bio.getbuffer())
        begin = self.bio.tell()
        super().close_chunk()
        end = self.bio.tell()
        self.bio.seek(begin + _CRC_OFFSET)
        self.bio.write(checksum.to_bytes(4, "little"))
        self.bio.seek(end)
        self._is_torn = False

    def flush(self) -> None:
        """Hands everything to the system: the end of this process loses none of it."""
        if self.chunk.msgs:
            self.close_chunk()
        self.bio.flush()

    def rescue(self) -> None:
        """Flushes after a failure, unless the file ends in half a chunk: what is in that is found by a repair."""
        if not self._is_torn:
            self.flush()

    def sync(self) -> None:
        """Waits until what was flushed is on the disk; any thread."""
        os.fsync(self.bio.fileno())


class Sqlite3File(Sqlite3Writer):
    """SQLite that is committed when asked; a commit that was cut short is undone by who opens it next."""

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        if compression is CompressionMode.STORAGE:
            raise WriterError("sqlite3 has no compression of its own")
        self.path = storage_path(path, "sqlite3")
        self.connect()
        self.conn.executescript(f"PRAGMA page_size = {_PAGE_BYTES}; {self.SQLITE_SCHEMA}")

    def connect(self) -> None:
        """Opens the file; one thread at a time uses it, but not always the same."""
        self.conn = sqlite3.connect(self.path, check_same_thread=False)
        # A commit syncs, so that the file is whole after a loss of power, too; WAL would write everything twice.
        self.conn.executescript("PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = NORMAL")
        self.cursor = self.conn.cursor()

    def flush(self) -> None:
        """Commits."""
        self.conn.commit()

    def rescue(self) -> None:
        """Commits after a failure."""
        self.conn.commit()

    def sync(self) -> None:
        """Nothing: commits do it."""

    def close(self, version: int, metadata: str) -> None:
        """Writes the metadata and leaves one file."""
        self.conn.commit()
        self.conn.execute("PRAGMA journal_mode = DELETE")
        super().close(version, metadata)


class BagWriter(Writer):
    """A bag being written.

    Args:
        folder: of the bag; made by `open`.
        storage: of the messages.
        is_compressed: whether chunks are compressed with zstd, MCAP only.
    """

    STORAGE_PLUGINS: Mapping[StoragePlugin, type[Any]] = {
        StoragePlugin.SQLITE3: Sqlite3File,
        StoragePlugin.MCAP: McapFile,
    }

    def __init__(self, folder: Path, storage: Storage, *, is_compressed: bool = False) -> None:
        super().__init__(folder, version=VERSION, storage_plugin=StoragePlugin[storage.upper()])
        if is_compressed:
            self.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._by_topic: dict[str, Connection] = {}

    @classmethod
    def again(cls, folder: Path, storage: Storage) -> BagWriter:
        """One for a folder that is there; its `storage` has to be set, and `adopt` to be called."""
        # rosbags refuses a folder that exists.
        bag = cls(folder / "new", storage)
        bag.path, bag.metapath = folder, folder / bag.metapath.name
        return bag

    @property
    def file(self) -> McapFile | Sqlite3File:
        """What the messages go to.

        Raises:
            RecordingError: if it isn't open.
        """
        if self.storage is None:
            raise RecordingError(f"{self.path} isn't open")
        return cast("McapFile | Sqlite3File", self.storage)

    def connect(self, topic: Topic) -> Connection:
        """The connection of a topic, made at its first message."""
        if topic.name not in self._by_topic:
            self._by_topic[topic.name] = self.add_connection(
                topic.name, topic.type, typestore=TYPESTORE, offered_qos_profiles=topic.qos
            )
        return self._by_topic[topic.name]

    def adopt(self, connections: Sequence[Connection], counts: Mapping[int, int], first_ns: int, last_ns: int) -> None:
        """Takes over what a bag holds already, to go on with it."""
        self.connections = list(connections)
        self._by_topic = {connection.topic: connection for connection in connections}
        self.added_types = {connection.msgtype for connection in connections}
        self.counts = {connection.id: counts.get(connection.id, 0) for connection in connections}
        self.min_timestamp, self.max_timestamp = first_ns, last_ns


def is_known_type(name: str) -> bool:
    """Whether messages of that type can be described in a bag."""
    return name in TYPESTORE.fielddefs
