"""What is whole in an MCAP file that wasn't closed, or was cut anywhere."""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from rosbags.rosbag2.storage_mcap import Channel, Schema

from vla_ros.errors import RecordingError
from vla_ros.recording import mcap_records as mcap

_MEND = "`mcap recover` of the mcap tools mends it"


@dataclass
class Scan:
    """What was found.

    Attributes:
        schemas: in all whole chunks, by number.
        channels: likewise.
        chunks: ChunkIndex records of the whole chunks.
        counts: messages in them, by channel.
        first_ns: of these.
        last_ns: of these.
        end: where the last whole chunk with its indices ends; 0 for a file that doesn't even begin.
        tail: what the next chunk still holds.
        damage: what is lost, a sentence each.
    """

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    chunks: list[BytesIO] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    first_ns: int = mcap.NO_START_NS
    last_ns: int = 0
    end: int = 0
    tail: mcap.ChunkContent = field(default_factory=mcap.ChunkContent)
    damage: list[str] = field(default_factory=list)


def scan_mcap(path: Path, on_progress: Callable[[float], None] = lambda _: None) -> Scan:
    """Reads a file from its beginning to its end, or to where it stops making sense.

    Args:
        path: of the file.
        on_progress: called with the part that is done.

    Raises:
        RecordingError: if it isn't an MCAP file, or one without chunks or indices.
    """
    scan = Scan()
    with path.open("rb") as file:
        if path.stat().st_size <= len(mcap.MAGIC):
            scan.damage.append("the file holds nothing")
            return scan
        # Closed by who lets go of the last view of it.
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if view[: len(mcap.MAGIC)] != mcap.MAGIC:
        raise RecordingError(f"{path} isn't an MCAP file; it is left as it is")
    position = len(mcap.MAGIC)
    while position < len(view):
        on_progress(position / len(view))
        record = next(mcap.records(view, position))
        if record.opcode == mcap.DATA_END:
            break
        try:
            end = _take(view, record, scan)
        except _NotOursError as error:
            raise RecordingError(f"{path} {error}; {_MEND}") from error
        except (struct.error, UnicodeDecodeError, KeyError):
            end = None
            scan.damage.append(f"{len(view) - position} bytes at the end are cut or overwritten")
        if end is None:
            break
        position = end
    return scan


class _NotOursError(Exception):
    """Sound, but without what a repair needs."""


def _take(view: memoryview, record: mcap.Record, scan: Scan) -> int | None:
    """Takes a record in, with the indices that follow it; where the next one begins, None where the scan ends."""
    if record.opcode == mcap.CHUNK:
        return _take_chunk(view, record, scan)
    if not record.is_whole or not mcap.HEADER <= record.opcode < mcap.DATA_END:
        scan.damage.append(f"{len(view) - record.begin} bytes at the end are cut or overwritten")
        return None
    if record.opcode == mcap.MESSAGE:
        raise _NotOursError("has messages outside of chunks")
    if record.opcode == mcap.HEADER:
        scan.end = record.end
    elif record.opcode == mcap.SCHEMA:
        scan.schemas |= mcap.read_schema(record.body)
    elif record.opcode == mcap.CHANNEL:
        scan.channels |= mcap.read_channel(record.body, scan.schemas)
    return record.end


def _take_chunk(view: memoryview, record: mcap.Record, scan: Scan) -> int | None:
    head = mcap.ChunkHead.read(record.body)
    next_position = record.end if record.is_whole else None
    try:
        raw = head.raw()
    # Whatever the decompressors make of a part of a chunk.
    except Exception as error:
        scan.damage.append(f"a compressed chunk at byte {record.begin} can't be read ({error})")
        return next_position
    if record.is_whole and not head.is_intact(raw):
        duration_s = max(0, head.last_ns - head.first_ns) * 1e-9
        scan.damage.append(f"a chunk of {duration_s:.2f} s at byte {record.begin} is damaged and left out")
        return next_position
    chunk = mcap.read_chunk(raw, scan.schemas)
    if not record.is_whole:
        scan.damage.append(f"the last chunk is cut after {len(chunk.messages)} messages")
        scan.tail = chunk.copied()
        return None
    offsets, indices_end = mcap.message_indices(view, record.end)
    if not {channel for channel, _, _ in chunk.messages} <= offsets.keys():
        following = next(mcap.records(view, indices_end), None)
        if following is not None and following.is_whole and 0 < following.opcode < mcap.DATA_END:
            raise _NotOursError(f"has a chunk without an index at byte {record.begin}")
        # Its messages are whole; they are written anew, with indices.
        scan.tail = chunk.copied()
        return None
    scan.schemas |= chunk.schemas
    scan.channels |= chunk.channels
    scan.counts.update(channel for channel, _, _ in chunk.messages)
    if chunk.messages:
        scan.first_ns, scan.last_ns = min(scan.first_ns, head.first_ns), max(scan.last_ns, head.last_ns)
    scan.chunks.append(head.index(record, offsets, indices_end))
    scan.end = indices_end
    return indices_end
