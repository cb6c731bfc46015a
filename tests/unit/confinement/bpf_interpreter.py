"""A classic BPF machine, as small as seccomp needs: what would the kernel answer for this call?"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from safe_triton.confinement import bpf
from safe_triton.confinement.syscall_numbers import number_of


def run(program: bpf.Program, number: int, arguments: Sequence[int], arch: int) -> int:
    """Return the filter's verdict for one system call."""
    padded = [argument & 0xFFFF_FFFF_FFFF_FFFF for argument in (*arguments, *[0] * 6)][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFF_FFFF, arch, 0, *padded)
    accumulator, position = 0, 0
    while True:
        found = program[position]
        position += 1
        if found.code == bpf.LOAD:
            accumulator = struct.unpack_from("<I", data, found.value)[0]
        elif found.code == bpf.AND:
            accumulator &= found.value
        elif found.code == bpf.JUMP:
            position += found.value
        elif found.code == bpf.EQUAL:
            position += found.if_true if accumulator == found.value else found.if_false
        elif found.code == bpf.GREATER_EQUAL:
            position += found.if_true if accumulator >= found.value else found.if_false
        elif found.code == bpf.RETURN:
            return found.value
        else:
            raise AssertionError(f"unknown instruction {found}")


def verdict(program: bpf.Program, machine: str, name: str, *arguments: int) -> int | None:
    """Return ``None`` for an allowed call, else the error number; for a call that the machine has."""
    number = number_of(name, machine)
    assert number is not None, name
    answer = run(program, number, arguments, bpf.AUDIT_ARCH[machine])
    return None if answer == bpf.RET_ALLOW else answer & 0xFFFF
