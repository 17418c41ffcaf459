"""What may travel between us and a stranger: which arrays, and how much of anything."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.policies.remote.errors import WireError

AnyArray = NDArray[Any]

_DTYPES = {
    np.dtype(code).str: np.dtype(code)
    for code in ("?", "u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")
}
_LEAVES = (type(None), bool, int, float, str, bytes, np.ndarray, np.generic)
_USUAL_LEAVES = frozenset(_LEAVES)
_MAX_AXES = 4
# Four axes of it are less than what an index can be, so that an empty array with such a shape can be made, too.
_MAX_LENGTH = 2**14


@dataclass(frozen=True)
class WireLimits:
    """What one message may hold.

    Attributes:
        max_bytes: of the whole.
        max_depth: lists and mappings inside one another.
        max_items: entries of one list or mapping.
        max_containers: lists and mappings altogether; an empty one is a byte on the wire and a hundred in memory.
    """

    max_bytes: int = 32 * 2**20
    max_depth: int = 12
    max_items: int = 100_000
    max_containers: int = 10_000


DEFAULT_LIMITS = WireLimits()


def check_size(data: bytes, limits: WireLimits) -> None:
    """Raises WireError for bytes that are too many to be looked at."""
    if len(data) > limits.max_bytes:
        raise WireError("too_large", f"message has {len(data)} bytes (limit {limits.max_bytes})")


def check_tree(value: Any, limits: WireLimits, depth: int = 0) -> None:
    """Raises WireError for a message that is too deep or wide, or holds anything but plain values and arrays."""
    if isinstance(value, dict | list):
        if depth == limits.max_depth:
            raise WireError("too_deep", f"message is nested more than {limits.max_depth} deep")
        if len(value) > limits.max_items:
            raise WireError("too_large", f"message holds {len(value)} values in one place (limit {limits.max_items})")
        for item in value.values() if isinstance(value, dict) else value:
            if type(item) not in _USUAL_LEAVES:
                check_tree(item, limits, depth + 1)
    elif not isinstance(value, _LEAVES):
        raise WireError("type", f"message holds a {type(value).__name__}; only plain values and arrays are taken")


def sendable(array: AnyArray) -> AnyArray:
    """The array in C order and in a dtype that may travel."""
    if array.dtype.str not in _DTYPES:
        swapped = array.dtype.newbyteorder("<")
        if swapped.str not in _DTYPES:
            raise WireError("dtype", f"an array of dtype {array.dtype} can't be sent; {_listing()}")
        array = array.astype(swapped)
    return np.ascontiguousarray(array) if array.ndim else array


def _listing() -> str:
    return f"allowed: {', '.join(str(dtype) for dtype in _DTYPES.values())}"


def allowed_dtype(name: Any) -> np.dtype[Any]:
    """The dtype of that name (`<f4`). Raises WireError for one that may not travel."""
    dtype = _DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise WireError("dtype", f"array of dtype {str(name)[:60]!r}; {_listing()}")
    return dtype


def array_of(data: Any, dtype: np.dtype[Any], shape: Any) -> AnyArray:
    """A view of bytes as an array, once dtype, shape and number of bytes agree."""
    if not isinstance(data, bytes):
        raise WireError("type", f"an array's data is a {type(data).__name__}, not bytes")
    is_shape = isinstance(shape, list | tuple) and len(shape) <= _MAX_AXES
    if not is_shape or not all(type(length) is int and 0 <= length < _MAX_LENGTH for length in shape):
        raise WireError("shape", f"an array's shape is {str(shape)[:60]}")
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(data):
        raise WireError("shape", f"an array of shape {tuple(shape)}, {dtype}, needs {needed} bytes and has {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape) if data else np.zeros(shape, dtype)
