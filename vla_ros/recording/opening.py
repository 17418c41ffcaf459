"""A dataset of whichever format it is."""

from __future__ import annotations

from pathlib import Path

from vla_ros.errors import DatasetError, VlaRosError
from vla_ros.recording.dataset import Dataset
from vla_ros.recording.formats.registry import FORMATS, load_format


def open_any(folder: Path, name: str = "") -> tuple[str, Dataset]:
    """Opens a dataset.

    Args:
        folder: of it, or its file.
        name: of its format; empty to find out.

    Returns:
        The format's name, and the dataset.

    Raises:
        UnknownNameError: for a format that isn't known.
        DatasetError: if no format can read it, with what each says.
    """
    if name:
        return name, load_format(name).open_dataset(folder)
    if not folder.exists():
        raise DatasetError(f"{folder}: no such dataset; check the path")
    reasons = []
    for known in FORMATS:
        try:
            return known, load_format(known).open_dataset(folder)
        except ModuleNotFoundError as error:
            reasons.append(f"{known}: needs {error.name}")
        except VlaRosError as error:
            reasons.append(f"{known}: {error}")
    raise DatasetError(f"{folder} can't be read as any format: {' | '.join(reasons)}")
