"""A client of openpi's WebSocket protocol that keeps a deadline and never takes one request's reply for another's.

The connection lives in a thread of its own, on asyncio, where connecting, sending and receiving can all be given up in
time. openpi numbers nothing: after a time-out the connection is dropped and made anew, so what was still under way on
it has nowhere to arrive. Our own server says the request's number with its reply, and what doesn't fit is discarded.
A plain server that answers one request twice can't be caught if the second comes after the next request has gone out.

Source: openpi, packages/openpi-client, `websocket_client_policy.py`; src/openpi/serving/websocket_policy_server.py.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from vla_ros.errors import MissingDependencyError, VlaRosError
from vla_ros.policies.remote.address import Address
from vla_ros.policies.remote.codec import WireLimits, pack, unpack
from vla_ros.policies.remote.errors import (
    RemoteError,
    RemoteFailureError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    WireError,
)
from vla_ros.policies.remote.health import Health
from vla_ros.policies.remote.link import Link, Pending, number_of, refused_by
from vla_ros.policies.remote.observation_wire import OWN

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus
except ImportError as error:
    raise MissingDependencyError(
        "websockets>=15", "policies on other machines", "python -m pip install 'vla_ros[remote]'"
    ) from error

T = TypeVar("T")

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 5.0
_GREETING_S, _FAREWELL_S = 10.0, 0.2
_TEXT_SHOWN = 2000
_TOO_BIG = 1009


class OpenpiClient:
    """One request at a time to one server. Called from one thread at a time; `health` from any.

    Args:
        address: where the server is.
        accept: called in the connection's thread with the metadata of each new connection; what it raises refuses the
            server, and every request says so until the server is another.
        health: what is counted.
        limits: of what the server sends.
    """

    def __init__(
        self, address: Address, accept: Callable[[Mapping[Any, Any]], None], health: Health, limits: WireLimits
    ) -> None:
        self._address, self._accept, self._limits = address, accept, limits
        self._ssl = address.ssl_context()
        self.health = health
        self._number = 0
        self._link: Link | None = None
        self._pending: Pending | None = None
        self._refusal: VlaRosError | None = None
        self._failure = "not tried yet"
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="openpi client", daemon=True)
        self._keeper = self._loop.create_task(self._stay_connected())
        self._thread.start()

    def metadata(self, timeout_s: float) -> dict[Any, Any]:
        """What the server says of itself, once it is connected.

        Raises:
            VlaRosError: what `accept` raised, or RemoteUnavailableError.
        """
        return self._call(self._connected(time.monotonic() + timeout_s)).metadata

    def exchange(self, request: Mapping[str, Any], deadline_s: float) -> dict[Any, Any]:
        """Sends a request and returns its reply.

        Args:
            request: an observation. One with our own server's key is given a number there.
            deadline_s: from now; a connection that isn't there yet has to come within it.

        Raises:
            RemoteError: for whatever kept the reply from coming.
            VlaRosError: what `accept` raised.
        """
        begin_s = time.monotonic()
        self._number += 1
        if OWN in request:
            request = {**request, OWN: {**request[OWN], "seq": self._number}}
        message = pack(request)
        self.health.count("requests")
        reply = self._call(self._exchange(message, self._number, begin_s + deadline_s, deadline_s))
        self.health.add_round_trip(time.monotonic() - begin_s)
        return reply

    def close(self) -> None:
        """Leaves the server and ends the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._keeper.cancel)
            if threading.current_thread() is not self._thread:
                self._thread.join(timeout=5.0)

    # In the connection's thread.

    def _run(self) -> None:
        self._loop.run_until_complete(asyncio.wait([self._keeper]))
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if not self._thread.is_alive():
            coroutine.close()
            raise RemoteUnavailableError(f"the connection to {self._address.url} was closed here")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _connected(self, until_s: float) -> Link:
        while self._link is None:
            if self._refusal is not None:
                raise self._refusal
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), until_s - time.monotonic())
            except (asyncio.TimeoutError, TimeoutError):
                url = self._address.url
                raise RemoteUnavailableError(f"no connection to {url} in time: {self._failure}") from None
        return self._link

    async def _exchange(self, message: bytes, number: int, until_s: float, deadline_s: float) -> dict[Any, Any]:
        link = await self._connected(until_s)
        reply: asyncio.Future[dict[Any, Any]] = self._loop.create_future()
        self._pending = Pending(link, number, reply)
        try:
            await asyncio.wait_for(link.socket.send(message), until_s - time.monotonic())
            return await asyncio.wait_for(reply, until_s - time.monotonic())
        except ConnectionClosed as error:
            raise RemoteUnavailableError(f"{self._address.url} closed the connection: {error}") from error
        except (asyncio.TimeoutError, TimeoutError):
            self._drop(link)
            raise RemoteTimeoutError(
                f"no reply from {self._address.url} in {deadline_s:g} s, the deadline; connecting anew, so that a late "
                "one is lost. Is the policy too slow, or the line?"
            ) from None
        finally:
            self._pending = None
            if reply.done() and not reply.cancelled():
                reply.exception()  # Seen, even where sending had failed before.

    async def _stay_connected(self) -> None:
        wait_s = 0.0
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(max(2.0 * wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
            try:
                async with connect(
                    self._address.url,
                    # Named apart from the URL, so that no redirect leads what we see to another machine.
                    host=self._address.parts.hostname,
                    port=self._address.parts.port,
                    additional_headers=self._headers(),
                    compression=None,
                    proxy=None,
                    ssl=self._ssl,
                    max_size=self._limits.max_bytes,
                    open_timeout=_GREETING_S,
                    close_timeout=_FAREWELL_S,
                ) as socket:
                    self._greet(socket, await asyncio.wait_for(socket.recv(), _GREETING_S))
                    wait_s = 0.0
                    await self._listen(socket)
            except InvalidStatus as error:
                self._refuse(refused_by(self._address.url, error))
            except RemoteError as error:
                self._failure = str(error)
            except VlaRosError as error:
                self._refuse(error)
            # A server can fail in ways nobody thought of, and this has to go on.
            except Exception as error:
                self._failure = f"{type(error).__name__}: {error}"
            self._lose()

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Api-Key {self._address.api_key}"} if self._address.api_key else {}

    def _greet(self, socket: ClientConnection, greeting: str | bytes) -> None:
        if isinstance(greeting, str):
            raise WireError("type", f"{self._address.url} greets with text, not with openpi's metadata")
        metadata = unpack(greeting, self._limits)
        if not isinstance(metadata, dict):
            raise WireError("type", f"metadata of {self._address.url} are a {type(metadata).__name__}")
        self._accept(metadata)
        if self.health.has_been_connected:
            self.health.count("reconnects")
        self.health.has_been_connected = True
        self._refusal = None
        self._link = Link(socket, metadata)
        self._changed.set()

    async def _listen(self, socket: ClientConnection) -> None:
        link = self._link
        try:
            while True:
                message = await socket.recv()
                if link is None or link is not self._link:
                    self.health.count("late")
                else:
                    self._take(link, message)
        except ConnectionClosed as error:
            self._failure = f"the server closed the connection: {error}"
            is_too_big = error.sent is not None and error.sent.code == _TOO_BIG
            if is_too_big:
                self._fail(WireError("too_large", f"reply has more than {self._limits.max_bytes} bytes"))

    def _take(self, link: Link, message: str | bytes) -> None:
        if isinstance(message, str):
            text = message[:_TEXT_SHOWN]
            self._fail(RemoteFailureError("server_error", f"{self._address.url} failed: {text}"))
            self._drop(link)  # The server does so, too, only later.
            return
        pending = self._pending
        if pending is None or pending.reply.done():
            self._discard(link, "duplicate")
            return
        try:
            reply = unpack(message, self._limits)
            if not isinstance(reply, dict):
                raise WireError("type", f"reply is a {type(reply).__name__}, not a mapping")
            number = number_of(reply) if link.is_numbered else pending.number
        except WireError as error:
            self._fail(error)
            return
        if number != pending.number:
            self._discard(link, "late" if number < pending.number - 1 else "duplicate")
            return
        pending.reply.set_result(reply)

    def _discard(self, link: Link, why: str) -> None:
        self.health.count(why)
        if not link.is_numbered:
            # A reply that nobody waits for: from now on, who knows which is whose.
            self._drop(link)

    def _fail(self, error: RemoteError) -> None:
        if self._pending is not None and not self._pending.reply.done():
            self._pending.reply.set_exception(error)

    def _drop(self, link: Link) -> None:
        """Ends a connection without a word, which could take longer than we have."""
        if link is self._link:
            self._link = None
        link.socket.transport.abort()

    def _lose(self) -> None:
        self._link = None
        self._fail(RemoteUnavailableError(f"{self._address.url}: {self._failure}"))

    def _refuse(self, error: VlaRosError) -> None:
        self._failure, self._refusal = str(error), error
        self._changed.set()
