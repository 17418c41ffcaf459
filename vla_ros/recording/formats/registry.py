"""The dataset formats by name; a module is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import cast

from vla_ros.errors import MissingDependencyError, UnknownNameError
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
        MissingDependencyError: if a package that it needs isn't installed.
    """
    if name not in FORMATS:
        raise UnknownNameError("dataset format", name, FORMATS)
    try:
        return cast(Format, importlib.import_module(FORMATS[name]))
    except ModuleNotFoundError as error:
        what = error.name or str(error)
        raise MissingDependencyError(what, f"datasets of format {name}", "pip install 'vla_ros[data]'") from error
