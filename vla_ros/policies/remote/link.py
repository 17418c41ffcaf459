"""A connection of openpi's protocol and the request that is under way on it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from vla_ros.policies.remote.errors import RemoteUnavailableError, WireError
from vla_ros.policies.remote.observation_wire import OWN


@dataclass(eq=False)
class Link:
    """One connection, with what its server said of itself."""

    socket: ClientConnection
    metadata: dict[Any, Any]

    @property
    def is_numbered(self) -> bool:
        """Whether it says which request a reply answers, as our own does."""
        return OWN in self.metadata


@dataclass(eq=False)
class Pending:
    """The request under way."""

    link: Link
    number: int
    reply: asyncio.Future[dict[Any, Any]]


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
    why = known.get(status, "see its log")
    return RemoteUnavailableError(f"{url} refuses the connection with status {status}: {why}")
