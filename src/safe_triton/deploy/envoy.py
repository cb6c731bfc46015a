"""``safe-triton render envoy``: the gateway's configuration for an Envoy of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from safe_triton.deploy.pages import envoy_page
from safe_triton.errors import DeployError
from safe_triton.gateway import VALIDATED, compile_gateway
from safe_triton.policyfile.gateway_tables import Upstream

SOCKET = "admin.sock"
MOST_SOCKET_BYTES = 107
"""Of a UNIX socket's path; source: ``unix(7)``."""

if TYPE_CHECKING:
    from safe_triton.deploy.deployment import Deployment


def render_envoy(deployment: Deployment, *, folder: str, keys: Mapping[str, str]) -> dict[str, str]:
    """Return Envoy's files by name; pure.

    Args:
        deployment: what stands behind it.
        folder: absolute: where the files will lie, as Envoy sees it.
        keys: digests of the identities' keys, from :func:`safe_triton.gateway.read_keys`.

    Raises:
        DeployError: ``deploy.gateway``: there is no ``[gateway]``; ``deploy.path``.
        PolicyError: see :func:`safe_triton.gateway.compile_gateway`.

    Does not cover:
        Triton's administrative APIs: their secret is made anew at each start of ``safe-triton serve``.
    """
    gateway, server = deployment.policy.gateway, deployment.policy.server
    if gateway is None:
        raise DeployError("the policy has no [gateway]: there is nothing to write", reason="deploy.gateway")
    if not folder.startswith("/"):
        raise DeployError(f"{folder!r}: Envoy finds its files by an absolute path", reason="deploy.path")
    if len(f"{folder}/{SOCKET}".encode()) > MOST_SOCKET_BYTES:
        text = f"{folder!r}: Envoy's socket in it would have an address of more than {MOST_SOCKET_BYTES} bytes"
        raise DeployError(text, reason="deploy.path")
    beside = Upstream(
        address="127.0.0.1",
        http_port=server.http_port,
        grpc_port=server.grpc_port,
        health_port=server.health_port,
        metrics_port=server.metrics_port,
    )
    compiled = compile_gateway(
        gateway, models=[model.name for model in deployment.models], keys=keys, folder=folder, upstreams=(beside,)
    )
    texts = {name: json.dumps(json.loads(text), indent=2) + "\n" for name, text in compiled.texts.items()}
    return {**texts, "README.md": envoy_page(deployment, folder=folder, static=VALIDATED)}
