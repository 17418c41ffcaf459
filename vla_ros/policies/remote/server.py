"""A server of openpi's WebSocket protocol for any policies of ours.

A client is first sent metadata, then sends observations and is sent actions, in order. The path says which policy
(`ws://HOST:PORT/NAME`; none: the default). Plain openpi clients are answered in openpi's way, failures with a text and
close code 1011. Our own clients number their requests, reset the policy with task and seed, may go over to another
loaded policy (`select`) without connecting anew, and are told of failures in the reply, so that the connection stays.

Source: openpi, src/openpi/serving/websocket_policy_server.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from vla_ros import __version__
from vla_ros.errors import ConfigError, MissingDependencyError, UnknownNameError
from vla_ros.policies.remote.access import Access
from vla_ros.policies.remote.codec import pack, unpack
from vla_ros.policies.remote.errors import RemoteError, WireError
from vla_ros.policies.remote.fields import take_mapping, take_text
from vla_ros.policies.remote.hosting import HostedPolicy, describe_failure
from vla_ros.policies.remote.observation_wire import OWN, PROTOCOL
from vla_ros.policies.remote.wire_arrays import WireLimits

try:
    from websockets.asyncio.server import Server, ServerConnection, serve
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
except ImportError as error:
    raise MissingDependencyError(
        "websockets>=15", "vla-ros serve", "python -m pip install 'vla_ros[remote]'"
    ) from error

_HEALTH_PATH = "/healthz"
_INTERNAL_ERROR = 1011
_WAITING_REQUESTS = 2


class PolicyServer:
    """Serves loaded policies by name.

    Args:
        policies: those to serve.
        default: name of the one for clients that name none.
        access: where, and for whom.

    Raises:
        ConfigError: for an access that would leave the door open.
        UnknownNameError: if the default isn't among them.
    """

    def __init__(self, policies: list[HostedPolicy], default: str, access: Access) -> None:
        access.check()
        self._policies = {policy.name: policy for policy in policies}
        if len(self._policies) != len(policies):
            raise ConfigError("serve", f"{[policy.name for policy in policies]}: a name twice", "leave one out")
        if default not in self._policies:
            raise UnknownNameError("policy", default, self._policies)
        self._default, self._access = default, access
        self._ssl = access.ssl_context()
        self._limits = WireLimits(max_bytes=access.max_message_bytes)
        self._clients = 0

    @property
    def names(self) -> list[str]:
        """Of the policies, the default first."""
        return sorted(self._policies, key=lambda name: (name != self._default, name))

    async def start(self) -> Server:
        """Listens, and returns what does; its `sockets` say where, and `serve_forever` stays.

        Raises:
            ConfigError: if the address can't be had.
        """
        try:
            return await serve(
                self._serve,
                self._access.host,
                self._access.port,
                # No page in a browser on this machine may ask.
                origins=[None],
                compression=None,
                max_size=self._access.max_message_bytes,
                max_queue=_WAITING_REQUESTS,
                process_request=self._admit,
                ssl=self._ssl,
                close_timeout=1.0,
            )
        except OSError as error:
            where = f"{self._access.host}:{self._access.port}"
            raise ConfigError("serve", f"can't listen on {where} ({error.strerror})", "choose another port") from error

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Serves in a thread of its own for as long as the context lasts; gives the port."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="policy server", daemon=True)
        thread.start()
        try:
            server = asyncio.run_coroutine_threadsafe(self.start(), loop).result()
            try:
                yield next(iter(server.sockets)).getsockname()[1]
            finally:
                asyncio.run_coroutine_threadsafe(_stop(server), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def close(self) -> None:
        """Ends the policies' threads."""
        for policy in self._policies.values():
            policy.close()

    # In the server's loop.

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers by HTTP who isn't to have a connection."""
        path = unquote(urlsplit(request.path).path)
        if path == _HEALTH_PATH:
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        shown = request.headers.get_all("Authorization")
        if not self._access.lets_in(shown[0] if len(shown) == 1 else None):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "Authorization: Api-Key KEY is missing or wrong\n")
        name = path.strip("/")
        if name and name not in self._policies:
            return connection.respond(
                http.HTTPStatus.NOT_FOUND, f"{UnknownNameError('policy', name, self._policies)}\n"
            )
        if self._clients >= self._access.max_clients:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many clients\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        self._clients += 1
        closed = asyncio.ensure_future(connection.wait_closed())
        try:
            await self._talk(connection, closed)
        except ConnectionClosed:
            return
        finally:
            self._clients -= 1
            closed.cancel()

    async def _talk(self, connection: ServerConnection, closed: asyncio.Future[None]) -> None:
        path = connection.request.path if connection.request is not None else "/"
        policy = self._policies[unquote(urlsplit(path).path).strip("/") or self._default]
        client = uuid.uuid4().hex
        await connection.send(pack(self._metadata(policy)))
        while True:
            data = await connection.recv()
            message: dict[Any, Any] = {}
            try:
                message = self._read(data)
                selected = self._selected(message)
                if selected is not None:
                    policy = selected
                    reply = self._metadata(policy)
                else:
                    reply = await self._infer(policy, message, client, closed)
                packed = pack(_numbered(reply, _number(message)))
            # Whatever a policy raises is said, and the next request is served.
            except Exception as error:
                fault, text = describe_failure(error, policy.name)
                if _number(message) is None:
                    await connection.send(text)
                    await connection.close(_INTERNAL_ERROR, "Internal server error. See the previous frame.")
                    return
                packed = pack(_numbered({OWN: {"error": text, "fault": fault}}, _number(message)))
            await connection.send(packed)

    def _metadata(self, policy: HostedPolicy) -> dict[str, Any]:
        own = {"protocol": PROTOCOL, "version": __version__, "policies": sorted(self._policies), **policy.metadata()}
        return {OWN: own}

    def _read(self, data: str | bytes) -> dict[Any, Any]:
        if isinstance(data, str):
            raise WireError("type", "a request is text, needs msgpack in a binary message")
        message = unpack(data, self._limits)
        if not isinstance(message, dict):
            raise WireError("type", f"a request is a {type(message).__name__}, not a mapping")
        return message

    def _selected(self, message: Mapping[Any, Any]) -> HostedPolicy | None:
        """The loaded policy to which the connection is to go over, if that is what the request says."""
        if OWN not in message:
            return None
        own = take_mapping(message, OWN)
        call = take_text(own, "call")
        if call not in ("infer", "reset", "select"):
            raise WireError("type", f"a request's call is {call[:40]!r}, allowed: infer, reset, select")
        if call != "select":
            return None
        name = take_text(own, "policy")
        if name not in self._policies:
            raise UnknownNameError("policy", name, self._policies)
        return self._policies[name]

    async def _infer(
        self, policy: HostedPolicy, message: Mapping[Any, Any], client: str, closed: asyncio.Future[None]
    ) -> dict[str, Any]:
        """The policy's reply; a request whose client has gone is taken out of the queue."""
        queued = policy.submit(message, client)

        def forget(_closed: asyncio.Future[None]) -> None:
            queued.cancel()

        closed.add_done_callback(forget)
        try:
            return await queued
        except asyncio.CancelledError:
            if not closed.done():
                raise
            raise RemoteError("unavailable", "the client has gone") from None
        finally:
            closed.remove_done_callback(forget)


async def _stop(server: Server) -> None:
    server.close()
    await server.wait_closed()


def _numbered(reply: dict[str, Any], number: int | None) -> dict[str, Any]:
    """A reply that says which request it answers, where that had a number."""
    return reply if number is None else reply | {OWN: {**reply.get(OWN, {}), "seq": number}}


def _number(message: Mapping[Any, Any]) -> int | None:
    own = message.get(OWN)
    number = own.get("seq") if isinstance(own, dict) else None
    return number if type(number) is int and -(2**63) <= number < 2**64 else None
