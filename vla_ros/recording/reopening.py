"""Opens a bag that wasn't closed, to close it: what is whole of it stays where it is, and what isn't goes."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from io import BufferedWriter, BytesIO
from pathlib import Path
from typing import cast

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat, Qos
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.metadata import parse_qos
from rosbags.rosbag2.storage_mcap import PendingChunk, get_msgdef, get_qos

from vla_ros.errors import RecordingError
from vla_ros.recording.bag_writer import TYPESTORE, BagWriter, McapFile, Sqlite3File, is_known_type
from vla_ros.recording.mcap_records import NO_START_NS
from vla_ros.recording.mcap_scan import Scan, scan_mcap

_COPY_ENDING = ".copy"


class NoMessageError(RecordingError):
    """A bag without a single whole message."""


@dataclass(frozen=True)
class Reopened:
    """A bag that can be closed.

    Attributes:
        bag: open, with all that is whole.
        damage: what is lost, a sentence each.
    """

    bag: BagWriter
    damage: tuple[str, ...]


def reopen(path: Path, on_progress: Callable[[float], None] = lambda _: None) -> Reopened:
    """Opens a bag's file.

    Args:
        path: `.mcap` or `.db3`.
        on_progress: called with the part that is done.

    Raises:
        NoMessageError: if there is no message in it.
        RecordingError: if it is of a kind that others mend.
    """
    reopened = _reopen_mcap(path, on_progress) if path.suffix == ".mcap" else _reopen_sqlite3(path)
    if not sum(reopened.bag.counts.values()):
        with suppress(Exception):
            reopened.bag.abort()
        raise NoMessageError(f"{path} holds no whole message")
    return reopened


class _McapAgain(McapFile):
    """Goes on after the last whole chunk; what is after it is cut off."""

    def __init__(self, path: Path, scan: Scan) -> None:
        self.path = path
        self.bio = cast("BufferedWriter", path.open("r+b"))
        self.bio.truncate(scan.end)
        self.bio.seek(scan.end)
        self.schemas, self.channels = list(scan.schemas.values()), list(scan.channels.values())
        self.chunks = scan.chunks
        self.chunk = PendingChunk(NO_START_NS, 0, BytesIO(), defaultdict(list))
        self.compression, self.compressor = "", bytes
        self.message_start_time, self.message_end_time = scan.first_ns, scan.last_ns
        self.channel_stats = {number: scan.counts[number] for number in scan.channels}


def _reopen_mcap(path: Path, on_progress: Callable[[float], None]) -> Reopened:
    scan = scan_mcap(path, on_progress)
    if not scan.end or not (scan.counts or scan.tail.messages):
        raise NoMessageError(f"{path} holds no whole message")
    bag = BagWriter.again(path.parent, "mcap")
    bag.storage = _McapAgain(path, scan)
    schemas = {schema.name: schema for schema in scan.schemas.values()}
    definitions = {name: get_msgdef(schema) for name, schema in schemas.items()}
    known = [
        _connection(bag, number, channel.topic, channel.schema, definitions, get_qos(channel.metadata))
        for number, channel in scan.channels.items()
    ]
    bag.adopt(known, scan.counts, scan.first_ns, scan.last_ns)
    by_number = {connection.id: connection for connection in known}
    new_schemas = {schema.name: schema for schema in scan.tail.schemas.values()}
    for number, stamp_ns, data in scan.tail.messages:
        if number not in by_number:
            channel = scan.tail.channels[number]
            definition = get_msgdef(new_schemas.get(channel.schema) or schemas[channel.schema])
            by_number[number] = bag.add_connection(
                channel.topic,
                channel.schema,
                msgdef=definition.data,
                rihs01=_hash(channel.schema) or "unknown",
                offered_qos_profiles=get_qos(channel.metadata),
            )
        bag.write(by_number[number], stamp_ns, data)
    bag.file.flush()
    return Reopened(bag, tuple(scan.damage))


class _Sqlite3Again(Sqlite3File):
    """Goes on after the last commit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connect()


def _reopen_sqlite3(path: Path) -> Reopened:
    damage: tuple[str, ...] = ()
    try:
        # What a commit that was cut short left behind is undone by SQLite itself, here.
        with closing(sqlite3.connect(path)) as conn:
            is_sound = conn.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.Error:
        is_sound = False
    if not is_sound:
        damage = (_copy_what_is_left(path),)
    bag = BagWriter.again(path.parent, "sqlite3")
    try:
        file = _Sqlite3Again(path)
        bag.storage = file
        file.conn.execute("DELETE FROM metadata")
        file.conn.row_factory = sqlite3.Row
        definitions = {
            row["topic_type"]: _definition(row) for row in file.conn.execute("SELECT * FROM message_definitions")
        }
        connections = [
            _connection(bag, row["id"], row["name"], row["type"], definitions, parse_qos(row["offered_qos_profiles"]))
            for row in file.conn.execute("SELECT * FROM topics")
        ]
        query = "SELECT topic_id, COUNT(*), MIN(timestamp), MAX(timestamp) FROM messages GROUP BY topic_id"
        rows = [tuple(row) for row in file.conn.execute(query)]
    except (sqlite3.Error, KeyError, IndexError, ReaderError) as error:
        raise RecordingError(f"{path} can't be read ({error}); `ros2 bag reindex` or `sqlite3 .recover` may") from error
    first_ns, last_ns = min((row[2] for row in rows), default=0), max((row[3] for row in rows), default=0)
    bag.adopt(connections, {row[0]: row[1] for row in rows}, first_ns, last_ns)
    return Reopened(bag, damage)


def _copy_what_is_left(path: Path) -> str:
    """Replaces a damaged file by one with the messages that can be read, up to the first that can't.

    Returns:
        What is lost.
    """
    copy = path.with_name(path.name + _COPY_ENDING)
    copy.unlink(missing_ok=True)
    reason, count = "nothing", 0
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            # Else a file that is shorter than it says isn't opened at all.
            source.execute("PRAGMA writable_schema = ON")
            target.executescript(Sqlite3File.SQLITE_SCHEMA)
            for table, columns in (("topics", 6), ("message_definitions", 5), ("messages", 4)):
                insert = f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})"
                try:
                    for count, row in enumerate(source.execute(f"SELECT * FROM {table} ORDER BY id"), 1):  # noqa: B007
                        target.execute(insert, row)
                except sqlite3.DatabaseError as error:
                    reason = str(error)
            target.commit()
        copy.replace(path)
    except (sqlite3.Error, OSError) as error:
        copy.unlink(missing_ok=True)
        raise RecordingError(f"{path} is damaged and can't be copied ({error}); it is left as it is") from error
    for ending in ("-journal", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    return f"the file was damaged ({reason}): messages after the {count} that can be read are lost"


def _connection(
    bag: BagWriter, number: int, topic: str, kind: str, definitions: Mapping[str, MessageDefinition], qos: list[Qos]
) -> Connection:
    extension = ConnectionExtRosbag2("cdr", qos)
    return Connection(number, topic, kind, definitions[kind], _hash(kind), 0, extension, owner=bag)


def _definition(row: sqlite3.Row) -> MessageDefinition:
    kinds = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}
    kind = kinds.get(row["encoding"], MessageDefinitionFormat.NONE)
    return MessageDefinition(kind, row["encoded_message_definition"])


def _hash(kind: str) -> str:
    return TYPESTORE.hash_rihs01(kind) if is_known_type(kind) else ""
