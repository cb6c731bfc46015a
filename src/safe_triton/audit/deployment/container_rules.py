"""The rules for one container, whoever describes it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from safe_triton.audit.deployment.container import Container, Mount, bytes_of, clean_path
from safe_triton.audit.deployment.fixes import fix_for
from safe_triton.audit.deployment.images import judge_image, judge_release
from safe_triton.audit.deployment.secrets import is_secret
from safe_triton.audit.deployment.server_rules import is_inside
from safe_triton.audit.finding import Finding, Level

EXCESSIVE_SHM_BYTES = 16 << 30

_SOCKETS = re.compile(r"(?:docker|containerd|crio|podman|cri-dockerd|buildkitd)\.sock$")
_SOCKET_FOLDERS = frozenset({"/var/run", "/run", "/run/containerd", "/run/podman", "/var/run/docker", "/run/crio"})
_SYSTEM_FOLDERS = "bin boot dev etc home lib lib64 proc root run sbin sys usr var"
_SYSTEM = tuple(f"/{name}" for name in _SYSTEM_FOLDERS.split())
_MODEL_FOLDER = re.compile(
    r"(?:^|/)[\w.-]*models?(?:[-_]?(?:repo|repository|repositories|store|zoo))?(?:/|$)|repository"
)
# What Docker grants by default; the Pod Security baseline allows adding these.
_DEFAULT_CAPS = "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
_BASELINE = frozenset(_DEFAULT_CAPS.split())


def judge_container(container: Container, shown: str) -> list[Finding]:
    """Return the findings of one container."""
    judges = (_privileges, _missing_privileges, _namespaces, _mounts, _limits, _gpus, _open, _image)
    return [finding for judge in judges for finding in judge(container, shown)]


class _Say:
    """Findings of one container: its name stands in every message."""

    def __init__(self, container: Container, shown: str) -> None:
        self._name = container.name
        self._line = container.line
        self._shown = shown
        self._origin = container.origin

    def __call__(self, rule: str, line: int, message: str, level: Level | None = None) -> Finding:
        text = f"{self._name}: {message}" if self._name else message
        return Finding(
            rule=rule,
            path=self._shown,
            line=max(line, 0) or self._line,
            message=text,
            level=level,
            fix=fix_for(rule, self._origin),
        )


def _privileges(box: Container, shown: str) -> Iterator[Finding]:
    """What is granted."""
    say = _Say(box, shown)
    if box.privileged_line:
        yield say("privileged", box.privileged_line, "privileged: the container is root on the host")
    for cap in box.added_caps:
        name = cap.text.upper().removeprefix("CAP_")
        if name != "NET_BIND_SERVICE":
            level = Level.WARNING if name in _BASELINE else None
            yield say("caps-added", cap.line, f"the capability {name} is added", level)
    if box.user == "root" or (box.user == "absent" and box.is_strict):
        text = "runs as root" if box.user == "root" else "no user is named: Triton's image runs as root"
        if box.origin == "kubernetes" and box.user == "absent":
            text = "runs as root unless the image says otherwise: runAsNonRoot is not true"
        yield say("run-as-root", box.user_line or box.security_line, text)
    if box.seccomp == "unconfined":
        yield say(
            "seccomp-unconfined", box.seccomp_line, "a kernel filter (seccomp, AppArmor, masked /proc) is switched off"
        )
    elif box.seccomp == "absent" and box.origin == "kubernetes":
        text = "no seccompProfile: Kubernetes starts it without a filter unless the node says otherwise"
        yield say("seccomp-unconfined", box.security_line, text, Level.INFO)


def _missing_privileges(box: Container, shown: str) -> Iterator[Finding]:
    """What is not taken away."""
    say = _Say(box, shown)
    if box.origin == "dockerfile" or not box.is_strict:
        return
    if box.escalation_line >= 0:
        word = "allowPrivilegeEscalation is not false" if box.origin == "kubernetes" else "no-new-privileges is not set"
        yield say("privilege-escalation", box.escalation_line or box.security_line, f"{word}: setuid programs work")
    if not box.drops_all_caps:
        yield say("caps-not-dropped", box.security_line, "the default capabilities are kept: drop ALL")
    if not box.is_rootfs_read_only:
        yield say("writable-rootfs", box.security_line, "the root file system is writable")
    if box.has_token:
        yield say(
            "service-account-token",
            box.line,
            "a Kubernetes API token is mounted: automountServiceAccountToken is not false",
        )


def _namespaces(box: Container, shown: str) -> Iterator[Finding]:
    say = _Say(box, shown)
    texts = {
        "network": "shares the host's network: its loopback, and every port, is the host's",
        "pid": "shares the host's processes: it sees and may signal them",
        "ipc": "shares the host's shared memory: other containers' tensors can be read and written",
    }
    for which, line in box.host_namespaces.items():
        yield say(f"host-{which}", line, texts[which])


def _mounts(box: Container, shown: str) -> Iterator[Finding]:
    say = _Say(box, shown)
    repositories = [value for value in _repositories(box) if value.startswith("/")]
    for mount in box.mounts:
        if mount.is_host:
            yield from _host_mount(box, mount, say)
        if box.is_init or not box.is_triton or not mount.target or mount.is_read_only:
            continue
        target = clean_path(mount.target)
        holds = (
            [one for one in repositories if is_inside(one, target) or is_inside(target, one)] if target != "/" else []
        )
        if holds or (not repositories and _MODEL_FOLDER.search(target)):
            text = f"the model repository {target} is mounted writable: the server may change its own code"
            yield say("writable-model-mount", mount.line, text)
    for variable in box.environment:
        if variable.name in {"DOCKER_HOST", "CONTAINER_HOST", "CONTAINERD_ADDRESS"} and variable.value:
            text = f"{variable.name} points at a container runtime: whoever reaches it is root on the host"
            yield say("docker-socket", variable.line, text)
    for device in box.devices:
        if not re.match(r"/dev/(nvidia|infiniband|dri|kfd|fuse|null|shm)|nvidia\.com/|/dev/nv", device.text):
            yield say("host-path", device.line, f"the host's device {device.text} is passed through")


def _repositories(box: Container) -> list[str]:
    """The model repositories that its command names."""
    text = " ".join(word.text for word in box.command)
    return re.findall(r"--model-(?:repository|store|repo\w*)[= ]\s*([^\s\"';]+)", text)


def _host_mount(box: Container, mount: Mount, say: _Say) -> Iterator[Finding]:
    source = clean_path(mount.source)
    if _SOCKETS.search(source) or source in _SOCKET_FOLDERS:
        yield say("docker-socket", mount.line, f"{source} is mounted: whoever reaches it is root on the host")
        return
    home = re.match(r"~|\$\{?HOME\}?", source)
    is_system = any(is_inside(source, top) for top in _SYSTEM)
    if source == "/":
        yield say("host-path", mount.line, "the host's whole file system is mounted", Level.ERROR)
    elif box.origin == "kubernetes" or is_system or (home and re.fullmatch(r"(~|\$\{?HOME\}?)/?(\.[\w-]+.*)?", source)):
        yield say("host-path", mount.line, f"the host's {source} is mounted")


def _limits(box: Container, shown: str) -> Iterator[Finding]:
    say = _Say(box, shown)
    if box.shm is not None and (bytes_of(box.shm.text) >= EXCESSIVE_SHM_BYTES or box.shm.text == "unlimited"):
        yield say("shm-excessive", box.shm.line, f"shared memory of {box.shm.text}: memory that no model gives back")
    if box.origin == "dockerfile" or box.is_init:
        return
    if not box.has_memory_limit:
        yield say("no-memory-limit", box.resources_line, "no memory limit: one model can take the host's memory")
    if not box.is_strict:
        return
    if not box.has_cpu_limit:
        yield say("no-cpu-limit", box.resources_line, "no CPU limit")
    if not box.has_pids_limit and box.origin != "kubernetes":
        yield say("no-pids-limit", box.resources_line, "no limit on the number of processes")


def _gpus(box: Container, shown: str) -> Iterator[Finding]:
    say = _Say(box, shown)
    if box.gpus == "all":
        yield say("all-gpus", box.gpus_line, "every GPU of the host is given to it")
    elif box.gpus == "absent" and box.origin == "kubernetes" and box.is_triton and not box.is_init:
        text = "no nvidia.com/gpu limit: under the NVIDIA runtime Triton's image sees every GPU of the node"
        yield say("no-gpu-limit", box.resources_line, text)


def _open(box: Container, shown: str) -> Iterator[Finding]:
    say = _Say(box, shown)
    for port in () if box.is_gateway else box.public_ports:
        yield say("ports-public", port.line, f"port {port.text} is published on every address of the host")
    is_open = not box.is_network_isolated and "network" not in box.host_namespaces
    if is_open and box.is_strict and not box.is_init and box.origin != "dockerfile":
        yield say("network-not-isolated", box.line, _NOT_ISOLATED[box.origin])
    for variable in box.environment if box.origin != "dockerfile" else ():
        if is_secret(variable.name, variable.value):
            text = f"{variable.name} holds a secret in this file, and every process of the container inherits it"
            yield say("secrets-in-env", variable.line, text)


_NOT_ISOLATED = {
    "kubernetes": "no NetworkPolicy in this file selects it: it may talk to everything",
    "compose": "none of its networks is internal: true: it may talk to everything",
    "docker run": "its network reaches everything",
}


def _image(box: Container, shown: str) -> Iterator[Finding]:
    if box.image is not None and box.image.text:
        for finding in judge_image(box.image, shown):
            yield dataclasses.replace(
                finding, message=f"{box.name}: {finding.message}" if box.name else finding.message
            )
    if box.runtime_version is not None:
        found = re.search(r"\d\d\.\d\d", box.runtime_version.text)
        if found:
            yield from judge_release(found[0], "Triton", box.runtime_version.line, shown)
