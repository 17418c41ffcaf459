"""The journal of a commit, so that one that a crash cut off can be finished; where a HDF5 file ends."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from vla_ros.errors import DatasetError
from vla_ros.files import flush_to_disk, whole_file

PAGE = 4096
_HEAD = struct.Struct("<8sQQQ")
_MAGIC = b"vlarosJ1"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def journal_of(path: Path) -> Path:
    """Where a file's changes stand while they are made."""
    return path.with_name(f"{path.name}-journal")


def end_of_hdf5(path: Path) -> int:
    """The end of a HDF5 file as its superblock has it; what lies behind it is left over from a crash.

    Source: HDF5 File Format Specification, II.A, superblock versions 0 to 3.

    Raises:
        DatasetError: if it isn't a whole HDF5 file with 64-bit addresses.
    """
    with path.open("rb") as file:
        head = file.read(64)
        size = file.seek(0, os.SEEK_END)
    version = head[8] if len(head) == 64 and head.startswith(_SIGNATURE) else -1
    # Where the end stands, and where the width of an address.
    at, width_at = {0: (40, 13), 1: (44, 13), 2: (28, 9), 3: (28, 9)}.get(version, (0, 0))
    if not at or head[width_at] != 8:
        raise DatasetError(f"{path}: isn't a HDF5 file as vla_ros writes them; give another path, or move it away")
    end = int.from_bytes(head[at : at + 8], "little")
    if end > size:
        raise DatasetError(f"{path}: is cut off, {size} of {end} bytes are left; take it from a copy")
    return end


def finish_commit(path: Path) -> None:
    """Makes the changes of a commit that a crash cut off; nothing to do where there was none.

    Who calls it holds the file's lock.
    """
    journal = journal_of(path)
    if journal.is_file():
        content = journal.read_bytes()
        descriptor = os.open(path, os.O_RDWR)
        try:
            _apply(descriptor, content, journal)
        finally:
            os.close(descriptor)
        journal.unlink()
        flush_to_disk(path.parent)


def _apply(descriptor: int, content: bytes, journal: Path) -> None:
    magic, border, size, pages = _HEAD.unpack_from(content)
    body, check = content[:-4], content[-4:]
    if magic != _MAGIC or struct.pack("<I", zlib.crc32(body)) != check:
        raise DatasetError(f"{journal}: is damaged, and so may be the file it belongs to; take both from a copy")
    at = _HEAD.size
    for _ in range(pages):
        (number,) = struct.unpack_from("<Q", body, at)
        write_all(descriptor, memoryview(body)[at + 8 : at + 8 + min(PAGE, border - number * PAGE)], number * PAGE)
        at += 8 + PAGE
    os.ftruncate(descriptor, size)
    os.fsync(descriptor)


def write_all(descriptor: int, data: memoryview, at: int) -> None:
    while len(data):
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written


def commit_pages(path: Path, descriptor: int, border: int, size: int, pages: Mapping[int, bytes | bytearray]) -> None:
    """Changes a file all at once, also for a crash: the changes stand in the journal before they're made.

    Args:
        path: the file.
        descriptor: of it, open for writing; what lies behind the border is on the disk.
        border: where it ended before; changes end there.
        size: where it ends afterwards.
        pages: by number, `PAGE` bytes each.
    """
    if not pages:
        os.ftruncate(descriptor, size)
        return
    head = _HEAD.pack(_MAGIC, border, size, len(pages))
    body = head + b"".join(struct.pack("<Q", number) + page for number, page in sorted(pages.items()))
    content = body + struct.pack("<I", zlib.crc32(body))
    journal = journal_of(path)
    with whole_file(journal) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    flush_to_disk(path.parent)
    _apply(descriptor, content, journal)
    journal.unlink()
    flush_to_disk(path.parent)
