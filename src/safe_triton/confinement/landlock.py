"""Landlock: files, TCP ports and abstract sockets, decided by the kernel at the moment of use."""

from __future__ import annotations

import errno
import os
import stat
import struct
from dataclasses import dataclass

from safe_triton import _libc
from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.grants import Grant
from safe_triton.confinement.syscall_numbers import number_here

_GET_VERSION = 1 << 0
_GET_ERRATA = 1 << 1
_RULE_PATH_BENEATH = 1
_RULE_NET_PORT = 2


@dataclass(frozen=True)
class LandlockPlan:
    """A ruleset as plain data.

    Args:
        abi: version that the plan is for.
        files: file rights that are denied unless granted.
        network: network rights that are denied unless granted.
        scopes: scopes that end at this process.
        grants: exceptions for paths.
        connect_ports: TCP ports that may be connected to.
        bind_ports: TCP ports that may be listened on.
        flags: for ``landlock_restrict_self``.
    """

    abi: int
    files: int
    network: int
    scopes: int
    grants: tuple[Grant, ...]
    connect_ports: tuple[int, ...]
    flags: int
    bind_ports: tuple[int, ...] = ()


def probe() -> tuple[int, str]:
    """Ask the kernel for its ABI: ``(version, "")``, or ``(0, why not)``."""
    try:
        return _call("landlock_create_ruleset", 0, 0, _GET_VERSION), ""
    except OSError as error:
        return 0, {
            errno.ENOSYS: "the kernel is built without Landlock",
            errno.EOPNOTSUPP: "Landlock is not among the security modules started at boot (lsm=landlock,…)",
            errno.EPERM: "a seccomp filter, probably the container's, refuses Landlock",
        }.get(error.errno or 0, f"the kernel answers {errno.errorcode.get(error.errno or 0, 'an error')}")


def probe_errata() -> int:
    """Ask the kernel which of its Landlock errors are repaired, as bits; 0 where it cannot tell."""
    try:
        return _call("landlock_create_ruleset", 0, 0, _GET_ERRATA)
    except OSError:
        return 0


def plan(
    version: int,
    grants: tuple[Grant, ...],
    connect_ports: tuple[int, ...] | None,
    bind_ports: tuple[int, ...] = (),
) -> LandlockPlan:
    """Return the strictest ruleset that an ABI offers; pure.

    Args:
        version: the kernel's ABI, at least 1.
        grants: paths with all the rights they should have; those that the ABI does not know are left out.
        connect_ports: TCP ports to allow; ``None`` leaves connecting to other mechanisms.
        bind_ports: TCP ports to listen on.
    """
    known = rights.abi(version)
    network = known.network if connect_ports is not None else known.network & ~rights.NET_CONNECT_TCP
    return LandlockPlan(
        abi=known.version,
        files=known.files,
        network=network,
        scopes=known.scopes,
        grants=tuple(Grant(grant.path, grant.access & known.files, grant.is_required) for grant in grants),
        connect_ports=connect_ports or () if network & rights.NET_CONNECT_TCP else (),
        flags=rights.RESTRICT_ALL_THREADS if known.has_thread_sync else 0,
        bind_ports=bind_ports if network & rights.NET_BIND_TCP else (),
    )


def open_ruleset(plan: LandlockPlan) -> int:
    """Make the kernel's ruleset and return its descriptor, which the caller closes. Nothing is restricted yet.

    Raises:
        FileNotFoundError: a required grant's path does not exist.
        OSError: what the kernel answered.
    """
    known = rights.abi(plan.abi)
    attributes = struct.pack("=Q", plan.files)
    if known.network:
        attributes += struct.pack("=Q", plan.network)
    if known.scopes:
        attributes += struct.pack("=Q", plan.scopes)
    ruleset = _call("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for grant in plan.grants:
            _add_path(ruleset, grant)
        for right, ports in ((rights.NET_CONNECT_TCP, plan.connect_ports), (rights.NET_BIND_TCP, plan.bind_ports)):
            for port in ports:
                _call("landlock_add_rule", ruleset, _RULE_NET_PORT, struct.pack("=QQ", right, port), 0)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def restrict_call(ruleset: int, flags: int) -> tuple[int, ...]:
    """Return the system call, number first, that restricts the thread that makes it."""
    return (number_here("landlock_restrict_self"), ruleset, flags)


def restrict(ruleset: int, flags: int) -> None:
    """Restrict the calling thread, or with the flag every thread; irreversible.

    Raises:
        OSError: what the kernel answered; ``EPERM`` without no_new_privs.
    """
    _libc.syscall(*restrict_call(ruleset, flags))


def _add_path(ruleset: int, grant: Grant) -> None:
    """Grant rights beneath a path; a default path that is not here is left out."""
    try:
        # O_PATH: the rule is about what the name leads to now; links are followed here, once.
        descriptor = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        if grant.is_required:
            raise
        return
    try:
        access = grant.access
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= rights.FILE_RIGHTS
        if access:
            _call("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(name: str, *arguments: int | bytes) -> int:
    return _libc.syscall(number_here(name), *arguments)
