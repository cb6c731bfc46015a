"""Attempts on processes: starting one, touching another, getting privileges back."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import ctypes
import fcntl
import multiprocessing
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.attacks.confined.table import LIBC, attempt, call
from tests.attacks.confined.world import World

MARK = "import sys; open(sys.argv[1], 'w').write('x')"


def _left(world: World) -> bool:
    """Whether a child left its mark."""
    return Path(world.scratch, "mark").exists()


def _reaped(pid: int) -> bool:
    """Whether there was a child that answered with 7."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


# --- starting


@attempt("true")
def fork(world: World) -> object:
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return _reaped(pid)


@attempt("true")
def forkpty(world: World) -> object:
    pid, _ = os.forkpty()
    if pid == 0:
        os._exit(7)
    return _reaped(pid)


@attempt("true")
def libc_fork(world: World) -> object:
    pid = LIBC.fork()
    if pid == 0:
        os._exit(7)
    return _reaped(pid)


@attempt("true")
def raw_clone(world: World) -> object:
    pid = call("clone", signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        LIBC._exit(7)
    return _reaped(pid)


@attempt("true")
def raw_clone_high_bits(world: World) -> object:
    pid = call("clone", signal.SIGCHLD | 1 << 40, 0, 0, 0, 0)
    if pid == 0:
        LIBC._exit(7)
    return _reaped(pid)


@attempt("true", needs="x86_64")
def raw_fork(world: World) -> object:
    pid = call("fork")
    if pid == 0:
        LIBC._exit(7)
    return _reaped(pid)


@attempt("true")
def raw_clone3(world: World) -> object:
    arguments = struct.pack("=11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    pid = call("clone3", arguments, len(arguments))
    if pid == 0:
        LIBC._exit(7)
    return _reaped(pid)


@attempt("true")
def run_program(world: World) -> object:
    return subprocess.run(["/bin/echo", "x"], check=True, stdout=subprocess.PIPE).stdout


@attempt("true")
def run_python(world: World) -> object:
    subprocess.run([sys.executable, "-c", MARK, f"{world.scratch}/mark"], check=True)
    return _left(world)


@attempt("true")
def shell(world: World) -> object:
    os.system(f"echo x > {world.scratch}/mark")
    return _left(world)


@attempt("true")
def libc_system(world: World) -> object:
    LIBC.system(f"echo x > {world.scratch}/mark".encode())
    return _left(world)


@attempt("true")
def popen(world: World) -> object:
    return os.popen("echo x").read()


@attempt("true")
def posix_spawn(world: World) -> object:
    return os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1] == 0


@attempt("true")
def fork_exec(world: World) -> object:
    reader, writer = os.pipe()
    process = subprocess.Popen(["/bin/true"], stdin=reader, stdout=writer)  # with pipes it is no posix_spawn
    return process.wait() == 0


@attempt("true")
def multiprocessing_fork(world: World) -> object:
    process = multiprocessing.get_context("fork").Process(target=os._exit, args=(7,))
    process.start()
    process.join()
    return process.exitcode == 7


@attempt("true")
def async_program(world: World) -> object:
    import asyncio

    async def run() -> bytes:
        process = await asyncio.create_subprocess_exec("/bin/echo", "x", stdout=subprocess.PIPE)
        return (await process.communicate())[0]

    return asyncio.run(run())


@attempt("true")
def become_program(world: World) -> object:
    os.execv("/bin/sh", ["sh", "-c", "exit 7"])


@attempt("true")
def become_python(world: World) -> object:
    os.execv(sys.executable, [sys.executable, "-c", "import os; os._exit(7)"])


@attempt("true")
def become_memory_file(world: World) -> object:
    descriptor = call("memfd_create", b"x", 0)
    with open("/bin/sh", "rb") as file:
        os.write(descriptor, file.read())
    os.execve(descriptor, ["sh", "-c", "exit 7"], {})


@attempt("true")
def become_program_by_descriptor(world: World) -> object:
    descriptor = os.open("/bin/sh", os.O_PATH)
    arguments = (ctypes.c_char_p * 4)(b"sh", b"-c", b"exit 7", None)
    call("execveat", descriptor, b"", arguments, (ctypes.c_char_p * 1)(None), 0x1000)
    return False


@attempt("true")
def become_loader(world: World) -> object:
    loader = "/lib64/ld-linux-x86-64.so.2" if os.uname().machine == "x86_64" else "/lib/ld-linux-aarch64.so.1"
    os.execv(loader, [loader, os.path.realpath("/bin/sh"), "-c", "exit 7"])


# --- touching another


@attempt("victim")
def kill(world: World) -> object:
    return os.kill(world.victim, signal.SIGKILL)


@attempt("victim")
def stop(world: World) -> object:
    return os.kill(world.victim, signal.SIGSTOP)


@attempt("victim")
def libc_kill(world: World) -> object:
    return LIBC.kill(world.victim, signal.SIGTERM)


@attempt("victim")
def raw_kill_high_bits(world: World) -> object:
    return LIBC.syscall(
        ctypes.c_long(62 if os.uname().machine == "x86_64" else 129), ctypes.c_long(world.victim | 1 << 40), 9
    )


@attempt("victim")
def raw_tkill(world: World) -> object:
    return call("tkill", world.victim, signal.SIGKILL)


@attempt("victim")
def raw_tgkill(world: World) -> object:
    return call("tgkill", world.victim, world.victim, signal.SIGKILL)


@attempt("victim")
def queued_signal(world: World) -> object:
    info = struct.pack("=iii", signal.SIGKILL, 0, -1) + bytes(116)
    return call("rt_sigqueueinfo", world.victim, signal.SIGKILL, info)


@attempt("victim")
def signal_by_descriptor(world: World) -> object:
    return call("pidfd_send_signal", call("pidfd_open", world.victim, 0), signal.SIGKILL, 0, 0)


@attempt("victim")
def signal_by_owned_pipe(world: World) -> object:
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, world.victim)
    fcntl.fcntl(reader, 10, int(signal.SIGKILL))  # F_SETSIG
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC)
    return os.write(writer, b"x")


@attempt("victim")
def signal_by_owned_socket(world: World) -> object:
    import socket

    one, other = socket.socketpair()
    fcntl.ioctl(one, 0x8901, struct.pack("=i", world.victim))  # FIOSETOWN
    fcntl.fcntl(one, 10, int(signal.SIGKILL))
    fcntl.ioctl(one, 0x5452, struct.pack("=i", 1))  # FIOASYNC
    return other.send(b"x")


@attempt("victim")
def attach(world: World) -> object:
    LIBC.ptrace(16, world.victim, 0, 0)  # PTRACE_ATTACH
    os.waitpid(world.victim, 0x40000000)
    return LIBC.ptrace(8, world.victim, 0, 0)  # PTRACE_KILL


@attempt("true")
def seize(world: World) -> object:
    return call("ptrace", 0x4206, world.victim, 0, 0) == 0


@attempt("true")
def read_memory(world: World) -> object:
    buffer = ctypes.create_string_buffer(8)
    with open(f"/proc/{world.victim}/maps") as file:
        start = int(file.readline().split("-")[0], 16)
    local = struct.pack("=QQ", ctypes.addressof(buffer), 4)
    remote = struct.pack("=QQ", start, 4)
    return call("process_vm_readv", world.victim, local, 1, remote, 1, 0) and buffer.raw[:4] == b"\x7fELF"


@attempt("true")
def read_memory_file(world: World) -> object:
    with open(f"/proc/{world.victim}/maps") as file:
        start = int(file.readline().split("-")[0], 16)
    with open(f"/proc/{world.victim}/mem", "rb") as memory:
        memory.seek(start)
        return memory.read(4) == b"\x7fELF"


@attempt("true")
def steal_descriptor(world: World) -> object:
    return call("pidfd_getfd", call("pidfd_open", world.victim, 0), 0, 0) >= 0


@attempt("victim")
def limit_other(world: World) -> object:
    return resource.prlimit(world.victim, resource.RLIMIT_NOFILE, (10, 10))


@attempt("victim")
def slow_other(world: World) -> object:
    return os.setpriority(os.PRIO_PROCESS, world.victim, 19)


@attempt("victim")
def slow_user(world: World) -> object:
    os.setpriority(os.PRIO_PGRP, os.getpgid(world.victim), 19)
    return True


@attempt("victim")
def pin_other(world: World) -> object:
    return os.sched_setaffinity(world.victim, {min(os.sched_getaffinity(0))})


@attempt("true")
def compare_other(world: World) -> object:
    return call("kcmp", os.getpid(), world.victim, 3, 0, 0) >= 0


# --- privileges


@attempt("true", needs="root")
def change_user(world: World) -> object:
    os.setuid(65534)
    return os.getuid() == 65534


@attempt("true", needs="root")
def change_groups(world: World) -> object:
    os.setgroups([1])
    return os.getgroups() == [1]


@attempt("true")
def user_namespace(world: World) -> object:
    pid = call("clone", signal.SIGCHLD | 0x10000000, 0, 0, 0, 0)
    if pid == 0:
        LIBC._exit(7)
    return _reaped(pid)


@attempt("true", needs="root")
def mount_namespace(world: World) -> object:
    return call("unshare", 0x20000) == 0


@attempt("true", needs="root")
def chroot(world: World) -> object:
    return call("chroot", b"/") == 0


@attempt("true", needs="root")
def mount(world: World) -> object:
    place = tempfile.mkdtemp(dir=world.scratch).encode()
    if LIBC.unshare(0x20000) == 0:  # the control really mounts: on a folder of its own, and seen by nobody else
        call("mount", b"none", b"/", 0, 0x44000, 0)  # MS_REC | MS_PRIVATE
    call("mount", b"none", place, b"tmpfs", 0, 0)
    return LIBC.umount2(place, 2) == 0


@attempt("true", needs="root")
def capabilities_kept(world: World) -> object:
    header = struct.pack("=Ii", 0x20080522, 0)
    full = struct.pack("=6I", 0x000004C2, 0x000004C2, 0, 0, 0, 0)
    return call("capset", header, full) == 0


@attempt("true", needs="root")
def real_time(world: World) -> object:
    return os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)) is None


@attempt("true", needs="root")
def read_as_another_user(world: World) -> object:
    Path(world.data, "foreign").write_bytes(b"x")
    return os.chown(Path(world.data, "foreign"), 1, 1) is None
