"""One writer a folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from vla_ros.errors import DatasetError


def lock_folder(folder: Path, is_waiting: bool = False) -> int:
    """Takes a folder for this process; who dies gives it back.

    Args:
        folder: has to exist.
        is_waiting: until the other one is done.

    Returns:
        A descriptor; closing it gives the folder back.

    Raises:
        DatasetError: if another has it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if is_waiting else fcntl.LOCK_NB))
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise DatasetError(f"{folder}: somebody else writes it; wait until they are done") from error
        raise
    return descriptor
