"""tf.train.Example, the message in a record: features by name, each a list of bytes, of floats or of integers.

Source: `tensorflow/core/example/{example,feature}.proto` and protobuf's encoding. Written by hand, so that an episode's
images go from a file into the record without being in memory together, and are found in a mapped one without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import DatasetError

BYTES, FLOATS, INTEGERS = 1, 2, 3
"""Which list a feature is: the field's number in `Feature`."""
_DELIMITED = 2
"""Wire type of what has a length before it."""


def varint(number: int) -> bytes:
    """One number that isn't negative."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def delimited(field: int, length: int) -> bytes:
    """What stands before `length` bytes of a field."""
    return varint(field << 3 | _DELIMITED) + varint(length)


def pack_floats(values: NDArray[np.float32]) -> bytes:
    """The content of a FloatList."""
    data = values.astype("<f4").tobytes()
    return delimited(1, len(data)) + data


def pack_integers(values: NDArray[np.int64]) -> bytes:
    """The content of an Int64List."""
    data = pack_varints(values)
    return delimited(1, len(data)) + data


def pack_bytes(items: list[bytes]) -> bytes:
    """The content of a BytesList."""
    return b"".join(delimited(1, len(item)) + item for item in items)


def pack_varints(values: NDArray[np.int64]) -> bytes:
    """Many at once; negative numbers as two's complement in ten bytes."""
    rest = values.reshape(-1, 1).astype(np.int64).view(np.uint64)
    groups = ((rest >> np.arange(0, 70, 7, dtype=np.uint64)) & np.uint64(0x7F)).astype(np.uint8)
    used = np.where(groups.any(1), 10 - np.argmax(groups[:, ::-1] > 0, axis=1), 1)
    places = np.arange(10)
    groups[places < used[:, None] - 1] |= 0x80
    return groups[places < used[:, None]].tobytes()


def unpack_varints(data: memoryview) -> NDArray[np.int64]:
    """The other way.

    Raises:
        DatasetError: for bytes that aren't varints.
    """
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    lengths = ends - starts + 1
    if (len(raw) and (not len(ends) or ends[-1] != len(raw) - 1)) or (len(lengths) and lengths.max() > 10):
        raise DatasetError("a list of integers in a tf.train.Example is damaged; take the file from a copy")
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(lengths.max(initial=0))):
        has = lengths > place
        group = raw[starts[has] + place].astype(np.uint64) & np.uint64(0x7F)
        values[has] |= group << np.uint64(7 * place)
    return values.view(np.int64)


def example_length(features: dict[str, tuple[int, int]]) -> int:
    """Bytes of an Example of features by name, (which list, bytes of its content) each."""
    inner = sum(len(feature_head(name, kind, size)) + size for name, (kind, size) in features.items())
    return len(delimited(1, inner)) + inner


def example_head(features: dict[str, tuple[int, int]]) -> bytes:
    """What an Example begins with; each feature follows as `feature_head` and its content."""
    return delimited(1, sum(len(feature_head(name, kind, size)) + size for name, (kind, size) in features.items()))


def feature_head(name: str, kind: int, size: int) -> bytes:
    """What stands before the content of a feature's list."""
    key = name.encode()
    listing = delimited(kind, size)
    feature = delimited(2, len(listing) + size) + listing
    entry = delimited(1, len(key)) + key + feature
    return delimited(1, len(entry) + size) + entry


@dataclass(frozen=True)
class Feature:
    """One feature of an Example that was read.

    Attributes:
        kind: BYTES, FLOATS or INTEGERS; 0 for an empty one.
        content: of its list, still encoded.
    """

    kind: int
    content: memoryview

    def items(self) -> list[memoryview]:
        """Of a BytesList."""
        return [data for _, data in _fields(self.content)] if self.kind == BYTES else []

    def numbers(self) -> NDArray[np.float32] | NDArray[np.int64]:
        """Of one of the other lists."""
        packed = [data for _, data in _fields(self.content)]
        if self.kind == FLOATS:
            return np.concatenate([np.frombuffer(data, "<f4") for data in packed] or [np.empty(0, np.float32)])
        return np.concatenate([unpack_varints(data) for data in packed] or [np.empty(0, np.int64)])


def read_example(data: memoryview) -> dict[str, Feature]:
    """An Example's features by name; nothing is decoded or copied yet.

    Raises:
        DatasetError: if the bytes aren't that message.
    """
    features = {}
    for _, listing in _fields(data):
        for _, entry in _fields(listing):
            name, feature = "", Feature(0, memoryview(b""))
            for number, part in _fields(entry):
                if number == 1:
                    name = str(part, "utf-8", "replace")
                else:
                    for kind, content in _fields(part):
                        feature = Feature(kind, content)
            features[name] = feature
    return features


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        length, at = _read_varint(data, at)
        if tag & 7 != _DELIMITED or at + length > end:
            raise DatasetError("a record isn't a tf.train.Example with packed lists; another program wrote it")
        yield tag >> 3, data[at : at + length]
        at += length


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while True:
        if at >= len(data) or shift > 63:
            raise DatasetError("a tf.train.Example ends in the middle; take the file from a copy")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
