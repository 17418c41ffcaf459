"""A connection of openpi's protocol, on which the next message is always awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from vla_ros.policies.remote.errors import RemoteUnavailableError, WireError
from vla_ros.policies.remote.observation_wire import OWN


class Link:
    """A connection and what its server said of itself.

    Args:
        loop: on which it lives.
        socket: open, its metadata received.
        metadata: the server's.

    Attributes:
        next: the message to come, or the end of the connection; done where one came that nobody has asked for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: ClientConnection, metadata: dict[Any, Any]) -> None:
        self._loop, self.socket, self.metadata = loop, socket, metadata
        self.expect()

    def expect(self) -> None:
        """Awaits the message after the one that was taken."""
        self.next: asyncio.Task[str | bytes] = self._loop.create_task(self.socket.recv())

    def end(self) -> None:
        """Ends the connection at once."""
        if self.next.done() and not self.next.cancelled():
            self.next.exception()  # Seen.
        self.next.cancel()
        self.socket.transport.abort()


def number_of(reply: Mapping[Any, Any]) -> int:
    """The number of the request that a reply of our own server answers. Raises WireError."""
    own = reply.get(OWN)
    number = own.get("seq") if isinstance(own, dict) else None
    if type(number) is not int:
        raise WireError("missing_key", "reply has no number, which this server promised")
    return number


def refused_by(url: str, error: InvalidStatus) -> RemoteUnavailableError:
    """What a server means that answers a WebSocket's opening with a status."""
    status = error.response.status_code
    known = {
        401: "it wants an API key, or another one",
        404: "it has no such policy",
        503: "it has as many clients as it takes",
    }
    return RemoteUnavailableError(
        f"{url} refuses the connection with status {status}: {known.get(status, 'see its log')}"
    )
