"""Any rosbag2 bag as a stream of raw messages: mcap or sqlite3, of Humble to Lyrical, split, compressed.

Message definitions inside the bag come before what is known of the common types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from vla_ros.errors import MissingDependencyError, RecordingError

try:
    from rosbags.interfaces import Connection, MessageDefinitionFormat, Nodetype
    from rosbags.rosbag2 import Reader
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
except ImportError as error:
    raise MissingDependencyError("rosbags", "reading bags", "pip install 'vla_ros[data]'") from error

_IDL_SEPARATOR = "=" * 80 + "\n"
REPAIR = "`vla-ros episodes repair` saves what can be read"


@dataclass(frozen=True)
class BagTopic:
    """A topic in a bag.

    Attributes:
        name: resolved, as `/joint_states`.
        kind: type of its messages, as `sensor_msgs/msg/JointState`.
        count: messages that the bag says it holds.
        is_known: whether its type is defined in the bag, or is one of the common ones.
    """

    name: str
    kind: str
    count: int
    is_known: bool


class Bag:
    """A bag that is open for reading; a context manager.

    Args:
        path: folder of the bag, or its only file.

    Attributes:
        topics: by name.
        custom: what its writer put into the metadata besides.
        started_ns: when its first message was received.
        distribution: ROS distribution of its writer, empty where it doesn't say.
        fields: definitions of message types, as rosbags has them.

    Raises:
        RecordingError: if it can't be opened: no bag, cut off, of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = _open(path)
        self.started_ns = int(self._reader.start_time)
        self._connections: list[Connection] = list(self._reader.connections)
        self.distribution = self._reader.ros_distro or ""
        custom = getattr(self._reader.storage, "metadata", None)
        self.custom: Mapping[str, str] = dict(getattr(custom, "custom", None) or {})
        self.fields: dict[str, Any] = dict(get_typestore(Stores.LATEST).fielddefs)
        for connection in self._connections:
            self.fields.update(_definitions(connection))
        self._types = get_typestore(Stores.EMPTY)
        self._types.register(_needed({connection.msgtype for connection in self._connections}, self.fields))
        self.topics = self._list_topics()

    def raw(
        self, names: Collection[str], begin_ns: int | None = None, end_ns: int | None = None
    ) -> Iterator[tuple[str, int, bytes]]:
        """(topic, time of reception in ns, CDR) of some topics, by time of reception.

        Args:
            names: of the topics.
            begin_ns: leave out what was received before.
            end_ns: likewise, then or later.

        Raises:
            RecordingError: at the place from which on the bag is damaged, or at the end if messages are missing.
        """
        wanted = [connection for connection in self._connections if connection.topic in names]
        if not wanted:
            return
        seen = dict.fromkeys((connection.topic for connection in wanted), 0)
        try:
            for connection, received_ns, data in self._reader.messages(wanted, begin_ns, end_ns):
                seen[connection.topic] += 1
                yield connection.topic, received_ns, data
        # Damage shows as whatever the storage's and the compression's own libraries raise.
        except Exception as error:
            count = sum(seen.values())
            raise RecordingError(f"{self.path}: damaged after {count} messages ({_name(error)}); {REPAIR}") from error
        for name, count in seen.items() if begin_ns is None and end_ns is None else ():
            if count < self.topics[name].count:
                raise RecordingError(
                    f"{self.path}: {name} has {count} messages, its metadata says {self.topics[name].count}: it is "
                    f"cut off, or files of it are missing; {REPAIR}"
                )

    def decode(self, name: str, data: bytes | memoryview) -> Any:
        """A message of a topic, its fields as attributes.

        Raises:
            RecordingError: if its type isn't known, or the bytes aren't one.
        """
        topic = self.topics[name]
        if not topic.is_known:
            raise RecordingError(f"{self.path}: {name} is of type {topic.kind}, which neither bag nor ROS defines")
        try:
            return self._types.deserialize_cdr(data, topic.kind)
        except Exception as error:
            raise RecordingError(f"{self.path}: a message of {name} can't be read ({_name(error)})") from error

    def close(self) -> None:
        """Closes its files."""
        with suppress(Exception):
            self._reader.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _list_topics(self) -> dict[str, BagTopic]:
        topics: dict[str, BagTopic] = {}
        for connection in self._connections:
            name, kind = connection.topic, connection.msgtype
            before = topics.get(name)
            if before is not None and before.kind != kind:
                raise RecordingError(f"{self.path}: {name} has messages of two types, {before.kind} and {kind}")
            count = connection.msgcount + (0 if before is None else before.count)
            topics[name] = BagTopic(name, kind, count, self._is_known(kind))
        return topics

    def _is_known(self, kind: str) -> bool:
        try:
            self._types.get_msgdef(kind)
        except Exception:
            return False
        return True


def is_bag(path: Path) -> bool:
    """Whether there is something that looks like a bag."""
    return (path / "metadata.yaml").is_file() or (path.is_file() and path.suffix in (".mcap", ".db3"))


def _open(path: Path) -> Reader:
    if not path.exists():
        raise RecordingError(f"{path}: no such file or folder")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        files = sorted(entry.name for entry in path.iterdir() if entry.suffix in (".mcap", ".db3", ".zstd"))
        what = f"holds {', '.join(files)} but no metadata.yaml: it wasn't closed" if files else "isn't a rosbag2 bag"
        raise RecordingError(f"{path}: {what}; {REPAIR}" if files else f"{path}: {what}")
    try:
        reader = Reader(path)
        reader.open()
    except Exception as error:
        raise RecordingError(f"{path}: can't be opened as a rosbag2 bag ({_name(error)}); {REPAIR}") from error
    return reader


def _definitions(connection: Connection) -> dict[str, Any]:
    """Types that a connection brings along; none where they can't be parsed, which only matters if they are needed."""
    form, text = connection.msgdef.format, connection.msgdef.data
    try:
        if form == MessageDefinitionFormat.MSG:
            return dict(get_types_from_msg(text, connection.msgtype))
        if form == MessageDefinitionFormat.IDL:
            parts = text.split(_IDL_SEPARATOR)[1:] if text.startswith(f"{_IDL_SEPARATOR}IDL: ") else [f"\n{text}"]
            found: dict[str, Any] = {}
            for part in parts:
                found.update(get_types_from_idl(part.split("\n", 1)[1]))
            return found
    except Exception:
        return {}
    return {}


def _needed(kinds: set[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Definitions of some types, and of all that they are made of."""
    found: dict[str, Any] = {}
    left = list(kinds)
    while left:
        kind = left.pop()
        if kind in found or kind not in fields:
            continue
        found[kind] = fields[kind]
        for _, (node, what) in fields[kind][1]:
            inner_node, inner = what[0] if node in (Nodetype.ARRAY, Nodetype.SEQUENCE) else (node, what)
            if inner_node == Nodetype.NAME:
                left.append(inner)
    return found


def _name(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
