"""TFRecord, TensorFlow's file of records: length, its checksum, the data, its checksum.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details"; the masked CRC-32C is
`tensorflow/core/lib/hash/crc32c.h`.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from vla_ros.errors import DatasetError

OVERHEAD = 16
"""Bytes of a record besides its data."""
_LENGTH, _CHECK = struct.Struct("<Q"), struct.Struct("<I")
_PIECE = 1 << 22


def masked(crc: int) -> int:
    """A checksum as it is stored: turned by 15 bits and moved, so that one over data that holds one stays good."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_record(file: BinaryIO, length: int, pieces: Iterable[bytes]) -> None:
    """Appends a record that comes in pieces, so that it never is in memory as a whole.

    Args:
        file: at its end.
        length: of all pieces together.
        pieces: of the data.
    """
    head = _LENGTH.pack(length)
    file.write(head + _CHECK.pack(masked(google_crc32c.value(head))))
    crc = 0
    for piece in pieces:
        crc = google_crc32c.extend(crc, piece)
        file.write(piece)
    file.write(_CHECK.pack(masked(crc)))


class RecordFile:
    """A TFRecord file, its records found without reading them.

    Attributes:
        path: the file.
        records: (first byte, length) of each record's data.
        whole_bytes: where the last whole record ends.
        trouble: what is wrong behind that, empty for nothing.
    """

    def __init__(self, path: Path) -> None:
        """Follows the lengths.

        Raises:
            DatasetError: if the file can't be read at all.
        """
        self.path, self.records = path, []
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                self.whole_bytes, self.trouble = self._follow(file, size)
        except OSError as error:
            raise DatasetError(f"{path}: can't be read ({error.strerror}); check the path") from error

    records: list[tuple[int, int]]

    def _follow(self, file: BinaryIO, size: int) -> tuple[int, str]:
        at = 0
        while at < size:
            file.seek(at)
            head = file.read(_LENGTH.size + _CHECK.size)
            if len(head) < _LENGTH.size + _CHECK.size:
                return at, "is cut off"
            (length,), (check,) = _LENGTH.unpack_from(head), _CHECK.unpack_from(head, _LENGTH.size)
            if masked(google_crc32c.value(head[: _LENGTH.size])) != check:
                return at, "is damaged or no TFRecord"
            if at + length + OVERHEAD > size:
                return at, "is cut off"
            self.records.append((at + _LENGTH.size + _CHECK.size, length))
            at += length + OVERHEAD
        return at, ""

    def check_whole(self) -> None:
        """Refuses a file with something behind its last whole record.

        Raises:
            DatasetError: naming the place.
        """
        if self.trouble:
            place = f"after {len(self.records)} records, at byte {self.whole_bytes}"
            raise DatasetError(f"{self.path}: {self.trouble} {place}; take it from a copy")

    def read(self, index: int, is_checked: bool = True) -> memoryview:
        """A record's data, mapped and not copied.

        Raises:
            DatasetError: if its checksum says that it is damaged.
        """
        start, length = self.records[index]
        with self.path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        data = mapped[start : start + length]
        if is_checked:
            crc = 0
            for piece in _pieces(data):
                crc = google_crc32c.extend(crc, piece)
            if mapped[start + length : start + length + _CHECK.size] != _CHECK.pack(masked(crc)):
                raise DatasetError(f"{self.path}: record {index} is damaged (checksum); take it from a copy")
        return data


def _pieces(data: memoryview) -> Iterator[bytes]:
    for at in range(0, len(data), _PIECE):
        yield bytes(data[at : at + _PIECE])
