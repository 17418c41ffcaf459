"""HDF5 as robomimic, robosuite and LIBERO have it: one file, a group an episode. `layout` says what stands where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import Schema
from vla_ros.recording.formats.hdf5.reader import Hdf5Dataset
from vla_ros.recording.formats.hdf5.writer import Hdf5Options, Hdf5Writer
from vla_ros.recording.formats.schema import read_options

ENDINGS = (".hdf5", ".h5")
FILE_NAME = "demo.hdf5"


def create(folder: Path, schema: Schema, options: Mapping[str, Any]) -> Hdf5Writer:
    """Begins `demo.hdf5` in a folder (or a file that ends in .hdf5), or goes on with it.

    Args:
        folder: is made where it isn't there.
        schema: of all episodes.
        options: of `Hdf5Options`.

    Raises:
        DatasetError: if it holds another dataset or is in use, or an option isn't understood.
    """
    chosen = read_options(Hdf5Options, options, "hdf5")
    return Hdf5Writer(folder if folder.suffix in ENDINGS else folder / FILE_NAME, schema, chosen)


def open_dataset(folder: Path) -> Hdf5Dataset:
    """Reads a file, or all files of a folder as one dataset.

    Raises:
        DatasetError: if there is none, or it can't be read.
    """
    if folder.is_dir():
        paths = tuple(sorted(path for path in folder.iterdir() if path.suffix in ENDINGS))
    else:
        paths = (folder,) if os.path.lexists(folder) else ()
    if not paths:
        raise DatasetError(f"{folder}: no HDF5 file is there (*{', *'.join(ENDINGS)}); check the path")
    return Hdf5Dataset(paths)
