"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, which takes its place when the block ends without an error.

    Folders above it are made. Who reads `path` meanwhile sees what was there before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder beside `path` to fill, which takes its place when the block ends without an error.

    Folders above it are made; what was at `path` goes. A process that is killed at any moment leaves the old folder,
    the new one or, between two renames, none, but never a part of one; what it had written lies beside it, hidden.
    Its files may be read by whoever may read it: safetensors writes for the owner alone, and a lab shares its disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (path.with_name(f".{path.name}.{os.getpid()}.{ending}") for ending in ("partial", "old"))
    for left_over in (partial, old):
        shutil.rmtree(left_over, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                if not file.is_symlink():
                    file.chmod(file.stat().st_mode | (partial.stat().st_mode & 0o444))
                flush_to_disk(file)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        flush_to_disk(path.parent)
    finally:
        for left_over in (partial, old):
            shutil.rmtree(left_over, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk, so that a loss of power leaves them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
