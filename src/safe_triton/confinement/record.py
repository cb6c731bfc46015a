"""Record instead of confine: the kernel reports each call that a policy decides about, and lets it happen.

For ``safe-triton learn`` only. It is no protection: the answer to every report is "go on", and a call's arguments may
change after they were looked at.

Source:
    Linux ``seccomp_unotify(2)``; the answer "go on" needs Linux 5.5.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import socket
import struct

from safe_triton import _libc
from safe_triton.confinement.bpf import RETURN, Instruction, Program, compile_filter, pack, refusal
from safe_triton.confinement.enforcement import refused
from safe_triton.confinement.seccomp_profile import ABSENT, Check, ProcessFacts, compile_rules
from safe_triton.confinement.syscall_numbers import number_of
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.unsafe import AllowNetwork

# Calls that the profile allows because Landlock decides about their paths.
FILE_CALLS: frozenset[str] = frozenset(
    """
    open openat openat2 creat truncate mkdir mkdirat rmdir unlink unlinkat
    rename renameat renameat2 link linkat symlink symlinkat
    """.split()  # noqa: SIM905 - a table of words
)

# include/uapi/linux/seccomp.h
RET_USER_NOTIF = 0x7FC0_0000
_SET_MODE_FILTER = 1
_NEW_LISTENER = 8
_PR_SET_NO_NEW_PRIVS = 38

_FIRST_FREE = 700  # a descriptor number that no program reaches by counting up
_ARCHITECTURE_CHECKS = 6  # instructions at the start of a filter, x86-64's check for x32 included


def compile_recording(facts: ProcessFacts, machine: str, handover: int) -> Program:
    """Return a filter that reports what the default profile refuses, and what Landlock decides about; pure.

    Calls that a confined process finds absent are absent here too, so that the C library takes the same ways.

    Args:
        facts: the process.
        machine: ``x86_64`` or ``aarch64``.
        handover: the one descriptor on which ``sendmsg`` is not reported.
    """
    closed = SandboxPolicy(executable_memory=False)
    open_network = dataclasses.replace(closed, network=AllowNetwork(reason="what it is used for is reported"))
    rules = {
        name: alternatives
        for name, alternatives in compile_rules(open_network, facts).items()
        if name not in FILE_CALLS | {"connect", "sendmmsg"}
    }
    rules["sendto"] = compile_rules(closed, facts)["sendto"]
    rules["sendmsg"] = ((Check(0, handover),),)
    program = compile_filter(rules, ABSENT, machine)
    refuse, report = Instruction(RETURN, refusal(errno.EPERM)), Instruction(RETURN, RET_USER_NOTIF)
    start = program[:_ARCHITECTURE_CHECKS]
    return (*start, *(report if line == refuse else line for line in program[_ARCHITECTURE_CHECKS:]))


def record(address: str, entry: str, instance: str) -> None:
    """Have the kernel report this process's calls, and its children's, to whoever listens at ``address``.

    Args:
        address: path of a unix socket.
        entry: the model's entry file.
        instance: Triton's name of the instance.

    Raises:
        ConfinementError: reason ``confinement.record``; the kernel or the listener refuses.
    """
    machine = os.uname().machine
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(address)
            handover = fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
        facts = ProcessFacts(pid=os.getpid(), parent_pid=os.getppid(), has_truncate_right=True)
        listener = _install(pack(compile_recording(facts, machine, handover)), machine)
        with socket.socket(fileno=handover) as connection:
            # Nothing may be imported here: that would open a file, and nobody could answer yet.
            passed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", listener))
            connection.sendmsg([f"{entry}\0{instance}".encode()], [passed])
            os.close(listener)
    except OSError as error:
        raise refused("confinement.record", error.strerror or "the listener cannot be reached") from None


def _install(program: bytes, machine: str) -> int:
    """Put a filter on this thread; return the descriptor that its reports are read from."""
    buffer = bytearray(program)
    descriptor = struct.pack("=H6xQ", len(program) // 8, _libc.address_of(buffer))
    seccomp, prctl = number_of("seccomp", machine), number_of("prctl", machine)
    assert seccomp is not None and prctl is not None  # noqa: S101, PT018 - these calls exist on both machines
    _libc.syscall(prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return _libc.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, descriptor)
