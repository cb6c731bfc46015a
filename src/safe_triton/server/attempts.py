"""What ``doctor`` tries in a process of its own, because it cannot be undone there: each ends in one line of JSON.

Run by :func:`safe_triton.server.doctor.attempt`, never imported by it: an attempt restricts the process that makes it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import mmap
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from safe_triton import _libc
from safe_triton.confinement import bpf, engine, landlock, seccomp
from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.launch import policy_from_plain
from safe_triton.confinement.syscall_numbers import number_of
from safe_triton.errors import SafeTritonError

Answer = dict[str, Any]

_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x1000_0000
_SHM_BYTES = 1 << 20


def main(name: str, argument: str) -> None:
    """Make one attempt and write its answer to standard output."""
    try:
        answer = ATTEMPTS[name](json.loads(argument))
    except SafeTritonError as error:
        answer = {"is_held": False, "reason": error.reason, "detail": error.message}
    except OSError as error:
        answer = {"is_held": False, "detail": error.strerror or type(error).__name__}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    # Not through the interpreter's end: a confined process has nothing to tidy up, and may not be able to.
    os._exit(0)


def try_landlock(_: Any) -> Answer:
    """Restrict this process to nothing, then list ``/`` and connect to what it could reach before."""
    abi, missing = landlock.probe()
    if not abi:
        return {"is_held": False, "abi": 0, "detail": missing}
    planned = landlock.plan(abi, (), ())
    tried: dict[str, Callable[[], None]] = {"files": _list_root}
    if planned.network & rights.NET_CONNECT_TCP and (port := _tcp_listener()) is not None:
        tried["TCP"] = lambda: _connect(socket.AF_INET, ("127.0.0.1", port.getsockname()[1]))
    if planned.scopes & rights.SCOPE_ABSTRACT_UNIX_SOCKET:
        name = b"\0safe_triton_doctor_" + os.urandom(8).hex().encode()
        outside = socket.socket(socket.AF_UNIX)
        outside.bind(name)
        outside.listen()
        tried["abstract sockets"] = lambda: _connect(socket.AF_UNIX, name)
    alive = {what: action for what, action in tried.items() if _refusal(action) == 0}
    ruleset = landlock.open_ruleset(planned)
    _set_no_new_privs()
    landlock.restrict(ruleset, planned.flags)
    outcomes = {what: _refusal(action) in (errno.EACCES, errno.EPERM) for what, action in alive.items()}
    return {
        "is_held": "files" in outcomes and all(outcomes.values()),
        "abi": abi,
        "linux": rights.abi(abi).linux,
        "refused": [what for what, held in outcomes.items() if held],
        "not_refused": [what for what, held in outcomes.items() if not held],
        "detail": "" if "files" in outcomes else "/ cannot be listed even without Landlock, so nothing was proven",
        "errata": landlock.probe_errata(),
    }


def try_seccomp(_: Any) -> Answer:
    """Install a filter that refuses ``socket`` and ask for one, here and on a thread that runs already."""
    machine = os.uname().machine
    if machine not in bpf.AUDIT_ARCH:
        return {"is_held": False, "detail": f"not known on {machine}"}
    number = number_of("socket", machine) or 0
    if (missing := seccomp.probe()) or _refusal(_make_socket) != 0:
        return {"is_held": False, "detail": missing or "no socket can be made even without a filter"}
    filter_ = (
        bpf.Instruction(bpf.LOAD, 0),
        bpf.Instruction(bpf.EQUAL, number, 0, 1),
        bpf.Instruction(bpf.RETURN, bpf.refusal(errno.EPERM)),
        bpf.Instruction(bpf.RETURN, bpf.RET_ALLOW),
    )
    go, outcomes = threading.Event(), []

    def ask_elsewhere() -> None:
        go.wait()
        outcomes.append(_refusal(_make_socket))

    thread = threading.Thread(target=ask_elsewhere, daemon=True)
    thread.start()
    _set_no_new_privs()
    seccomp.install(bpf.pack(filter_))
    go.set()
    thread.join(5)
    outcomes.append(_refusal(_make_socket))
    refused = sum(outcome == errno.EPERM for outcome in outcomes)
    return {"is_held": refused == 2, "detail": f"refused on {refused} of 2 threads"}


def try_no_new_privs(_: Any) -> Answer:
    """Give up new privileges and read whether that is so."""
    _set_no_new_privs()
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        held = any(line.split() == ["NoNewPrivs:", "1"] for line in file)
    return {"is_held": held, "detail": "" if held else "set, and not shown by /proc/self/status"}


def try_user_namespace(_: Any) -> Answer:
    """Make a user namespace."""
    _libc.syscall(number_of("unshare", os.uname().machine) or 0, _CLONE_NEWUSER)
    return {"is_held": True, "detail": ""}


def try_shared_memory(_: Any) -> Answer:
    """Make, grow, map and remove a region as Triton does for each model instance."""
    path = f"/dev/shm/safe_triton_doctor_{os.urandom(8).hex()}"  # noqa: S108 - Triton's own place
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _SHM_BYTES)
        mmap.mmap(descriptor, _SHM_BYTES)[0] = 1
    finally:
        os.unlink(path)
        os.close(descriptor)
    return {"is_held": True, "detail": ""}


def try_stack(wanted_bytes: Any) -> Answer:
    """Raise the limit of the stack as the server's start does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    try:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted_bytes, hard))
    except ValueError:
        return {"is_held": False, "soft": soft, "hard": hard, "detail": "above the hard limit"}
    return {"is_held": True, "soft": soft, "hard": hard, "detail": ""}


def try_devices(paths: Any) -> Answer:
    """Open device files for reading and writing, as CUDA does."""
    outcomes = {path: _refusal(functools.partial(_open, path)) for path in paths}
    wrong = [f"{path}: {os.strerror(number)}" for path, number in outcomes.items() if number]
    return {"is_held": not wrong, "detail": "; ".join(wrong)}


def try_confinement(plain: Any) -> Answer:
    """Apply a whole policy, which verifies itself."""
    found = engine.confine(policy_from_plain(plain))
    return {
        "is_held": found.is_complete,
        "effective": found.effective,
        "gaps": [
            {"reason": gap.reason, "detail": gap.detail, "fix": gap.fix, "is_essential": gap.is_essential}
            for gap in found.gaps
        ],
        "elapsed_ms": found.elapsed_ms,
        "detail": "",
    }


def _set_no_new_privs() -> None:
    _libc.syscall(number_of("prctl", os.uname().machine) or 0, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))


def _list_root() -> None:
    os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _make_socket() -> None:
    os.close(_libc.syscall(number_of("socket", os.uname().machine) or 0, socket.AF_UNIX, socket.SOCK_STREAM, 0))


def _tcp_listener() -> socket.socket | None:
    listener = socket.socket()
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
    except OSError:
        return None
    return listener


def _connect(family: int, address: Any) -> None:
    with contextlib.closing(socket.socket(family)) as connection:
        connection.settimeout(2)
        connection.connect(address)


def _refusal(action: Callable[[], object]) -> int:
    """The error number of an action; 0 when it worked."""
    try:
        action()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


ATTEMPTS: dict[str, Callable[[Any], Answer]] = {
    "landlock": try_landlock,
    "seccomp": try_seccomp,
    "no_new_privs": try_no_new_privs,
    "user_namespace": try_user_namespace,
    "shared_memory": try_shared_memory,
    "stack": try_stack,
    "devices": try_devices,
    "confinement": try_confinement,
}
