"""One container as compose, Kubernetes, Dockerfiles and ``docker run`` describe it, in one form."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import Literal

from safe_triton.audit.deployment.words import Word

Origin = Literal["kubernetes", "compose", "docker run", "dockerfile"]
User = Literal["root", "other", "absent", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One mount.

    Args:
        source: path on the host, or the name or kind of a volume.
        target: path in the container; empty where a host path is declared and nobody mounts it.
        is_host: whether the source is a path of the host.
        is_read_only: whether the container cannot write to it.
        line: where it is declared.
    """

    source: str
    target: str
    is_host: bool
    is_read_only: bool
    line: int


@dataclass(frozen=True)
class Variable:
    """One environment variable with a value of its own."""

    name: str
    value: str
    line: int


@dataclass(kw_only=True)
class Container:
    """What a container may do and use. A line of 0 or an empty collection: not declared.

    Args:
        origin: which tool describes it; its defaults are that tool's.
        name: of the service or container.
        line: where it begins.
        is_triton: whether it runs Triton, or may.
        is_strict: whether what is not declared counts: for every container of a pod, and for what runs Triton.
        is_init: whether it ends before the others start.
        image: reference and its line.
        user: who it runs as; ``absent``: the image decides.
        escalation_line: of what allows more privileges than the parent's; -1: they are refused.
        networks: of compose, by name, with lines.
        public_ports: what is published to other machines, with lines.
        host_namespaces: ``network``, ``pid``, ``ipc`` with their lines.
        gpus: ``all``, ``bounded``, ``absent`` or ``none`` (none can be seen).
    """

    origin: Origin
    name: str
    line: int
    is_triton: bool = False
    is_strict: bool = False
    is_init: bool = False
    image: Word | None = None
    runtime_version: Word | None = None
    command: list[Word] = field(default_factory=list)
    privileged_line: int = 0
    user: User = "absent"
    user_line: int = 0
    escalation_line: int = 0
    added_caps: list[Word] = field(default_factory=list)
    drops_all_caps: bool = False
    is_rootfs_read_only: bool = False
    seccomp: Literal["unconfined", "set", "absent"] = "absent"
    seccomp_line: int = 0
    host_namespaces: dict[str, int] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    devices: list[Word] = field(default_factory=list)
    has_memory_limit: bool = False
    has_cpu_limit: bool = False
    has_pids_limit: bool = False
    gpus: Literal["all", "bounded", "absent", "none"] = "absent"
    gpus_line: int = 0
    public_ports: list[Word] = field(default_factory=list)
    environment: list[Variable] = field(default_factory=list)
    shm: Word | None = None
    is_network_isolated: bool = False
    networks: dict[str, int] = field(default_factory=dict)
    has_token: bool = False
    resources_line: int = 0
    security_line: int = 0

    @property
    def is_gateway(self) -> bool:
        """Whether it runs this package's gateway, which listens with TLS or says in its policy why not."""
        words = [posixpath.basename(word.text) for word in self.command[:2]]
        return words == ["safe-triton", "gateway"]


@dataclass(frozen=True)
class Image:
    """The parts of an image reference."""

    repository: str
    tag: str
    digest: str


def parse_image(reference: str) -> Image:
    """Split ``registry:5000/a/b:tag@sha256:…``."""
    rest, _, digest = reference.partition("@")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    return Image(head, tag, digest)


def is_unlimited(value: str) -> bool:
    """Tell whether a limit is written that is none."""
    return value.strip().lower() in {"", "0", "-1", "unlimited", "max", "none", "null", "~"}


def clean_path(path: str) -> str:
    """A path without ``..``, double and trailing slashes; ``/`` for the root."""
    cleaned = posixpath.normpath(path.strip() or ".")
    return "/" + cleaned.lstrip("/") if cleaned.startswith("/") else cleaned


def bytes_of(text: str) -> int:
    """Read ``64g``, ``16Gi``, ``512MB`` or a plain number; 0 for anything else."""
    text = text.strip().lower().removesuffix("b").removesuffix("i")
    factor = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}.get(text[-1:], 1)
    number = text[:-1] if factor > 1 else text
    try:
        return int(float(number) * factor) if len(number) < 20 else 0
    except (ValueError, OverflowError):
        return 0
