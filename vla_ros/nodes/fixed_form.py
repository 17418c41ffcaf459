"""Messages of a fast stream: numbers filled into bytes that were serialised once, in half of the usual time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message

from vla_ros.types import FloatArray

_S = 1_000_000_000
_STAMP = struct.Struct("<iI")
# Something that isn't in a message by chance.
_SECOND, _NANOSECOND = 1_515_870_810, 765_432_189


class FixedForm:
    """Messages that are the same but for their stamp and some rows of numbers, always as many.

    Where these lie is found by serialising a message of numbers that occur nowhere else, so nothing here knows how a
    message is laid out; where they aren't found (another byte order), messages are made the usual way.

    Args:
        make: gives the message of a stamp (ns) and of the rows, each a (width,) float64 array.
        widths: how many numbers each row has.
    """

    def __init__(self, make: Callable[..., Any], widths: Sequence[int]) -> None:
        self._make = make
        marks = np.split(1.0 / (3.0 + np.arange(sum(widths), dtype=np.float64)), np.cumsum(widths)[:-1])
        message = make(_SECOND * _S + _NANOSECOND, *marks)
        raw = _shortest(serialize_message(message), message)
        stamp = _STAMP.pack(_SECOND, _NANOSECOND)
        patterns = [mark.tobytes() for mark in marks]
        self._stamp = raw.find(stamp) if raw.count(stamp) else None
        self._rows = [(raw.find(pattern), raw.find(pattern) + len(pattern)) for pattern in patterns]
        self._buffer = bytearray(raw) if all(raw.count(pattern) == 1 for pattern in patterns) else None
        if self._buffer is not None:
            rows = [mark + 1.0 for mark in marks]
            # As messages: what bytes lie between two numbers is left to chance.
            read = deserialize_message(self.fill(7 * _S + 8, *rows), type(message))
            if read != make(7 * _S + 8, *rows):
                self._buffer = None

    def fill(self, stamp_ns: int, *rows: FloatArray) -> Any:
        """The message, or its bytes: `Publisher.publish` takes either.

        Args:
            stamp_ns: ROS time; of no account where the message has none.
            rows: (width,) each.
        """
        buffer = self._buffer
        if buffer is None:
            return self._make(stamp_ns, *rows)
        if self._stamp is not None:
            _STAMP.pack_into(buffer, self._stamp, *divmod(stamp_ns, _S))
        for (begin, end), row in zip(self._rows, rows, strict=True):
            numbers = np.asarray(row, dtype=np.float64).tobytes()
            if len(numbers) != end - begin:
                return self._make(stamp_ns, *rows)
            buffer[begin:end] = numbers
        return bytes(buffer)


def _shortest(raw: bytes, message: Any) -> bytes:
    """Without what follows a message's end: the room that was reckoned for it, which readers other than ours refuse."""
    while len(raw) > 8:
        try:
            if deserialize_message(raw[:-4], type(message)) != message:
                break
        except Exception:
            break
        raw = raw[:-4]
    return raw
