"""Where a server is, read from a URL whose scheme says the protocol and whether it is encrypted."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from safe_triton._declared import wrong

SCHEMES: dict[str, tuple[Literal["grpc", "http"], bool, int]] = {
    "grpc": ("grpc", False, 8001),
    "grpcs": ("grpc", True, 443),
    "http": ("http", False, 8000),
    "https": ("http", True, 443),
}
"""Protocol, whether TLS is used, and the port of a URL that names none: Triton's own, or that of TLS."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server's address.

    Args:
        protocol: of the v2 inference protocol.
        is_encrypted: whether the connection is TLS.
        host: name or address; IPv6 without brackets.
        port: TCP port.
        prefix: path in front of ``/v2`` (HTTP only), without a slash at its end.
    """

    protocol: Literal["grpc", "http"]
    is_encrypted: bool
    host: str
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        """Host and port as a URL has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent stays on this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_url(url: str) -> Endpoint:
    """Read a server's URL.

    Args:
        url: ``grpc://``, ``grpcs://``, ``http://`` or ``https://``, a host, and its port where it is not the scheme's.

    Raises:
        PolicyError: reason ``client.url``; another scheme, no host, or parts that a server's address does not have.

    Does not cover:
        Whether the host exists.
    """
    if not isinstance(url, str) or not url:
        raise wrong("client.url", "url must be a text such as 'grpcs://triton.example:8443'")
    known = ", ".join(f"{name}://" for name in SCHEMES)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong("client.url", f"{_shown(url)} is no URL with a port of 1 to 65535") from None
    if "://" not in url or parts.scheme not in SCHEMES:
        raise wrong("client.url", f"{_shown(url)} must begin with one of {known} (with an s: TLS)")
    if "@" in parts.netloc:
        raise wrong("client.url", "a URL holds no credentials: give api_key or bearer_token")
    if not parts.hostname or any(not character.isprintable() or character.isspace() for character in url):
        raise wrong("client.url", f"{_shown(url)} names no host")
    protocol, is_encrypted, default_port = SCHEMES[parts.scheme]
    prefix = parts.path.rstrip("/")
    if parts.query or parts.fragment or (prefix and protocol == "grpc"):
        raise wrong("client.url", f"{_shown(url)} has more than a host and a port")
    if port == 0:
        raise wrong("client.url", f"{_shown(url)} is no URL with a port of 1 to 65535")
    return Endpoint(
        protocol=protocol, is_encrypted=is_encrypted, host=parts.hostname, port=port or default_port, prefix=prefix
    )


def _shown(url: str) -> str:
    """A URL for a message, without what may be a credential."""
    return repr(url.rsplit("@", 1)[-1][:80])
