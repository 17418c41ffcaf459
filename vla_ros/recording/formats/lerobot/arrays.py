"""Columns of frames as Arrow has them, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vla_ros.errors import DatasetError
from vla_ros.recording.dataset import Column

_ARROW = {
    "float32": pa.float32(),
    "float64": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}


def to_arrow(column: Column, values: NDArray[Any]) -> pa.Array:
    """A column of frames: numbers as they are, vectors as lists of their length, as LeRobot has them."""
    array = pa.array(values.ravel().tolist() if column.dtype == "string" else values.ravel(), _ARROW[column.dtype])
    if column.shape != (1,):
        for size in reversed(column.shape):
            array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def from_arrow(column: Column, array: pa.ChunkedArray, where: str) -> NDArray[Any]:
    """(frames, *shape) in the column's dtype; text as objects.

    Raises:
        DatasetError: if values are missing or of another number.
    """
    frames = len(array)
    flat = array.combine_chunks()
    while pa.types.is_list(flat.type) or pa.types.is_large_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        if flat.null_count:
            raise DatasetError(f"{where}: column {column.name} has {flat.null_count} frames without a value")
        flat = flat.flatten()
    if flat.null_count and not pa.types.is_floating(flat.type):
        raise DatasetError(f"{where}: column {column.name} has {flat.null_count} missing values")
    if column.dtype == "string":
        values = np.empty(len(flat), dtype=object)
        values[:] = [str(text) for text in flat.to_pylist()]
    else:
        values = flat.to_numpy(zero_copy_only=False).astype(column.dtype)
    try:
        return values.reshape(frames, *column.shape)
    except ValueError as error:
        raise DatasetError(
            f"{where}: column {column.name} has {len(values)} values in {frames} frames, needs {column.shape} each"
        ) from error
