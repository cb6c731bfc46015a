"""Metrics on a listener of their own, Envoy's and those of the first Triton; never Envoy's administration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from safe_triton.gateway.words import Json, discovery, extension, header_is, typed

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy
    from safe_triton.policyfile.gateway_tables import Upstream

METRICS_ADMIN = "metrics:gateway"
"""The cluster of Envoy's own administration; no model's cluster is named so."""


def metrics_listener(gateway: GatewayPolicy, upstream: Upstream) -> Json:
    """Return the listener that a Prometheus asks: ``/metrics``, ``/metrics/triton`` and ``/metrics/supervisor``.

    Args:
        gateway: the policy.
        upstream: the first Triton.
    """
    routes = [_route("/metrics", METRICS_ADMIN, "/stats/prometheus")]
    routes += [_route(f"/metrics/{name}", f"metrics:{name}", "/metrics") for name, _ in _ports(upstream)]
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="metrics",
        codec_type="HTTP1",
        normalize_path=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        request_headers_timeout="5s",
        request_timeout="5s",
        stream_idle_timeout="10s",
        common_http_protocol_options={"idle_timeout": "60s"},
        route_config={"name": "metrics", "virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": routes}]},
        http_filters=[extension("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")],
    )
    return typed(
        "config.listener.v3.Listener",
        name="metrics",
        address={"socket_address": {"address": gateway.metrics_address, "port_value": gateway.metrics_port}},
        filter_chains=[{"filters": [manager]}],
        ignore_global_conn_limit=True,
    )


def metrics_clusters(upstream: Upstream) -> list[Json]:
    """Return where the metrics of the first Triton and of its supervisor come from.

    Args:
        upstream: the first Triton.
    """
    return [
        typed("config.cluster.v3.Cluster", **cluster_at(f"metrics:{name}", upstream.address, port))
        for name, port in _ports(upstream)
    ]


def cluster_at(name: str, address: str, port: int) -> Json:
    """Return a cluster of one place."""
    place = {"socket_address": {"address": address, "port_value": port}}
    return {
        "name": name,
        **discovery([address]),
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": place}}]}],
        },
    }


def _ports(upstream: Upstream) -> Iterator[tuple[str, int]]:
    for name, port in (("triton", upstream.metrics_port), ("supervisor", upstream.health_port)):
        if port:
            yield name, port


def _route(path: str, cluster: str, asked: str) -> Json:
    return {
        "match": {"path": path, "headers": [header_is(":method", "GET")]},
        "route": {"cluster": cluster, "prefix_rewrite": asked, "timeout": "10s"},
        "request_headers_to_remove": ["authorization", "cookie"],
    }
