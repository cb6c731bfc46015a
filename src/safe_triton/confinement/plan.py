"""From a policy and what the kernel offers to a plan: plain data, no system call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safe_triton.confinement import landlock, rlimits
from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.bpf import AUDIT_ARCH
from safe_triton.confinement.enforcement import Gap
from safe_triton.confinement.grants import Grant, compile_grants
from safe_triton.confinement.landlock import LandlockPlan
from safe_triton.confinement.rlimits import Rlimit
from safe_triton.policy.sandbox import SandboxPolicy

_NETWORK_ABI = 4
_TRUNCATE_ABI = 3


@dataclass(frozen=True)
class Listening:
    """What a program that serves may do beyond its policy, which grants only outgoing connections. Never a model.

    Args:
        ports: TCP ports to listen on.
        folder: absolute; it makes its UNIX sockets there.
    """

    ports: tuple[int, ...]
    folder: str


@dataclass(frozen=True)
class Capabilities:
    """What this process and its kernel have; read by ``probe``.

    Args:
        machine: as ``uname`` says.
        landlock_abi: 0 without Landlock.
        landlock_missing: why there is none.
        seccomp_missing: why there is none; empty where there is.
        is_root: whether the kernel exempts this user from the number of threads.
        has_pids_limit: whether a cgroup bounds the number of threads.
        mapped_bytes: address space in use.
        limits: current soft and hard limits by ``RLIMIT_*``.
        python: folders of the Python environment.
    """

    machine: str
    landlock_abi: int
    landlock_missing: str
    seccomp_missing: str
    is_root: bool
    has_pids_limit: bool
    mapped_bytes: int
    limits: Mapping[int, tuple[int, int]]
    python: tuple[str, ...]


@dataclass(frozen=True)
class ConfinementPlan:
    """Everything that will be applied.

    Args:
        policy: what was asked for.
        requested: mechanisms that the policy needs.
        gaps: what will not hold.
        grants: paths with rights.
        landlock: the ruleset; ``None`` without Landlock.
        has_seccomp: whether a filter is installed.
        has_truncate_right: whether Landlock decides about ``truncate``.
        rlimits: limits to set.
        listens: whether it may accept connections.
    """

    policy: SandboxPolicy
    requested: tuple[str, ...]
    gaps: tuple[Gap, ...]
    grants: tuple[Grant, ...]
    landlock: LandlockPlan | None
    has_seccomp: bool
    has_truncate_right: bool
    rlimits: tuple[Rlimit, ...]
    listens: bool = False


def plan(
    policy: SandboxPolicy,
    capabilities: Capabilities,
    *,
    programs: tuple[str, ...] = (),
    listening: Listening | None = None,
) -> ConfinementPlan:
    """Return the strictest confinement that ``policy`` asks for and ``capabilities`` allow; pure.

    Args:
        policy: with placeholders filled in.
        capabilities: what the kernel has.
        programs: files that will be executed once.
        listening: what it may serve on; ``None``: nothing.
    """
    grants = compile_grants(policy, capabilities.python, programs=programs)
    if listening is not None:
        grants = (*grants, Grant(listening.folder, rights.SOCKETS, is_required=True))
    limits = rlimits.plan(policy.resources, capabilities.limits, has_gpus=bool(policy.gpu_ids))
    ports = None if policy.network and policy.network.to == "any" else () if not policy.network else _ports(policy)
    has_machine = capabilities.machine in AUDIT_ARCH
    abi = capabilities.landlock_abi if has_machine else 0
    files = landlock.plan(abi, grants, ports, listening.ports if listening else ()) if abi else None
    return ConfinementPlan(
        policy=policy,
        requested=(
            "no_new_privs",
            "capabilities",
            "seccomp",
            "landlock.files",
            *(("landlock.ports",) if ports or listening else ()),
            "descriptors",
            "umask",
            *(limit.mechanism for limit in limits),
        ),
        gaps=tuple(_gaps(policy, capabilities, limits, listens=listening is not None)),
        grants=grants,
        landlock=files,
        has_seccomp=has_machine and not capabilities.seccomp_missing,
        has_truncate_right=files is not None and files.abi >= _TRUNCATE_ABI,
        rlimits=limits,
        listens=listening is not None,
    )


def _ports(policy: SandboxPolicy) -> tuple[int, ...]:
    return policy.network.to if policy.network and policy.network.to != "any" else ()


def _gaps(policy: SandboxPolicy, capabilities: Capabilities, limits: tuple[Rlimit, ...], *, listens: bool) -> list[Gap]:
    """What will not hold, each with its fix."""
    if capabilities.machine not in AUDIT_ARCH:
        detail = f"no confinement for {capabilities.machine}"
        return [Gap("seccomp", "confinement.machine", detail, f"use one of {', '.join(AUDIT_ARCH)}")]
    gaps = []
    if not capabilities.landlock_abi:
        fix = "use Linux 5.13 or later with landlock in the lsm= list"
        gaps.append(Gap("landlock.files", "confinement.landlock", capabilities.landlock_missing, fix))
    elif (_ports(policy) or listens) and capabilities.landlock_abi < _NETWORK_ABI:
        detail = f"Landlock ABI {capabilities.landlock_abi} cannot compare TCP ports"
        gaps.append(Gap("landlock.ports", "confinement.landlock_ports", detail, "use Linux 6.7 or later"))
    if capabilities.seccomp_missing:
        fix = "use a kernel with CONFIG_SECCOMP_FILTER, and a container profile that allows seccomp"
        gaps.append(Gap("seccomp", "confinement.seccomp", capabilities.seccomp_missing, fix))
    for limit in limits:
        if limit.mechanism == "rlimit.memory" and not policy.gpu_ids and capabilities.mapped_bytes > limit.value:
            detail = f"{capabilities.mapped_bytes} bytes are mapped already, {limit.value} are allowed"
            gaps.append(Gap(limit.mechanism, "confinement.memory", detail, "raise memory_bytes"))
        if limit.mechanism == "rlimit.user_threads" and capabilities.is_root and not capabilities.has_pids_limit:
            fix = "run as another user, or set a pids limit on the container"
            detail = "the kernel exempts root from the number of threads"
            gaps.append(Gap(limit.mechanism, "confinement.user_threads", detail, fix, is_essential=False))
    return gaps
