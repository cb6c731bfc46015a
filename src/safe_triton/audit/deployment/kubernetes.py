"""Kubernetes manifests as containers: pods wherever they stand in a document, lists, KServe, services and policies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from safe_triton.audit.deployment.container import Container, Mount, Variable, is_unlimited
from safe_triton.audit.deployment.images import is_triton_image
from safe_triton.audit.deployment.words import Word, basename, expand_kubernetes
from safe_triton.audit.deployment.yamltree import ABSENT, Node
from safe_triton.audit.finding import Finding

# KServe: a container under the name of its runtime instead of in a list.
_SERVING = ("triton", "model", "tensorrt", "pytorch", "tensorflow", "onnx")
_COMPONENTS = ("predictor", "transformer", "explainer")
_READ_ONLY_VOLUMES = ("configMap", "secret", "projected", "downwardAPI", "image", "gitRepo")
_GPU = re.compile(r"(nvidia|amd|intel)\.com/|gpu")
_TLS_PORTS = frozenset({"443", "8443"})


@dataclass
class Pod:
    """A pod's specification with what stands around it."""

    spec: Node
    labels: dict[str, str]
    annotations: Node
    containers: list[Container] = field(default_factory=list)


def read_manifests(documents: Iterable[Node]) -> list[Container]:
    """Return the containers of all pods in a file's documents."""
    objects = list(_objects(documents))
    policies = [one for one in objects if one["kind"].text == "NetworkPolicy"]
    boxes: list[Container] = []
    for one in objects:
        if one["kind"].text == "CustomResourceDefinition":
            continue
        for pod in _pods(one):
            _read_pod(pod)
            isolated = any(_selects(policy, pod.labels) for policy in policies)
            has_token = _mounts_token(pod, objects)
            limited = any(row["default.memory"] for other in objects for row in other["spec.limits"])
            for number, box in enumerate(pod.containers):
                # What concerns the pod is said once.
                box.is_network_isolated = isolated or number > 0
                box.has_token = has_token and number == 0
                box.has_memory_limit |= limited
            boxes += pod.containers
    return boxes


def judge_objects(documents: Iterable[Node], shown: str) -> list[Finding]:
    """Return what is to say about objects that are no pods: services, host volumes."""
    found = []
    for one in _objects(documents):
        kind, spec = one["kind"].text, one["spec"]
        name = one["metadata.name"].text or kind
        if kind == "Service" and spec["type"].text in {"LoadBalancer", "NodePort"} and not _is_guarded(one):
            text = f"{name}: a {spec['type'].text} service is reachable from outside the cluster"
            found.append(Finding(rule="ports-public", path=shown, line=spec.line_of("type"), message=text))
        elif kind == "Service" and spec["externalIPs"].items:
            text = f"{name}: externalIPs make the service reachable from outside the cluster"
            found.append(Finding(rule="ports-public", path=shown, line=spec.line_of("externalIPs"), message=text))
        elif kind == "Ingress" and not spec["tls"].items:
            text = f"{name}: an Ingress without tls publishes its service in plain text"
            found.append(Finding(rule="ports-public", path=shown, line=one.line_of("spec"), message=text))
        elif kind == "PersistentVolume" and spec["hostPath.path"]:
            path = spec["hostPath.path"]
            text = f"{name}: a volume of the node's {path.text}"
            found.append(Finding(rule="host-path", path=shown, line=path.line, message=text))
    return found


def _is_guarded(service: Node) -> bool:
    """A load balancer that is internal, or open to named networks, or publishes TLS only."""
    spec = service["spec"]
    ports = {port["port"].text for port in spec["ports"]}
    ranges = {one.text for one in spec["loadBalancerSourceRanges"]}
    internal = any(
        "internal" in key and value.text.lower() in {"true", "internal", "0.0.0.0/0"}
        for key, value in service["metadata.annotations"].fields.items()
    )
    return internal or (bool(ranges) and "0.0.0.0/0" not in ranges) or (bool(ports) and ports <= _TLS_PORTS)


def _objects(documents: Iterable[Node], depth: int = 0) -> Iterator[Node]:
    """Yield objects, lists unpacked."""
    for one in documents:
        if one.kind == "list" and depth < 4:
            yield from _objects(one.items, depth + 1)
        elif one["kind"].text.endswith("List") and one["items"].kind == "list" and depth < 4:
            yield from _objects(one["items"].items, depth + 1)
        elif one.kind == "mapping":
            yield one


def _pods(root: Node) -> Iterator[Pod]:
    """Find every pod specification: a mapping with a list of containers, or one of KServe's."""
    seen: set[int] = set()
    stack: list[tuple[Node, Node]] = [(root, ABSENT)]
    while stack:
        node, parent = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        serving = [name for name in _SERVING if node[name].kind == "mapping"]
        is_component = any(parent[name] is node for name in _COMPONENTS)
        if any(one.kind == "mapping" for one in node["containers"]) or (is_component and serving):
            metadata = parent["metadata"] or root["metadata"]
            labels = {key: value.text for key, value in metadata["labels"].fields.items()}
            yield Pod(node, labels, metadata["annotations"])
        stack += [(child, node) for child in reversed(node.items or list(node.fields.values()))]


def _read_pod(pod: Pod) -> None:
    spec = pod.spec
    volumes = {volume["name"].text: volume for volume in spec["volumes"]}
    used: set[str] = set()
    for key in ("containers", "initContainers", "ephemeralContainers"):
        for node in spec[key]:
            if node.kind == "mapping":
                is_init = key == "initContainers" and node["restartPolicy"].text != "Always"
                pod.containers.append(_read_container(node, pod, volumes, used, is_init=is_init))
    for name in _SERVING:
        if spec[name].kind == "mapping":
            box = _read_container(spec[name], pod, volumes, used, is_init=False)
            box.name = box.name or name
            box.is_triton = name in {"triton", "model"}
            pod.containers.append(box)
    first = pod.containers[0]
    for which in ("Network", "PID", "IPC"):
        if spec[f"host{which}"].is_true:
            first.host_namespaces[which.lower()] = spec.line_of(f"host{which}")
    for name, volume in volumes.items():
        path = volume["hostPath.path"]
        if path and name not in used:
            first.mounts.append(Mount(source=path.text, target="", is_host=True, is_read_only=True, line=path.line))
    serving = [box for box in pod.containers if not box.is_init]
    if not any(box.is_triton for box in serving):
        for box in serving:
            box.is_triton = _serves_models(box)


def _serves_models(box: Container) -> bool:
    """Whether a container of an image with a name of its own looks like a model server."""
    return (
        any(re.search(r"models?\b|repositor", mount.target) for mount in box.mounts)
        or box.gpus != "absent"
        or bool(re.search(r"triton|infer|predict|serving|model", box.name, re.IGNORECASE))
    )


def _read_container(node: Node, pod: Pod, volumes: dict[str, Node], used: set[str], *, is_init: bool) -> Container:
    box = Container(origin="kubernetes", name=node["name"].text, line=node.line, is_init=is_init, is_strict=True)
    image = node["image"]
    if image:
        box.image = Word(image.text, image.line)
    version = node["runtimeVersion"]
    if version:
        box.runtime_version = Word(version.text, version.line)
    for variable in node["env"]:
        if variable["value"]:
            box.environment.append(Variable(variable["name"].text, variable["value"].text, variable["value"].line))
    known = {one.name: one.value for one in box.environment}
    for key in ("command", "args"):
        value = node[key]
        for item in value.listed:
            text = expand_kubernetes(item.text, known)
            box.command.append(Word(text, item.line + (item.style in {"|", ">"})))
    runs = any(basename(word.text) == "tritonserver" or "tritonserver " in word.text for word in box.command)
    box.is_triton = not is_init and not box.is_gateway and (runs or is_triton_image(image.text))
    _read_security(box, node, pod)
    _read_resources(box, node)
    _read_mounts(box, node, volumes, used)
    for port in node["ports"]:
        if port["hostPort"]:
            box.public_ports.append(Word(port["hostPort"].text, port["hostPort"].line))
    return box


def _read_security(box: Container, node: Node, pod: Pod) -> None:
    own, shared = node["securityContext"], pod.spec["securityContext"]
    box.security_line = node.line_of("securityContext") if own else node.line

    def chosen(path: str) -> Node:
        return own[path] if own[path] is not ABSENT else shared[path]

    if own["privileged"].is_true:
        box.privileged_line = own.line_of("privileged")
    process = chosen("windowsOptions.hostProcess")
    if process.is_true:
        box.privileged_line = process.line
    user, non_root = chosen("runAsUser"), chosen("runAsNonRoot")
    if user and re.fullmatch(r"0+", user.text):
        box.user, box.user_line = "root", user.line
    elif user or non_root.is_true:
        box.user = "other"
    elif non_root.is_false:
        box.user_line = non_root.line
    escalation = own["allowPrivilegeEscalation"]
    if escalation:
        box.escalation_line = -1 if escalation.is_false else escalation.line
    box.added_caps = [Word(cap.text, cap.line) for cap in own["capabilities.add"].listed]
    box.drops_all_caps = any(cap.text.upper() == "ALL" for cap in own["capabilities.drop"].listed)
    box.is_rootfs_read_only = own["readOnlyRootFilesystem"].is_true
    profile, armor = chosen("seccompProfile.type"), chosen("appArmorProfile.type")
    box.seccomp = "set" if profile else "absent"
    marks = [
        profile,
        armor,
        own["procMount"],
        *(value for key, value in pod.annotations.fields.items() if re.search("seccomp|apparmor", key)),
    ]
    for mark in marks:
        if mark.text.lower() in {"unconfined", "unmasked"}:
            box.seccomp, box.seccomp_line = "unconfined", mark.line


def _read_resources(box: Container, node: Node) -> None:
    limits, requests = node["resources.limits"], node["resources.requests"]
    box.resources_line = node.line_of("resources")
    box.has_memory_limit = bool(limits["memory"]) and not is_unlimited(limits["memory"].text)
    box.has_cpu_limit = bool(limits["cpu"]) and not is_unlimited(limits["cpu"].text)
    counted = [
        key
        for resources in (limits, requests)
        for key, value in resources.fields.items()
        if value.text != "0" and _GPU.search(key)
    ]
    if counted or node["resources.claims"].items:
        box.gpus = "bounded"
    for one in box.environment:
        if one.name == "NVIDIA_VISIBLE_DEVICES" and one.value.lower() == "all":
            box.gpus, box.gpus_line = "all", one.line
        elif one.name == "NVIDIA_VISIBLE_DEVICES" and one.value.lower() in {"none", "void"} and not counted:
            box.gpus = "none"
    if any(value.text == "0" and _GPU.search(key) for key, value in limits.fields.items()) and not counted:
        box.gpus = "none"


def _read_mounts(box: Container, node: Node, volumes: dict[str, Node], used: set[str]) -> None:
    for mount in node["volumeMounts"]:
        name = mount["name"].text
        volume = volumes.get(name, ABSENT)
        used.add(name)
        path = volume["hostPath.path"]
        kinds = [volume[f"{kind}.readOnly"] for kind in ("persistentVolumeClaim", "nfs", "csi", "azureFile", "cephfs")]
        is_read_only = mount["readOnly"].is_true or any(one.is_true for one in kinds)
        is_read_only |= any(volume[kind] is not ABSENT for kind in _READ_ONLY_VOLUMES)
        target = mount["mountPath"].text
        source = path.text if path else name
        line = path.line if path else mount.line
        box.mounts.append(Mount(source=source, target=target, is_host=bool(path), is_read_only=is_read_only, line=line))
        if volume["emptyDir.medium"].text == "Memory":
            size = volume["emptyDir.sizeLimit"]
            box.shm = Word(size.text or "unlimited", size.line or volume.line)


def _mounts_token(pod: Pod, objects: list[Node]) -> bool:
    said = pod.spec["automountServiceAccountToken"]
    if said:
        return not said.is_false
    name = pod.spec["serviceAccountName"].text or "default"
    accounts = [one for one in objects if one["kind"].text == "ServiceAccount" and one["metadata.name"].text == name]
    return not any(one["automountServiceAccountToken"].is_false for one in accounts)


def _selects(policy: Node, labels: dict[str, str]) -> bool:
    """Whether a network policy covers a pod and does not let everyone in."""
    spec = policy["spec"]
    wanted = {key: value.text for key, value in spec["podSelector.matchLabels"].fields.items()}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return not any(rule.kind == "mapping" and not rule.fields for rule in spec["ingress"])
