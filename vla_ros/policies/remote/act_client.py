"""A client of the `/act` servers of OpenVLA and OpenVLA-OFT: an observation posted as JSON, an action or a list back.

Source: openvla, vla-scripts/deploy.py; openvla-oft, vla-scripts/deploy.py. Both answer the word `error` when they fail.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from vla_ros.policies.remote.address import Address
from vla_ros.policies.remote.codec import dump_json, load_json
from vla_ros.policies.remote.errors import (
    RemoteFailureError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    WireError,
)
from vla_ros.policies.remote.health import Health
from vla_ros.policies.remote.wire_arrays import WireLimits

_TEXT_SHOWN = 500


class ActClient:
    """One request at a time, on a connection that is kept open while the server likes.

    Args:
        address: where the server is; its path is `/act` where it has none.
        health: what is counted.
        limits: of what the server sends.
    """

    def __init__(self, address: Address, health: Health, limits: WireLimits) -> None:
        self._address, self._limits = address, limits
        self.health = health
        self._path = address.parts.path.rstrip("/") or "/act"
        self._ssl = address.ssl_context()
        self._connection: http.client.HTTPConnection | None = None

    def metadata(self, timeout_s: float) -> dict[Any, Any]:
        """Nothing, for these servers say nothing of themselves; but somebody has to listen there.

        Raises:
            RemoteUnavailableError: if nobody does.
        """
        connection = self._make(timeout_s)
        try:
            connection.connect()
        except OSError as error:
            raise RemoteUnavailableError(f"no connection to {self._address.url}: {error}") from error
        finally:
            connection.close()
        return {}

    def exchange(self, request: Mapping[str, Any], deadline_s: float) -> Any:
        """Posts a request and returns its reply. Raises RemoteError for whatever kept it from coming."""
        body = dump_json(dict(request))
        self.health.count("requests")
        begin_s = time.monotonic()
        if self._connection is None:
            self._connection = self._make(deadline_s)
        connection, self._connection = self._connection, None
        try:
            status, data = self._post(connection, body, begin_s + deadline_s)
        except TimeoutError as error:
            connection.close()
            raise RemoteTimeoutError(
                f"no reply from {self._address.url} in {deadline_s:g} s, the deadline; connecting anew"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise RemoteUnavailableError(f"{self._address.url}: {type(error).__name__}: {error}") from error
        if status != http.client.OK:
            connection.close()
            text = data[:_TEXT_SHOWN].decode(errors="replace")
            raise RemoteFailureError("server_error", f"{self._address.url} failed with status {status}: {text}")
        self._connection = connection
        reply = load_json(data, self._limits)
        if isinstance(reply, str):
            shown = reply[:_TEXT_SHOWN]
            raise RemoteFailureError("server_error", f"{self._address.url} answers {shown!r}; its log says why")
        self.health.add_round_trip(time.monotonic() - begin_s)
        return reply

    def close(self) -> None:
        """Leaves the server."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _make(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = str(self._address.parts.hostname), self._address.parts.port
        if self._ssl is not None:
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._ssl)
        return http.client.HTTPConnection(host, port, timeout=timeout_s)

    def _post(self, connection: http.client.HTTPConnection, body: bytes, until_s: float) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        if self._address.api_key:
            headers["Authorization"] = f"Bearer {self._address.api_key}"
        was_open = connection.sock is not None
        if not was_open:
            self._connect(connection)
        with _given_up_after(connection.sock, until_s - time.monotonic()):
            try:
                connection.request("POST", self._path, body, headers)
                response = connection.getresponse()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # A server may end a connection that was kept, at any time; then nobody has seen the request.
                if not was_open:
                    raise
                connection.close()
                return self._post(connection, body, until_s)
            data = response.read(self._limits.max_bytes + 1)
        if len(data) > self._limits.max_bytes:
            connection.close()
            raise WireError("too_large", f"reply has more than {self._limits.max_bytes} bytes")
        return response.status, data

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.health.has_been_connected:
            self.health.count("reconnects")
        self.health.has_been_connected = True


@contextlib.contextmanager
def _given_up_after(line: socket.socket, left_s: float) -> Iterator[None]:
    """Shuts a line at the deadline: a socket's own time-out begins anew with each byte that trickles in.

    Raises:
        TimeoutError: where the deadline was what ended it.
    """
    is_over = threading.Event()

    def give_up() -> None:
        is_over.set()
        with contextlib.suppress(OSError):
            # The base class's, for that of a TLS socket isn't to be called from another thread.
            socket.socket.shutdown(line, socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, left_s), give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if is_over.is_set():
            raise TimeoutError("deadline") from error
        raise
    finally:
        timer.cancel()
    if is_over.is_set():
        raise TimeoutError("deadline")
