"""The Tritons behind the gateway: per model and protocol one cluster, with its own health, limit and ejection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from safe_triton.gateway.metrics import cluster_at
from safe_triton.gateway.words import GRPC, HTTP, Json, cluster_name, discovery, seconds, server_cluster, typed

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy
    from safe_triton.policyfile.gateway_tables import JwtIssuer, Upstream

CONNECT_S = 2.0
HEALTH_S = 2.0
"""Seconds between two questions to one Triton about one model; until a dead one is known, a request is retried."""

_TLS = "extensions.transport_sockets.tls.v3"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def compile_clusters(gateway: GatewayPolicy, models: Iterable[str], upstreams: Sequence[Upstream]) -> list[Json]:
    """Return the clusters of one policy.

    Args:
        gateway: the policy.
        models: those that are served.
        upstreams: the Tritons; with one alone nothing is asked for health, since there is no other to choose.
    """
    found = []
    for protocol in (HTTP, GRPC):
        found.append(_cluster(server_cluster(protocol), protocol, upstreams, gateway.model_concurrent_requests))
        for name in sorted(models):
            own = gateway.models.get(name)
            most = (own and own.concurrent_requests) or gateway.model_concurrent_requests
            found.append(_cluster(cluster_name(protocol, name), protocol, upstreams, most, model=name))
    return found + [_jwks(name, issuer) for name, issuer in sorted(gateway.jwt.items()) if issuer.jwks_url]


def jwks_cluster(issuer: str) -> str:
    """Return the name of the cluster that an issuer's keys are fetched from."""
    return f"jwks:{issuer}"


def _cluster(name: str, protocol: str, upstreams: Sequence[Upstream], most: int, *, model: str = "") -> Json:
    cluster: Json = typed(
        "config.cluster.v3.Cluster",
        name=name,
        alt_stat_name=name.replace(":", "_"),
        **discovery([upstream.address for upstream in upstreams]),
        connect_timeout=seconds(CONNECT_S),
        lb_policy="LEAST_REQUEST",
        load_assignment={
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(protocol, upstream) for upstream in upstreams]}],
        },
        # Triton queues: what waits here, waits twice. Retries are few, so that they do not become the load.
        circuit_breakers={
            "thresholds": [
                {
                    "max_connections": most,
                    "max_pending_requests": most,
                    "max_requests": most,
                    "max_retries": max(3, most // 10),
                }
            ]
        },
        typed_extension_protocol_options={_OPTIONS: _protocol(protocol)},
        ignore_health_on_host_removal=True,
    )
    if len(upstreams) > 1:
        # None is healthy: say so, instead of sending everything everywhere.
        cluster["common_lb_config"] = {"healthy_panic_threshold": {"value": 0.0}}
        cluster["health_checks"] = list(_health(upstreams, model))
        cluster["outlier_detection"] = {
            "consecutive_gateway_failure": 5,
            "enforcing_consecutive_gateway_failure": 100,
            # A 500 is the model's answer to this request, on whichever Triton.
            "enforcing_consecutive_5xx": 0,
            # Nor does a connection that Triton closed, as at a header that is too long for it, say that it is ill: a
            # caller could take machines out. One that cannot be reached is known by its health.
            "split_external_local_origin_errors": True,
            "enforcing_consecutive_local_origin_failure": 0,
            "enforcing_local_origin_success_rate": 0,
            "enforcing_success_rate": 0,
            "interval": "2s",
            "base_ejection_time": "10s",
            "max_ejection_percent": 50,
        }
    return cluster


def _protocol(protocol: str) -> Json:
    if protocol == GRPC:
        options: Json = {
            "http2_protocol_options": {"initial_stream_window_size": 1 << 20, "initial_connection_window_size": 4 << 20}
        }
    else:
        options = {"http_protocol_options": {}}
    return typed(
        "extensions.upstreams.http.v3.HttpProtocolOptions",
        explicit_http_config=options,
        common_http_protocol_options={"idle_timeout": "60s"},
    )


def _endpoint(protocol: str, upstream: Upstream) -> Json:
    port = upstream.grpc_port if protocol == GRPC else upstream.http_port
    address = {"socket_address": {"address": upstream.address, "port_value": port}}
    endpoint: Json = {"address": address}
    # Both protocols ask one port, over HTTP/1.1.
    asked = upstream.health_port or upstream.http_port
    endpoint["health_check_config"] = {"port_value": asked}
    return {"endpoint": endpoint}


def _health(upstreams: Sequence[Upstream], model: str) -> Iterator[Json]:
    """The question about a model: to the supervisor, who knows dead models, else to Triton itself."""
    if all(upstream.health_port for upstream in upstreams):
        path = f"/readyz?model={quote(model)}" if model else "/livez"
    else:
        path = f"/v2/models/{quote(model)}/ready" if model else "/v2/health/ready"
    yield {
        "timeout": "2s",
        "interval": seconds(HEALTH_S),
        "interval_jitter_percent": 20,
        "no_traffic_interval": seconds(5 * HEALTH_S),
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "reuse_connection": False,  # the supervisor serves few connections at once
        "http_health_check": {"path": path, "host": "gateway", "codec_client_type": "HTTP1"},
    }


def _jwks(name: str, issuer: JwtIssuer) -> Json:
    parts = urlsplit(issuer.jwks_url)
    host = parts.hostname or ""
    context = {
        "trusted_ca": {"filename": issuer.jwks_ca},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": host}}],
    }
    tls = typed(f"{_TLS}.UpstreamTlsContext", sni=host, common_tls_context={"validation_context": context})
    return typed(
        "config.cluster.v3.Cluster",
        **cluster_at(jwks_cluster(name), host, parts.port or 443),
        transport_socket={"name": "envoy.transport_sockets.tls", "typed_config": tls},
    )
