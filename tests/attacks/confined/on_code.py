"""Attempts on the kernel's less used doors, and on the filter itself."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

from tests.attacks.confined.table import LIBC, attempt, call
from tests.attacks.confined.world import World


def _machine_code(code: bytes) -> int:
    """Run a few instructions and return what they leave in eax."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return int(function())


@attempt("true", needs="x86_64")
def old_interrupt(world: World) -> object:
    # push rbx; mov eax, 20 (getpid of i386); int 0x80; pop rbx; ret
    return _machine_code(bytes.fromhex("53b814000000cd805bc3")) == os.getpid()


@attempt("true", needs="x86_64")
def old_interrupt_fork(world: World) -> object:
    # mov eax, 2 (fork of i386); int 0x80; ret
    pid = _machine_code(bytes.fromhex("b802000000cd80c3"))
    if pid == 0:
        os._exit(7)
    return pid > 0 and os.waitpid(pid, 0)


@attempt("true")
def memory_file(world: World) -> object:
    return call("memfd_create", b"x", 0) >= 0


@attempt("true")
def ring(world: World) -> object:
    return call("io_uring_setup", 1, ctypes.create_string_buffer(120)) >= 0


@attempt("true", needs="root")
def user_faults(world: World) -> object:
    return call("userfaultfd", 0) >= 0


@attempt("true")
def key(world: World) -> object:
    return call("add_key", b"user", b"safe-triton-test", b"x", 1, -2) >= 0  # the process's own keyring


@attempt("true")
def keyring(world: World) -> object:
    return call("keyctl", 0, -3, 1) >= 0


@attempt("true", needs="root")
def performance_events(world: World) -> object:
    return call("perf_event_open", struct.pack("=II", 1, 128) + bytes(120), 0, -1, -1, 0) >= 0


@attempt("true", needs="root")
def bpf_map(world: World) -> object:
    return call("bpf", 0, struct.pack("=IIII", 2, 4, 4, 1) + bytes(56), 72) >= 0


@attempt("true")
def watch_folder(world: World) -> object:
    return call("inotify_add_watch", call("inotify_init1", 0), world.outside.encode(), 0xFFF) >= 0


@attempt("true", needs="root")
def watch_everything(world: World) -> object:
    return call("fanotify_init", 0, 0) >= 0


@attempt("true")
def system_v_memory(world: World) -> object:
    number = call("shmget", 0, 4096, 0o1600)
    return LIBC.shmctl(number, 0, 0) == 0


@attempt("true")
def system_v_messages(world: World) -> object:
    number = call("msgget", 0, 0o1600)
    return LIBC.msgctl(number, 0, 0) == 0


@attempt("true")
def system_v_semaphores(world: World) -> object:
    number = call("semget", 0, 1, 0o1600)
    return LIBC.semctl(number, 0, 0) == 0


@attempt("true")
def message_queue(world: World) -> object:
    name = f"safe-triton-{os.getpid()}".encode()
    descriptor = call("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, 0)
    LIBC.mq_unlink(b"/" + name)
    return descriptor >= 0


@attempt("true")
def personality(world: World) -> object:
    return call("personality", 0x0040000) >= 0  # ADDR_NO_RANDOMIZE


@attempt("true")
def own_tracer(world: World) -> object:
    return call("ptrace", 0, 0, 0, 0) == 0


@attempt("true", needs="root")
def host_name(world: World) -> object:
    LIBC.unshare(0x04000000)  # the control names a namespace of its own
    name = os.uname().nodename.encode()
    return call("sethostname", name, len(name)) == 0  # the same name again


@attempt("true", needs="root")
def kernel_log(world: World) -> object:
    return call("syslog", 10, 0, 0) >= 0


@attempt("true")
def dumpable(world: World) -> object:
    return LIBC.prctl(4, 1, 0, 0, 0) == 0 and LIBC.prctl(3, 0, 0, 0, 0) == 1


@attempt("true")
def seccomp_listener(world: World) -> object:
    LIBC.prctl(38, 1, 0, 0, 0)
    allow = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
    program = struct.pack("=H6xQ", 1, ctypes.addressof(allow))
    return call("seccomp", 1, 8, program) >= 0  # SECCOMP_FILTER_FLAG_NEW_LISTENER


@attempt("true")
def loose_umask(world: World) -> object:
    os.umask(0)
    return os.umask(0) == 0


@attempt("true")
def terminal(world: World) -> object:
    return os.openpty()[0] >= 0


@attempt("true")
def lease(world: World) -> object:
    import fcntl

    descriptor = os.open(f"{world.scratch}/leased", os.O_CREAT | os.O_RDONLY, 0o600)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    return fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK
