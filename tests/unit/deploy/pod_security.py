"""The Pod Security standard "restricted", control by control, as a table of checks on one pod."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Pod = dict[str, Any]

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS: set[str] = set()


def containers(pod: Pod) -> Iterator[dict[str, Any]]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod.get(key, ())


def own(container: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = container.get("securityContext", {})
    return found


def everywhere(pod: Pod, key: str, is_right: Callable[[Any], bool]) -> bool:
    """Whether a field of the pod, overridden by each container's, is right for every container."""
    shared = pod.get("securityContext", {}).get(key)
    return all(is_right(own(container).get(key, shared)) for container in containers(pod))


def is_profile(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in {"RuntimeDefault", "Localhost"}


def no_host_probes(pod: Pod) -> bool:
    hooks = ("startupProbe", "readinessProbe", "livenessProbe")
    actions = [container.get(hook, {}) for container in containers(pod) for hook in hooks]
    actions += [action for container in containers(pod) for action in container.get("lifecycle", {}).values()]
    return not any("host" in action.get(kind, {}) for action in actions for kind in ("httpGet", "tcpSocket"))


RESTRICTED: tuple[tuple[str, Callable[[Pod], bool]], ...] = (
    ("host namespaces", lambda pod: not any(pod.get(f"host{which}") for which in ("Network", "PID", "IPC"))),
    ("privileged", lambda pod: not any(own(box).get("privileged") for box in containers(pod))),
    (
        "capabilities are dropped",
        lambda pod: all(own(box)["capabilities"]["drop"] == ["ALL"] for box in containers(pod)),
    ),
    ("none is added", lambda pod: not any(own(box)["capabilities"].get("add") for box in containers(pod))),
    ("host paths", lambda pod: not any("hostPath" in volume for volume in pod.get("volumes", ()))),
    (
        "host ports",
        lambda pod: not any(port.get("hostPort") for box in containers(pod) for port in box.get("ports", ())),
    ),
    ("host probes", no_host_probes),
    ("AppArmor", lambda pod: everywhere(pod, "appArmorProfile", lambda value: value is None or is_profile(value))),
    ("SELinux", lambda pod: everywhere(pod, "seLinuxOptions", lambda value: value is None)),
    ("proc mount", lambda pod: all(own(box).get("procMount", "Default") == "Default" for box in containers(pod))),
    ("sysctls", lambda pod: not pod.get("securityContext", {}).get("sysctls")),
    ("volume types", lambda pod: all((set(volume) - {"name"}) <= VOLUMES for volume in pod.get("volumes", ()))),
    ("escalation", lambda pod: all(own(box)["allowPrivilegeEscalation"] is False for box in containers(pod))),
    ("non-root", lambda pod: everywhere(pod, "runAsNonRoot", lambda value: value is True)),
    ("non-root user", lambda pod: everywhere(pod, "runAsUser", lambda value: value not in {0, None})),
    ("seccomp", lambda pod: everywhere(pod, "seccompProfile", is_profile)),
)
"""Source: Kubernetes' page on Pod Security Standards, baseline and restricted, as of 1.34."""


def violations(pod: Pod) -> list[str]:
    """Return the controls that a pod breaks."""
    return [name for name, check in RESTRICTED if not check(pod)]
