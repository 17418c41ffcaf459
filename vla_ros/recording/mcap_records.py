"""Records of an MCAP file, as far as they go.

Source: the MCAP specification, https://mcap.dev/spec (records, chunks, message indices).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from zlib import crc32

from rosbags.rosbag2.storage_mcap import Channel, Schema, decompress

MAGIC = b"\x89MCAP\x30\r\n"
HEADER, SCHEMA, CHANNEL, MESSAGE, CHUNK, INDEX, DATA_END = 0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0F
NO_START_NS = 2**63 - 1

_RECORD = struct.Struct("<BQ")
_CHUNK_HEAD = struct.Struct("<QQQI")
_MESSAGE_HEAD = struct.Struct("<HIQQ")


@dataclass(frozen=True)
class Record:
    """A record of a file.

    Attributes:
        begin: its first byte.
        end: after its last byte.
        opcode: its kind.
        body: its content.
        is_whole: whether that is all of it.
    """

    begin: int
    end: int
    opcode: int
    body: memoryview
    is_whole: bool


@dataclass
class ChunkContent:
    """What a chunk holds, as far as it goes.

    Attributes:
        schemas: that it defines, by number.
        channels: likewise.
        messages: channel, time, data.
        is_whole: whether it ends where a record does.
    """

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    messages: list[tuple[int, int, bytes | memoryview]] = field(default_factory=list)
    is_whole: bool = False

    def copied(self) -> ChunkContent:
        """The same without the file, which may then be changed."""
        messages: list[tuple[int, int, bytes | memoryview]] = [(c, t, bytes(data)) for c, t, data in self.messages]
        return ChunkContent(self.schemas, self.channels, messages, self.is_whole)


@dataclass(frozen=True)
class ChunkHead:
    """What a chunk says of itself."""

    first_ns: int
    last_ns: int
    size: int
    checksum: int
    compression: str
    content: memoryview

    @classmethod
    def read(cls, body: memoryview) -> ChunkHead:
        """Raises struct.error or UnicodeDecodeError if it is cut."""
        first_ns, last_ns, size, checksum = _CHUNK_HEAD.unpack_from(body)
        compression, position = _text(body, _CHUNK_HEAD.size)
        struct.unpack_from("<Q", body, position)
        return cls(first_ns, last_ns, size, checksum, compression, body[position + 8 :])

    def raw(self) -> memoryview:
        """The content; raises whatever the decompressor does if it is cut."""
        if not self.compression:
            return self.content
        return memoryview(decompress(bytes(self.content), self.compression, self.size, 0))

    def is_intact(self, raw: memoryview) -> bool:
        """Whether size and checksum, where there is one, are right."""
        return len(raw) == self.size and self.checksum in (0, crc32(raw))

    def index(self, record: Record, offsets: Mapping[int, int], indices_end: int) -> BytesIO:
        """The content of the ChunkIndex record for it.

        Args:
            record: the chunk's.
            offsets: where the MessageIndex records begin, by channel.
            indices_end: where they end.
        """
        name = self.compression.encode()
        index = BytesIO()
        head = (self.first_ns, self.last_ns, record.begin, record.end - record.begin, len(offsets) * 10)
        index.write(struct.pack("<QQQQI", *head))
        for channel, offset in offsets.items():
            index.write(struct.pack("<HQ", channel, offset))
        index.write(struct.pack("<QI", indices_end - record.end, len(name)) + name)
        index.write(struct.pack("<QQ", len(self.content), self.size))
        return index


def records(view: memoryview, position: int) -> Iterator[Record]:
    """The records from a position on; the last one may not be whole."""
    while position < len(view):
        if position + _RECORD.size > len(view):
            yield Record(position, len(view), 0, view[position:], False)
            return
        opcode, length = _RECORD.unpack_from(view, position)
        begin, end = position + _RECORD.size, position + _RECORD.size + length
        yield Record(position, min(end, len(view)), opcode, view[begin:end], end <= len(view))
        position = end


def read_chunk(raw: memoryview, known: Mapping[int, Schema]) -> ChunkContent:
    """What is in a chunk; reading ends where it makes no sense any more.

    Args:
        raw: content, not compressed.
        known: schemas of chunks before it.
    """
    chunk = ChunkContent()
    try:
        for record in records(raw, 0):
            if not record.is_whole:
                return chunk
            if record.opcode == SCHEMA:
                chunk.schemas |= read_schema(record.body)
            elif record.opcode == CHANNEL:
                chunk.channels |= read_channel(record.body, {**known, **chunk.schemas})
            elif record.opcode == MESSAGE:
                channel, _, stamp_ns, _ = _MESSAGE_HEAD.unpack_from(record.body)
                chunk.messages.append((channel, stamp_ns, record.body[_MESSAGE_HEAD.size :]))
            else:
                return chunk
    except (struct.error, UnicodeDecodeError, KeyError):
        return chunk
    chunk.is_whole = True
    return chunk


def message_indices(view: memoryview, position: int) -> tuple[dict[int, int], int]:
    """Where the whole MessageIndex records after a chunk begin, by channel, and where they end."""
    offsets = {}
    for record in records(view, position):
        if record.opcode != INDEX or not record.is_whole or len(record.body) < 2:
            break
        offsets[int.from_bytes(record.body[:2], "little")] = record.begin
        position = record.end
    return offsets, position


def read_schema(body: memoryview) -> dict[int, Schema]:
    """A Schema record, by its number."""
    (number,) = struct.unpack_from("<H", body)
    name, position = _text(body, 2)
    encoding, position = _text(body, position)
    data, _ = _text(body, position)
    return {number: Schema(number, name, encoding, data)}


def read_channel(body: memoryview, schemas: Mapping[int, Schema]) -> dict[int, Channel]:
    """A Channel record, by its number."""
    number, schema = struct.unpack_from("<HH", body)
    topic, position = _text(body, 4)
    encoding, position = _text(body, position)
    (length,) = struct.unpack_from("<I", body, position)
    metadata = bytes(body[position + 4 : position + 4 + length])
    return {number: Channel(number, schemas[schema].name, topic, encoding, metadata)}


def _text(body: memoryview, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", body, position)
    begin = position + 4
    if begin + length > len(body):
        raise struct.error("a text is cut")
    return bytes(body[begin : begin + length]).decode(), begin + length
