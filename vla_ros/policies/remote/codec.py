"""Arrays on the wire, in three forms: openpi's msgpack, json-numpy, and npy bytes in msgpack (GR00T).

What arrives is a stranger's: nothing is unpickled, dtypes come from a list, a shape has to agree with the bytes that
are there, and sizes, counts and nesting are bounded (`wire_arrays`).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from vla_ros.errors import MissingDependencyError
from vla_ros.policies.remote.errors import WireError
from vla_ros.policies.remote.wire_arrays import (
    DEFAULT_LIMITS,
    AnyArray,
    WireLimits,
    allowed_dtype,
    array_of,
    check_size,
    check_tree,
    sendable,
)

try:
    import msgpack
except ImportError as error:
    raise MissingDependencyError(
        "msgpack", "policies on other machines", "python -m pip install 'vla_ros[remote]'"
    ) from error

_NPY_HEADER_BYTES = 1024
_KEPT_BYTES = 2**20
_PACKING_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)


def pack(value: Any) -> bytes:
    """A message in openpi's form: msgpack, with arrays as mappings of their bytes, dtype and shape.

    Source: openpi, packages/openpi-client, `msgpack_numpy.py`.

    Raises:
        WireError: for an array whose dtype may not travel, or a type that msgpack doesn't know.
    """
    return _pack(value, _openpi_form)


class MessagePacker:
    """Packs large messages one after the other, as `pack` does, into memory that is kept."""

    def __init__(self) -> None:
        self._packer = self._make()

    def _make(self) -> Any:
        return msgpack.Packer(default=_openpi_form, autoreset=False, buf_size=_KEPT_BYTES)

    def pack(self, value: Any) -> memoryview:
        """The message, good until the next is packed. Raises WireError as `pack` does."""
        try:
            self._packer.reset()
        except BufferError:
            self._packer = self._make()  # Somebody still looks at the last one.
        try:
            self._packer.pack(value)
        except _PACKING_ERRORS as error:
            raise WireError("type", f"a message can't be packed: {error}") from error
        return memoryview(self._packer.getbuffer())


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
    check_size(data, limits)
    try:
        value = json.loads(data, object_hook=_from_json_form)
    except WireError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise WireError("undecodable", f"message of {len(data)} bytes isn't JSON: {_brief(error)}") from error
    check_tree(value, limits)
    return value


def _pack(value: Any, default: Callable[[Any], Any]) -> bytes:
    try:
        packed: bytes = msgpack.packb(value, default=default)
    except _PACKING_ERRORS as error:
        raise WireError("type", f"a message can't be packed: {error}") from error
    return packed


def _unpack(data: bytes, array_hook: Callable[[dict[Any, Any]], Any], limits: WireLimits) -> Any:
    check_size(data, limits)
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
    check_tree(value, limits)
    return value


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise WireError("type", f"message holds msgpack's extension type {code}; only plain values and arrays are taken")


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"


def _openpi_form(item: Any) -> Any:
    if isinstance(item, np.ndarray):
        array = sendable(item)
        # A view of the bytes, so that an image is copied once, into the message.
        data = array.reshape(-1).view(np.uint8).data if array.size else b""
        return {b"__ndarray__": True, b"data": data, b"dtype": array.dtype.str, b"shape": array.shape}
    if isinstance(item, np.generic):
        return {b"__npgeneric__": True, b"data": item.item(), b"dtype": sendable(np.asarray(item)).dtype.str}
    raise TypeError(f"a {type(item).__name__}")


def _from_openpi_form(item: dict[Any, Any]) -> Any:
    if b"__ndarray__" in item:
        return array_of(item.get(b"data"), allowed_dtype(item.get(b"dtype")), item.get(b"shape"))
    if b"__npgeneric__" in item:
        value = item.get(b"data")
        if not isinstance(value, bool | int | float):
            raise WireError("type", f"a NumPy scalar's data is a {type(value).__name__}")
        return allowed_dtype(item.get(b"dtype")).type(value)
    return item


def _npy_form(item: Any) -> Any:
    if isinstance(item, np.ndarray | np.generic):
        file = io.BytesIO()
        np.save(file, sendable(np.asarray(item)), allow_pickle=False)
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
    array = array_of(data[file.tell() :], allowed_dtype(dtype.str), shape[::-1] if is_fortran else shape)
    return array.T if is_fortran else array


def _json_form(item: Any) -> Any:
    if isinstance(item, np.ndarray | np.generic):
        array = sendable(np.asarray(item))
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
    return array_of(data, allowed_dtype(item.get("dtype")), item.get("shape"))
