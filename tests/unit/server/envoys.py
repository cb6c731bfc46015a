"""A small configuration of Envoy, as the gateway lays its files out, that needs nothing behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TYPES = "type.googleapis.com/envoy."


def configuration(
    root: Path, port: int, *, answer: str = "one", server_name: str = "envoy", behind: int = 1
) -> dict[str, str]:
    """The files: ``answer`` is in the routes, ``server_name`` in the listener, whose change drains connections.

    ``/behind`` goes to the port of that name.
    """

    def source(name: str) -> dict[str, Any]:
        path = {"path": f"{root}/current/{name}", "watched_directory": {"path": str(root)}}
        return {"path_config_source": path, "resource_api_version": "V3"}

    bootstrap = {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"pipe": {"path": "admin.sock"}}},
        "dynamic_resources": {"lds_config": source("lds.json"), "cds_config": source("cds.json")},
    }
    connections = {
        "@type": f"{TYPES}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "server_name": server_name,
        "rds": {"route_config_name": "routes", "config_source": source("rds.json")},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPES}extensions.filters.http.router.v3.Router"}}
        ],
    }
    listener = {
        "@type": f"{TYPES}config.listener.v3.Listener",
        "name": "gateway",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "connections", "typed_config": connections}]}],
    }
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": answer}}}
    forwarded = {"match": {"prefix": "/behind"}, "route": {"cluster": "behind"}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": behind}}
    cluster = {
        "@type": f"{TYPES}config.cluster.v3.Cluster",
        "name": "behind",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "behind",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    routes = {
        "@type": f"{TYPES}config.route.v3.RouteConfiguration",
        "name": "routes",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [forwarded, route]}],
    }
    return {
        "bootstrap.json": json.dumps(bootstrap),
        "lds.json": resources(listener),
        "rds.json": resources(routes),
        "cds.json": resources(cluster),
    }


def resources(*found: Mapping[str, Any]) -> str:
    """One file of resources."""
    return json.dumps({"resources": found})
