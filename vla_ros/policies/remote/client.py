"""A client of openpi's WebSocket protocol that keeps a deadline and never takes one request's reply for another's.

It lives in the thread that asks, on an event loop of its own which runs while a request is under way and not in
between: no other thread has to be woken for a reply, and connecting, sending and receiving can all be given up in time.
A server that pings in vain while nobody asks ends the connection, and the next request makes it anew.

openpi numbers nothing: after a time-out the connection is dropped and made anew, so what was still under way on it has
nowhere to arrive. Our own server says the request's number with its reply, and what doesn't fit is discarded. Of a
plain server, a reply that nobody asked for ends the connection; if it comes after the next request has gone out, it
can't be told from that one's.

Source: openpi, packages/openpi-client, `websocket_client_policy.py`; src/openpi/serving/websocket_policy_server.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from vla_ros.errors import MissingDependencyError, VlaRosError
from vla_ros.policies.remote.address import Address
from vla_ros.policies.remote.codec import MessagePacker, unpack
from vla_ros.policies.remote.errors import (
    RemoteError,
    RemoteFailureError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    WireError,
)
from vla_ros.policies.remote.health import Health
from vla_ros.policies.remote.observation_wire import OWN
from vla_ros.policies.remote.wire_arrays import WireLimits

try:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    from vla_ros.policies.remote.link import Link, number_of, refused_by
except ImportError as error:
    raise MissingDependencyError(
        "websockets>=15", "policies on other machines", "python -m pip install 'vla_ros[remote]'"
    ) from error

T = TypeVar("T")

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 5.0
_TEXT_SHOWN = 2000
_TOO_BIG = 1009
# What is sent is handed over whole, and goes out while the reply is awaited.
_WRITE_BYTES = 2**26


class OpenpiClient:
    """One request at a time to one server. Called from one thread at a time; `health` from any.

    Args:
        address: where the server is.
        accept: called with the metadata of each new connection; what it raises refuses the server.
        health: what is counted.
        limits: of what the server sends.
    """

    def __init__(
        self, address: Address, accept: Callable[[Mapping[Any, Any]], None], health: Health, limits: WireLimits
    ) -> None:
        self._address, self._accept, self._limits = address, accept, limits
        self._ssl = address.ssl_context()
        self.health = health
        self._packer, self._number = MessagePacker(), 0
        self._link: Link | None = None
        self._failure: VlaRosError = RemoteUnavailableError("not tried yet")
        self._wait_s, self._next_try_s = 0.0, 0.0
        self._loop = asyncio.new_event_loop()

    def metadata(self, timeout_s: float) -> dict[Any, Any]:
        """What the server says of itself, once it is connected.

        Raises:
            VlaRosError: what `accept` raised, or RemoteUnavailableError.
        """
        return self._run(self._connected(is_numbered=True), timeout_s).metadata

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
        number = None
        if OWN in request:
            number = self._number
            request = {**request, OWN: {**request[OWN], "seq": number}}
        message = self._packer.pack(request)
        self.health.count("requests")
        reply = self._run(self._exchange(message, number), begin_s + deadline_s - time.monotonic())
        self.health.add_round_trip(time.monotonic() - begin_s)
        return reply

    def close(self) -> None:
        """Leaves the server."""
        if self._loop.is_closed() or self._loop.is_running():
            return
        # From within another loop this one can't run any more; the process's end cleans up then.
        with contextlib.suppress(RuntimeError):
            self._loop.run_until_complete(self._leave())
            self._loop.close()

    async def _leave(self) -> None:
        self._drop()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(asyncio.sleep(0), *left, return_exceptions=True)

    def _run(self, coroutine: Coroutine[Any, Any, T], left_s: float) -> T:
        """Its result, or the end of the connection at the deadline."""
        if self._loop.is_closed():
            coroutine.close()
            raise RemoteUnavailableError(f"the connection to {self._address.url} was closed here")
        task = self._loop.create_task(coroutine)
        timer = self._loop.call_later(max(0.0, left_s), task.cancel)
        try:
            return self._loop.run_until_complete(task)
        except asyncio.CancelledError:
            if self._link is None:
                url = self._address.url
                raise RemoteUnavailableError(f"no connection to {url} in time: {self._failure}") from None
            self._drop()
            raise RemoteTimeoutError(
                f"no reply from {self._address.url} within the deadline; connecting anew, so that a late one is lost. "
                "Is the policy too slow, or the line?"
            ) from None
        finally:
            timer.cancel()

    async def _exchange(self, message: memoryview, number: int | None) -> dict[Any, Any]:
        link = await self._connected(number is not None)
        try:
            await link.socket.send(message)
            while True:
                reply = self._read(link, await link.next, number)
                link.expect()
                if reply is not None:
                    return reply
        except ConnectionClosed as error:
            self._drop()
            if error.sent is not None and error.sent.code == _TOO_BIG:
                raise WireError("too_large", f"reply has more than {self._limits.max_bytes} bytes") from error
            raise RemoteUnavailableError(f"{self._address.url} closed the connection: {error}") from error
        except WireError:
            link.expect()
            raise

    def _read(self, link: Link, message: str | bytes, number: int | None) -> dict[Any, Any] | None:
        """The reply to the request of that number; None for another's."""
        if isinstance(message, str):
            self._drop()  # The server does so, too.
            text = message[:_TEXT_SHOWN]
            raise RemoteFailureError("server_error", f"{self._address.url} failed: {text}")
        reply = unpack(message, self._limits)
        if not isinstance(reply, dict):
            raise WireError("type", f"reply is a {type(reply).__name__}, not a mapping")
        if number is not None:
            found = number_of(reply)
            if found != number:
                self.health.count("late" if found < number - 1 else "duplicate")
                return None
        return reply

    async def _connected(self, is_numbered: bool) -> Link:
        """A connection on which nothing is waiting."""
        while True:
            if self._link is None:
                self._link = await self._connect()
            if await self._is_in_step(self._link, is_numbered):
                return self._link
            self._drop()

    async def _is_in_step(self, link: Link, is_numbered: bool) -> bool:
        """Takes what came while nobody asked; false if the connection ended, or can't be trusted any more."""
        await asyncio.sleep(0)  # The first lets the loop look at the line, the second take what is there.
        await asyncio.sleep(0)
        while link.next.done():
            if link.next.exception() is not None:
                return False
            self.health.count("duplicate")
            if not is_numbered:
                return False
            link.expect()
            await asyncio.sleep(0)
        return True

    async def _connect(self) -> Link:
        """Tries until it is let in, with longer and longer waits. Raises what refuses it for good."""
        while True:
            wait_s = self._next_try_s - time.monotonic()
            if wait_s > 0.0 and not isinstance(self._failure, RemoteError):
                raise self._failure
            await asyncio.sleep(max(0.0, wait_s))
            try:
                link = await self._try()
            # A server can fail in ways that nobody thought of.
            except Exception as error:
                self._wait_s = min(max(2.0 * self._wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
                self._next_try_s = time.monotonic() + self._wait_s * random.uniform(0.5, 1.0)
                self._failure = (
                    error
                    if isinstance(error, VlaRosError)
                    else RemoteUnavailableError(f"{type(error).__name__}: {error}")
                )
                if isinstance(error, VlaRosError):
                    raise
                continue
            self._wait_s = 0.0
            if self.health.has_been_connected:
                self.health.count("reconnects")
            self.health.has_been_connected = True
            return link

    async def _try(self) -> Link:
        parts, key = self._address.parts, self._address.api_key
        try:
            socket = await connect(
                self._address.url,
                # Named apart from the URL, so that no redirect leads what we see to another machine.
                host=parts.hostname,
                port=parts.port,
                additional_headers={"Authorization": f"Api-Key {key}"} if key else {},
                compression=None,
                proxy=None,
                ssl=self._ssl,
                max_size=self._limits.max_bytes,
                write_limit=_WRITE_BYTES,
                ping_interval=None,
            )
        except InvalidStatus as error:
            raise refused_by(self._address.url, error) from error
        except ssl.SSLCertVerificationError as error:
            # Trying again doesn't make it another's.
            raise RemoteUnavailableError(
                f"{self._address.url} shows a certificate that isn't trusted ({error.verify_message}); "
                "name its authority with `ca_file`"
            ) from error
        try:
            greeting = await socket.recv()
            if isinstance(greeting, str):
                raise WireError("type", f"{self._address.url} greets with text, not with openpi's metadata")
            metadata = unpack(greeting, self._limits)
            if not isinstance(metadata, dict):
                raise WireError("type", f"metadata of {self._address.url} are a {type(metadata).__name__}")
            self._accept(metadata)
        except BaseException:
            socket.transport.abort()
            raise
        return Link(self._loop, socket, metadata)

    def _drop(self) -> None:
        """Ends the connection without a word, which could take longer than we have."""
        if self._link is not None:
            self._link.end()
            self._link = None
