"""Attempts to use up what the machine has. The policy of the attack tests allows 1 GiB, 128 files and 1 MiB per file."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import ctypes
import mmap
import os
import resource

import numpy as np

from tests.attacks.confined.table import LIBC, attempt
from tests.attacks.confined.world import World

BIG = 2 << 30


@attempt("true")
def numpy_memory(world: World) -> object:
    return np.empty(BIG, dtype=np.uint8).nbytes == BIG


@attempt("true")
def mapped_memory(world: World) -> object:
    return len(mmap.mmap(-1, BIG)) == BIG


@attempt("true")
def libc_memory(world: World) -> object:
    LIBC.malloc.restype = ctypes.c_void_p
    return LIBC.malloc(ctypes.c_size_t(BIG))


@attempt("true")
def many_small_memories(world: World) -> object:
    return len([mmap.mmap(-1, 64 << 20) for _ in range(BIG // (64 << 20))])


@attempt("true")
def large_file(world: World) -> object:
    with open(f"{world.scratch}/large", "wb") as file:
        file.truncate(2 << 20)
    return True


@attempt("true")
def large_file_written(world: World) -> object:
    with open(f"{world.scratch}/large", "wb", buffering=0) as file:
        file.write(bytes(1 << 20))
        return file.write(b"x")


@attempt("true")
def large_file_reserved(world: World) -> object:
    descriptor = os.open(f"{world.scratch}/large", os.O_CREAT | os.O_WRONLY, 0o600)
    return os.posix_fallocate(descriptor, 0, 2 << 20) is None


@attempt("true")
def many_files(world: World) -> object:
    return len([os.open("/dev/null", os.O_RDONLY) for _ in range(200)])


@attempt("true")
def many_pipes(world: World) -> object:
    return len([os.pipe() for _ in range(100)])


@attempt("true")
def high_descriptor(world: World) -> object:
    return os.dup2(os.open("/dev/null", os.O_RDONLY), 500)


@attempt("true")
def limits_raised(world: World) -> object:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return len(mmap.mmap(-1, BIG)) == BIG


@attempt("true")
def core_file(world: World) -> object:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    return hard != 0
