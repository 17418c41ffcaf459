"""Clients of OpenVLA's, OpenVLA-OFT's and GR00T's servers, against servers written from those protocols' texts."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

msgpack = pytest.importorskip("msgpack")
pytest.importorskip("websockets")

from vla_ros.config import build
from vla_ros.contract import Contract
from vla_ros.errors import ConfigError, VlaRosError
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.remote.errors import RemoteError, RemoteTimeoutError, RemoteUnavailableError
from vla_ros.policies.remote.policy import RemotePolicy
from vla_ros.types import CameraFrame, Observation

RNG = np.random.default_rng(3)
IMAGES = {name: RNG.integers(0, 255, (6, 8, 3), dtype=np.uint8) for name in ("base", "wrist")}
STATE = np.array([0.5, 0.25, 0.125, 1.0, 0.0, 0.0, 0.75])


def contract(*names: str) -> Contract:
    return build(
        Contract,
        {
            "name": "foreign",
            "observation": {
                "images": {name: {"camera": name} for name in names},
                "state": [{"kind": "tcp_pose", "rotation": "rotvec"}, {"kind": "gripper"}],
                "reference": "base",
            },
            "action": {"space": "tool", "rotation": "rpy", "relative_to": "previous_step", "period_s": 0.2},
        },
        "test",
    )


def observe(*names: str) -> Observation:
    frames = {name: CameraFrame(0, IMAGES[name]) for name in names}
    layout = {"tcp_pose": slice(0, 6), "gripper": slice(6, 7)}
    return Observation(0, frames, STATE, layout, np.eye(4), 0.75, "put the cup away")


@contextmanager
def policy(names: tuple[str, ...], **parameters: Any) -> Iterator[RemotePolicy]:
    made = RemotePolicy.from_parameters(contract(*names), {"deadline_s": 10.0, "connect_s": 10.0, **parameters})
    made.reset("put the cup away", 0)
    try:
        yield made
    finally:
        made.close()


# OpenVLA and OpenVLA-OFT. The server's side of json-numpy, by hand.


def as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = base64.b64encode(value.tobytes()).decode()
        return {"__numpy__": data, "dtype": value.dtype.str, "shape": list(value.shape)}
    return [as_json(item) for item in value] if isinstance(value, list) else value


def from_json(item: Any) -> Any:
    if isinstance(item, dict) and "__numpy__" in item:
        return np.frombuffer(base64.b64decode(item["__numpy__"]), item["dtype"]).reshape(item["shape"])
    return {key: from_json(value) for key, value in item.items()} if isinstance(item, dict) else item


@contextmanager
def act_server(answer: Callable[[dict[str, Any]], Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Answers each request with bytes as they are, or with a value as JSON; keeps what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = from_json(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            asked.append({"path": self.path, "key": self.headers["Authorization"], **request})
            value = answer(request)
            if isinstance(value, int):
                self.send_error(value, "out of memory")
                return
            if isinstance(value, str) and value == "end":
                self.close_connection = True
                return
            body = value if isinstance(value, bytes) else json.dumps(as_json(value)).encode()
            try:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                return

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_openvla_is_asked_and_answers_one_step() -> None:
    action = np.array([0.01, 0.02, 0.03, 0.1, 0.2, 0.3, 1.0])
    with act_server(lambda _: action) as (url, asked):
        keys = {"extras": {"unnorm_key": "bridge_orig"}}
        with policy(("base",), url=url, protocol="openvla", keys=keys) as client:
            for _ in range(3):
                chunk = client.infer(observe("base"), InferenceContext())
                np.testing.assert_array_equal(chunk.actions, action[None])
            assert client.health()["reconnects"] == 0
    assert len(asked) == 3
    assert set(asked[0]) == {"path", "key", "image", "instruction", "unnorm_key"}
    assert (asked[0]["path"], asked[0]["key"], asked[0]["unnorm_key"]) == ("/act", None, "bridge_orig")
    assert asked[0]["instruction"] == "put the cup away"
    np.testing.assert_array_equal(asked[0]["image"], IMAGES["base"])


@pytest.mark.parametrize("is_plain", [False, True], ids=["arrays", "lists"])
def test_openvla_oft_is_asked_and_answers_a_list_of_steps(is_plain: bool) -> None:
    actions = RNG.uniform(-1, 1, (8, 7))
    answer = [list(map(float, row)) for row in actions] if is_plain else list(actions)
    with (
        act_server(lambda _: answer) as (url, asked),
        policy(("base", "wrist"), url=url, protocol="openvla_oft") as client,
    ):
        chunk = client.infer(observe("base", "wrist"), InferenceContext())
    np.testing.assert_array_equal(chunk.actions, actions)
    assert set(asked[0]) == {"path", "key", "full_image", "wrist_image", "state", "instruction"}
    np.testing.assert_array_equal(asked[0]["full_image"], IMAGES["base"])
    np.testing.assert_array_equal(asked[0]["wrist_image"], IMAGES["wrist"])
    np.testing.assert_array_equal(asked[0]["state"], STATE.astype(np.float32))


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        ("server_error", "error"),
        ("server_error", "anything said"),
        ("undecodable", b"{"),
        ("undecodable", b""),
        ("type", None),
        ("type", {}),
        ("shape", np.zeros(6)),
        ("shape", np.zeros((2, 2, 7))),
        ("shape", [np.zeros(7), np.zeros(6)]),
        ("shape", [[0.0] * 7, "up"]),
        ("shape", []),
        ("dtype", np.zeros(7, np.int64)),
        ("dtype", b'{"__numpy__": "AAAA", "dtype": "|O", "shape": [1]}'),
        ("shape", b'{"__numpy__": "AAAA", "dtype": "<f8", "shape": [7]}'),
        ("not_finite", np.full(7, np.inf)),
        ("not_finite", b"[[NaN, 0, 0, 0, 0, 0, 0.0]]"),
        ("magnitude", np.full(7, 1e9)),
        ("horizon", np.zeros((1000, 7))),
        ("too_large", b" " * 2_000_000),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_answers_of_act_servers_are_refused_by_name(fault: str, answer: Any) -> None:
    answers = [answer, np.full(7, 0.5)]
    with (
        act_server(lambda _: answers.pop(0)) as (url, _),
        policy(("base",), url=url, protocol="openvla", max_reply_mb=1.0) as client,
    ):
        with pytest.raises(RemoteError) as found:
            client.infer(observe("base"), InferenceContext())
        assert found.value.fault == fault
        assert client.health()["faults"] == {fault: 1}
        assert client.infer(observe("base"), InferenceContext()).actions[0, 0] == 0.5


def test_a_status_that_isnt_ok_is_named_and_a_connection_that_the_server_ended_is_made_anew() -> None:
    with act_server(lambda _: 500) as (url, asked), policy(("base",), url=url, protocol="openvla") as client:
        with pytest.raises(RemoteError, match=r"failed with status 500: (.|\n)*out of memory") as found:
            client.infer(observe("base"), InferenceContext())
        assert found.value.fault == "server_error"
    answers: list[Any] = ["end", np.full(7, 0.25), np.full(7, 0.5)]
    with act_server(lambda _: answers.pop(0)) as (url, asked), policy(("base",), url=url, protocol="openvla") as client:
        client._client._connection = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]))
        client._client._connection.connect()
        # The server ends this connection without an answer, as one does that was kept for too long.
        assert client.infer(observe("base"), InferenceContext()).actions[0, 0] == 0.25
        assert len(asked) == 2


def test_after_a_timeout_of_act_the_late_answer_never_appears() -> None:
    counts = iter(range(1, 100))

    def answer(_: Any) -> Any:
        number = next(counts)
        time.sleep(0.6 if number == 1 else 0.0)
        return np.full(7, 0.1 * number)

    with act_server(answer) as (url, _), policy(("base",), url=url, protocol="openvla", deadline_s=0.3) as client:
        with pytest.raises(RemoteTimeoutError, match="connecting anew"):
            client.infer(observe("base"), InferenceContext())
        values = [client.infer(observe("base"), InferenceContext()).actions[0, 0] for _ in range(5)]
        np.testing.assert_allclose(values, 0.1 * np.arange(2, 7))
        assert (client.health()["timeouts"], client.health()["reconnects"]) == (1, 1)


def test_an_act_server_that_trickles_cant_hold_the_inference_thread() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    is_over = threading.Event()

    def trickle() -> None:
        listener.accept()[0].close()  # The look whether somebody is there.
        line, _ = listener.accept()
        line.recv(100)
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not is_over.wait(0.05):
            try:
                line.sendall(b"x")
            except OSError:
                return

    threading.Thread(target=trickle, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with policy(("base",), url=url, protocol="openvla", deadline_s=0.4) as client:
        begin_s = time.monotonic()
        with pytest.raises(RemoteTimeoutError):
            client.infer(observe("base"), InferenceContext())
        assert time.monotonic() - begin_s < 10.0  # A byte each 0.05 s would have gone on for 50 s.
    is_over.set()
    listener.close()


def test_no_act_server_is_said_at_once() -> None:
    with pytest.raises(RemoteUnavailableError, match="Connection refused"):
        RemotePolicy.from_parameters(contract("base"), {"url": "http://127.0.0.1:9", "protocol": "openvla"})
    with pytest.raises(ConfigError, match="write http://HOST:PORT"):
        RemotePolicy.from_parameters(contract("base"), {"url": "ws://127.0.0.1:9", "protocol": "openvla"})
    with pytest.raises(VlaRosError, match="names \\['base'\\], the contract foreign has"):
        RemotePolicy.from_parameters(contract("base", "wrist"), {"url": "http://127.0.0.1:9", "protocol": "openvla"})


# GR00T.


def npy(array: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def read_npy(item: Any) -> Any:
    if isinstance(item, dict) and "__ndarray_class__" in item:
        return np.load(io.BytesIO(item["as_npy"]), allow_pickle=False)
    return {key: read_npy(value) for key, value in item.items()} if isinstance(item, dict) else item


@contextmanager
def gr00t_server(answer: Callable[[dict[str, Any]], Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A REP socket that answers pings itself and everything else with what it is told, bytes as they are."""
    zmq = pytest.importorskip("zmq")
    context = zmq.Context()
    line = context.socket(zmq.REP)
    line.setsockopt(zmq.LINGER, 0)
    port = line.bind_to_random_port("tcp://127.0.0.1")
    is_over = threading.Event()
    asked: list[dict[str, Any]] = []

    def serve() -> None:
        while not is_over.is_set():
            if not line.poll(20):
                continue
            request = read_npy(msgpack.unpackb(line.recv()))
            if request["endpoint"] == "ping":
                line.send(msgpack.packb({"status": "ok", "message": "Server is running"}))
                continue
            asked.append(request)
            value = answer(request)
            line.send(value if isinstance(value, bytes) else msgpack.packb(value))
        line.close(0)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"tcp://127.0.0.1:{port}", asked
    is_over.set()
    thread.join()
    context.term()


GR00T = {"protocol": "gr00t", "keys": {"actions": ["action.arm", "action.gripper"]}}


def test_gr00t_is_asked_and_its_parts_are_put_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    arm, gripper = RNG.uniform(-1, 1, (16, 6)).astype(np.float32), RNG.uniform(0, 1, 16).astype(np.float32)
    monkeypatch.setenv("TOKEN", "secret")
    with (
        gr00t_server(lambda _: {"action.arm": npy(arm), "action.gripper": npy(gripper)}) as (url, asked),
        policy(("base", "wrist"), url=url, api_key_env="TOKEN", **GR00T) as client,
    ):
        chunk = client.infer(observe("base", "wrist"), InferenceContext())
    np.testing.assert_array_equal(chunk.actions, np.column_stack([arm, gripper]))
    request = asked[0]
    assert (request["endpoint"], request["api_token"]) == ("get_action", "secret")
    assert request["data"]["annotation.human.task_description"] == ["put the cup away"]
    np.testing.assert_array_equal(request["data"]["video.base"], IMAGES["base"][None])
    np.testing.assert_array_equal(request["data"]["video.wrist"], IMAGES["wrist"][None])
    np.testing.assert_array_equal(request["data"]["state.tcp_pose"], STATE[None, :6].astype(np.float32))
    np.testing.assert_array_equal(request["data"]["state.gripper"], STATE[None, 6:].astype(np.float32))


def test_gr00t_n16_nests_wraps_and_answers_with_a_pair() -> None:
    actions = RNG.uniform(-1, 1, (1, 16, 7)).astype(np.float32)
    keys = {
        "images": {"base": "video.ego"}, "state": "state.all", "state_items": {}, "instruction": "language.task",
        "actions": ["action"], "separator": ".", "leading_axes": 2, "envelope": "observation",
    }  # fmt: skip
    with (
        gr00t_server(lambda _: [{"action": npy(actions)}, {}]) as (url, asked),
        policy(("base",), url=url, protocol="gr00t", keys=keys) as client,
    ):
        chunk = client.infer(observe("base"), InferenceContext())
    np.testing.assert_array_equal(chunk.actions, actions[0])
    seen = asked[0]["data"]["observation"]
    np.testing.assert_array_equal(seen["video"]["ego"], IMAGES["base"][None, None])
    assert seen["state"]["all"].shape == (1, 1, 7)
    assert seen["language"] == {"task": [["put the cup away"]]}


GOOD = {"action.arm": npy(np.full((4, 6), 0.5, np.float32)), "action.gripper": npy(np.full((4, 1), 0.5, np.float32))}


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        ("server_error", {"error": "out of memory"}),
        ("undecodable", b"\xc1"),
        ("undecodable", b""),
        ("type", [1]),
        ("missing_key", {"action.arm": GOOD["action.arm"]}),
        ("undecodable", GOOD | {"action.arm": {"__ndarray_class__": True, "as_npy": b"\x93NUMPY"}}),
        ("type", GOOD | {"action.arm": {"__ndarray_class__": True}}),
        ("shape", GOOD | {"action.arm": npy(np.zeros((5, 6), np.float32))}),
        ("shape", GOOD | {"action.arm": npy(np.zeros((4, 7), np.float32))}),
        ("shape", GOOD | {"action.arm": npy(np.zeros((2, 4, 6), np.float32))}),
        ("not_finite", GOOD | {"action.arm": npy(np.full((4, 6), np.nan, np.float32))}),
        ("magnitude", GOOD | {"action.gripper": npy(np.full((4, 1), 40.0, np.float32))}),
        ("dtype", GOOD | {"action.arm": npy(np.zeros((4, 6), np.complex64))}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_answers_of_gr00t_are_refused_by_name(fault: str, answer: Any) -> None:
    answers = [answer, GOOD]
    with gr00t_server(lambda _: answers.pop(0)) as (url, _), policy(("base",), url=url, **GR00T) as client:
        with pytest.raises(RemoteError) as found:
            client.infer(observe("base"), InferenceContext())
        assert found.value.fault == fault
        assert (client.infer(observe("base"), InferenceContext()).actions == 0.5).all()


def test_after_a_timeout_of_gr00t_the_late_answer_never_appears() -> None:
    counts = iter(range(1, 100))

    def answer(_: Any) -> Any:
        number = next(counts)
        time.sleep(0.5 if number == 1 else 0.0)
        value = np.float32(0.1 * number)
        return {"action.arm": npy(np.full((4, 6), value)), "action.gripper": npy(np.full((4, 1), value))}

    with gr00t_server(answer) as (url, _), policy(("base",), url=url, deadline_s=10.0, **GR00T) as client:
        object.__setattr__(client._parameters, "deadline_s", 0.2)
        with pytest.raises(RemoteTimeoutError, match="connecting anew"):
            client.infer(observe("base"), InferenceContext())
        object.__setattr__(client._parameters, "deadline_s", 10.0)
        values = [client.infer(observe("base"), InferenceContext()).actions[0, 0] for _ in range(5)]
        np.testing.assert_allclose(values, 0.1 * np.arange(2, 7), rtol=1e-6)
        assert (client.health()["timeouts"], client.health()["reconnects"]) == (1, 1)


def test_no_gr00t_server_is_said() -> None:
    pytest.importorskip("zmq")
    with pytest.raises(RemoteUnavailableError, match="no connection to"):
        RemotePolicy.from_parameters(
            contract("base"), {"url": "tcp://127.0.0.1:9", "protocol": "gr00t", "connect_s": 0.2, **GR00T}
        )
