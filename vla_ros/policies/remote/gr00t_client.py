"""A client of Isaac-GR00T's inference service: ZeroMQ, a request and a reply, msgpack with arrays as npy files.

Source: Isaac-GR00T, gr00t/eval/service.py (N1.5), gr00t/policy/server_client.py (N1.6).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from vla_ros.errors import MissingDependencyError
from vla_ros.policies.remote.address import Address
from vla_ros.policies.remote.codec import pack_npy, unpack_npy
from vla_ros.policies.remote.errors import RemoteFailureError, RemoteTimeoutError, RemoteUnavailableError
from vla_ros.policies.remote.health import Health
from vla_ros.policies.remote.wire_arrays import WireLimits

try:
    import zmq
except ImportError as error:
    raise MissingDependencyError("pyzmq", "GR00T's servers", "python -m pip install 'vla_ros[remote]'") from error

_TEXT_SHOWN = 2000


class Gr00tClient:
    """One request at a time. After a time-out the socket is made anew: a REQ socket would wait for the reply for ever.

    Args:
        address: where the server is.
        health: what is counted.
        limits: of what the server sends.
    """

    def __init__(self, address: Address, health: Health, limits: WireLimits) -> None:
        self._address, self._limits = address, limits
        self.health = health
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None

    def metadata(self, timeout_s: float) -> dict[Any, Any]:
        """Nothing, for this service says nothing that we compare; but it has to answer a ping.

        Raises:
            RemoteError: if it doesn't.
        """
        try:
            self._ask({"endpoint": "ping"}, timeout_s)
        except RemoteTimeoutError as error:
            raise RemoteUnavailableError(f"{self._address.url} doesn't answer a ping in {timeout_s:g} s") from error
        return {}

    def exchange(self, request: Mapping[str, Any], deadline_s: float) -> Any:
        """Asks for actions and returns the reply. Raises RemoteError for whatever kept it from coming."""
        self.health.count("requests")
        begin_s = time.monotonic()
        reply = self._ask({"endpoint": "get_action", "data": dict(request)}, deadline_s)
        self.health.add_round_trip(time.monotonic() - begin_s)
        return reply

    def close(self) -> None:
        """Leaves the server."""
        self._drop()
        self._context.term()

    def _ask(self, request: dict[str, Any], deadline_s: float) -> Any:
        if self._address.api_key:
            request["api_token"] = self._address.api_key
        message = pack_npy(request)
        until_s = time.monotonic() + deadline_s
        link = self._link()
        try:
            # Not sent before somebody is there, since it would wait in a queue and be answered too late.
            if not link.poll(_left_ms(until_s), zmq.POLLOUT):
                raise RemoteUnavailableError(f"no connection to {self._address.url} in {deadline_s:g} s, the deadline")
            link.send(message, zmq.NOBLOCK)
            if not link.poll(_left_ms(until_s), zmq.POLLIN):
                raise RemoteTimeoutError(
                    f"no reply from {self._address.url} in {deadline_s:g} s, the deadline; connecting anew"
                )
            data = link.recv(zmq.NOBLOCK)
        except zmq.ZMQError as error:
            self._drop()
            raise RemoteUnavailableError(f"{self._address.url}: {error}") from error
        except (RemoteTimeoutError, RemoteUnavailableError):
            self._drop()
            raise
        reply = unpack_npy(data, self._limits)
        if isinstance(reply, dict) and "error" in reply:
            text = str(reply["error"])[:_TEXT_SHOWN]
            raise RemoteFailureError("server_error", f"{self._address.url} failed: {text}")
        return reply

    def _link(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            self._socket = self._context.socket(zmq.REQ)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.IMMEDIATE, 1)
            self._socket.setsockopt(zmq.MAXMSGSIZE, self._limits.max_bytes)
            self._socket.connect(self._address.url)
            if self.health.has_been_connected:
                self.health.count("reconnects")
            self.health.has_been_connected = True
        return self._socket

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None


def _left_ms(until_s: float) -> int:
    return max(0, round(1e3 * (until_s - time.monotonic())))
