"""Arrays on the wire, in three forms: openpi's msgpack, json-numpy, and npy bytes in msgpack (GR00T).

What arrives is a stranger's: nothing is unpickled, dtypes come from a list, a shape has to agree with the bytes that
are there, and sizes, counts and nesting are bounded.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.errors import MissingDependencyError
from vla_ros.policies.remote.errors import WireError

try:
    import msgpack
except ImportError as error:
    raise MissingDependencyError(
        "msgpack", "policies on other machines", "python -m pip install 'vla_ros[remote]'"
    ) from error

AnyArray = NDArray[Any]

_DTYPES = {
    np.dtype(code).str: np.dtype(code)
    for code in ("?", "u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")
}
_LEAVES = (type(None), bool, int, float, str, bytes, np.ndarray, np.generic)
_MAX_AXES = 4
# Four axes of it are less than what an index can be, so that an empty array with such a shape can be made, too.
_MAX_LENGTH = 2**14
_NPY_HEADER_BYTES = 1024


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


def pack(value: Any) -> bytes:
    """A message in openpi's form: msgpack, with arrays as mappings of their bytes, dtype and shape.

    Source: openpi, packages/openpi-client, `msgpack_numpy.py`.

    Raises:
        WireError: for an array whose dtype may not travel, or a type that msgpack doesn't know.
    """
    return _pack(value, _openpi_form)


def unpack(data: bytes, limits: WireLimits = DEFAULT_LIMITS) -> Any:
    """The message in openpi's form that bytes hold; its arrays are read-only views of them.

    Raises:
        WireError: named `too_large`, `undecodable`, `too_deep`, `type`, `dtype` or `shape`.
    """
    return _unpack(data, _from_openpi_form, limits)


def pack_npy(value: Any) -> bytes:
    """A message in GR00T's form: msgpack, with arrays as npy files.

    Source: Isaac-GR00T, gr00t/eval/service.py (N1.5) and gr00t/policy/server_client.py (N1.6), `MsgSerializer`.
    """
    return _pack(value, _npy_form)


def unpack_npy(data: bytes, limits: WireLimits = DEFAULT_LIMITS) -> Any:
    """The message in GR00T's form that bytes hold. Raises WireError as `unpack` does."""
    return _unpack(data, _from_npy_form, limits)


def dump_json(value: Any) -> bytes:
    """A message in json-numpy's form: JSON, with arrays as base64. Source: json-numpy 2.1, `default`."""
    try:
        return json.dumps(value, default=_json_form, allow_nan=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError("type", f"a message can't be written as JSON: {error}") from error


def load_json(data: bytes, limits: WireLimits = DEFAULT_LIMITS) -> Any:
    """The message in json-numpy's form that bytes hold. Raises WireError as `unpack` does."""
    _check_size(data, limits)
    try:
        value = json.loads(data, object_hook=_from_json_form)
    except WireError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise WireError("undecodable", f"message of {len(data)} bytes isn't JSON: {_brief(error)}") from error
    _check_tree(value, limits)
    return value


def _pack(value: Any, default: Callable[[Any], Any]) -> bytes:
    try:
        packed: bytes = msgpack.packb(value, default=default)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError("type", f"a message can't be packed: {error}") from error
    return packed


def _unpack(data: bytes, array_hook: Callable[[dict[Any, Any]], Any], limits: WireLimits) -> Any:
    _check_size(data, limits)
    left = limits.max_containers

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise WireError("too_large", f"message holds more than {limits.max_containers} lists and mappings")

    def mapping(item: dict[Any, Any]) -> Any:
        count()
        return array_hook(item)

    def sequence(item: list[Any]) -> list[Any]:
        count()
        return item

    try:
        value = msgpack.unpackb(
            data,
            object_hook=mapping,
            list_hook=sequence,
            ext_hook=_refuse_extension,
            raw=False,
            strict_map_key=True,
            max_bin_len=limits.max_bytes,
            max_str_len=limits.max_bytes,
            max_array_len=limits.max_items,
            max_map_len=limits.max_items,
        )
    except WireError:
        raise
    # Whatever a stranger's bytes make the library raise is the bytes' fault.
    except Exception as error:
        raise WireError("undecodable", f"message of {len(data)} bytes isn't msgpack: {_brief(error)}") from error
    _check_tree(value, limits)
    return value


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise WireError("type", f"message holds msgpack's extension type {code}; only plain values and arrays are taken")


def _check_size(data: bytes, limits: WireLimits) -> None:
    if len(data) > limits.max_bytes:
        raise WireError("too_large", f"message has {len(data)} bytes (limit {limits.max_bytes})")


def _check_tree(value: Any, limits: WireLimits, depth: int = 0) -> None:
    if isinstance(value, dict | list):
        if depth == limits.max_depth:
            raise WireError("too_deep", f"message is nested more than {limits.max_depth} deep")
        if len(value) > limits.max_items:
            raise WireError("too_large", f"message holds {len(value)} values in one place (limit {limits.max_items})")
        for item in value.values() if isinstance(value, dict) else value:
            _check_tree(item, limits, depth + 1)
    elif not isinstance(value, _LEAVES):
        raise WireError("type", f"message holds a {type(value).__name__}; only plain values and arrays are taken")


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"


# Arrays.


def _sendable(array: AnyArray) -> AnyArray:
    """The array in C order and in a dtype that may travel."""
    if array.dtype.str not in _DTYPES:
        swapped = array.dtype.newbyteorder("<")
        if swapped.str not in _DTYPES:
            raise WireError("dtype", f"an array of dtype {array.dtype} can't be sent; {_listing()}")
        array = array.astype(swapped)
    return np.ascontiguousarray(array) if array.ndim else array


def _listing() -> str:
    return f"allowed: {', '.join(str(dtype) for dtype in _DTYPES.values())}"


def _dtype(name: Any) -> np.dtype[Any]:
    dtype = _DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise WireError("dtype", f"array of dtype {str(name)[:60]!r}; {_listing()}")
    return dtype


def _array(data: Any, dtype: np.dtype[Any], shape: Any) -> AnyArray:
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


def _openpi_form(item: Any) -> Any:
    if isinstance(item, np.ndarray):
        array = _sendable(item)
        # A view of the bytes, so that an image is copied once, into the message.
        data = array.reshape(-1).view(np.uint8).data if array.size else b""
        return {b"__ndarray__": True, b"data": data, b"dtype": array.dtype.str, b"shape": array.shape}
    if isinstance(item, np.generic):
        return {b"__npgeneric__": True, b"data": item.item(), b"dtype": _sendable(np.asarray(item)).dtype.str}
    raise TypeError(f"a {type(item).__name__}")


def _from_openpi_form(item: dict[Any, Any]) -> Any:
    if b"__ndarray__" in item:
        return _array(item.get(b"data"), _dtype(item.get(b"dtype")), item.get(b"shape"))
    if b"__npgeneric__" in item:
        value = item.get(b"data")
        if not isinstance(value, bool | int | float):
            raise WireError("type", f"a NumPy scalar's data is a {type(value).__name__}")
        return _dtype(item.get(b"dtype")).type(value)
    return item


def _npy_form(item: Any) -> Any:
    if isinstance(item, np.ndarray | np.generic):
        file = io.BytesIO()
        np.save(file, _sendable(np.asarray(item)), allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}
    raise TypeError(f"a {type(item).__name__}")


def _from_npy_form(item: dict[Any, Any]) -> Any:
    return _read_npy(item.get("as_npy")) if "__ndarray_class__" in item else item


def _read_npy(data: Any) -> AnyArray:
    """The array of an npy file. numpy.load would allocate what the header claims before it looks for it."""
    if not isinstance(data, bytes):
        raise WireError("type", f"an array's npy file is a {type(data).__name__}, not bytes")
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, is_fortran, dtype = read(file, max_header_size=_NPY_HEADER_BYTES)
    # The header is a Python literal, and the ways in which one can be wrong are many.
    except Exception as error:
        raise WireError("undecodable", f"an array's npy header can't be read: {_brief(error)}") from error
    array = _array(data[file.tell() :], _dtype(dtype.str), shape[::-1] if is_fortran else shape)
    return array.T if is_fortran else array


def _json_form(item: Any) -> Any:
    if isinstance(item, np.ndarray | np.generic):
        array = _sendable(np.asarray(item))
        data = base64.b64encode(array.tobytes()).decode()
        return {"__numpy__": data, "dtype": array.dtype.str, "shape": array.shape}
    raise TypeError(f"a {type(item).__name__}")


def _from_json_form(item: dict[str, Any]) -> Any:
    if "__numpy__" not in item:
        return item
    try:
        data = base64.b64decode(item["__numpy__"], validate=True)
    except (TypeError, ValueError) as error:
        raise WireError("undecodable", f"an array's base64 can't be read: {_brief(error)}") from error
    return _array(data, _dtype(item.get("dtype")), item.get("shape"))
