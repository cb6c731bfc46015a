"""Names that several of the files share: headers, clusters, and how Envoy's values are written."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

PREFIX = "x-safe-triton-"
"""Beginning of the headers that say who calls which model. A client's are taken away before anything reads them."""

IDENTITY, MODEL, VERSION, CLUSTER = (f"{PREFIX}{word}" for word in ("identity", "model", "version", "cluster"))
ANONYMOUS = "-"
"""The identity of who shows no credential: no name of an identity begins so."""

TAKEN_AWAY = ("authorization", "cookie", "proxy-authorization", "x-forwarded-client-cert")
"""Headers of a client that Triton never sees."""

OF_ROUTE = "safe-triton"
"""The namespace of what a route says of its requests: the model that its path names."""

LONG_HEADERS = "gateway.headers"
"""What the answer to a request with headers that are too long begins with."""

TRITON_HEADER_BYTES = 8_000
"""At a path or one header of 8,190 bytes or more, tritonserver closes a connection of HTTP."""

TRITON_METADATA_BYTES = 7_680
"""From 8,192 bytes on, with 32 for each header, tritonserver refuses some calls of gRPC and others not, and its text
names what the gateway added, which is less than the difference."""

HTTP, GRPC = "http", "grpc"
TYPES = "type.googleapis.com/envoy."

Json = dict[str, Any]


def typed(name: str, /, **values: Any) -> Json:
    """Return a value of one of Envoy's types, by its name after ``envoy.``."""
    return {"@type": TYPES + name, **values}


def extension(name: str, kind: str, /, **values: Any) -> Json:
    """Return an extension under its name, with its configuration."""
    return {"name": name, "typed_config": typed(kind, **values)}


def cluster_name(protocol: str, model: str) -> str:
    """Return the name of one model's cluster."""
    return f"{protocol}-{model}"


def server_cluster(protocol: str) -> str:
    """Return the name of the cluster for what is of the whole server: no model's name begins so."""
    return f"{protocol}:server"


def jwt_header(issuer: str) -> str:
    """Return the header that holds the subject of a token by this issuer."""
    return f"{PREFIX}jwt-{issuer}"


def seconds(value: float) -> str:
    """Return a duration as Envoy reads it."""
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"


def regex(pattern: str) -> Json:
    """Return a regular expression for a whole text."""
    return {"regex": pattern}


def header_is(name: str, text: str) -> Json:
    """Return a match of a header's whole value."""
    return {"name": name, "string_match": {"exact": text}}


def header_among(name: str, listed: Iterable[str]) -> Json:
    """Return a match of a header's whole value with any of several names."""
    found = sorted(listed)
    if len(found) == 1:
        return header_is(name, found[0])
    pattern = "|".join(each.replace(".", "\\.").replace("-", "\\-") for each in found)
    return {"name": name, "string_match": {"safe_regex": regex(pattern)}}


def discovery(addresses: Iterable[str]) -> Json:
    """Return how a cluster finds its places: as they are, or by name."""
    try:
        for address in addresses:
            ipaddress.ip_address(address)
    except ValueError:
        # Triton listens on IPv4 by default, and a name such as localhost has both.
        return {"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED"}
    return {"type": "STATIC"}
