"""Ten thousand bad replies: none crashes, none becomes an action, each has a name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np
import pytest

msgpack = pytest.importorskip("msgpack")
pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from vla_ros.config import build
from vla_ros.contract import ActionSpec, Contract
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.remote.codec import unpack
from vla_ros.policies.remote.errors import Fault, RemoteError, RemoteReplyError
from vla_ros.policies.remote.health import Health
from vla_ros.policies.remote.policy import RemotePolicy
from vla_ros.policies.remote.reply import ReplyChecker, ReplyLimits
from vla_ros.policies.remote.wire_arrays import WireLimits
from vla_ros.types import CameraFrame, Observation

WIDTH, MOST_STEPS, MOST_BYTES = 8, 50, 60_000
CONTRACT = build(
    Contract,
    {
        "name": "fuzz",
        "observation": {"images": {"base": {"camera": "base"}}, "state": [{"kind": "gripper"}], "reference": "base"},
        "action": {"space": "tool", "rotation": "quat_xyzw", "relative_to": "nothing", "period_s": 0.1},
    },
    "test",
)
PARAMETERS = {
    "url": "ws://127.0.0.1:9", "keys": {"images": {"base": "image"}},
    "reply": {"horizon_max": MOST_STEPS}, "max_reply_mb": MOST_BYTES / 2**20,
}  # fmt: skip
FAULTS = set(get_args(Fault))

Rng = np.random.Generator


def observation() -> Observation:
    frame = CameraFrame(0, np.zeros((4, 4, 3), np.uint8))
    return Observation(0, {"base": frame}, np.array([0.5]), {"gripper": slice(0, 1)}, np.eye(4), 0.5, "pick")


def good_actions(rng: Rng) -> np.ndarray:
    return rng.uniform(-1.0, 1.0, (int(rng.integers(1, MOST_STEPS + 1)), WIDTH)).astype(np.float32)


def form(array: np.ndarray, **changes: Any) -> dict[bytes, Any]:
    whole = {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": list(array.shape)}
    return whole | {key.encode(): value for key, value in changes.items()}


def reply(actions: Any, **more: Any) -> bytes:
    return msgpack.packb({"actions": actions, "server_timing": {"infer_ms": 1.5}, **more})


def truncated(rng: Rng) -> bytes:
    whole = reply(form(good_actions(rng)))
    return whole[: int(rng.integers(0, len(whole)))]


def garbage(rng: Rng) -> bytes:
    # Long enough that chance won't write a mapping with `actions` in it.
    return rng.bytes(int(rng.integers(1, 400)))


def wrong_dtype(rng: Rng) -> bytes:
    names = ["<i4", "|u1", "|b1", "<i8", "|O", "<c8", "|V4", "<U1", "<M8[ns]", "float128", "", 7, None, ["<f4"], "<f3"]
    array = good_actions(rng)
    # As many bytes as the dtype takes where it is one, so that nothing else is wrong.
    array = array.astype(np.int64) if rng.random() < 0.3 else array
    return reply(form(array, dtype=names[int(rng.integers(len(names)))] if array.dtype.kind == "f" else "<i8"))


def wrong_shape(rng: Rng) -> bytes:
    array = good_actions(rng)
    steps = len(array)
    shapes: list[Any] = [
        [steps, WIDTH + 1], [steps + 1, WIDTH], [WIDTH * steps], [1, steps, WIDTH], [-1, WIDTH], [steps, WIDTH, 0],
        [2**40, 2**40], [0, WIDTH], steps, "many", [steps * 1.0, WIDTH * 1.0], None, [], [steps * WIDTH, 1],
        [[steps], 8],
    ]  # fmt: skip
    return reply(form(array, shape=shapes[int(rng.integers(len(shapes)))]))


def wrong_width(rng: Rng) -> bytes:
    width = int(rng.choice([0, 1, 7, 9, 14, 32]))
    return reply(form(rng.uniform(-1, 1, (5, width)).astype(np.float32)))


def wrong_horizon(rng: Rng) -> bytes:
    return reply(form(np.zeros((int(rng.choice([0, 51, 64, 300])), WIDTH), np.float32)))


def not_finite(rng: Rng) -> bytes:
    array = good_actions(rng)
    array[int(rng.integers(len(array))), int(rng.integers(WIDTH))] = rng.choice([np.nan, np.inf, -np.inf])
    return reply(form(array))


def huge_value(rng: Rng) -> bytes:
    array = good_actions(rng).astype(np.float64)
    size = 10.0 ** rng.uniform(0.5, 300.0)
    array[int(rng.integers(len(array))), int(rng.integers(WIDTH))] = rng.choice([-1.0, 1.0]) * size
    return reply(form(array))


def huge_message(rng: Rng) -> bytes:
    return reply(form(good_actions(rng)), note="x" * int(rng.integers(MOST_BYTES, 2 * MOST_BYTES)))


def bomb(rng: Rng) -> bytes:
    kinds = [
        b"\x81\xa7actions\xdd\xff\xff\xff\xff", b"\x81\xa7actions\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
        b"\x91" * int(rng.integers(20, 50_000)), b"\x81\xa7actions" + b"\x91" * 600 + b"\xc0",
        b"\x81\xa7actions\xdd\x00\x00\xc3\x50" + b"\x90" * 50_000,
    ]  # fmt: skip
    return kinds[int(rng.integers(len(kinds)))]


def wrong_keys(rng: Rng) -> bytes:
    actions = form(good_actions(rng))
    bodies: list[Any] = [
        {}, {"action": actions}, {"Actions": actions}, {b"actions": actions}, {"actions": {}}, {"actions": None},
        {"data": {"actions": actions}}, {"error": "no"}, {"actions": {"0": actions}}, {1: actions},
    ]  # fmt: skip
    return msgpack.packb(bodies[int(rng.integers(len(bodies)))])


def wrong_type(rng: Rng) -> bytes:
    values: list[Any] = [
        [], [1, 2], "text", 5, None, True, 2.5, b"bytes", {"a": 1}, [[]], [[1.0] * 8, [1.0] * 7], [["a"] * 8],
        [[True] * 8],
        msgpack.ExtType(4, b"x"), msgpack.Timestamp(5), [None], [[[1.0] * 8]], {b"__ndarray__": True},
        form(good_actions(rng), data="text"), form(good_actions(rng), data=None), form(good_actions(rng), data=[1]),
        {b"__npgeneric__": True, b"data": 1.0, b"dtype": "<f4"},
        {b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"},
    ]  # fmt: skip
    value = values[int(rng.integers(len(values)))]
    return msgpack.packb(value) if rng.random() < 0.3 else reply(value)


def wrong_number(rng: Rng) -> bytes:
    """A bad reply with what our own servers add beside it."""
    bad = [wrong_shape, not_finite, huge_value][int(rng.integers(3))]
    return msgpack.packb(msgpack.unpackb(bad(rng)) | {"vla_ros": {"seq": int(rng.integers(-(2**60), 2**60))}})


MAKERS: list[Callable[[Rng], bytes]] = [
    truncated, garbage, wrong_dtype, wrong_shape, wrong_width, wrong_horizon, not_finite, huge_value, huge_message,
    bomb, wrong_keys, wrong_type, wrong_number,
]  # fmt: skip


class Fed:
    """A client that is given the bytes of its next reply, and reads them as the real one does."""

    def __init__(self) -> None:
        self.health = Health()
        self.data = b""

    def metadata(self, timeout_s: float) -> dict[Any, Any]:
        return {}

    def exchange(self, request: Mapping[str, Any], deadline_s: float) -> Any:
        return unpack(self.data, WireLimits(max_bytes=MOST_BYTES))

    def close(self) -> None:
        return


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> tuple[RemotePolicy, Fed]:
    client = Fed()
    monkeypatch.setattr(RemotePolicy, "_make_client", lambda _self: client)
    policy = RemotePolicy.from_parameters(CONTRACT, PARAMETERS)
    policy.reset("pick", 0)
    return policy, client


def test_ten_thousand_bad_replies_give_no_action_and_each_a_name(fed: tuple[RemotePolicy, Fed]) -> None:
    policy, client = fed
    rng, seen = np.random.default_rng(0), observation()
    count = 10_000
    for index in range(count):
        maker = MAKERS[index % len(MAKERS)]
        client.data = maker(rng)
        with pytest.raises(RemoteError) as found:
            policy.infer(seen, InferenceContext())
        assert found.value.fault in FAULTS, maker.__name__
        assert str(found.value)
        assert len(str(found.value)) < 2000
    faults = policy.health()["faults"]
    assert sum(faults.values()) == count
    expected = {"too_large", "undecodable", "too_deep", "type", "dtype", "shape", "missing_key", "horizon"}
    assert set(faults) == expected | {"not_finite", "magnitude"}


def test_good_replies_between_the_bad_ones_are_taken(fed: tuple[RemotePolicy, Fed]) -> None:
    # Else a checker that refuses everything would pass.
    policy, client = fed
    rng = np.random.default_rng(1)
    for _ in range(500):
        actions = good_actions(rng)
        client.data = reply(form(actions))
        np.testing.assert_array_equal(policy.infer(observation(), InferenceContext()).actions, actions)


def test_whatever_bytes_are_flipped_what_is_taken_is_executable(fed: tuple[RemotePolicy, Fed]) -> None:
    policy, client = fed
    rng = np.random.default_rng(2)
    taken = 0
    for _ in range(3000):
        data = bytearray(reply(form(good_actions(rng)[:3])))
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        client.data = bytes(data)
        try:
            actions = policy.infer(observation(), InferenceContext()).actions
        except RemoteError:
            continue
        taken += 1
        assert actions.dtype == np.float64
        assert actions.shape[1] == WIDTH
        assert 1 <= len(actions) <= MOST_STEPS
        # As the contract bounds them: 2 m of position, quaternion entries, an opening with slack.
        assert (np.abs(actions) <= 2.0).all()
    # A flip inside a number often leaves a number.
    assert 500 < taken < 2500


def test_bad_replies_through_a_socket_give_no_action_and_each_a_name() -> None:
    rng = np.random.default_rng(3)
    replies: list[bytes | str | float] = [MAKERS[index % len(MAKERS)](rng) for index in range(260)]
    replies[20::40] = ["Traceback (most recent call last): ...\n" + "x" * 5000] * len(replies[20::40])
    replies[30::80] = [0.4] * len(replies[30::80])  # Seconds before a good reply: too late.
    left = iter(replies)
    served: list[int] = []

    def handle(line: ServerConnection) -> None:
        line.send(msgpack.packb({}))
        try:
            for _ in line:
                answer = next(left, None)
                served.append(len(served))
                if isinstance(answer, str):
                    line.send(answer)
                    line.close(1011, "Internal server error.")
                    return
                if isinstance(answer, float):
                    time.sleep(answer)
                line.send(answer if isinstance(answer, bytes) else reply(form(np.full((3, WIDTH), 0.5, np.float32))))
        except ConnectionClosed:
            return

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        policy = RemotePolicy.from_parameters(CONTRACT, {**PARAMETERS, "url": url, "deadline_s": 30.0})
        policy.reset("pick", 0)
        for index, answer in enumerate(replies):
            # A tight deadline only where it is to be missed: the machine may be busy.
            limit_s = 0.2 if isinstance(answer, float) else 30.0
            object.__setattr__(policy._parameters, "deadline_s", limit_s)
            with pytest.raises(RemoteError) as found:
                policy.infer(observation(), InferenceContext())
            assert found.value.fault in FAULTS, index
            if isinstance(answer, str):
                assert found.value.fault == "server_error"
            if isinstance(answer, float):
                assert found.value.fault == "timeout"
        object.__setattr__(policy._parameters, "deadline_s", 30.0)
        chunk = policy.infer(observation(), InferenceContext())
        np.testing.assert_array_equal(chunk.actions, np.full((3, WIDTH), 0.5))
        assert sum(policy.health()["faults"].values()) == len(replies)
        policy.close()
        server.shutdown()
    assert len(served) == len(replies) + 1


@pytest.mark.parametrize(
    ("spec", "fine", "wrong"),
    [
        # Degrees, and a gripper from 0 to 100: 200 degrees and 90 of 100 are nothing strange.
        (
            ActionSpec(
                "joint", "nothing", 0.02, gripper="opening", joint_scale_rad=np.pi / 180.0, gripper_range=(0.0, 100.0)
            ),
            [200.0, -170.0, 90.0],
            [[800.0, 0.0, 50.0], [0.0, 0.0, 151.0]],
        ),
        # A signed gripper's range is 2.
        (
            ActionSpec("joint", "nothing", 0.02, gripper="signed_opening"),
            [1.0, -1.0, -1.9],
            [[0.0, 0.0, 2.1], [13.0, 0.0, 0.0]],
        ),
        # Millimetres along x, and turns a second of which each lasts 0.1 s.
        (
            ActionSpec(
                "tool", "previous_step", 0.1, rotation="rotvec", gripper="none", quantity="velocity",
                scales=(0.001, 1.0, 1.0, 1.0, 1.0, 1.0),
            ),
            [15000.0, 0.0, 0.0, 0.0, 0.0, 60.0],
            [[25000.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 21.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 64.0]],
        ),
    ],
)  # fmt: skip
def test_size_that_is_allowed_is_the_contracts_own_unit(spec: ActionSpec, fine: list[float], wrong: Any) -> None:
    checker = ReplyChecker(spec, ReplyLimits())
    np.testing.assert_array_equal(checker.check(np.array([fine])), [fine])
    for action in wrong:
        with pytest.raises(RemoteReplyError, match="needs at most") as refused:
            checker.check(np.array([action]))
        assert refused.value.fault == "magnitude"
