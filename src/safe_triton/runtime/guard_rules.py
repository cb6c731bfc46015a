"""What the guard refuses, as frozen data compiled from a policy."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.grants import compile_grants
from safe_triton.policy.sandbox import SandboxPolicy

KINDS = ("ctypes", "file", "guard", "import", "network", "pickle", "process", "write")
"""Kinds of violations: the label ``kind`` of ``safe_triton_violations_total``."""

PROCESS_EVENTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
)
NETWORK_EVENTS = (
    "socket.__new__",
    "socket.connect",
    "socket.bind",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
)
# Event -> positions of (path, descriptor of the folder that it is relative to, or None) of what is changed.
CHANGE_EVENTS: Mapping[str, tuple[tuple[int, int | None], ...]] = {
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
    "os.setxattr": ((0, None),),
    "os.removexattr": ((0, None),),
}
LIST_EVENTS = ("os.listdir", "os.scandir")

# What pickles of plain data name; everything else could be a function that is called.
PLAIN_DATA = frozenset(
    {
        *(("builtins", name) for name in ("set", "frozenset", "bytearray", "complex", "range", "slice", "object")),
        *(("collections", name) for name in ("OrderedDict", "deque", "defaultdict", "Counter")),
        *(("datetime", name) for name in ("date", "time", "datetime", "timedelta", "timezone")),
        *(("numpy", name) for name in ("ndarray", "dtype")),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        ("copyreg", "_reconstructor"),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        ("_codecs", "encode"),
    }
)

AF_UNIX, SOCK_STREAM, SOCK_TYPE_MASK = 1, 1, 0xF
PROC_SELF = "/proc/self"
CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
MAX_LINKS = 40

TABLE = "[models.{model}.sandbox] "
"""Table of the operator's policy, where the line that follows grants what was refused; a refusal fills in the model."""

GRANT = f"grant it in safe-triton.toml: {TABLE}"
NETWORK_GRANT = f'{GRANT}network = {{ reason = "…" }}'
PROCESS_GRANT = f'{GRANT}processes = {{ reason = "…" }}'
LIBRARY_GRANT = f"{GRANT}executable_memory = true"
PICKLE_GRANT = "no grant allows it: unpickle in load(), before the seal"
IMPORT_GRANT = f"no grant allows code from there; for a folder that is not writable: {TABLE}read = […]"


@dataclass(frozen=True, kw_only=True)
class GuardRules:
    """What may be used; compiled from a policy.

    Args:
        read: files and folders to read.
        write: files and folders to change.
        listed: folders to list, or to open as such.
        ignored: folders of the search path, which importing lists whether they are granted or not; left to the kernel.
        has_network: whether sockets are granted.
        ports: TCP ports that may be connected to; ``None`` for any.
        has_processes: whether programs and processes are granted; then pickles are too, which carry work to them.
        has_libraries: whether native libraries may still be loaded.
        own_classes: module and name of the author's classes, which pickles may name besides plain data.
    """

    read: frozenset[str]
    write: frozenset[str]
    listed: frozenset[str]
    ignored: frozenset[str]
    has_network: bool
    ports: tuple[int, ...] | None
    has_processes: bool
    has_libraries: bool
    own_classes: frozenset[tuple[str, str]] = frozenset()


def compile_rules(
    policy: SandboxPolicy,
    python: tuple[str, ...],
    search_path: Iterable[str],
    own_classes: frozenset[tuple[str, str]] = frozenset(),
) -> GuardRules:
    """Return the rules of a policy in this process.

    Args:
        policy: with placeholders filled in, and with what the process itself needs.
        python: folders of the Python environment.
        search_path: ``sys.path``.
        own_classes: of the author's.
    """
    grants = compile_grants(policy, python)
    own = f"/proc/{os.getpid()}"

    def having(right: int) -> frozenset[str]:
        found = {grant.path for grant in grants if grant.access & right}
        return frozenset(found | {own for path in found if path == PROC_SELF})

    return GuardRules(
        read=having(rights.READ_FILE),
        write=having(rights.WRITE_FILE),
        listed=having(rights.READ_DIR),
        ignored=frozenset(os.path.abspath(path) for path in search_path),
        has_network=bool(policy.network),
        ports=policy.network.to if policy.network and policy.network.to != "any" else None,
        has_processes=bool(policy.processes),
        has_libraries=policy.executable_memory,
        own_classes=own_classes,
    )
