"""What can be wrong with a policy on the other side of a wire. Each error has a `fault`: its name in counts."""

from __future__ import annotations

from typing import Literal

from vla_ros.errors import ChunkError, VlaRosError

Fault = Literal[
    "too_large",
    "undecodable",
    "too_deep",
    "type",
    "dtype",
    "shape",
    "missing_key",
    "horizon",
    "not_finite",
    "magnitude",
    "server_error",
    "taken",
    "not_reset",
    "timeout",
    "unavailable",
    "refused",
]


class RemoteError(VlaRosError):
    """Base of what is wrong on the wire or beyond it; no action comes of the request.

    Args:
        fault: its name, for counts and diagnostics.
        text: for the user.
    """

    def __init__(self, fault: Fault, text: str) -> None:
        self.fault = fault
        super().__init__(text)


class WireError(RemoteError):
    """Bytes that aren't a message, or a message that holds what it must not."""


class RemoteReplyError(RemoteError, ChunkError):
    """A reply whose actions can't be executed."""


class RemoteFailureError(RemoteError):
    """The server said that it failed or refused."""


class RemoteTimeoutError(RemoteError):
    """No reply within the deadline."""

    def __init__(self, text: str) -> None:
        super().__init__("timeout", text)


class RemoteUnavailableError(RemoteError):
    """Nobody there, or nobody who lets us in."""

    def __init__(self, text: str) -> None:
        super().__init__("unavailable", text)
