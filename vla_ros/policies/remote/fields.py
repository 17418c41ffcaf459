"""Values out of a message from the wire, each of the type and shape that it has to have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.policies.remote.errors import WireError
from vla_ros.types import FloatArray, ImageArray

_LONGEST_TEXT = 4096
_MISSING = object()


def take(message: Mapping[Any, Any], key: str) -> Any:
    """The value at a key. Raises WireError, named `missing_key`, with the keys there are."""
    value = message.get(key, _MISSING)
    if value is _MISSING:
        listing = ", ".join(sorted(str(name)[:40] for name in message)[:20])
        raise WireError("missing_key", f"message has no {key!r}; it has: {listing or 'nothing'}")
    return value


def take_mapping(message: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    """The mapping at a key."""
    value = take(message, key)
    if not isinstance(value, dict):
        raise WireError("type", f"{key!r} is a {type(value).__name__}, not a mapping")
    return value


def take_int(message: Mapping[Any, Any], key: str) -> int:
    """The whole number at a key, of 64 bits."""
    value = take(message, key)
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not -(2**63) <= value < 2**63:
        raise WireError("type", f"{key!r} is {str(value)[:40]!r}, not a whole number")
    return int(value)


def take_float(message: Mapping[Any, Any], key: str) -> float:
    """The finite number at a key."""
    value = take(message, key)
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise WireError("type", f"{key!r} is {str(value)[:40]!r}, not a number")
    if not np.isfinite(value):
        raise WireError("not_finite", f"{key!r} is {value}")
    return float(value)


def take_text(message: Mapping[Any, Any], key: str) -> str:
    """The text at a key."""
    value = take(message, key)
    if not isinstance(value, str):
        raise WireError("type", f"{key!r} is a {type(value).__name__}, not text")
    if len(value) > _LONGEST_TEXT:
        raise WireError("too_large", f"{key!r} has {len(value)} characters (limit {_LONGEST_TEXT})")
    return value


def take_array(message: Mapping[Any, Any], key: str, shape: tuple[int | None, ...]) -> FloatArray:
    """The finite numbers at a key, as float64.

    Args:
        message: what arrived.
        key: where.
        shape: length of each axis; None where any will do.

    Raises:
        WireError: named `missing_key`, `type`, `shape` or `not_finite`.
    """
    value = take(message, key)
    if not isinstance(value, np.ndarray) or value.dtype == np.bool_:
        raise WireError("type", f"{key!r} is a {type(value).__name__}, not an array of numbers")
    is_fit = value.ndim == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, value.shape, strict=True)
    )
    if not is_fit:
        wanted_text = ", ".join("any" if length is None else str(length) for length in shape)
        raise WireError("shape", f"{key!r} has shape {value.shape}, needs ({wanted_text})")
    array = as_float64(value)
    if not np.isfinite(array).all():
        raise WireError("not_finite", f"{key!r} holds numbers that aren't finite")
    return array


def as_float64(array: NDArray[Any]) -> FloatArray:
    """The numbers as float64; where they are that already, themselves."""
    if array.dtype == np.float64:
        return array
    with np.errstate(invalid="ignore"):  # Of a signalling NaN; whoever asks refuses it like the others.
        return array.astype(np.float64)


def take_image(message: Mapping[Any, Any], key: str) -> ImageArray:
    """The (height, width, 3) uint8 image at a key."""
    value = take(message, key)
    if not isinstance(value, np.ndarray):
        raise WireError("type", f"image {key!r} is a {type(value).__name__}, not an array")
    if value.dtype != np.uint8:
        raise WireError("dtype", f"image {key!r} is {value.dtype}, needs uint8")
    if value.ndim != 3 or value.shape[2] != 3 or value.size == 0:
        raise WireError("shape", f"image {key!r} has shape {value.shape}, needs (height, width, 3)")
    return value
