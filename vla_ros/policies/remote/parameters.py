"""What the YAML of a `remote` policy says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vla_ros.config import build
from vla_ros.contract import Contract
from vla_ros.policies.remote.key_mapping import KeyMapping, Protocol, default_keys
from vla_ros.policies.remote.reply import ReplyLimits

WHERE = "policy remote: parameters"


@dataclass(frozen=True)
class RemoteParameters:
    """A server and how it is spoken to.

    Attributes:
        url: `ws://HOST:PORT[/POLICY]` or `wss://` for openpi, `http://HOST:PORT` or `https://` for OpenVLA's, and
            `tcp://HOST:PORT` for GR00T's.
        protocol: which of the four.
        deadline_s: longest wait for a reply; nothing is executed of one that comes later.
        connect_s: longest wait for the server on configuring.
        api_key_env: environment variable that holds the server's key; empty: it wants none.
        ca_file: PEM file of a private certificate authority.
        is_insecure: whether the key may go over a plain line to another machine.
        keys: names of things in a foreign server's messages; what is left out is as `default_keys` has it. null with
            openpi: our own server, which is sent the whole observation.
        reply: limits of what is taken.
        max_reply_mb: largest message that is taken.
    """

    url: str
    protocol: Protocol = "openpi"
    deadline_s: float = 1.0
    connect_s: float = 10.0
    api_key_env: str = ""
    ca_file: str = ""
    is_insecure: bool = False
    keys: dict[str, Any] | None = None
    reply: ReplyLimits = field(default_factory=ReplyLimits)
    max_reply_mb: float = 4.0

    def __post_init__(self) -> None:
        for name in ("deadline_s", "connect_s", "max_reply_mb"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} {getattr(self, name)} isn't positive")

    @classmethod
    def read(cls, parameters: dict[str, Any]) -> RemoteParameters:
        """From what the YAML holds. Raises ConfigError."""
        return build(cls, parameters, WHERE)

    def key_mapping(self, contract: Contract) -> KeyMapping | None:
        """The keys for a contract; None where the server is our own. Raises ConfigError for those that don't fit."""
        if self.keys is None and self.protocol == "openpi":
            return None
        keys = build(KeyMapping, default_keys(self.protocol, contract) | (self.keys or {}), f"{WHERE}: keys")
        keys.check(contract, WHERE)
        return keys
