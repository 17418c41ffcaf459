"""Where a server is, and what may be said to it over which kind of line."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from vla_ros.errors import ConfigError


@dataclass(frozen=True)
class Address:
    """A server's address, checked.

    Attributes:
        url: as given.
        api_key: empty for none.
        ca_file: certificate to trust besides the system's; empty for none.
    """

    url: str
    api_key: str = ""
    ca_file: str = ""

    @property
    def parts(self) -> SplitResult:
        """Scheme, host, port, path."""
        return urlsplit(self.url)

    @property
    def is_secure(self) -> bool:
        """Whether the line is encrypted."""
        return self.parts.scheme in ("wss", "https")

    def ssl_context(self) -> ssl.SSLContext | None:
        """What certificates to trust; None for a plain line."""
        if not self.is_secure:
            return None
        try:
            context = ssl.create_default_context()
            if self.ca_file:
                context.load_verify_locations(self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"ca_file {self.ca_file}", f"can't be used ({error})", "give a PEM file") from error
        return context


def make_address(url: str, schemes: tuple[str, ...], api_key_env: str, ca_file: str, is_insecure: bool) -> Address:
    """The address in a policy's parameters.

    Args:
        url: where the server is.
        schemes: those that its protocol knows.
        api_key_env: environment variable that holds the key; empty: no key.
        ca_file: PEM file of a private authority.
        is_insecure: whether a key may go over a plain line to another machine.

    Raises:
        ConfigError: for a URL that is none, a key that isn't there, or one that others could read.
    """
    try:
        parts = urlsplit(url)
        is_fit = parts.scheme in schemes and bool(parts.hostname) and parts.port is not None
    except ValueError:
        is_fit = False
    if not is_fit:
        raise ConfigError("url", f"{url!r} isn't one", f"write {schemes[0]}://HOST:PORT")
    address = Address(url, os.environ.get(api_key_env, "") if api_key_env else "", ca_file)
    if api_key_env and not address.api_key:
        raise ConfigError("api_key_env", f"the environment has no {api_key_env}", f"export {api_key_env}=...")
    if address.api_key and not (address.is_secure or is_loopback(str(parts.hostname)) or is_insecure):
        secure = f"{schemes[-1]}://" if len(schemes) > 1 else "a tunnel"
        raise ConfigError(
            "url", f"the API key would go to {parts.hostname} in the clear", f"use {secure}, or say is_insecure: true"
        )
    return address


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host's address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
