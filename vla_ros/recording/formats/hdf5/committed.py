"""A file whose bytes change all at once or not at all, whatever happens to the process: HDF5 has no such thing.

HDF5 writes its indexes in place and in no order that a crash respects; a process killed while it writes leaves a file
that can't be opened. Here the library writes through `CommittedFile`: what is new goes to the end of the file, behind
what the superblock calls its end, where no reader looks; what would change a byte before that end waits in memory (the
indexes alone, kilobytes) until `commit`. That writes the changes to a journal first, so that they can be made again.
"""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vla_ros.errors import DatasetError
from vla_ros.recording.formats.hdf5.journal import PAGE, commit_pages, end_of_hdf5, finish_commit, write_all


class CommittedFile(io.RawIOBase):
    """What h5py is given to read and write; one process at a time.

    Attributes:
        path: the file.
        failure: the first write that failed since the last commit or rollback. HDF5 goes on after one.
    """

    def __init__(self, path: Path) -> None:
        """Takes the lock and mends what a crash left.

        Raises:
            DatasetError: if somebody else has it, or it can't be mended.
        """
        self.path = path
        self.failure: OSError | None = None
        self._descriptor = os.open(path, os.O_RDWR)
        try:
            # HDF5's own lock, so that its readers are told, too.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finish_commit(path)
            self._border = end_of_hdf5(path)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise DatasetError(f"{path}: somebody else reads or writes it; wait until they are done") from error
        except BaseException:
            os.close(self._descriptor)
            raise
        self._position, self._size = 0, self._border
        self._pages: dict[int, bytearray] = {}
        self.rollback()

    def commit(self) -> None:
        """Makes all that was written since the last one part of the file, on the disk.

        Raises:
            OSError: if a write failed; nothing of it is part of the file then.
        """
        if self.failure is not None:
            raise self.failure
        os.fsync(self._descriptor)
        commit_pages(self.path, self._descriptor, self._border, self._size, self._pages)
        self._border, self._pages = self._size, {}

    def rollback(self) -> None:
        """Forgets all that was written since the last commit."""
        self._pages = {}
        self._size, self.failure = self._border, None
        os.ftruncate(self._descriptor, self._border)

    def close(self) -> None:
        """Gives the lock back; what isn't committed is gone."""
        if not self.closed:
            super().close()
            try:
                os.ftruncate(self._descriptor, self._border)
            finally:
                os.close(self._descriptor)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        self._guarded(os.ftruncate, self._descriptor, max(self._size, self._border))
        return self._size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        view, start = memoryview(buffer).cast("B"), self._position
        read = os.preadv(self._descriptor, [view], start)
        # As HDF5's own driver has it: behind the end are zeros.
        view[read:] = bytes(len(view) - read)
        for number, first, last in self._pages_below_border(start, len(view)):
            page = self._pages.get(number)
            if page is not None:
                view[first - start : last - start] = page[first - number * PAGE : last - number * PAGE]
        self._position += len(view)
        return len(view)

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        view, start = memoryview(data).cast("B"), self._position
        below = 0
        for number, first, last in self._pages_below_border(start, len(view)):
            if number not in self._pages:
                self._pages[number] = bytearray(os.pread(self._descriptor, PAGE, number * PAGE).ljust(PAGE, b"\0"))
            self._pages[number][first - number * PAGE : last - number * PAGE] = view[first - start : last - start]
            below = last - start
        self._guarded(write_all, self._descriptor, view[below:], start + below)
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def _pages_below_border(self, start: int, length: int) -> Iterator[tuple[int, int, int]]:
        """What of a stretch waits for a commit: number of the page, first byte and the one after the last."""
        end = min(start + length, self._border)
        while start < end:
            number = start // PAGE
            last = min((number + 1) * PAGE, end)
            yield number, start, last
            start = last

    def _guarded(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Keeps the error: HDF5 may go on after a write that failed, and `commit` has to know."""
        try:
            call(*arguments)
        except OSError as error:
            self.failure = self.failure or error
            raise
