"""What the keys of ``[gateway]`` must be to each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from safe_triton.policyfile.positions import Place
from safe_triton.policyfile.problems import nearest

if TYPE_CHECKING:
    from safe_triton.policyfile.gateway_tables import GatewayPolicy

Conflict = tuple[Place, str]
"""A place below ``[gateway]`` and what is wrong there."""

ALL_MODELS = "*"
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
"""Names that stand in a path as they are. Whatever is written otherwise has no route, so nothing has to be decoded."""


def check_gateway(gateway: GatewayPolicy) -> Iterator[Conflict]:
    """Yield what cannot hold together, the gravest first.

    Args:
        gateway: its tables, each right in itself.
    """
    yield from _transport(gateway)
    yield from _callers(gateway)
    yield from _one_owner(gateway)
    yield from _model_names(gateway)
    yield from _listeners(gateway)


def _transport(gateway: GatewayPolicy) -> Iterator[Conflict]:
    if gateway.plaintext:
        for name in ("certificate", "private_key", "client_ca"):
            if getattr(gateway, name):
                yield (name,), "has no effect beside plaintext: leave one of the two out"
        return
    for name in ("certificate", "private_key"):
        if not getattr(gateway, name):
            text = 'is missing ("safe-triton certs dev" makes one); or say why none: plaintext = { reason = "…" }'
            yield (name,), text


def _callers(gateway: GatewayPolicy) -> Iterator[Conflict]:
    roles, issuers = sorted(gateway.roles), sorted(gateway.jwt)
    if not gateway.identities and not gateway.anonymous:
        text = (
            'nobody could call anything: write [gateway.identities.NAME], or anonymous = { reason = "…", role = "…" }'
        )
        yield (), text
    if gateway.anonymous and gateway.anonymous.role not in gateway.roles:
        text = f"there is no table [gateway.roles.{gateway.anonymous.role}]{nearest(gateway.anonymous.role, roles)}"
        yield ("anonymous", "role"), text
    if gateway.require_client_certificate and not gateway.client_ca:
        yield ("require_client_certificate",), "needs client_ca, which the certificates are verified against"
    for name, identity in gateway.identities.items():
        for index, role in enumerate(identity.roles):
            if role not in gateway.roles:
                text = f"there is no table [gateway.roles.{role}]{nearest(role, roles)}"
                yield ("identities", name, "roles", index), text
        if identity.jwt is not None and identity.jwt.issuer not in gateway.jwt:
            text = f"there is no table [gateway.jwt.{identity.jwt.issuer}]{nearest(identity.jwt.issuer, issuers)}"
            yield ("identities", name, "jwt", "issuer"), text
        if identity.certificate_names and not gateway.client_ca:
            yield (
                ("identities", name, "certificate_names"),
                "need client_ca, which the certificates are verified against",
            )


def _one_owner(gateway: GatewayPolicy) -> Iterator[Conflict]:
    """A credential that two identities have would be whose?"""
    seen: dict[tuple[str, ...], str] = {}
    for name, identity in gateway.identities.items():
        shown: list[tuple[Place, tuple[str, ...]]] = []
        if identity.api_key_file:
            shown.append((("api_key_file",), ("file", identity.api_key_file)))
        if identity.jwt is not None:
            shown.append((("jwt",), ("jwt", identity.jwt.issuer, identity.jwt.subject)))
        for index, certificate in enumerate(identity.certificate_names):
            shown.append((("certificate_names", index), ("certificate", certificate)))
        for place, credential in shown:
            if credential in seen:
                yield ("identities", name, *place), f"is that of {seen[credential]} too: whose request would it be?"
            seen[credential] = name
    issuers: dict[str, str] = {}
    for name, issuer in gateway.jwt.items():
        if issuer.issuer in issuers:
            yield ("jwt", name, "issuer"), f"is that of {issuers[issuer.issuer]} too"
        issuers[issuer.issuer] = name


def _model_names(gateway: GatewayPolicy) -> Iterator[Conflict]:
    text = "is no name that the gateway can route: letters, digits, '_', '.' and '-', at most 128"
    for role, table in gateway.roles.items():
        for index, name in enumerate(table.models):
            if name != ALL_MODELS and not MODEL_NAME.fullmatch(name):
                yield ("roles", role, "models", index), text
        if ALL_MODELS in table.models and len(table.models) > 1:
            yield ("roles", role, "models"), '"*" is all models already: leave the others out'
    for name, model in gateway.models.items():
        if not MODEL_NAME.fullmatch(name):
            yield ("models", name), text
        if (model.max_request_bytes or 0) > gateway.max_request_bytes:
            yield (
                ("models", name, "max_request_bytes"),
                f"is above gateway.max_request_bytes = {gateway.max_request_bytes}",
            )


def _listeners(gateway: GatewayPolicy) -> Iterator[Conflict]:
    if gateway.port and gateway.port == gateway.metrics_port:
        yield ("metrics_port",), f"{gateway.port} is asked for twice"
    if not gateway.is_metrics_loopback and not gateway.public_metrics:
        text = 'listens beyond this machine, unencrypted; say why: public_metrics = { reason = "…" }'
        yield ("metrics_address",), text
    if isinstance(gateway.access_log, str) and gateway.access_log != "stdout" and gateway.access_log[:1] != "/":
        yield ("access_log",), 'must be "stdout" or an absolute path'
    seen: dict[tuple[str, int], int] = {}
    for index, upstream in enumerate(gateway.upstreams):
        for port in (upstream.http_port, upstream.grpc_port):
            if (upstream.address, port) in seen:
                yield ("upstreams", index), f"{upstream.address}:{port} is named twice"
            seen[upstream.address, port] = index
