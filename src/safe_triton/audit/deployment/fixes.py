"""What to write instead, in the words of the tool that describes the container."""

from __future__ import annotations

from safe_triton.audit.deployment.container import Origin

_COMPOSE = {
    "run-as-root": 'user: "1000:1000"',
    "writable-model-mount": "./models:/models:ro",
    "no-memory-limit": "mem_limit: 16g",
    "no-cpu-limit": "cpus: 4",
    "no-pids-limit": "pids_limit: 512",
    "all-gpus": "in deploy.resources.reservations: devices: [{driver: nvidia, device_ids: ['0'], capabilities: [gpu]}]",
    "privilege-escalation": 'security_opt: ["no-new-privileges:true"]',
    "caps-not-dropped": "cap_drop: [ALL]",
    "writable-rootfs": "read_only: true",
    "ports-public": 'ports: ["127.0.0.1:8000:8000"]',
    "network-not-isolated": "networks: [inside], and on top networks: {inside: {internal: true}}",
    "secrets-in-env": "secrets: [NAME], read from /run/secrets/NAME",
}
_KUBERNETES = {
    "run-as-root": "securityContext: {runAsNonRoot: true, runAsUser: 1000}",
    "writable-model-mount": "volumeMounts: [{name: models, mountPath: /models, readOnly: true}]",
    "no-memory-limit": "resources: {limits: {memory: 16Gi}}",
    "no-cpu-limit": 'resources: {limits: {cpu: "4"}}',
    "all-gpus": "resources: {limits: {nvidia.com/gpu: 1}}, without NVIDIA_VISIBLE_DEVICES",
    "privilege-escalation": "securityContext: {allowPrivilegeEscalation: false}",
    "caps-not-dropped": "securityContext: {capabilities: {drop: [ALL]}}",
    "writable-rootfs": "securityContext: {readOnlyRootFilesystem: true}",
    "ports-public": "no hostPort; a Service of type ClusterIP",
    "network-not-isolated": "a NetworkPolicy whose podSelector matches the pod's labels",
    "secrets-in-env": "valueFrom: {secretKeyRef: {name: NAME, key: KEY}}",
    "seccomp-unconfined": "securityContext: {seccompProfile: {type: RuntimeDefault}}",
}
_DOCKER_RUN = {
    "run-as-root": "--user 1000:1000",
    "writable-model-mount": "-v ./models:/models:ro",
    "no-memory-limit": "--memory 16g",
    "no-cpu-limit": "--cpus 4",
    "no-pids-limit": "--pids-limit 512",
    "all-gpus": "--gpus device=0",
    "privilege-escalation": "--security-opt no-new-privileges",
    "caps-not-dropped": "--cap-drop ALL",
    "writable-rootfs": "--read-only --tmpfs /tmp",
    "ports-public": "-p 127.0.0.1:8000:8000",
    "network-not-isolated": "docker network create --internal inside, and --network inside",
    "secrets-in-env": "-e NAME, with the value in the environment that starts it",
}
_DOCKERFILE = {
    "run-as-root": "USER 1000:1000",
    "all-gpus": "no ENV NVIDIA_VISIBLE_DEVICES: whoever starts the container chooses",
    "secrets-in-env": "RUN --mount=type=secret,id=NAME, or a variable at start",
}
FIXES: dict[Origin, dict[str, str]] = {
    "compose": _COMPOSE,
    "kubernetes": _KUBERNETES,
    "docker run": _DOCKER_RUN,
    "dockerfile": _DOCKERFILE,
}


def fix_for(rule: str, origin: Origin) -> str:
    """Return what to write; empty where the rule's own text says it."""
    return FIXES[origin].get(rule, "")
