"""What a client is told: the same fields as arguments, environment variables and a table of TOML."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from safe_triton._declared import Declaration, wrong
from safe_triton.client.endpoint import Endpoint, parse_url
from safe_triton.client.retries import Retries
from safe_triton.policy import Limits
from safe_triton.policy import _checks as rules
from safe_triton.unsafe import AllowPlaintext

Models = Sequence[str] | Literal["any"]

_HEADER = re.compile(r"[a-z][a-z0-9-]{0,63}")
_TEXTS = (
    "identity",
    "api_key", "api_key_file", "api_key_header", "bearer_token", "bearer_token_file", "ca_file", "certificate_file",
    "private_key_file", "server_name",
)  # fmt: skip
_NOT_A_CLIENTS = ("hard_deadline_grace_ms", "load_deadline_ms")
MAX_TIMEOUT_S = 86_400.0


class Options(TypedDict, total=False):
    """The keyword arguments of a client; :class:`ClientSettings` describes each."""

    models: Models
    identity: str
    api_key: str
    api_key_file: str
    api_key_header: str
    bearer_token: str
    bearer_token_file: str
    ca_file: str
    certificate_file: str
    private_key_file: str
    server_name: str
    plaintext: AllowPlaintext | Literal[False]
    timeout_s: float
    stream_timeout_s: float
    connect_timeout_s: float
    max_message_bytes: int
    max_connections: int
    retries: Retries
    limits: Mapping[str, Limits]


@dataclass(frozen=True, kw_only=True)
class ClientSettings(Declaration):
    """Where the server is, who the client says it is, and what it may send.

    Args:
        url: ``grpc://``, ``grpcs://``, ``http://`` or ``https://``, a host, and a port.
        models: names of the models that may be called, or ``"any"``.
        identity: whose ``api_key`` it is: both are sent together as HTTP Basic, as the gateway of ``serve --gateway``
            asks for it; empty where the key alone is sent, in ``api_key_header``.
        api_key: sent with every request.
        api_key_file: a file that holds it; only its owner and group may read it.
        api_key_header: the header of a key without an identity.
        bearer_token: sent as ``authorization: Bearer …``, such as a JWT.
        bearer_token_file: a file that holds it; only its owner and group may read it.
        ca_file: certificates (PEM) of the authorities that may vouch for the server; empty for those that come with
            the system (HTTP) or with gRPC.
        certificate_file: the client's own certificate (PEM), for mutual TLS.
        private_key_file: its key (PEM); only its owner and group may read it.
        server_name: the name that the server's certificate must have; empty for the URL's host.
        plaintext: a token that lets a credential leave this machine without TLS.
        timeout_s: seconds that one call may take, retries and their waits included.
        stream_timeout_s: seconds that one stream may take.
        connect_timeout_s: seconds until a connection stands.
        max_message_bytes: bytes of one answer; a longer one is refused before it is read whole.
        max_connections: connections that are kept open (HTTP; gRPC needs one).
        retries: when a failed call is sent again.
        limits: what a request to a model may hold, by model, beside what the server's metadata says.

    Raises:
        PolicyError: a value of the wrong type, out of range, or in conflict with another.
    """

    url: str
    models: Models
    identity: str = ""
    api_key: str = field(default="", repr=False)
    api_key_file: str = ""
    api_key_header: str = "x-api-key"
    bearer_token: str = field(default="", repr=False)
    bearer_token_file: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    private_key_file: str = ""
    server_name: str = ""
    plaintext: AllowPlaintext | Literal[False] = False
    # As long as a model's default deadline (30 s), so that its answer to a missed one still arrives.
    timeout_s: float = 35.0
    stream_timeout_s: float = 300.0
    connect_timeout_s: float = 5.0
    # The default bound of all outputs of one answer (256 MiB), and room for names and lengths.
    max_message_bytes: int = 272 << 20
    max_connections: int = 16
    retries: Retries = field(default_factory=Retries)
    limits: Mapping[str, Limits] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_values()
        for name in ("api_key", "bearer_token"):
            if getattr(self, name) and getattr(self, f"{name}_file"):
                raise wrong("client.usage", f"{name} and {name}_file are both given: write one of the two")
        if self.identity:
            self._check_identity()
        if bool(self.certificate_file) != bool(self.private_key_file):
            raise wrong("client.usage", "certificate_file and private_key_file belong together: one of them is missing")
        endpoint = self.endpoint
        if endpoint.is_encrypted:
            return
        if self.ca_file or self.certificate_file or self.server_name:
            scheme = "grpcs" if endpoint.protocol == "grpc" else "https"
            raise wrong("client.usage", f"certificates are given and the URL is not encrypted: write {scheme}://")
        if self.has_credential and not endpoint.is_loopback and not self.plaintext:
            raise wrong(
                "client.plaintext",
                f"a credential would leave this machine unencrypted, to {endpoint.host}: use TLS, or write"
                " plaintext=unsafe.AllowPlaintext(reason=…)",
            )

    def _check_identity(self) -> None:
        if ":" in self.identity or any(not "!" <= character <= "~" for character in self.identity):
            raise wrong("client.usage", "identity must be printable ASCII without spaces and colons")
        if not self.api_key and not self.api_key_file:
            raise wrong("client.usage", f"identity {self.identity!r} is given without api_key or api_key_file")
        if self.bearer_token or self.bearer_token_file:
            raise wrong(
                "client.usage", "identity and bearer_token both need the header authorization: write one of them"
            )

    def _check_values(self) -> None:
        for name in _TEXTS:
            value = getattr(self, name)
            if isinstance(value, os.PathLike) and name.endswith("_file"):
                object.__setattr__(self, name, os.fspath(value))
            elif type(value) is not str:
                raise wrong("policy.type", f"{name} must be a text, not {type(value).__name__}")
        object.__setattr__(self, "models", _checked_models(self.models))
        object.__setattr__(self, "api_key_header", self.api_key_header.lower())
        if not _HEADER.fullmatch(self.api_key_header):
            raise wrong("policy.range", "api_key_header must be the name of a header, such as x-api-key")
        if self.bearer_token and self.api_key and self.api_key_header == "authorization":
            raise wrong("client.usage", "api_key_header is authorization, which bearer_token needs")
        for name in ("timeout_s", "stream_timeout_s", "connect_timeout_s"):
            check_timeout(name, getattr(self, name))
        rules.check_whole("max_message_bytes", self.max_message_bytes, 1 << 10)
        rules.check_whole("max_connections", self.max_connections, 1)
        for name, kind in (("plaintext", AllowPlaintext), ("retries", Retries)):
            value = getattr(self, name)
            if not isinstance(value, kind) and (name != "plaintext" or value is not False):
                raise wrong("policy.type", f"{name} must be a {kind.__name__}, not {type(value).__name__}")
        rules.check_mapping("limits", self.limits, Limits)
        for name, limits in self.limits.items():
            meaningless = sorted(limits.declared & set(_NOT_A_CLIENTS))
            if meaningless:
                raise wrong("client.usage", f"limits[{name!r}].{meaningless[0]} is the server's: no client can hold it")
            if self.models != "any" and name not in self.models:
                raise wrong("client.usage", f"limits name the model {name!r}, which is not among models")
        object.__setattr__(self, "limits", rules.frozen_mapping(self.limits))

    @property
    def endpoint(self) -> Endpoint:
        """The server's address."""
        return parse_url(self.url)

    @property
    def has_credential(self) -> bool:
        """Whether requests carry something that a reader could use."""
        return bool(self.api_key or self.api_key_file or self.bearer_token or self.bearer_token_file)


def check_timeout(name: str, value: object) -> None:
    """Reject anything but a positive, finite number of seconds of at most a day."""
    if type(value) not in (int, float):
        raise wrong("policy.type", f"{name} must be a number of seconds, not {type(value).__name__}")
    if not math.isfinite(value) or not 0 < value <= MAX_TIMEOUT_S:  # type: ignore[arg-type, operator]
        raise wrong("policy.range", f"{name} must be above 0 and at most {MAX_TIMEOUT_S:.0f} seconds, not {value}")


def _checked_models(models: object) -> tuple[str, ...] | Literal["any"]:
    if models == "any":
        return "any"
    if isinstance(models, str) or not isinstance(models, Sequence | set | frozenset):
        raise wrong("policy.type", "models must be a list of the models' names, or 'any'")
    for name in models:
        if not isinstance(name, str) or not name:
            raise wrong("policy.type", "models must hold names")
    if not models:
        raise wrong("policy.range", "models is empty: name at least one, or write 'any'")
    return tuple(dict.fromkeys(models))
