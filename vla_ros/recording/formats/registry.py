"""The dataset formats by name; a module is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import cast

from vla_ros.errors import UnknownNameError
from vla_ros.recording.dataset import Format

FORMATS = {
    "hdf5": "vla_ros.recording.formats.hdf5",
    "lerobot": "vla_ros.recording.formats.lerobot",
    "rlds": "vla_ros.recording.formats.rlds",
}


def load_format(name: str) -> Format:
    """The format of that name.

    Raises:
        UnknownNameError: for a name that isn't in `FORMATS`.
    """
    if name not in FORMATS:
        raise UnknownNameError("dataset format", name, FORMATS)
    return cast(Format, importlib.import_module(FORMATS[name]))
