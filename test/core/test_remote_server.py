"""What a policy server refuses: strangers, open doors, and messages that it shouldn't hold."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgpack")
pytest.importorskip("websockets")

from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from vla_ros import cli
from vla_ros.config import build, package_share
from vla_ros.contract import Contract
from vla_ros.errors import ConfigError, UnknownNameError
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.remote.access import Access
from vla_ros.policies.remote.codec import pack, unpack
from vla_ros.policies.remote.errors import RemoteUnavailableError
from vla_ros.policies.remote.hosting import HostedPolicy
from vla_ros.policies.remote.policy import RemotePolicy
from vla_ros.policies.remote.server import PolicyServer
from vla_ros.types import ActionChunk, Observation

KEY = "0123456789abcdef0123456789abcdef"
CONTRACT = build(
    Contract,
    {
        "name": "test",
        "observation": {"images": {"base": {"camera": "base"}}, "state": [{"kind": "gripper"}], "reference": "base"},
        "action": {"space": "joint", "relative_to": "nothing", "period_s": 0.1},
    },
    "test",
)


class Still:
    """A policy that stays where it is; it waits at a gate where it is given one."""

    def __init__(self) -> None:
        self.contract = CONTRACT
        self.asked = 0
        self.gate: threading.Event | None = None

    def reset(self, task: str, seed: int) -> None:
        return

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        self.asked += 1
        if self.gate is not None:
            self.gate.wait(10.0)
        return ActionChunk(np.zeros((2, 8)))


REQUEST = {
    "observation/images/base": np.zeros((4, 4, 3), np.uint8), "observation/state": np.array([0.5]), "prompt": "stay",
}  # fmt: skip


@contextmanager
def serving(policy: Still | None = None, **access: Any) -> Iterator[int]:
    hosted = HostedPolicy("still", lambda: (policy or Still(), CONTRACT))
    server = PolicyServer([hosted], "still", Access(port=0, **access))
    with server.running() as port:
        yield port
    server.close()


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "robot.lab"])
def test_past_loopback_a_server_without_a_key_isnt_made(host: str) -> None:
    with pytest.raises(ConfigError, match="asks for no key"):
        Access(host, is_insecure=True).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_past_loopback_a_key_alone_isnt_enough(host: str) -> None:
    with pytest.raises(ConfigError, match="in the clear"):
        Access(host, api_key=KEY).check()
    Access(host, api_key=KEY, is_insecure=True).check()
    Access(host, api_key=KEY, tls_cert="cert.pem", tls_key="key.pem").check()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_on_loopback_nothing_is_asked(host: str) -> None:
    Access(host).check()


def test_a_short_key_and_half_a_certificate_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 5 characters, needs 16"):
        Access(api_key="short").check()
    with pytest.raises(ConfigError, match="one without the other"):
        Access(tls_cert="cert.pem").check()
    with pytest.raises(ConfigError, match="can't be used"):
        Access(tls_cert="/nowhere.pem", tls_key="/nowhere.pem").ssl_context()


@pytest.mark.parametrize("given", ["", "wrong", f"Api-Key {KEY[:-1]}", f"Api-Key {KEY}0", f"Bearer {KEY}", KEY, "ö"])
def test_a_wrong_key_is_refused(given: str) -> None:
    policy = Still()
    with serving(policy, api_key=KEY) as port:
        headers = {"Authorization": given} if given else {}
        with pytest.raises(InvalidStatus) as found, connect(f"ws://127.0.0.1:{port}", additional_headers=headers):
            pass
        assert found.value.response.status_code == 401
        with connect(f"ws://127.0.0.1:{port}", additional_headers={"Authorization": f"Api-Key {KEY}"}) as line:
            line.recv()
            line.send(pack(REQUEST))
            assert unpack(line.recv())["actions"].shape == (2, 8)


def test_our_client_says_that_the_key_is_wrong_and_doesnt_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(api_key=KEY) as port:
        url = f"ws://127.0.0.1:{port}"
        monkeypatch.setenv("ROBOT_KEY", "another key altogether")
        begin_s = time.monotonic()
        with pytest.raises(RemoteUnavailableError, match="status 401: it wants an API key"):
            RemotePolicy.from_parameters(CONTRACT, {"url": url, "api_key_env": "ROBOT_KEY", "connect_s": 60.0})
        assert time.monotonic() - begin_s < 30.0
        with pytest.raises(ConfigError, match="the environment has no OTHER_KEY"):
            RemotePolicy.from_parameters(CONTRACT, {"url": url, "api_key_env": "OTHER_KEY"})
        with pytest.raises(ConfigError, match="would go to robot in the clear"):
            RemotePolicy.from_parameters(CONTRACT, {"url": "ws://robot:1", "api_key_env": "ROBOT_KEY"})
        monkeypatch.setenv("ROBOT_KEY", KEY)
        RemotePolicy.from_parameters(CONTRACT, {"url": url, "api_key_env": "ROBOT_KEY"}).close()


def test_a_page_in_a_browser_is_refused() -> None:
    with serving() as port, pytest.raises(InvalidStatus) as found:
        connect(f"ws://127.0.0.1:{port}", origin="http://evil.example")
    assert found.value.response.status_code == 403


def test_unknown_policy_is_refused_and_the_known_ones_named() -> None:
    with serving() as port:
        status, text = get(port, "/sill")
        assert (status, text) == (404, b"unknown policy 'sill'; did you mean 'still'? known: still\n")
        with pytest.raises(RemoteUnavailableError, match="status 404: it has no such policy"):
            RemotePolicy.from_parameters(CONTRACT, {"url": f"ws://127.0.0.1:{port}/sill"})
    with pytest.raises(UnknownNameError):
        PolicyServer([HostedPolicy("still", lambda: (Still(), CONTRACT))], "sill", Access())


def test_healthz_answers_everybody_and_nothing_else_does() -> None:
    with serving(api_key=KEY) as port:
        assert get(port, "/healthz") == (200, b"OK\n")
        assert get(port, "/")[0] == 401
        assert b"still" not in get(port, "/")[1]


def test_oversize_message_is_refused_and_others_are_served() -> None:
    policy = Still()
    with serving(policy, max_message_bytes=100_000) as port:
        with connect(f"ws://127.0.0.1:{port}", compression=None) as line:
            line.recv()
            line.send(bytes(200_000))
            with pytest.raises(ConnectionClosed) as found:
                line.recv()
            assert found.value.rcvd is not None
            assert found.value.rcvd.code == 1009
        with connect(f"ws://127.0.0.1:{port}") as line:
            line.recv()
            line.send(pack(REQUEST))
            line.recv()
    assert policy.asked == 1


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("text", "a request is text"),
        (b"\xc1", "isn't msgpack"),
        (pack([1]), "a request is a list"),
        (pack({}), "no 'observation/images/base'"),
        (pack(REQUEST | {"observation/images/base": np.zeros((4, 4, 3), np.float32)}), "float32, needs uint8"),
        (pack(REQUEST | {"observation/images/base": np.zeros((4, 4), np.uint8)}), r"needs \(height, width, 3\)"),
        (pack(REQUEST | {"observation/state": np.array([np.nan])}), "aren't finite"),
        (pack(REQUEST | {"observation/state": np.zeros(3)}), "the state has 3 numbers"),
        (pack(REQUEST | {"prompt": 5}), "'prompt' is a int, not text"),
        (pack(REQUEST | {"prompt": "x" * 10_000}), "10000 characters"),
        (pack({"vla_ros": 5}), "not a mapping"),
        (pack({"vla_ros": {"call": "exec"}}), "allowed: infer, reset, select"),
    ],
    ids=str,
)
def test_bad_requests_are_told_in_openpis_way_and_reach_no_policy(message: str | bytes, said: str) -> None:
    policy = Still()
    with serving(policy) as port, connect(f"ws://127.0.0.1:{port}") as line:
        line.recv()
        line.send(message)
        text = line.recv()
        assert isinstance(text, str)
        with pytest.raises(ConnectionClosed) as found:
            line.recv()
        assert found.value.rcvd is not None
        assert found.value.rcvd.code == 1011
        assert re.search(said, text)
    assert policy.asked == 0


def test_a_request_under_another_contract_is_refused() -> None:
    policy = Still()
    with serving(policy) as port, connect(f"ws://127.0.0.1:{port}") as line:
        line.recv()
        own = {"call": "reset", "seq": 1, "session": "me", "reset": {"task": "stay", "seed": 0}}
        for contract in ("0123456789abcdef", CONTRACT.interface_hash):
            line.send(pack({"vla_ros": own | {"contract": contract}}))
            reply = unpack(line.recv())["vla_ros"]
            assert ("error" in reply) == (contract != CONTRACT.interface_hash)
            assert reply["seq"] == 1
    assert policy.asked == 0


def test_requests_of_a_client_that_has_gone_leave_the_queue() -> None:
    policy = Still()
    policy.gate = threading.Event()
    server = PolicyServer([HostedPolicy("still", lambda: (policy, CONTRACT))], "still", Access(port=0))
    with server.running() as port, connect(f"ws://127.0.0.1:{port}") as first:
        first.recv()
        first.send(pack(REQUEST))
        _wait(lambda: policy.asked == 1)
        with connect(f"ws://127.0.0.1:{port}") as second:
            second.recv()
            second.send(pack(REQUEST))
            _wait(lambda: server._clients == 2)
        # Its request was waiting behind the first.
        _wait(lambda: server._clients == 1)
        policy.gate.set()
        first.recv()
        first.send(pack(REQUEST))
        first.recv()
    assert policy.asked == 2
    server.close()


def test_more_clients_than_allowed_are_turned_away() -> None:
    with serving(max_clients=1) as port:
        url = f"ws://127.0.0.1:{port}"
        with connect(url) as line:
            line.recv()
            with pytest.raises(InvalidStatus) as found:
                connect(url)
            assert found.value.response.status_code == 503
        _wait(lambda: _is_let_in(url))


def _is_let_in(url: str) -> bool:
    try:
        connect(url).close()
    except InvalidStatus:
        return False
    return True


def _wait(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate of this machine's own, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = [
        "-days",
        "2",
        "-subj",
        "/CN=test",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    try:
        subprocess.run([*command, *names], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no openssl to make a certificate with: {error}")
    return str(cert), str(key)


def test_tls_is_spoken_with_a_certificate_that_is_checked(
    certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate
    monkeypatch.setenv("ROBOT_KEY", KEY)
    with serving(api_key=KEY, tls_cert=cert, tls_key=key) as port:
        parameters = {"url": f"wss://127.0.0.1:{port}", "api_key_env": "ROBOT_KEY", "connect_s": 30.0}
        RemotePolicy.from_parameters(CONTRACT, parameters | {"ca_file": cert}).close()
        with pytest.raises(RemoteUnavailableError, match=r"certificate that isn't trusted .*`ca_file`"):
            RemotePolicy.from_parameters(CONTRACT, parameters)
        context = ssl.create_default_context(cafile=cert)

        async def knock() -> None:
            await connect_async(f"wss://127.0.0.1:{port}", ssl=context)

        # Not by websockets.sync: its two threads share one SSL object, and a refusal is lost once in fifty times.
        with pytest.raises(InvalidStatus):
            asyncio.run(knock())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "asks for no key"),
        (["--host", "0.0.0.0", "--api-key-env", "NOT_THERE"], "the environment has no NOT_THERE"),
        (["--host", "0.0.0.0", "--api-key-env", "ROBOT_KEY"], "in the clear"),
        (["--default", "other"], "unknown policy 'other'"),
        (["--max-mb", "0"], "isn't in"),
        (["--port", "99999"], "isn't in 0..65535"),
        (["--port", "-1"], "isn't in 0..65535"),
        (["--tls-cert", "/nowhere", "--tls-key", "/nowhere"], "give PEM files"),
    ],
)
def test_command_refuses_to_open_the_door(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROBOT_KEY", KEY)
    assert cli.main(["serve", "scripted_visual", "--port", "0", *words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "loading" not in told


def test_command_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "vla_ros.cli", "serve", "scripted_visual", "--port", "0", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=package_share(), text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["policies"] == ["scripted_visual"]
        with connect(said["url"]) as line:
            assert unpack(line.recv())["vla_ros"]["policy"] == "scripted_visual"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def test_answer_that_cannot_be_sent_is_told_and_the_connection_stays() -> None:
    class Odd(Still):
        def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
            return ActionChunk(np.array([[object()]]))

    with serving(Odd()) as port, connect(f"ws://127.0.0.1:{port}") as line:
        line.recv()
        line.send(pack(REQUEST))
        said = line.recv()
        assert isinstance(said, str)
        assert "can't be sent" in said


def test_closing_a_hosted_policy_lets_go_of_what_it_holds() -> None:
    is_closed = threading.Event()

    class Holding(Still):
        def close(self) -> None:
            is_closed.set()

    HostedPolicy("holding", lambda: (Holding(), CONTRACT)).close()
    assert is_closed.wait(30.0)


def test_key_that_is_shown_twice_lets_nobody_in() -> None:
    with serving(api_key=KEY) as port:
        headers = [("Authorization", f"Api-Key {KEY}"), ("Authorization", "Api-Key other")]
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{port}", additional_headers=headers)
        assert refused.value.response.status_code == 401


def test_serving_without_its_packages_says_how_to_install_them() -> None:
    script = (
        "import sys; sys.modules.update({'websockets.asyncio.server': None}); from vla_ros.cli import main; "
        "sys.exit(main(['serve', 'scripted_visual']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=package_share())
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "vla_ros[remote]" in done.stderr
