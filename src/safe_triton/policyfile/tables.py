"""The operator's tables that have no declaration in Python: the server, the supervision, the audit."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from safe_triton.policyfile.mirror import MIRRORED, Table
from safe_triton.unsafe import AllowPublicAddress

PORT_MAX = 65535
DAY_S = 86_400

Words = Annotated[tuple[str, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


def _ip_address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise PydanticCustomError("value", "must be an IP address, such as 127.0.0.1 or 0.0.0.0") from None
    return value


Address = Annotated[str, AfterValidator(_ip_address)]


def setting(default: Any, unit: str, reason: str, **bounds: Any) -> Any:
    """One row: the default of a setting, its unit, why, and the bounds that pydantic checks."""
    extra: dict[str, Any] = {"x-unit": unit}
    if default == ():
        return Field(default_factory=lambda: default, description=reason, json_schema_extra={**extra, "default": []})
    return Field(default, description=reason, json_schema_extra=extra, **bounds)


def port(default: int, reason: str) -> Any:
    """The row of a port."""
    return setting(default, "port; 0 for any that is free", reason, ge=0, le=PORT_MAX)


class ServerPolicy(Table):
    """How tritonserver and its supervisor listen, start, stop and log."""

    http_port: int = port(8000, "Triton's usual port of HTTP")
    grpc_port: int = port(8001, "Triton's usual port of gRPC")
    metrics_port: int = port(8002, "Triton's usual port of its metrics")
    health_port: int = port(8003, "the supervisor's health, status and metrics; always on 127.0.0.1")
    address: Address = setting(
        "127.0.0.1", "IP address", "Triton's HTTP has no TLS: nothing beyond this machine hears it"
    )
    public_address: Annotated[AllowPublicAddress | Literal[False], MIRRORED] = setting(
        False, "token", "an address beyond loopback shows every model, unencrypted, to whoever reaches it"
    )
    ready_timeout_s: float = setting(
        600.0, "seconds until all models are ready", "large weights load in minutes, a hang never ends", gt=0, le=DAY_S
    )
    stop_timeout_s: float = setting(
        3.0, "seconds for requests in flight and finalize", "an orchestrator kills what takes long", gt=0, le=3_600
    )
    repository_poll_s: int = setting(
        1, "seconds between two looks at the models' files", "a model that is reloaded waits as long", ge=1, le=3_600
    )
    max_memory_bytes: int = setting(
        8 << 30,
        "bytes of tritonserver itself",
        "a short request can claim a tensor of any size, for which memory is set aside; models of other backends "
        "get three times the size of their files on top",
        ge=256 << 20,
        le=1 << 44,
    )
    log_format: Literal["text", "json"] = setting("text", "word", "json for programs that collect logs")
    flags: Words = setting((), "flags of tritonserver", "none is needed; one that undoes a protection is refused")

    @model_validator(mode="after")
    def _check_reach(self) -> ServerPolicy:
        if not ipaddress.ip_address(self.address).is_loopback and not self.public_address:
            text = 'listens beyond this machine; say why: public_address = { reason = "…" }'
            raise PydanticCustomError("declaration", "{text}", {"text": text, "field": "address"})
        ports = [self.http_port, self.grpc_port, self.metrics_port, self.health_port]
        for name in ("grpc_port", "metrics_port", "health_port"):
            number = getattr(self, name)
            if number and ports.count(number) > 1:
                text = f"{number} is asked for twice"
                raise PydanticCustomError("declaration", "{text}", {"text": text, "field": name})
        return self


class SupervisionPolicy(Table):
    """What the supervisor does about a model that dies or hangs."""

    max_failures: int = setting(
        5, "failures of one model within window_s", "one more is quarantined: what cannot live stops trying", ge=1
    )
    window_s: float = setting(
        60.0, "seconds", "a crash an hour is healed for ever, one a second is not", gt=0, le=DAY_S
    )
    backoff_initial_ms: int = setting(
        100, "milliseconds before the first reload", "most deaths are single: serve again at once", ge=0
    )
    backoff_max_s: float = setting(30.0, "seconds between two reloads", "the wait doubles until here", gt=0, le=DAY_S)
    quarantine_s: float = setting(
        120.0,
        "seconds until a quarantined model is tried again",
        "what failed for a reason outside heals by itself",
        gt=0,
        le=DAY_S,
    )
    load_timeout_s: float = setting(
        600.0, "seconds for one load of a model", "large weights load in minutes, a hang never ends", gt=0, le=DAY_S
    )
    hang_check_s: float = setting(
        0.5,
        "seconds between two looks at the requests in progress",
        "a hang is found this much after its deadline",
        gt=0,
        le=3_600,
    )

    @model_validator(mode="after")
    def _check_backoff(self) -> SupervisionPolicy:
        if self.backoff_initial_ms > self.backoff_max_s * 1000:
            text = f"{self.backoff_initial_ms} ms is above backoff_max_s = {self.backoff_max_s:g}"
            raise PydanticCustomError("declaration", "{text}", {"text": text, "field": "backoff_initial_ms"})
        return self


class Suppression(Table):
    """One finding that is accepted until a date."""

    rule: str = Field(description="name or code of the rule", min_length=1)
    path: str = Field(description="file, folder or pattern, relative to what is checked", min_length=1)
    reason: str = Field(description="why the finding is acceptable here", pattern=r"\S")
    expires: dt.date = Field(description="the last day on which it is; afterwards the finding counts again")


class SignaturePolicy(Table):
    """Whose signature a repository's lock file must have before it is served."""

    public_key: str = setting("", "absolute path; empty for none", "the signer's key (PEM)")
    trust: Words = setting((), "absolute paths", "certificates (PEM) of issuers, one of which issued the signer's")

    @model_validator(mode="after")
    def _check_signer(self) -> SignaturePolicy:
        if bool(self.public_key) == bool(self.trust):
            text = "names one public_key, or certificates to trust"
            raise PydanticCustomError("declaration", "{text}", {"text": text, "field": "public_key"})
        for name, path in (("public_key", self.public_key), *(("trust", path) for path in self.trust)):
            if path and not path.startswith("/"):
                text = f"{path!r} is no absolute path: it would depend on where the server is started"
                raise PydanticCustomError("declaration", "{text}", {"text": text, "field": name})
        return self


class AuditPolicy(Table):
    """What safe-triton check reports, and what makes it fail."""

    fail_on: Literal["info", "warning", "error"] = setting(
        "warning", "level", "a warning needs a person to look; what is served is refused for errors only"
    )
    signature: SignaturePolicy | None = Field(
        default=None, description="every repository needs a lock file with this signature to be served"
    )
    select: Words = setting((), "rules, by name, code or beginning of a code", "empty: every rule")
    ignore: Words = setting((), "rules, by name, code or beginning of a code", "empty: every rule stays on")
    suppress: Annotated[
        tuple[Suppression, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
    ] = setting((), "findings", "a single finding that was looked at; the rule stays on elsewhere")
