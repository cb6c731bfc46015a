"""A pod of Kubernetes: the server and its gateway, held to the Pod Security standard "restricted" and beyond."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safe_triton.deploy.containers import (
    ENVIRONMENT,
    GATEWAY_TEMPORARY_BYTES,
    KEYS_FOLDER,
    MODELS,
    POLICY_FOLDER,
    TLS_FOLDER,
    gateway_command,
    health_command,
    secrets_of,
    serve_command,
)
from safe_triton.deploy.deployment import LEAVING_S

if TYPE_CHECKING:
    from safe_triton.deploy.deployment import Deployment
    from safe_triton.policyfile import GatewayPolicy

GATEWAY = "gateway"
SERVER = "triton"
CLIENT_LABEL = "safe-triton/client"
MIB = 1 << 20
READABLE = 0o440
"""Mode of secrets: the kubelet owns them, the pod's group reads them."""


def labels_of(deployment: Deployment) -> dict[str, str]:
    """The labels that select the pods; they never change."""
    return {"app.kubernetes.io/name": "triton", "app.kubernetes.io/instance": deployment.settings.name}


def all_labels(deployment: Deployment) -> dict[str, str]:
    """The labels of every object."""
    more = {"component": "inference", "part-of": "safe-triton", "managed-by": "safe-triton"}
    return labels_of(deployment) | {f"app.kubernetes.io/{name}": value for name, value in more.items()}


def quantity(size_bytes: int) -> str:
    """Bytes as Kubernetes writes them."""
    return f"{-(-size_bytes // MIB)}Mi"


def pod_security(deployment: Deployment) -> dict[str, Any]:
    """What holds for every container of the pod."""
    user = deployment.settings.user_id
    profile = {"type": "RuntimeDefault"}
    if deployment.settings.seccomp == "localhost":
        profile = {"type": "Localhost", "localhostProfile": f"profiles/{deployment.settings.name}.json"}
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": profile,
    }


def container_security() -> dict[str, Any]:
    """What each container gives up by itself."""
    return {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }


def server_container(deployment: Deployment) -> dict[str, Any]:
    """The container of tritonserver, its models and their supervisor."""
    settings, server = deployment.settings, deployment.policy.server
    start_s = round(server.ready_timeout_s)
    ports = [
        {"name": name, "containerPort": deployment.ports[f"server.{name}_port"], "protocol": "TCP"}
        for name in ("http", "grpc")
    ]
    mounts = [
        {"name": "policy", "mountPath": POLICY_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    return {
        "name": SERVER,
        "image": deployment.image,
        "imagePullPolicy": "IfNotPresent",
        "command": serve_command(),
        "env": environment(deployment),
        **({} if deployment.policy.gateway is not None else {"ports": ports}),
        "resources": resources(
            settings.cpus, settings.memory_bytes, settings.temporary_bytes, gpu_resources(deployment)
        ),
        "securityContext": container_security(),
        "volumeMounts": [*mounts, *models_mount(deployment)],
        "startupProbe": {
            "exec": {"command": health_command(deployment, deployment.health_page)},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": max(1, start_s // 2),
        },
        "readinessProbe": {
            "exec": {"command": health_command(deployment, deployment.health_page)},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 2,
        },
        "livenessProbe": {
            "exec": {"command": health_command(deployment, "livez")},
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "lifecycle": _stays(LEAVING_S + deployment.drain_s),
    }


def gateway_container(deployment: Deployment, gateway: GatewayPolicy) -> dict[str, Any]:
    """The container of Envoy; only here are keys and certificates."""
    settings = deployment.settings
    folders = {TLS_FOLDER: "tls", KEYS_FOLDER: "gateway-keys"}
    used = {secret.path.rpartition("/")[0] for secret in secrets_of(gateway)}
    mounts = [
        {"name": "policy", "mountPath": POLICY_FOLDER, "readOnly": True},
        {"name": "gateway-tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
        *({"name": name, "mountPath": folder, "readOnly": True} for folder, name in folders.items() if folder in used),
    ]
    alive = {"tcpSocket": {"port": GATEWAY}, "periodSeconds": 10, "timeoutSeconds": 5}
    return {
        "name": GATEWAY,
        "image": deployment.image,
        "imagePullPolicy": "IfNotPresent",
        "command": gateway_command(deployment),
        "env": [
            {"name": name, "value": value} for name, value in {**ENVIRONMENT, "NVIDIA_VISIBLE_DEVICES": "none"}.items()
        ],
        "ports": [
            {"name": GATEWAY, "containerPort": gateway.port, "protocol": "TCP"},
            {"name": "metrics", "containerPort": gateway.metrics_port, "protocol": "TCP"},
        ],
        "resources": resources(settings.gateway_cpus, deployment.gateway_memory_bytes, GATEWAY_TEMPORARY_BYTES, {}),
        "securityContext": container_security(),
        "volumeMounts": mounts,
        "startupProbe": {**alive, "periodSeconds": 2, "failureThreshold": 30},
        "readinessProbe": {**alive, "failureThreshold": 2},
        "livenessProbe": {**alive, "failureThreshold": 6},
        "lifecycle": _stays(LEAVING_S),
    }


def _stays(seconds: int) -> dict[str, Any]:
    """A container that goes on for a while after its pod was told to end: first clients leave, then the gateway."""
    return {"preStop": {"exec": {"command": ["sleep", str(seconds)]}}}


def volumes(deployment: Deployment) -> list[dict[str, Any]]:
    """The pod's volumes: nothing of the node, nothing without a size."""
    settings, gateway = deployment.settings, deployment.policy.gateway
    found: list[dict[str, Any]] = [
        {"name": "policy", "configMap": {"name": f"{settings.name}-policy", "defaultMode": READABLE}},
        {"name": "tmp", "emptyDir": {"sizeLimit": quantity(settings.temporary_bytes)}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": quantity(deployment.shared_bytes)}},
    ]
    if settings.models == "volume":
        claim = {"claimName": f"{settings.name}-models", "readOnly": True}
        found.append({"name": "models", "persistentVolumeClaim": claim})
    if gateway is not None:
        secrets = secrets_of(gateway)
        found.append({"name": "gateway-tmp", "emptyDir": {"sizeLimit": quantity(GATEWAY_TEMPORARY_BYTES)}})
        for name, is_tls in (("tls", True), ("gateway-keys", False)):
            items = [{"key": secret.key, "path": secret.key} for secret in secrets if secret.is_tls is is_tls]
            source = {"secretName": f"{settings.name}-{name}", "defaultMode": READABLE, "items": items}
            if items:
                found.append({"name": name, "secret": source})
    return found


def models_mount(deployment: Deployment) -> list[dict[str, Any]]:
    """The models' volume, read-only, where they are not in the image."""
    if deployment.settings.models == "image":
        return []
    return [{"name": "models", "mountPath": MODELS, "readOnly": True}]


def environment(deployment: Deployment) -> list[dict[str, str]]:
    """Variables of the server's container; without GPUs, none of the node's is shown to it."""
    values = {**ENVIRONMENT, **({} if deployment.gpu_count else {"NVIDIA_VISIBLE_DEVICES": "none"})}
    return [{"name": name, "value": value} for name, value in values.items()]


def gpu_resources(deployment: Deployment) -> dict[str, str]:
    """The GPUs, or slices, of the models."""
    return {deployment.settings.gpu_resource: str(deployment.gpu_count)} if deployment.gpu_count else {}


def resources(cpus: int, memory_bytes: int, temporary_bytes: int, gpus: dict[str, str]) -> dict[str, Any]:
    """Requests that are the limits: nothing is promised that is not there, and nothing is taken beyond it."""
    values = {
        "cpu": str(cpus),
        "memory": quantity(memory_bytes),
        # The container's own log is counted too, and an emptyDir may be over its size between two looks at it.
        "ephemeral-storage": quantity(temporary_bytes + temporary_bytes // 4),
        **gpus,
    }
    return {"requests": dict(values), "limits": dict(values)}
