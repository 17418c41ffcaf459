"""Who may reach a policy server, and who is let in."""

from __future__ import annotations

import hmac
import ssl
from dataclasses import dataclass

from vla_ros.errors import ConfigError
from vla_ros.policies.remote.address import is_loopback

_SHORTEST_KEY = 16


@dataclass(frozen=True)
class Access:
    """Where a server listens and what it asks of who comes.

    Attributes:
        host: address to listen on.
        port: 0 for any that is free.
        api_key: what clients must show; empty: nothing, which only loopback may have.
        tls_cert: PEM file of the certificate; empty for a plain line.
        tls_key: PEM file of its key.
        is_insecure: whether a plain line may leave this machine.
        max_message_bytes: largest request.
        max_clients: most connections at a time.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    is_insecure: bool = False
    max_message_bytes: int = 16 * 2**20
    max_clients: int = 16

    def check(self) -> None:
        """Raises ConfigError for a server that anybody on the network could use or listen to."""
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"--port {self.port}", "isn't in 0..65535", "choose another; 0 takes a free one")
        if self.api_key and len(self.api_key) < _SHORTEST_KEY:
            raise ConfigError(
                "the API key", f"has {len(self.api_key)} characters, needs {_SHORTEST_KEY}", "openssl rand -hex 32"
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("--tls-cert and --tls-key", "one without the other", "give both")
        if is_loopback(self.host):
            return
        where = f"--host {self.host or '(all)'}"
        if not self.api_key:
            raise ConfigError(
                where,
                "others could reach the policy, and it asks for no key",
                "put one into the environment and name it with --api-key-env, or stay on 127.0.0.1",
            )
        if not (self.tls_cert or self.is_insecure):
            raise ConfigError(
                where,
                "key and images would go over the network in the clear",
                "give --tls-cert and --tls-key, or say --insecure (inside a tunnel)",
            )

    def ssl_context(self) -> ssl.SSLContext | None:
        """The server's certificate; None for a plain line. Raises ConfigError if it can't be used."""
        if not self.tls_cert:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"--tls-cert {self.tls_cert} --tls-key {self.tls_key}", f"can't be used ({error})", "give PEM files"
            ) from error
        return context

    def lets_in(self, authorization: str | None) -> bool:
        """Whether an Authorization header holds the key; takes as long whatever is wrong with it."""
        if not self.api_key:
            return True
        shown = (authorization or "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(shown, f"Api-Key {self.api_key}".encode())
