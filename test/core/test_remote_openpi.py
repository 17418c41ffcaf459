"""openpi's protocol: our server under openpi's own client, ours against a server from the protocol's text."""

from __future__ import annotations

import dataclasses
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

msgpack = pytest.importorskip("msgpack")
pytest.importorskip("websockets")

from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from vla_ros.config import build
from vla_ros.contract import Contract
from vla_ros.errors import ConfigError, ContractError, InstructionError, MissingDependencyError
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.remote.access import Access
from vla_ros.policies.remote.codec import pack, unpack
from vla_ros.policies.remote.errors import (
    RemoteError,
    RemoteFailureError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    WireError,
)
from vla_ros.policies.remote.hosting import HostedPolicy
from vla_ros.policies.remote.key_mapping import KeyMapping
from vla_ros.policies.remote.observation_wire import decode_observation, encode_observation
from vla_ros.policies.remote.policy import RemotePolicy
from vla_ros.policies.remote.server import PolicyServer
from vla_ros.types import ActionChunk, CameraFrame, CameraModel, JointChunk, Observation, ToolChunk

RNG = np.random.default_rng(11)
CONTRACT = build(
    Contract,
    {
        "name": "test",
        "observation": {
            "images": {"base": {"camera": "base"}, "wrist": {"camera": "wrist"}},
            "state": [{"kind": "tcp_pose", "rotation": "rotvec"}, {"kind": "gripper"}],
            "reference": "base",
        },
        "action": {"space": "tool", "rotation": "rotvec", "relative_to": "observation", "period_s": 0.1},
    },
    "test",
)
STATE = np.array([0.4, 0.1, 0.3, 0.0, 0.0, np.pi / 2, 0.7])
# Rz(90 deg), worked out by hand from the state above.
POSE = np.array([[0.0, -1.0, 0.0, 0.4], [1.0, 0.0, 0.0, 0.1], [0.0, 0.0, 1.0, 0.3], [0.0, 0.0, 0.0, 1.0]])
KEYS = {"images": {"base": "observation/image", "wrist": "observation/wrist_image"}, "state": "observation/state"}


class Recorder:
    """A policy that keeps what it was given, and answers the tcp's position and a count."""

    def __init__(self, mark: float = 0.0) -> None:
        self.contract = CONTRACT
        self.mark, self.seen, self.resets, self.threads = mark, [], [], set()
        self.wait_s: list[float] = []

    def reset(self, task: str, seed: int) -> None:
        self.threads.add(threading.get_ident())
        if task == "nonsense":
            raise InstructionError(task, "no such thing", "say `pick`")
        self.resets.append((task, seed))

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        self.threads.add(threading.get_ident())
        self.seen.append((observation, context))
        if self.wait_s:
            time.sleep(self.wait_s.pop(0))
        if observation.instruction == "fail":
            raise RuntimeError("/secret/path of the server")
        actions = np.zeros((4, 7))
        actions[:, :3], actions[:, 3] = observation.T_base_tcp[:3, 3], self.mark
        return ActionChunk(actions, is_idle=False, note=f"answer {len(self.seen)}")


def observe(prompt: str = "pick") -> Observation:
    camera = CameraModel(8, 6, np.array([[9.0, 0, 4], [0, 9.0, 3], [0, 0, 1]]), (0.1, 0.2, 0.0, 0.0))
    images = {
        "base": CameraFrame(123_456_789_012_345_678, RNG.integers(0, 255, (6, 8, 3), dtype=np.uint8), camera, POSE),
        "wrist": CameraFrame(123_456_789_000_000_001, RNG.integers(0, 255, (6, 8, 3), dtype=np.uint8)),
    }
    layout = {"tcp_pose": slice(0, 6), "gripper": slice(6, 7)}
    return Observation(123_456_789_012_345_678, images, STATE, layout, POSE, 0.7, prompt)


@contextmanager
def serving(
    *policies: Recorder, access: Access | None = None, names: tuple[str, ...] = ("one", "two")
) -> Iterator[str]:
    hosted = [
        HostedPolicy(name, functools.partial(lambda made: (made, CONTRACT), policy))
        for name, policy in zip(names, policies, strict=False)
    ]
    server = PolicyServer(hosted, names[0], access or Access(port=0))
    with server.running() as port:
        yield f"ws://127.0.0.1:{port}"
    server.close()


@contextmanager
def remote(url: str, **parameters: Any) -> Iterator[RemotePolicy]:
    policy = RemotePolicy.from_parameters(CONTRACT, {"url": url, "deadline_s": 5.0, "connect_s": 5.0, **parameters})
    try:
        yield policy
    finally:
        policy.close()


def array_by_hand(array: np.ndarray) -> dict[bytes, Any]:
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": list(array.shape)}


def actions_by_hand(value: float, steps: int = 3) -> bytes:
    return msgpack.packb({"actions": array_by_hand(np.full((steps, 7), value, np.float32)), "server_timing": {}})


@contextmanager
def plain_server(answer: Callable[[ServerConnection, dict[Any, Any], int], None]) -> Iterator[str]:
    """openpi's server from its text: metadata first, then `answer(connection, request, number of the connection)`."""
    connections = 0

    def handle(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        number = connections
        connection.send(msgpack.packb({"model": "pi0"}))
        for message in connection:
            answer(connection, msgpack.unpackb(message), number)

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def same_observation(a: Observation, b: Observation) -> None:
    assert (a.stamp_ns, a.gripper_opening, a.instruction) == (b.stamp_ns, b.gripper_opening, b.instruction)
    assert dict(a.state_layout) == dict(b.state_layout)
    np.testing.assert_array_equal(a.state, b.state)
    np.testing.assert_array_equal(a.T_base_tcp, b.T_base_tcp)
    assert set(a.images) == set(b.images)
    for name, frame in a.images.items():
        other = b.images[name]
        assert frame.stamp_ns == other.stamp_ns
        np.testing.assert_array_equal(frame.image, other.image)
        assert (frame.T_base_cam is None) == (other.T_base_cam is None)
        if frame.T_base_cam is not None and other.T_base_cam is not None:
            np.testing.assert_array_equal(frame.T_base_cam, other.T_base_cam)
        assert (frame.camera is None) == (other.camera is None)
        if frame.camera is not None and other.camera is not None:
            np.testing.assert_array_equal(frame.camera.K, other.camera.K)
            assert dataclasses.replace(frame.camera, K=None) == dataclasses.replace(other.camera, K=None)


# Our own form.


def test_every_field_of_observation_context_and_committed_chunk_travels() -> None:
    committed = ToolChunk(
        77, "absolute", np.stack([POSE, POSE.T]), np.array([0.1, 0.9]), np.array([0.1, 0.2]), "one", POSE
    )
    context = InferenceContext(0.123, 5, committed)
    observation = observe()
    back, back_context = decode_observation(unpack(pack(encode_observation(observation, context))), CONTRACT)
    same_observation(back, observation)
    assert (back_context.expected_delay_s, back_context.execution_horizon_steps) == (0.123, 5)
    assert back_context.committed is not None
    for field in dataclasses.fields(ToolChunk):
        np.testing.assert_array_equal(getattr(back_context.committed, field.name), getattr(committed, field.name))


def test_committed_postures_and_the_observations_before_travel() -> None:
    committed = JointChunk(77, np.arange(6.0).reshape(2, 3), np.array([0.1, 0.9]), np.array([0.1, 0.2]), "one")
    past = dataclasses.replace(observe(), stamp_ns=11, state=np.full_like(observe().state, 0.25))
    observation = dataclasses.replace(observe(), history=(past,))
    spec = dataclasses.replace(CONTRACT.observation, history_steps=2, history_spacing_s=0.1)
    contract = dataclasses.replace(CONTRACT, observation=spec)
    message = unpack(pack(encode_observation(observation, InferenceContext(committed=committed))))
    back, context = decode_observation(message, contract)
    same_observation(back, observation)
    same_observation(back.history[0], past)
    assert isinstance(context.committed, JointChunk)
    for field in dataclasses.fields(JointChunk):
        np.testing.assert_array_equal(getattr(context.committed, field.name), getattr(committed, field.name))
    with pytest.raises(WireError, match="0 observations come before this one, the contract means 1"):
        decode_observation(unpack(pack(encode_observation(observe(), InferenceContext()))), contract)


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        (Observation, 9),  # `made_of` stays with who made it.
        (CameraFrame, 4),
        (CameraModel, 4),
        (InferenceContext, 3),
        (ToolChunk, 7),
        (JointChunk, 5),
        (ActionChunk, 3),
    ],
)
def test_no_field_was_added_that_the_wire_doesnt_know(kind: type, known: int) -> None:
    # A field more has to go into observation_wire.py and into the test above; then this number goes up.
    assert len(dataclasses.fields(kind)) == known


def test_remote_policy_gives_its_policy_the_same_and_returns_the_same() -> None:
    policy = Recorder()
    with serving(policy) as url, remote(url) as client:
        client.reset("pick", 42)
        committed = ToolChunk(5, "base", POSE[None], None, np.array([0.1]), "one")
        observation = observe()
        chunk = client.infer(observation, InferenceContext(0.2, 3, committed))
        assert policy.resets == [("pick", 42)]
        seen, context = policy.seen[0]
        same_observation(seen, observation)
        assert (context.expected_delay_s, context.execution_horizon_steps) == (0.2, 3)
        np.testing.assert_array_equal(context.committed.transforms, POSE[None])
        assert context.committed.openings is None
        np.testing.assert_array_equal(chunk.actions[:, :3], np.tile(POSE[:3, 3], (4, 1)))
        assert chunk.actions.dtype == np.float64
        assert chunk.note == "answer 1"
        health = client.health()
        assert (health["requests"], health["replies"], health["reconnects"], health["faults"]) == (2, 2, 0, {})
        assert 0.0 < health["round_trip_p50_s"] <= health["round_trip_p99_s"]


def test_a_policy_is_asked_in_one_thread_whoever_asks() -> None:
    policy = Recorder()
    with serving(policy) as url, remote(url) as one, remote(url) as other:
        for client in (one, other, one):
            client.reset("pick", 0)
            client.infer(observe(), InferenceContext())
    assert len(policy.threads) == 1


def test_an_instruction_that_is_refused_there_is_refused_here_and_the_connection_stays() -> None:
    policy = Recorder()
    with serving(policy) as url, remote(url) as client:
        with pytest.raises(InstructionError, match="no such thing; say `pick`"):
            client.reset("nonsense", 0)
        assert client.infer(observe(), InferenceContext()).is_idle
        client.reset("pick", 0)
        assert not client.infer(observe(), InferenceContext()).is_idle
        assert client.health()["reconnects"] == 0
    assert len(policy.seen) == 1


def test_a_policys_failure_is_named_without_its_traceback() -> None:
    with serving(Recorder()) as url, remote(url) as client:
        client.reset("fail", 0)
        with pytest.raises(RemoteFailureError, match="policy one failed with RuntimeError") as found:
            client.infer(observe("fail"), InferenceContext())
        assert "secret" not in str(found.value)
        client.reset("pick", 0)
        client.infer(observe(), InferenceContext())
        assert client.health()["reconnects"] == 0


def test_who_resets_takes_the_policy_over_and_the_other_is_told() -> None:
    policy = Recorder()
    with serving(policy) as url, remote(url) as one, remote(url) as other:
        one.reset("pick", 1)
        other.reset("place", 2)
        with pytest.raises(RemoteFailureError, match="was given a task by another client") as found:
            one.infer(observe(), InferenceContext())
        assert found.value.fault == "taken"
        other.infer(observe("place"), InferenceContext())
        assert [observation.instruction for observation, _ in policy.seen] == ["place"]


def test_a_server_that_was_started_anew_is_found_and_told_the_task_again() -> None:
    first, second = Recorder(), Recorder()
    with serving(first) as url:
        client = RemotePolicy.from_parameters(CONTRACT, {"url": url, "deadline_s": 0.3})
        client.reset("pick", 9)
        client.infer(observe(), InferenceContext())
    with pytest.raises(RemoteUnavailableError):
        client.infer(observe(), InferenceContext())
    with serving(second, access=Access(port=int(url.rpartition(":")[2]))):
        faults = []
        while not second.seen:
            try:
                client.infer(observe(), InferenceContext())
            except (RemoteUnavailableError, RemoteFailureError) as error:
                faults.append(error.fault)
        assert faults[-1] == "not_reset"
        assert second.resets == [("pick", 9)]
        assert client.health()["reconnects"] == 1
        client.close()
        with pytest.raises(RemoteUnavailableError, match="was closed here"):
            client.infer(observe(), InferenceContext())


# Swap.


def test_two_loaded_policies_are_swapped_without_connecting_or_loading_anew() -> None:
    one, two = Recorder(mark=0.25), Recorder(mark=0.5)
    with serving(one, two) as url, connect(url, compression=None) as line:
        greeting = unpack(line.recv())["vla_ros"]
        assert (greeting["policy"], greeting["policies"]) == ("one", ["one", "two"])
        marks = []
        for number, name in enumerate(["one", "two", "two", "one"] * 3):
            own = {"protocol": 1, "seq": number, "session": "s", "contract": CONTRACT.interface_hash}
            line.send(pack({"vla_ros": {**own, "call": "select", "policy": name}}))
            reply = unpack(line.recv())["vla_ros"]
            assert (reply["policy"], reply["seq"]) == (name, number)
            request = encode_observation(observe(), InferenceContext())
            request["vla_ros"] |= {**own, "reset": {"task": "pick", "seed": 0}}
            line.send(pack(request))
            marks.append(float(unpack(line.recv())["actions"][0, 3]))
        assert marks == [0.25, 0.5, 0.5, 0.25] * 3
        line.send(pack({"vla_ros": {"seq": 99, "session": "s", "call": "select", "policy": "three"}}))
        reply = unpack(line.recv())["vla_ros"]
        assert "unknown policy 'three'" in reply["error"]
        assert reply["seq"] == 99
    assert (len(one.seen), len(two.seen)) == (6, 6)


def test_a_slow_policy_doesnt_keep_another_from_answering() -> None:
    slow, quick = Recorder(), Recorder()
    slow.wait_s = [1.5]
    with serving(slow, quick) as url, remote(url) as first, remote(f"{url}/two") as second:
        first.reset("pick", 0)
        second.reset("pick", 0)
        thread = threading.Thread(target=lambda: first.infer(observe(), InferenceContext()))
        thread.start()
        while not slow.seen:
            time.sleep(0.001)
        second.infer(observe(), InferenceContext())
        assert thread.is_alive()
        thread.join()


# openpi's own client.


def openpi_client(url: str, **options: Any) -> Any:
    return pytest.importorskip("openpi_client.websocket_client_policy").WebsocketClientPolicy(url, **options)


def plain_request(prompt: str = "pick") -> dict[str, Any]:
    images = {f"observation/images/{name}": np.full((6, 8, 3), 7, np.uint8) for name in ("base", "wrist")}
    return {**images, "observation/state": STATE.astype(np.float32), "prompt": prompt}


def test_openpis_own_client_is_answered() -> None:
    policy = Recorder()
    with serving(policy) as url:
        client = openpi_client(url)
        assert client.get_server_metadata()["vla_ros"]["contract"] == CONTRACT.interface_hash
        for prompt in ("pick", "pick", "place"):
            reply = client.infer(plain_request(prompt))
        assert reply["actions"].shape == (4, 7)
        # float32 carried the state.
        np.testing.assert_allclose(reply["actions"][:, :3], np.tile(POSE[:3, 3], (4, 1)), atol=1e-6)
        assert reply["server_timing"]["infer_ms"] >= 0.0
        client._ws.close()
    assert policy.resets == [("pick", 0), ("place", 0)]
    observation = policy.seen[0][0]
    np.testing.assert_allclose(observation.T_base_tcp, POSE, atol=1e-6)
    assert observation.gripper_opening == pytest.approx(0.7)
    assert (observation.images["wrist"].image == 7).all()


def test_openpis_own_client_is_told_of_failures_in_openpis_way() -> None:
    with serving(Recorder()) as url:
        for request in (plain_request("fail"), plain_request("nonsense"), {"prompt": "pick"}):
            client = openpi_client(url)
            with pytest.raises(RuntimeError, match="Error in inference server") as found:
                client.infer(request)
            assert "secret" not in str(found.value)
            with pytest.raises(Exception, match="1011"):
                client._ws.recv()


def test_openpis_own_client_shows_its_key_and_names_a_policy() -> None:
    one, two = Recorder(mark=0.25), Recorder(mark=0.5)
    key = "0123456789abcdef"
    with serving(one, two, access=Access(port=0, api_key=key)) as url:
        client = openpi_client(f"{url}/two", api_key=key)
        assert client.infer(plain_request())["actions"][0, 3] == 0.5
        client._ws.close()


def test_a_plain_client_may_send_under_keys_of_its_own() -> None:
    policy = Recorder()
    keys = KeyMapping({"base": "observation/image", "wrist": "observation/wrist_image"}, "observation/state")
    server = PolicyServer([HostedPolicy("one", lambda: (policy, CONTRACT), 7, keys)], "one", Access(port=0))
    with server.running() as port, connect(f"ws://127.0.0.1:{port}", compression=None) as line:
        line.recv()
        image = np.full((6, 8, 3), 9, np.uint8)
        request = {"observation/image": image, "observation/wrist_image": image + 1, "observation/state": STATE}
        line.send(msgpack.packb({key: array_by_hand(value) for key, value in request.items()} | {"prompt": "pick"}))
        reply = msgpack.unpackb(line.recv())
    assert reply["actions"][b"shape"] == [4, 7]
    assert policy.resets == [("pick", 7)]
    assert (policy.seen[0][0].images["wrist"].image == 10).all()
    server.close()


def test_our_client_in_plain_openpi_is_answered_by_our_server() -> None:
    images = {name: f"observation/images/{name}" for name in ("base", "wrist")}
    policy = Recorder()
    with serving(policy) as url, remote(url, keys={"images": images}) as client:
        client.reset("pick", 0)
        for _ in range(3):
            chunk = client.infer(observe(), InferenceContext())
        np.testing.assert_allclose(chunk.actions[:, :3], np.tile(POSE[:3, 3], (4, 1)), atol=1e-6)


def test_a_policy_that_ends_its_interpreter_only_fails() -> None:
    policy = Recorder()
    policy.infer = lambda *_: sys.exit(3)  # type: ignore[method-assign]
    with serving(policy) as url, remote(url) as client:
        client.reset("pick", 0)
        for _ in range(2):
            with pytest.raises(RemoteFailureError, match="failed with RuntimeError"):
                client.infer(observe(), InferenceContext())


def test_what_making_a_policy_raises_is_raised() -> None:
    def make() -> Any:
        raise ConfigError("policy", "no such checkpoint", "give another")

    with pytest.raises(ConfigError, match="no such checkpoint"):
        HostedPolicy("one", make)


# Our client under a server written from the protocol's text.


def test_foreign_server_is_asked_under_its_own_keys() -> None:
    asked: list[dict[Any, Any]] = []

    def answer(line: ServerConnection, request: dict[Any, Any], _number: int) -> None:
        asked.append(request)
        line.send(actions_by_hand(0.5))

    with plain_server(answer) as url, remote(url, keys=KEYS) as client:
        client.reset("pick the cube", 0)
        observation = observe("pick the cube")
        chunk = client.infer(observation, InferenceContext())
    np.testing.assert_array_equal(chunk.actions, np.full((3, 7), 0.5))
    assert set(asked[0]) == {"observation/image", "observation/wrist_image", "observation/state", "prompt"}
    assert asked[0]["prompt"] == "pick the cube"
    image = observation.images["base"].image
    assert asked[0]["observation/image"] == array_by_hand(image) | {b"shape": [6, 8, 3]}
    assert asked[0]["observation/state"] == array_by_hand(STATE.astype(np.float32))


def test_keys_can_lead_into_mappings_and_turn_images() -> None:
    asked: list[dict[Any, Any]] = []

    def answer(line: ServerConnection, request: dict[Any, Any], _number: int) -> None:
        asked.append(request)
        line.send(actions_by_hand(0.5))

    keys = {
        "images": {"base": "images.cam_high", "wrist": "images.cam_wrist"}, "separator": ".", "image_layout": "chw",
        "state": "", "state_items": {"gripper": "gripper"}, "extras": {"noise": 3},
    }  # fmt: skip
    with plain_server(answer) as url, remote(url, keys=keys) as client:
        client.reset("pick", 0)
        observation = observe()
        client.infer(observation, InferenceContext())
    turned = np.ascontiguousarray(observation.images["base"].image.transpose(2, 0, 1))
    assert asked[0]["images"]["cam_high"] == array_by_hand(turned)
    assert asked[0]["gripper"] == array_by_hand(np.array([0.7], np.float32))
    assert (asked[0]["noise"], set(asked[0])) == (3, {"images", "gripper", "noise", "prompt"})


def test_a_foreign_server_needs_keys_and_they_have_to_name_every_image() -> None:
    with plain_server(lambda *_: None) as url:
        with pytest.raises(ConfigError, match="isn't a server of ours; say with `keys`"), remote(url):
            pass
        with pytest.raises(ConfigError, match=r"keys\.images: names \['base'\]"):
            remote(url, keys={"images": {"base": "x"}}).__enter__()


def test_traceback_is_named_and_the_next_request_is_answered_on_a_new_connection() -> None:
    def answer(line: ServerConnection, _request: dict[Any, Any], number: int) -> None:
        if number == 1:
            line.send("Traceback (most recent call last): KeyError: 'state'")
            line.close(1011, "Internal server error. Traceback included in previous frame.")
        else:
            line.send(actions_by_hand(0.25))

    with plain_server(answer) as url, remote(url, keys=KEYS) as client:
        client.reset("pick", 0)
        with pytest.raises(RemoteFailureError, match="KeyError: 'state'") as found:
            client.infer(observe(), InferenceContext())
        assert found.value.fault == "server_error"
        assert client.infer(observe(), InferenceContext()).actions[0, 0] == 0.25
        assert client.health()["reconnects"] == 1


def test_after_a_timeout_the_client_reconnects_and_the_late_reply_never_appears() -> None:
    connections: list[int] = []
    release = threading.Event()

    def answer(line: ServerConnection, _request: dict[Any, Any], number: int) -> None:
        connections.append(number)
        if number == 1:
            release.wait(5.0)
        # Each connection answers with its own number, so that a stray reply would show.
        line.send(actions_by_hand(0.1 * number))

    with plain_server(answer) as url, remote(url, keys=KEYS, deadline_s=0.3) as client:
        client.reset("pick", 0)
        with pytest.raises(RemoteTimeoutError, match="within the deadline; connecting anew"):
            client.infer(observe(), InferenceContext())
        release.set()
        values = [client.infer(observe(), InferenceContext()).actions[0, 0] for _ in range(20)]
        np.testing.assert_allclose(values, 0.2, atol=1e-7)
        health = client.health()
        assert (health["timeouts"], health["reconnects"], health["replies"]) == (1, 1, 20)
    assert connections == [1] + [2] * 20


def test_an_unasked_reply_of_a_plain_server_ends_the_connection() -> None:
    is_sent = threading.Event()

    def answer(line: ServerConnection, _request: dict[Any, Any], number: int) -> None:
        line.send(actions_by_hand(0.1 * number))
        if number == 1:
            line.send(actions_by_hand(-1.0))
            is_sent.set()

    with plain_server(answer) as url, remote(url, keys=KEYS) as client:
        client.reset("pick", 0)
        assert client.infer(observe(), InferenceContext()).actions[0, 0] == pytest.approx(0.1)
        is_sent.wait(10.0)
        time.sleep(0.1)  # Sent, but not yet through the kernel.
        assert client.infer(observe(), InferenceContext()).actions[0, 0] == pytest.approx(0.2)
        assert (client.health()["reconnects"], client.health()["discarded"]) == (1, 1)


def test_numbered_replies_that_come_late_or_twice_are_discarded_on_the_same_connection() -> None:
    sent: list[int] = []

    def handle(line: ServerConnection) -> None:
        own = {"protocol": 1, "contract": CONTRACT.interface_hash, "contract_lines": [], "policy": "x"}
        line.send(msgpack.packb({"vla_ros": own}))

        def reply(number: int, value: float) -> None:
            sent.append(number)
            body = {"actions": array_by_hand(np.full((3, 7), value, np.float32)), "vla_ros": {"seq": number}}
            line.send(msgpack.packb(body))

        for message in line:
            number = msgpack.unpackb(message)["vla_ros"]["seq"]
            if number > 1:
                reply(number - 1, -1.0)  # The one before once more, when the next has gone out already.
            if number > 2:
                reply(number - 2, -1.0)
            reply(number, 0.01 * number)

    with serve(handle, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with remote(f"ws://127.0.0.1:{server.socket.getsockname()[1]}") as client:
            client.reset("pick", 0)
            values = [client.infer(observe(), InferenceContext()).actions[0, 0] for _ in range(10)]
            # The reset was number 1.
            np.testing.assert_allclose(values, 0.01 * np.arange(2, 12), atol=1e-7)
            health = client.health()
            assert (health["duplicate"], health["late"], health["reconnects"]) == (10, 9, 0)
        server.shutdown()


def test_a_server_that_doesnt_read_cant_hold_the_inference_thread() -> None:
    # 40 MB don't fit into the sockets' buffers, so that sending itself would wait for ever.
    release = threading.Event()

    def handle(line: ServerConnection) -> None:
        line.send(msgpack.packb({}))
        line.recv_flow_control.acquire()
        release.wait(20.0)
        line.recv_flow_control.release()

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        with remote(url, keys=KEYS, deadline_s=0.5) as client:
            client.reset("pick", 0)
            huge = observe()
            huge.images["base"] = CameraFrame(0, np.zeros((4000, 3500, 3), np.uint8))  # type: ignore[index]
            begin_s = time.monotonic()
            with pytest.raises(RemoteTimeoutError):
                client.infer(huge, InferenceContext())
            assert time.monotonic() - begin_s < 10.0
        release.set()
        server.shutdown()


def test_a_server_with_another_contract_is_refused_with_the_lines_that_differ() -> None:
    other = dataclasses.replace(CONTRACT, action=dataclasses.replace(CONTRACT.action, composition="tcp"))
    policy = Recorder()
    with serving(policy) as url:
        with pytest.raises(ContractError, match=r"its action\.composition: base; ours action\.composition: tcp"):
            RemotePolicy.from_parameters(other, {"url": url, "connect_s": 5.0})
        # Also in a foreign server's words, where it says what contract it has.
        with pytest.raises(ContractError, match="ours action"):
            RemotePolicy.from_parameters(other, {"url": url, "connect_s": 5.0, "keys": KEYS})
    assert policy.seen == []


def test_a_policy_that_is_dropped_leaves_its_server() -> None:
    with serving(Recorder(), access=Access(port=0, max_clients=2)) as url:
        for _ in range(6):
            client = RemotePolicy.from_parameters(CONTRACT, {"url": url, "deadline_s": 5.0})
            client.reset("pick", 0)
            del client


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"url": "http://127.0.0.1:9"}, "write ws://HOST:PORT"),
        ({"api_key_env": "NO_SUCH_KEY"}, "the environment has no NO_SUCH_KEY"),
        ({"url": "wss://127.0.0.1:9", "ca_file": "/nowhere.pem"}, r"ca_file /nowhere\.pem: can't be used"),
        ({"keys": {"images": {"side": "x"}}}, r"keys\.images: names \['side'\]"),
        ({"deadline_s": 0.0}, "deadline_s 0.0 isn't positive"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_would_be_refused_is_found_without_a_server(parameters: dict[str, Any], said: str) -> None:
    given = {"url": "ws://127.0.0.1:9"}  # Nobody is there.
    RemotePolicy.check_parameters(CONTRACT, given)
    with pytest.raises(ConfigError, match=said):
        RemotePolicy.check_parameters(CONTRACT, given | parameters)


def test_package_that_groot_needs_is_said_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    monkeypatch.delitem(sys.modules, "vla_ros.policies.remote.gr00t_client", raising=False)
    with pytest.raises(MissingDependencyError, match="pyzmq is missing"):
        RemotePolicy.check_parameters(CONTRACT, {"url": "tcp://127.0.0.1:9", "protocol": "gr00t"})


def test_nobody_there_is_said_with_the_reason() -> None:
    with pytest.raises(
        RemoteUnavailableError, match=r"no connection to ws://127\.0\.0\.1:9 in time: ConnectionRefused"
    ):
        RemotePolicy.from_parameters(CONTRACT, {"url": "ws://127.0.0.1:9", "connect_s": 0.3})


@pytest.mark.parametrize(
    ("fault", "reply"),
    [
        ("missing_key", {}),
        ("missing_key", {"action": 1}),
        ("type", {"actions": None}),
        ("type", {"actions": "up"}),
        ("type", []),
        ("shape", {"actions": array_by_hand(np.zeros(7, np.float32))}),
        ("shape", {"actions": array_by_hand(np.zeros((3, 8), np.float32))}),
        ("horizon", {"actions": array_by_hand(np.zeros((0, 7), np.float32))}),
        ("horizon", {"actions": array_by_hand(np.zeros((500, 7), np.float32))}),
        ("dtype", {"actions": array_by_hand(np.zeros((3, 7), np.int32))}),
        ("not_finite", {"actions": array_by_hand(np.full((3, 7), np.nan, np.float32))}),
        ("magnitude", {"actions": array_by_hand(np.full((3, 7), 1e6, np.float32))}),
    ],
    ids=str,
)
def test_a_reply_whose_actions_cant_be_executed_is_refused_by_name(fault: str, reply: Any) -> None:
    with plain_server(lambda line, _r, _n: line.send(msgpack.packb(reply))) as url, remote(url, keys=KEYS) as client:
        client.reset("pick", 0)
        with pytest.raises(RemoteError) as found:
            client.infer(observe(), InferenceContext())
        assert found.value.fault == fault
        assert client.health()["faults"] == {fault: 1}
