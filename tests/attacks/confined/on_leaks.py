"""Attempts to learn what belongs to the host or to other processes."""

from __future__ import annotations

import os
from pathlib import Path

from tests.attacks.confined.table import attempt
from tests.attacks.confined.world import World


@attempt()
def own_first_environment(world: World) -> object:
    return Path("/proc/self/environ").read_bytes()


@attempt()
def own_thread_environment(world: World) -> object:
    return Path("/proc/thread-self/../../environ").read_bytes()


@attempt()
def parents_environment(world: World) -> object:
    return Path(f"/proc/{os.getppid()}/environ").read_bytes()


@attempt("true")
def other_command_line(world: World) -> object:
    return b"sleep" in Path(f"/proc/{world.victim}/cmdline").read_bytes()


@attempt("true")
def other_status(world: World) -> object:
    return Path(f"/proc/{world.victim}/status").read_bytes()


@attempt("true")
def process_list(world: World) -> object:
    return str(world.victim) in os.listdir("/proc")


@attempt("true")
def other_program(world: World) -> object:
    return os.readlink(f"/proc/{world.victim}/exe")


@attempt("true")
def own_memory_map(world: World) -> object:
    return Path("/proc/self/maps").read_bytes()


@attempt("true")
def own_mounts(world: World) -> object:
    return Path("/proc/self/mountinfo").read_bytes()


@attempt("true")
def connections(world: World) -> object:
    return Path("/proc/net/tcp").read_bytes()


@attempt("true")
def user_file(world: World) -> object:
    return Path("/etc/passwd").read_bytes()


@attempt("true", needs="root")
def password_file(world: World) -> object:
    return Path("/etc/shadow").read_bytes()


@attempt("true")
def host_configuration(world: World) -> object:
    return os.listdir("/etc")


@attempt("true")
def root_folder(world: World) -> object:
    return os.listdir("/")


@attempt("true")
def list_temporary_folder(world: World) -> object:
    return os.listdir("/tmp")


@attempt("true")
def kernel_command_line(world: World) -> object:
    return Path("/proc/cmdline").read_bytes()


@attempt("true")
def kernel_settings(world: World) -> object:
    return os.listdir("/proc/sys/kernel")


@attempt("true")
def network_devices(world: World) -> object:
    return os.listdir("/sys/class/net")


@attempt("true")
def block_devices(world: World) -> object:
    return os.listdir("/sys/block")


@attempt("true")
def other_exists(world: World) -> object:
    os.kill(world.victim, 0)
    return True
