"""A tool chunk's numbers straight from its serialised message: a fifth of what making Python objects of it takes."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from vla_ros.types import FloatArray

_LITTLE_ENDIAN_CDR = b"\x00\x01\x00\x00"


class ChunkFields(NamedTuple):
    """What a MultiDOFJointTrajectory says.

    Attributes:
        stamp_ns: of the header.
        frame_id: of the header.
        names: `joint_names`.
        transforms: (points, len(names), 7) translations and rotations (quat_xyzw).
        times_s: `time_from_start` of each point.
    """

    stamp_ns: int
    frame_id: str
    names: list[str]
    transforms: FloatArray
    times_s: list[float]


def read_chunk_bytes(raw: bytes) -> ChunkFields | None:
    """Reads a chunk as all of ours are laid out: points with as many transforms as there are names, and nothing else.

    Args:
        raw: trajectory_msgs/MultiDOFJointTrajectory in CDR, with its four bytes of encapsulation.

    Returns:
        None for a message that is laid out otherwise or isn't one at all: it has to be deserialised the usual way.

    Source: OMG DDS-XTypes 1.3, 7.4.3, plain CDR (version 1): every number is aligned to its own size.
    """
    if raw[:4] != _LITTLE_ENDIAN_CDR:
        return None
    try:
        return _read(raw)
    except (struct.error, UnicodeDecodeError, ValueError, IndexError):
        return None


def _read(raw: bytes) -> ChunkFields | None:
    second, nanosecond = struct.unpack_from("<iI", raw, 4)
    frame_id, place = _string(raw, 12)
    (count,) = struct.unpack_from("<I", raw, place)
    names, place = [], place + 4
    for _ in range(count):
        name, place = _string(raw, place)
        names.append(name)
    points, transforms = struct.unpack_from("<II", raw, place)
    if count == 0 or points == 0 or transforms != count:
        return None
    # A point: its count of transforms, these, two counts of rates, and its time. The first number decides where the
    # others lie, since all of that is a multiple of eight bytes.
    first = 4 + -(-(place + 8 - 4) // 8) * 8
    doubles = 7 * count
    size = 8 * doubles + 24
    if first + points * size - 8 != len(raw):
        return None
    body = raw[first:] + b"\0" * 8
    numbers = np.frombuffer(body, "<f8").reshape(points, doubles + 3)
    # Rates of velocity and acceleration, time, and how many transforms the next point has.
    rest = np.frombuffer(body, "<u4").reshape(points, 2 * doubles + 6)[:, 2 * doubles :].tolist()
    if any(row[0] or row[1] for row in rest) or any(row[4] != count for row in rest[:-1]):
        return None
    # A negative second would be a large number here; who deserialises says what is wrong with it.
    if any(row[2] >> 31 for row in rest):
        return None
    times_s = [row[2] + row[3] / 1_000_000_000 for row in rest]
    values = numbers[:, :doubles].reshape(points, count, 7).astype(np.float64)
    return ChunkFields(second * 1_000_000_000 + nanosecond, frame_id, names, values, times_s)


def _string(raw: bytes, place: int) -> tuple[str, int]:
    """A string and where the next number of four bytes lies."""
    (length,) = struct.unpack_from("<I", raw, place)
    end = place + 4 + length
    # The first zero ends it, for whoever reads it as C does.
    if length == 0 or end > len(raw) or raw.find(b"\0", place + 4) != end - 1:
        raise ValueError("no string")
    return raw[place + 4 : end - 1].decode(), 4 + -(-(end - 4) // 4) * 4
