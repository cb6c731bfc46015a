"""The tables of ``[gateway]``: where it listens, who may call what, how often and how large."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from safe_triton.policyfile.gateway_checks import check_gateway
from safe_triton.policyfile.mirror import MIRRORED, Table
from safe_triton.policyfile.tables import DAY_S, PORT_MAX, Address, Words, setting
from safe_triton.unsafe import AllowAnonymous, AllowPlaintext, AllowPublicAddress, NoAccessLog

Verb = Literal["infer", "metadata", "health", "statistics", "admin", "stream"]
VERBS: tuple[Verb, ...] = ("infer", "metadata", "health", "statistics", "admin", "stream")

MOST_PER_S = 1_000_000
MOST_BYTES = 1 << 31
"""Triton's own most for one request over gRPC."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]

IssuerName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
"""A part of a header's name: lower case, so that no two are one."""


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain_path(value: str) -> str:
    if value and (not value.startswith("/") or "\0" in value or "\n" in value):
        raise PydanticCustomError("value", "must be an absolute path")
    return value


def is_loopback(address: str) -> bool:
    """Tell whether an address, by number or the name ``localhost``, is of this machine only."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


Verbs = Annotated[tuple[Verb, ...], BeforeValidator(_listed)]
Versions = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_listed)]
FilePath = Annotated[str, AfterValidator(_plain_path)]


def rate(default: Any, reason: str) -> Any:
    """The row of a rate; Envoy fills its buckets by whole requests a minute."""
    return setting(default, "requests a second", reason, ge=1 / 60, le=MOST_PER_S)


def requests(default: Any, reason: str) -> Any:
    """The row of a number of requests."""
    return setting(default, "requests", reason, ge=1, le=MOST_PER_S)


def size(default: Any, reason: str) -> Any:
    """The row of a request's size."""
    return setting(default, "bytes", reason, ge=1, le=MOST_BYTES)


def seconds(default: Any, reason: str) -> Any:
    """The row of a time."""
    return setting(default, "seconds", reason, gt=0, le=DAY_S)


def file(reason: str) -> Any:
    """The row of a file."""
    return setting("", "absolute path; empty for none", reason)


class JwtIssuer(Table):
    """Who signs tokens that are believed, and for whom they must be meant."""

    issuer: str = Field(description="the claim iss of its tokens", min_length=1)
    audiences: Words = Field(description="of which the claim aud must name one: tokens for other services end here")
    jwks_file: FilePath = file("its public keys, as a JWKS in a file that is looked at again when it changes")
    jwks_url: str = setting("", "https URL; empty for none", "its public keys, fetched again every jwks_refresh_s")
    jwks_ca: FilePath = file("certificates (PEM) that jwks_url's server is verified against")
    jwks_refresh_s: int = setting(300, "seconds", "a revoked key is believed as long", ge=10, le=DAY_S)
    subject_claim: Name = setting("sub", "claim", "says who the caller is; [gateway.identities] names its values")

    @model_validator(mode="after")
    def _check_keys(self) -> JwtIssuer:
        if bool(self.jwks_file) == bool(self.jwks_url):
            raise _conflict("jwks_file", "its public keys come from a file or from a URL: write one of the two")
        if self.jwks_url and not self.jwks_url.startswith("https://"):
            raise _conflict("jwks_url", "must begin with https://: whoever changes the keys on the way is everybody")
        if self.jwks_url and not self.jwks_ca:
            raise _conflict("jwks_url", "needs jwks_ca, which its server is verified against")
        if not self.audiences:
            raise _conflict("audiences", "names nobody; a token for any service would be believed without it")
        return self


class Role(Table):
    """What the identities that have it may call, and how often each."""

    models: Words = Field(description='names of models, or "*" for all that are served')
    versions: dict[str, Versions] = Field(
        default_factory=dict, description="by model: the only versions; a model without has all"
    )
    verbs: Verbs = Field(description="what may be done with them")
    requests_per_s: float = rate(1_000.0, "for each identity that has it: one cannot starve the others")
    burst: int = requests(1_000, "as many at once, after a pause")

    @model_validator(mode="after")
    def _check_words(self) -> Role:
        if not self.models:
            raise _conflict("models", 'names no model; "*" is all of them')
        if not self.verbs:
            raise _conflict("verbs", f"names nothing that may be done; known: {', '.join(VERBS)}")
        if "stream" in self.verbs and "*" not in self.models:
            text = 'stream needs models = ["*"]: a message of a stream names any model, and none of them is looked at'
            raise _conflict("verbs", text)
        if "admin" in self.verbs and "*" not in self.models:
            raise _conflict(
                "verbs", 'admin needs models = ["*"]: shared memory, logging and tracing are the whole server\'s'
            )
        for name, versions in self.versions.items():
            if name not in self.models:
                raise _conflict("versions", f"{name} is not among this role's models")
            if not versions:
                raise _conflict("versions", f"{name} has an empty list: no version could be called")
        return self


class JwtSubject(Table):
    """Whose tokens an identity's are."""

    issuer: str = Field(description="name of a table [gateway.jwt.NAME]")
    subject: str = Field(description="the value of its subject_claim", min_length=1, max_length=256)


class Identity(Table):
    """One caller: how it shows who it is, and its roles."""

    roles: Words = Field(description="names of tables [gateway.roles.NAME]")
    api_key_file: FilePath = file("its key or the key's {SHA} digest, in a file that only its owner reads (mode 0600)")
    certificate_names: Words = setting(
        (), "names (SAN: URI or DNS)", "of its client certificate; client_ca says who may issue it"
    )
    jwt: JwtSubject | None = Field(None, description="its tokens: { issuer = …, subject = … }")

    @model_validator(mode="after")
    def _check_credential(self) -> Identity:
        if not self.roles:
            raise _conflict("roles", "has no role: it could call nothing")
        if not self.api_key_file and not self.certificate_names and self.jwt is None:
            raise _conflict("", "cannot show who it is: write api_key_file, certificate_names or jwt")
        return self


class GatewayModel(Table):
    """Limits of one model; a key that is left out is that of ``[gateway]``."""

    requests_per_s: float | None = rate(None, "of all callers together; model_requests_per_s by default")
    burst: int | None = requests(None, "model_burst by default")
    concurrent_requests: int | None = requests(
        None, "in progress in this model, over HTTP and over gRPC each; model_concurrent_requests by default"
    )
    max_request_bytes: int | None = size(None, "body of a request; that of [gateway] by default")
    timeout_s: float | None = seconds(
        None, "from the request's last byte to the answer's; request_timeout_s by default"
    )


class Upstream(Table):
    """One Triton behind the gateway."""

    address: str = Field(description="IP address or DNS name", pattern=r"^[A-Za-z0-9:.\-_]{1,253}$")
    http_port: int = setting(8000, "port", "Triton's HTTP", ge=1, le=PORT_MAX)
    grpc_port: int = setting(8001, "port", "Triton's gRPC", ge=1, le=PORT_MAX)
    health_port: int = setting(
        8003, "port; 0: ask Triton itself", "the supervisor's health, which also knows dead models", ge=0, le=PORT_MAX
    )
    metrics_port: int = setting(
        8002, "port; 0 for none", "Triton's metrics, which the gateway's listener for metrics shows", ge=0, le=PORT_MAX
    )
    plaintext: Annotated[AllowPlaintext | Literal[False], MIRRORED] = setting(
        False, "token", "Triton's HTTP has no TLS: what is not on this machine needs a network that nobody else hears"
    )

    @model_validator(mode="after")
    def _check_reach(self) -> Upstream:
        if not is_loopback(self.address) and not self.plaintext:
            raise _conflict("address", 'is reached without TLS; say why: plaintext = { reason = "…" }')
        return self


class GatewayPolicy(Table):
    """Envoy in front of Triton: encryption, identity, roles, limits."""

    address: Address = setting("127.0.0.1", "IP address", "where it listens: HTTP/1.1, HTTP/2 and gRPC on one port")
    port: int = setting(8443, "port; 0 for any that is free", "of HTTP/1.1, HTTP/2 and gRPC", ge=0, le=PORT_MAX)
    metrics_address: Address = setting("127.0.0.1", "IP address", "Envoy's metrics name models and are not encrypted")
    metrics_port: int = setting(
        8444, "port; 0 for any that is free", "its metrics, in Prometheus' form", ge=0, le=PORT_MAX
    )
    public_metrics: Annotated[AllowPublicAddress | Literal[False], MIRRORED] = setting(
        False, "token", "a metrics_address beyond loopback shows who is how busy to whoever reaches it"
    )
    certificate: FilePath = file("the server's certificate and its chain (PEM); read again when the file changes")
    private_key: FilePath = file("the certificate's key (PEM), in a file that only its owner reads")
    tls_minimum: Literal["1.2", "1.3"] = setting("1.2", "version", "older versions are broken")
    client_ca: FilePath = file("certificates (PEM) of who issues client certificates; a client's is verified then")
    require_client_certificate: bool = Field(False, description="refuse a connection without a client certificate")
    plaintext: Annotated[AllowPlaintext | Literal[False], MIRRORED] = setting(
        False, "token", "credentials and tensors are readable on the way, unless something else encrypts"
    )
    anonymous: Annotated[AllowAnonymous | Literal[False], MIRRORED] = setting(
        False, "token", "who shows no credential can call nothing"
    )
    max_request_bytes: int = size(64 << 20, "body of one request, over HTTP and over gRPC")
    max_connections: int = setting(
        1_024, "connections", "each costs memory before it says who it is", ge=1, le=MOST_PER_S
    )
    max_memory_bytes: int = setting(
        1 << 30,
        "bytes",
        "of Envoy itself: nearly there, it refuses requests instead of being killed",
        ge=64 << 20,
        le=1 << 40,
    )
    request_timeout_s: float = seconds(60.0, "from the request's last byte to the answer's; a stream has no other end")
    header_timeout_s: float = seconds(10.0, "for a request's headers: a client that trickles them holds a connection")
    body_timeout_s: float = seconds(60.0, "for a whole request to arrive: a client that trickles it holds a buffer")
    idle_timeout_s: float = seconds(300.0, "of a connection without a request")
    stream_idle_timeout_s: float = seconds(60.0, "without a byte in either direction, of one request or stream")
    max_header_bytes: int = setting(32 << 10, "bytes", "all headers of one request", ge=1 << 10, le=1 << 20)
    max_headers: int = setting(64, "headers", "of one request", ge=16, le=1_000)
    model_requests_per_s: float = rate(10_000.0, "of one model, all callers together")
    model_burst: int = requests(10_000, "as many at once, after a pause")
    model_concurrent_requests: int = requests(256, "in progress in one model; more would only wait in Triton's queue")
    drain_s: float = seconds(10.0, "for requests in progress before it stops")
    access_log: Annotated[NoAccessLog | str, MIRRORED] = setting(
        "stdout", '"stdout" or an absolute path', "who called what and what came of it: no payload, no credential"
    )
    jwt: dict[IssuerName, JwtIssuer] = Field(default_factory=dict, description="issuers of tokens, by name")
    roles: dict[Name, Role] = Field(default_factory=dict, description="what may be called, by name")
    identities: dict[Name, Identity] = Field(default_factory=dict, description="the callers, by name")
    models: dict[str, GatewayModel] = Field(default_factory=dict, description="limits by model name")
    upstreams: Annotated[tuple[Upstream, ...], BeforeValidator(_listed)] = setting(
        (), "tables", "the Tritons behind it; none: the one that serve starts"
    )

    @property
    def is_metrics_loopback(self) -> bool:
        """Whether only this machine can ask for the metrics."""
        return is_loopback(self.metrics_address)

    @model_validator(mode="after")
    def _check(self) -> GatewayPolicy:
        for place, text in check_gateway(self):
            raise PydanticCustomError("declaration", "{text}", {"text": text, "field": place})
        return self


def _conflict(field: str, text: str) -> PydanticCustomError:
    return PydanticCustomError("declaration", "{text}", {"text": text, "field": field})
