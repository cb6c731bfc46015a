"""``safe-triton render compose``: Triton on a network without a way out, the gateway in front of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safe_triton.deploy.containers import (
    ENVIRONMENT,
    GATEWAY_POLICY,
    GATEWAY_TEMPORARY_BYTES,
    MODELS,
    POLICY_FOLDER,
    SERVER_POLICY,
    gateway_command,
    gateway_values,
    health_command,
    secrets_of,
    serve_command,
    server_values,
)
from safe_triton.deploy.pages import compose_page
from safe_triton.deploy.seccomp import seccomp_text
from safe_triton.deploy.text import header, toml_text, yaml_text

if TYPE_CHECKING:
    from safe_triton.deploy.deployment import Deployment
    from safe_triton.policyfile import GatewayPolicy

FORM = "compose"
INSIDE, OUTSIDE = "inside", "outside"
SERVER, GATEWAY = "triton", "gateway"
_WHY = "on a network of two containers, without a way out"


def render_compose(deployment: Deployment, models: str) -> dict[str, str]:
    """Return the files of a compose project, by name; pure.

    Args:
        deployment: what is deployed.
        models: the model repository, relative to the folder of the files or absolute.

    Raises:
        DeployError: ``deploy.reach``, ``deploy.image``.
        EnvironmentMissingError: there is no PyYAML.
    """
    deployment.check_reach()
    deployment.check_has_image()
    gateway = deployment.policy.gateway
    services = {SERVER: _server(deployment, models)}
    networks: dict[str, Any] = {} if gateway is None else {INSIDE: {"internal": True}}
    files = {SERVER_POLICY: deployment.policy_text}
    if gateway is not None:
        services[GATEWAY] = _gateway(deployment, gateway)
        server = deployment.policy.server
        upstream = {
            "address": SERVER,
            "http_port": server.http_port,
            "grpc_port": server.grpc_port,
            # Both are for the loopback of Triton's container.
            "health_port": 0,
            "metrics_port": 0,
            "plaintext": {"reason": _WHY},
        }
        files = {
            SERVER_POLICY: header(FORM, "Of Triton, which its gateway has to reach.")
            + toml_text(server_values(deployment, "0.0.0.0", _WHY)),  # noqa: S104
            GATEWAY_POLICY: header(FORM, "Of the gateway.") + toml_text(gateway_values(deployment, upstream)),
        }
    networks[OUTSIDE] = {}
    document: dict[str, Any] = {"name": deployment.settings.name, "services": services, "networks": networks}
    if gateway is not None:
        document["secrets"] = {secret.key: {"file": f"./secrets/{secret.key}"} for secret in secrets_of(gateway)}
    found = {
        "compose.yaml": yaml_text(FORM, "docker compose up --detach", [document]),
        **files,
        "README.md": compose_page(deployment),
    }
    if deployment.settings.seccomp == "localhost":
        found["seccomp.json"] = seccomp_text()
    return found


def _hardened(deployment: Deployment) -> dict[str, Any]:
    """What holds for every service."""
    user = deployment.settings.user_id
    options = ["no-new-privileges:true"]
    if deployment.settings.seccomp == "localhost":
        options.append("seccomp:./seccomp.json")
    return {
        "image": deployment.image,
        "user": f"{user}:{user}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": options,
        "restart": "unless-stopped",
        "stop_grace_period": f"{deployment.stop_s}s",
        "logging": {"driver": "json-file", "options": {"max-size": "50m", "max-file": "3"}},
    }


def _server(deployment: Deployment, models: str) -> dict[str, Any]:
    settings, server = deployment.settings, deployment.policy.server
    is_behind = deployment.policy.gateway is not None
    networks = [INSIDE] if is_behind else [OUTSIDE]
    if deployment.has_network and is_behind:
        networks.append(OUTSIDE)
    volumes = [_bind(f"./{SERVER_POLICY}", f"{POLICY_FOLDER}/{SERVER_POLICY}")]
    if settings.models == "volume":
        volumes.append(_bind(models, MODELS))
    limits = {
        "cpus": str(settings.cpus),
        "memory": f"{settings.memory_bytes}b",
        "pids": settings.processes,
    }
    resources: dict[str, Any] = {"limits": limits}
    variables = dict(ENVIRONMENT)
    if deployment.gpu_count:
        device = {"driver": "nvidia", "device_ids": list(deployment.gpu_devices), "capabilities": ["gpu"]}
        resources["reservations"] = {"devices": [device]}
    else:
        variables["NVIDIA_VISIBLE_DEVICES"] = "none"
    # Ports of another machine's network would be heard by everybody there: nothing here asks who calls.
    ports = [f"127.0.0.1:{port}:{port}" for port in (server.http_port, server.grpc_port)]
    return {
        **_hardened(deployment),
        "entrypoint": serve_command(),
        "init": True,
        "environment": variables,
        "tmpfs": [_tmpfs(settings.temporary_bytes, settings.user_id)],
        "shm_size": f"{deployment.shared_bytes}b",
        "volumes": volumes,
        "networks": networks,
        **({} if is_behind else {"ports": ports}),
        "healthcheck": {
            "test": ["CMD", *(word.replace("$", "$$") for word in health_command(deployment, deployment.health_page))],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{round(server.ready_timeout_s)}s",
        },
        "deploy": {"resources": resources},
    }


def _gateway(deployment: Deployment, gateway: GatewayPolicy) -> dict[str, Any]:
    settings = deployment.settings
    limits = {"cpus": str(settings.gateway_cpus), "memory": f"{deployment.gateway_memory_bytes}b", "pids": 256}
    address = f"[{gateway.address}]" if ":" in gateway.address else gateway.address
    return {
        **_hardened(deployment),
        "entrypoint": gateway_command(deployment),
        "init": True,
        "environment": {**ENVIRONMENT, "NVIDIA_VISIBLE_DEVICES": "none"},
        "tmpfs": [_tmpfs(GATEWAY_TEMPORARY_BYTES, settings.user_id)],
        "volumes": [_bind(f"./{GATEWAY_POLICY}", f"{POLICY_FOLDER}/{GATEWAY_POLICY}")],
        "secrets": [{"source": secret.key, "target": secret.path} for secret in secrets_of(gateway)],
        "networks": [INSIDE, OUTSIDE],
        "ports": [
            f"{address}:{gateway.port}:{gateway.port}",
            f"127.0.0.1:{gateway.metrics_port}:{gateway.metrics_port}",
        ],
        "depends_on": {SERVER: {"condition": "service_healthy"}},
        "deploy": {"resources": {"limits": limits}},
    }


def _bind(source: str, target: str) -> dict[str, Any]:
    source = source.replace("$", "$$")  # else compose puts a variable there
    return {"type": "bind", "source": source, "target": target, "read_only": True, "bind": {"create_host_path": False}}


def _tmpfs(size_bytes: int, user: int) -> str:
    """Programs may be started from it: the server's private folder has the model process."""
    return f"/tmp:exec,nosuid,nodev,size={size_bytes},mode=0700,uid={user},gid={user}"  # noqa: S108
