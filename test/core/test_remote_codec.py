"""Arrays on the wire: the same bytes as openpi, json-numpy and NumPy write, and nothing else taken."""

from __future__ import annotations

import base64
import io
import json
import pickle
from typing import Any

import numpy as np
import pytest

msgpack = pytest.importorskip("msgpack")

from vla_ros.policies.remote.codec import dump_json, load_json, pack, pack_npy, unpack, unpack_npy
from vla_ros.policies.remote.errors import WireError
from vla_ros.policies.remote.wire_arrays import WireLimits

RNG = np.random.default_rng(5)
ARRAYS = [
    RNG.integers(0, 255, (4, 5, 3), dtype=np.uint8),
    RNG.normal(size=(10, 7)).astype(np.float32),
    RNG.normal(size=7),
    np.array([True, False]),
    np.arange(6, dtype=np.int64).reshape(2, 3).T,
    np.zeros((0, 7), np.float32),
    np.array(3.5, np.float16),
    np.arange(3, dtype=">f8"),
]


def by_hand(array: np.ndarray, **changes: Any) -> bytes:
    """An array as openpi's documentation has it, with parts replaced."""
    form = {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": list(array.shape)}
    return msgpack.packb({"x": form | {key.encode(): value for key, value in changes.items()}})


def same(a: Any, b: np.ndarray) -> None:
    assert isinstance(a, np.ndarray)
    assert (a.shape, a.dtype) == (b.shape, b.dtype.newbyteorder("="))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
@pytest.mark.parametrize(
    ("write", "read"), [(pack, unpack), (pack_npy, unpack_npy), (dump_json, load_json)], ids=["openpi", "npy", "json"]
)
def test_arrays_come_back_as_they_went(write: Any, read: Any, array: np.ndarray) -> None:
    back = read(write({"a": array, "b": ["text", 1, 2.5, None, True]}))
    same(back["a"], array)
    assert back["b"] == ["text", 1, 2.5, None, True]


@pytest.mark.parametrize("array", ARRAYS[:-1], ids=lambda a: f"{a.dtype}{a.shape}")
def test_openpis_own_codec_reads_ours_and_we_read_its(array: np.ndarray) -> None:
    theirs = pytest.importorskip("openpi_client.msgpack_numpy")
    message = {"array": array, "number": np.float32(0.1), "count": np.int64(7), "prompt": "pick"}
    back = theirs.unpackb(pack(message))
    same(back["array"], array)
    assert (back["number"], back["count"], back["prompt"]) == (np.float32(0.1), 7, "pick")
    assert type(back["count"]) is np.int64
    back = unpack(theirs.packb(message))
    same(back["array"], array)
    assert back["number"] == np.float32(0.1)
    assert back["number"].dtype == np.float32


def test_json_numpys_own_codec_reads_ours_and_we_read_its() -> None:
    theirs = pytest.importorskip("json_numpy")
    for array in ARRAYS[:6]:
        same(theirs.loads(dump_json({"a": array}).decode())["a"], array)
        same(load_json(theirs.dumps({"a": array}).encode())["a"], array)


def test_numpy_reads_our_npy_and_we_read_its() -> None:
    for array in [*ARRAYS, np.asfortranarray(RNG.normal(size=(3, 4)))]:
        raw = msgpack.unpackb(pack_npy(array))
        assert raw["__ndarray_class__"] is True
        same(np.load(io.BytesIO(raw["as_npy"]), allow_pickle=False), array)
        file = io.BytesIO()
        np.save(file, array.astype(array.dtype.newbyteorder("<")))
        same(unpack_npy(msgpack.packb({"__ndarray_class__": True, "as_npy": file.getvalue()})), array)


def test_an_arrays_bytes_are_those_worked_out_by_hand() -> None:
    # {"a": {bin "__ndarray__": true, bin "data": 4 bytes, bin "dtype": "<f4", bin "shape": [1]}} after msgpack's spec.
    assert pack({"a": np.array([1.0], np.float32)}) == (
        b"\x81\xa1a\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x04\x00\x00\x80\x3f\xc4\x05dtype\xa3<f4\xc4\x05shape\x91\x01"
    )


X = np.arange(6.0, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    ("fault", "data"),
    [
        ("undecodable", b""),
        ("undecodable", b"\xc1"),
        ("undecodable", by_hand(X)[:-3]),
        ("undecodable", by_hand(X) + b"\x00"),
        ("undecodable", b"\xa2\xff\xfe"),
        ("undecodable", b"\xdd\xff\xff\xff\xff"),
        ("undecodable", b"\x81\x90\x01"),
        ("dtype", by_hand(X, dtype="|O")),
        ("dtype", by_hand(X, dtype="<c8")),
        ("dtype", by_hand(X, dtype="<U6")),
        ("dtype", by_hand(X, dtype="<M8[ns]")),
        ("dtype", by_hand(X, dtype=[["a", "<f4"]])),
        ("dtype", by_hand(X, dtype=None)),
        ("shape", by_hand(X, dtype="<f8")),
        ("shape", by_hand(X, shape=[3, 3])),
        ("shape", by_hand(X, shape=[-2, -3])),
        ("shape", by_hand(X, shape=[2.0, 3.0])),
        ("shape", by_hand(X, shape=[True, 6])),
        ("shape", by_hand(X, shape=6)),
        ("shape", by_hand(X, shape=[2**62, 2**62])),
        ("shape", by_hand(X[:0], shape=[0, 2**40])),
        ("shape", by_hand(X, shape=[1, 1, 1, 1, 1, 1, 6])),
        ("type", by_hand(X, data="text")),
        ("type", by_hand(X, data=None)),
        ("type", msgpack.packb({"x": msgpack.ExtType(5, b"abc")})),
        ("type", msgpack.packb({"x": msgpack.Timestamp(1)})),
        ("type", msgpack.packb({b"__npgeneric__": True, b"data": "1", b"dtype": "<f4"})),
        ("dtype", msgpack.packb({b"__npgeneric__": True, b"data": 1, b"dtype": "|O"})),
        ("undecodable", msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"})),
        ("too_deep", b"\x91" * 40 + b"\xc0"),
        ("undecodable", b"\x91" * 5000 + b"\xc0"),
        ("too_large", msgpack.packb([[] for _ in range(20_000)])),
        ("too_large", msgpack.packb(b"x" * 100_001)),
    ],
)
def test_what_isnt_a_message_of_plain_values_is_refused_by_name(fault: str, data: bytes) -> None:
    with pytest.raises(WireError) as found:
        unpack(data, WireLimits(max_bytes=100_000))
    assert found.value.fault == fault


class Boom:
    """Would say so if it were unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("something was unpickled",))


def test_pickled_objects_stay_pickled() -> None:
    objects = np.array([Boom()], dtype=object)
    pickled = pickle.dumps(objects)
    file = io.BytesIO()
    np.save(file, objects, allow_pickle=True)
    for data, read in (
        (msgpack.packb({"__ndarray_class__": True, "as_npy": file.getvalue()}), unpack_npy),
        (msgpack.packb({"__ndarray_class__": True, "as_npy": pickled}), unpack_npy),
        (msgpack.packb({b"__ndarray__": True, b"data": pickled, b"dtype": "|O", b"shape": [1]}), unpack),
        (
            json.dumps({"__numpy__": base64.b64encode(pickled).decode(), "dtype": "|O", "shape": [1]}).encode(),
            load_json,
        ),
    ):
        with pytest.raises(WireError):
            read(data)


@pytest.mark.parametrize(
    "value", [np.array([object()]), np.array([1j]), np.array(["text"]), {1, 2}, object()], ids=lambda v: str(type(v))
)
@pytest.mark.parametrize("write", [pack, pack_npy, dump_json])
def test_what_may_not_travel_isnt_sent(write: Any, value: Any) -> None:
    with pytest.raises(WireError):
        write({"x": value})


def test_an_npy_header_cant_ask_for_memory() -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": (2**40,), "fortran_order": False, "descr": "<f8"})
    with pytest.raises(WireError) as found:
        unpack_npy(msgpack.packb({"__ndarray_class__": True, "as_npy": file.getvalue() + b"\0" * 8}))
    assert found.value.fault == "shape"


@pytest.mark.parametrize(
    "text",
    [
        '{"__numpy__": "not base64!", "dtype": "<f4", "shape": [1]}',
        '{"__numpy__": 5, "dtype": "<f4", "shape": [1]}',
        '{"__numpy__": "AAAAAA==", "dtype": [["a", "<f4"]], "shape": [1]}',
        '{"__numpy__": "AAAAAA==", "dtype": "<f4", "shape": [2]}',
        "[" * 100_000,
        '{"a": ',
        "\xff",
    ],
)
def test_bad_json_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        load_json(text.encode("latin-1"))


def test_sent_images_are_copied_once() -> None:
    # A view of a larger image isn't contiguous; what arrives must be the view's pixels, not the larger one's.
    image = RNG.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    same(unpack(pack({"a": image[2:5, ::2]}))["a"], image[2:5, ::2].copy())
    assert not unpack(pack({"a": image}))["a"].flags.writeable
