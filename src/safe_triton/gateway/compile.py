"""From a policy to the files that Envoy reads."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from safe_triton.errors import PolicyError
from safe_triton.gateway import listener
from safe_triton.gateway.clusters import compile_clusters
from safe_triton.gateway.metrics import METRICS_ADMIN, metrics_clusters, metrics_listener
from safe_triton.gateway.routes import compile_routes
from safe_triton.gateway.words import Json, extension, typed
from safe_triton.policyfile.gateway_checks import MODEL_NAME

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy
    from safe_triton.policyfile.gateway_tables import Upstream

BOOTSTRAP = "bootstrap.json"
STUCK_S = 30
"""How long a thread of Envoy may stand still: much longer than on a machine that is busy."""

VALIDATED = "validate.json"
"""The same as one file: ``envoy --mode validate`` does not look into the files that others name."""

REPLACED = ("cds.json", "sds-certificate.json", "sds-clients.json", "rds.json", "lds.json")
"""The files that a reload replaces, in this order: what is named is there before it is named."""


@dataclass(frozen=True, kw_only=True)
class GatewayFiles:
    """Envoy's configuration.

    Args:
        texts: by file name, JSON. Credentials' digests and Triton's secret are in them: only the owner may read them.

    Does not cover:
        Certificates, keys of TLS and JWKS files, which Envoy reads from where the policy says.
    """

    texts: Mapping[str, str]


def compile_gateway(
    gateway: GatewayPolicy,
    *,
    models: Iterable[str],
    keys: Mapping[str, str],
    folder: str,
    upstreams: Sequence[Upstream] = (),
    admin_secret: str = "",
    admin_socket: str = "",
) -> GatewayFiles:
    """Return Envoy's configuration for one policy; pure, and the same for the same arguments.

    Args:
        gateway: the policy.
        models: those that are served; one whose name cannot stand in a path as it is, is left out.
        keys: digest of each identity's key, from :func:`safe_triton.gateway.read_keys`.
        folder: absolute path under which Envoy finds the files.
        upstreams: the Tritons where the policy names none.
        admin_secret: value of Triton's secret header, for roles with ``statistics`` or ``admin``.
        admin_socket: path of Envoy's administration, a socket in a folder that only the owner enters.

    Raises:
        PolicyError: reason ``gateway.key``: an identity's key is missing; ``gateway.upstream``: no Triton is named.

    Does not cover:
        Whether Envoy accepts it, which ``envoy --mode validate`` says; whether the files that it names exist.
    """
    served = sorted(name for name in set(models) if MODEL_NAME.fullmatch(name))
    behind = gateway.upstreams or tuple(upstreams)
    if not behind:
        raise PolicyError("gateway.upstream: no Triton is named: [[gateway.upstreams]]", reason="gateway.upstream")
    digests = {}
    for name, identity in gateway.identities.items():
        if identity.api_key_file:
            if name not in keys:
                raise PolicyError(f"gateway.key: the key of {name} was not read", reason="gateway.key")
            digests[name] = keys[name]
    route = compile_routes(gateway, served, digests, admin_secret, is_retried=len(behind) > 1)
    start = _bootstrap(gateway, folder, admin_socket or posixpath.join(folder, "admin.sock"))
    files: dict[str, Json] = {
        BOOTSTRAP: start,
        "cds.json": {"resources": [*compile_clusters(gateway, served, behind), *metrics_clusters(behind[0])]},
        **{f"sds-{row['name']}.json": {"resources": [row]} for row in _secrets(gateway)},
        "rds.json": {"resources": [route]},
        "lds.json": {"resources": [listener.compile_listener(gateway, folder), metrics_listener(gateway, behind[0])]},
    }
    files[VALIDATED] = _as_one(start, route, files)
    return GatewayFiles(
        texts=MappingProxyType(
            {name: json.dumps(value, indent=1, sort_keys=True) + "\n" for name, value in files.items()}
        )
    )


def _bootstrap(gateway: GatewayPolicy, folder: str, admin_socket: str) -> Json:
    monitors = [
        extension(
            "envoy.resource_monitors.global_downstream_max_connections",
            "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            max_active_downstream_connections=gateway.max_connections,
        ),
        extension(
            "envoy.resource_monitors.fixed_heap",
            "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
            max_heap_size_bytes=gateway.max_memory_bytes,
        ),
    ]
    return {
        "node": {"id": "safe-triton-gateway", "cluster": "safe-triton"},
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": 0o600}}},
        "dynamic_resources": {
            "cds_config": listener.from_file(folder, "cds.json"),
            "lds_config": listener.from_file(folder, "lds.json"),
        },
        "static_resources": {"clusters": [_admin_cluster(admin_socket)]},
        "layered_runtime": {"layers": [{"name": "fixed", "static_layer": _RUNTIME}]},
        # A thread that stands still ends Envoy, which is started again.
        "watchdogs": {name: {"kill_timeout": f"{STUCK_S}s"} for name in ("main_thread_watchdog", "worker_watchdog")},
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": monitors,
            "actions": [
                _shed("envoy.overload_actions.stop_accepting_requests", 0.95),
                _shed("envoy.overload_actions.disable_http_keepalive", 0.9),
                _shed("envoy.overload_actions.shrink_heap", 0.9),
            ],
            # Bodies that were begun before would grow on: a connection that brings more is closed.
            "loadshed_points": [
                _shed("envoy.load_shed_points.http1_server_abort_dispatch", 0.98),
                _shed("envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch", 0.98),
            ],
        },
    }


def _as_one(start: Json, route: Json, files: Mapping[str, Json]) -> Json:
    """The whole configuration without a file that names another."""

    def held(prefix: str) -> list[Json]:
        return [_plain(row) for name in files if name.startswith(prefix) for row in files[name]["resources"]]

    return {
        **{key: value for key, value in start.items() if key != "dynamic_resources"},
        "static_resources": {
            "listeners": [_inlined(row, route) for row in held("lds")],
            "clusters": [*start["static_resources"]["clusters"], *held("cds")],
            "secrets": held("sds"),
        },
    }


def _inlined(value: Any, route: Json) -> Any:
    """A listener with its routes in it, and with secrets by name alone."""
    if isinstance(value, list):
        return [_inlined(each, route) for each in value]
    if not isinstance(value, dict):
        return value
    inner = {key: _inlined(each, route) for key, each in value.items() if key not in ("rds", "sds_config")}
    return {**inner, "route_config": _plain(route)} if "rds" in value else inner


def _plain(resource: Json) -> Json:
    """A resource where its type is known."""
    return {key: value for key, value in resource.items() if key != "@type"}


_RUNTIME = {
    # A policy with many models has long lists of names.
    "re2.max_program_size.error_level": 1_000_000,
    "re2.max_program_size.warn_level": 1_000_000,
}


def _shed(name: str, threshold: float) -> Json:
    return {
        "name": name,
        "triggers": [{"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": threshold}}],
    }


def _admin_cluster(admin_socket: str) -> Json:
    address = {"pipe": {"path": admin_socket}}
    return {
        "name": METRICS_ADMIN,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": METRICS_ADMIN,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _secrets(gateway: GatewayPolicy) -> list[Json]:
    found = []
    if gateway.certificate:
        certificate = {
            "certificate_chain": {"filename": gateway.certificate},
            "private_key": {"filename": gateway.private_key},
            "watched_directory": {"path": posixpath.dirname(gateway.certificate)},
        }
        found.append(_secret(listener.CERTIFICATE, tls_certificate=certificate))
    if gateway.client_ca:
        context = {
            "trusted_ca": {"filename": gateway.client_ca},
            "watched_directory": {"path": posixpath.dirname(gateway.client_ca)},
        }
        found.append(_secret(listener.CLIENTS, validation_context=context))
    return found


def _secret(name: str, **values: Json) -> Json:
    return typed("extensions.transport_sockets.tls.v3.Secret", name=name, **values)
