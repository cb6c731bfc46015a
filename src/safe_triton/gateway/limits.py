"""How often: a bucket of tokens for each identity and for each model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from safe_triton.gateway.words import ANONYMOUS, IDENTITY, MODEL, OF_ROUTE, Json, typed

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy

FILTER = "envoy.filters.http.local_ratelimit"
_MINUTE_S = 60
_ALWAYS: Json = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
_UNUSED: Json = {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "1s"}
"""The bucket of a request that has no other. None reaches it: each has an identity."""

_OF_ROUTE: Json = {
    "metadata": {
        "descriptor_key": "model",
        "metadata_key": {"key": OF_ROUTE, "path": [{"key": "model"}]},
        "source": "ROUTE_ENTRY",
    }
}


def compile_limits(gateway: GatewayPolicy, models: Iterable[str]) -> Json:
    """Return the buckets of one policy, for a virtual host.

    Args:
        gateway: the policy.
        models: those that are served.

    Does not cover:
        Requests to several gateways: each has buckets of its own, and new ones when the policy changes.
    """
    rows = [_descriptor("identity", name, *_rate_of(gateway, name)) for name in sorted(gateway.identities)]
    if gateway.anonymous:
        role = gateway.roles[gateway.anonymous.role]
        rows.append(_descriptor("identity", ANONYMOUS, role.requests_per_s, role.burst))
    for name in sorted(models):
        own = gateway.models.get(name)
        rate = (own and own.requests_per_s) or gateway.model_requests_per_s
        rows.append(_descriptor("model", name, rate, (own and own.burst) or gateway.model_burst))
    return typed(
        "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix="gateway",
        token_bucket=_UNUSED,
        always_consume_default_token_bucket=False,
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        rate_limited_as_resource_exhausted=True,
        enable_retry_after_header=True,
        descriptors=rows,
        # The model: over gRPC from the message, over HTTP from the path, by the route.
        rate_limits=[
            {"actions": [action]} for action in (_action("identity", IDENTITY), _action("model", MODEL), _OF_ROUTE)
        ],
    )


def _rate_of(gateway: GatewayPolicy, identity: str) -> tuple[float, int]:
    """The most that any role of an identity gives."""
    roles = [gateway.roles[name] for name in gateway.identities[identity].roles]
    return max(role.requests_per_s for role in roles), max(role.burst for role in roles)


def _action(key: str, header: str) -> Json:
    return {"request_headers": {"header_name": header, "descriptor_key": key}}


def _descriptor(key: str, value: str, requests_per_s: float, burst: int) -> Json:
    """A bucket that holds the burst and fills evenly, counted in whole tokens a minute."""
    tokens = max(1, round(requests_per_s * _MINUTE_S))
    bucket = {"max_tokens": burst, "tokens_per_fill": tokens, "fill_interval": f"{_MINUTE_S}s"}
    return {"entries": [{"key": key, "value": value}], "token_bucket": bucket}
