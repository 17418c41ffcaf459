"""Many messages of one type out of CDR at once: what has the same layout becomes a table, a field a column.

A stream repeats itself: 15,000 joint states a minute have the same names and lengths, and differ in their numbers. The
first message's layout is read field by field, the others are held against it byte by byte where there are no numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Nodetype

from vla_ros.errors import RecordingError

_HEADER = 4
_SIZES = {
    "bool": 1, "byte": 1, "char": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4,
    "int64": 8, "uint64": 8, "float32": 4, "float64": 8,
}  # fmt: skip
_CODES = {"bool": "u1", "byte": "u1", "char": "u1", "float32": "f4", "float64": "f8"}


@dataclass
class Layout:
    """Where in a message's bytes its numbers are.

    Attributes:
        numbers: path of a field, as `points[0].positions` -> (offset, NumPy type, how many).
        texts: path of a string or of a sequence of strings -> what it says.
        counts: path of a sequence -> its length.
        fixed: (start, end) of the bytes that say what is where: lengths and strings.
    """

    numbers: dict[str, tuple[int, str, int]] = field(default_factory=dict)
    texts: dict[str, str | list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    fixed: list[tuple[int, int]] = field(default_factory=lambda: [(0, 2)])


@dataclass(frozen=True)
class Table:
    """Messages of one layout.

    Attributes:
        rows: (n,) which of the messages these are.
        layout: of all of them.
        data: (n, bytes).
    """

    rows: NDArray[np.intp]
    layout: Layout
    data: NDArray[np.uint8]

    def column(self, path: str) -> NDArray[Any]:
        """A field's numbers, (n, how many), or (n, 0) where it isn't there."""
        if path not in self.layout.numbers:
            return np.zeros((len(self.rows), 0))
        offset, dtype, count = self.layout.numbers[path]
        width = np.dtype(dtype).itemsize * count
        return np.ascontiguousarray(self.data[:, offset : offset + width]).view(dtype)

    def stamps_ns(self, path: str = "header.stamp") -> NDArray[np.int64]:
        """(n,) of a builtin_interfaces/Time."""
        sec, nanosec = self.column(f"{path}.sec")[:, 0], self.column(f"{path}.nanosec")[:, 0]
        return sec.astype(np.int64) * 1_000_000_000 + nanosec.astype(np.int64)


def tabulate(messages: Sequence[bytes], fields: Mapping[str, Any], kind: str) -> Iterator[Table]:
    """Tables of all messages that can be read; each message is in one of them, or in none.

    Args:
        messages: CDR with its header.
        fields: definitions of types, as `rosbags` has them in a typestore's `fielddefs`.
        kind: the messages' type.
    """
    by_length: dict[int, list[int]] = {}
    for index, message in enumerate(messages):
        by_length.setdefault(len(message), []).append(index)
    for length, indices in by_length.items():
        if length < _HEADER:
            continue
        data = np.frombuffer(b"".join(messages[index] for index in indices), np.uint8).reshape(-1, length)
        rows = np.array(indices, dtype=np.intp)
        while len(rows):
            try:
                layout = lay_out(data[0].tobytes(), fields, kind)
            except RecordingError:
                data, rows = data[1:], rows[1:]
                continue
            places = np.concatenate([np.arange(start, end) for start, end in layout.fixed])
            same = (data[:, places] == data[0, places]).all(axis=1)
            yield Table(rows[same], layout, data[same])
            data, rows = data[~same], rows[~same]


def lay_out(message: bytes, fields: Mapping[str, Any], kind: str) -> Layout:
    """The layout of one message.

    Raises:
        RecordingError: if the bytes aren't a message of that type.
    """
    reader = _Reader(message, fields)
    try:
        reader.read_type(kind, "")
    except (struct.error, IndexError, UnicodeDecodeError, KeyError) as error:
        raise RecordingError(f"{len(message)} bytes aren't a {kind}: {error}") from error
    # Some writers leave the room that they reckoned for numbers that aren't there.
    if not 0 <= len(message) - reader.place <= 7:
        raise RecordingError(f"{len(message)} bytes aren't a {kind}: it ends after {reader.place}")
    return reader.layout


class _Reader:
    """Walks through a message along its definition."""

    def __init__(self, message: bytes, fields: Mapping[str, Any]) -> None:
        if len(message) < _HEADER or message[0] != 0 or message[1] > 1:
            raise RecordingError(f"{len(message)} bytes begin with {message[:4].hex()}, which isn't plain CDR")
        self._message, self._fields = message, fields
        self._order = "<" if message[1] else ">"
        self.place = _HEADER
        self.layout = Layout()

    def read_type(self, kind: str, prefix: str) -> None:
        for name, description in self._fields[kind][1]:
            self._read(description, f"{prefix}{name}")

    def _read(self, description: Any, path: str) -> None:
        node, what = description
        if node == Nodetype.BASE:
            if what[0] == "string":
                self.layout.texts[path] = self._text()
            else:
                self._numbers(path, what[0], 1)
        elif node == Nodetype.NAME:
            self.read_type(what, f"{path}.")
        else:
            inner, length = what
            count = length if node == Nodetype.ARRAY else self._length()
            self.layout.counts[path] = count
            self._read_many(inner, count, path)

    def _read_many(self, inner: Any, count: int, path: str) -> None:
        if inner[0] == Nodetype.BASE and inner[1][0] == "string":
            self._check(5 * count)
            self.layout.texts[path] = [self._text() for _ in range(count)]
        elif inner[0] == Nodetype.BASE:
            self._numbers(path, inner[1][0], count)
        else:
            self._check(count)
            for index in range(count):
                self._read(inner, f"{path}[{index}]")

    def _numbers(self, path: str, base: str, count: int) -> None:
        size = _SIZES[base]
        if count:
            self._align(size)
        self._check(size * count)
        self.layout.numbers[path] = self.place, self._order + _CODES.get(base, f"{base[0]}{size}"), count
        self.place += size * count

    def _length(self) -> int:
        self._align(4)
        (length,) = struct.unpack_from(f"{self._order}I", self._message, self.place)
        self.layout.fixed.append((self.place, self.place + 4))
        self.place += 4
        return int(length)

    def _text(self) -> str:
        length = self._length()
        self._check(length)
        text = self._message[self.place : self.place + max(0, length - 1)].decode()
        self.layout.fixed.append((self.place, self.place + length))
        self.place += length
        return text

    def _align(self, size: int) -> None:
        self.place += (_HEADER - self.place) % size

    def _check(self, size: int) -> None:
        if self.place + size > len(self._message):
            raise IndexError(f"{size} bytes at {self.place} are past its end")
