"""Compile a table of system call rules into a seccomp filter: classic BPF, as bytes. Pure; no kernel needed.

The program refuses foreign architectures first (``int 0x80`` and x32 run on a 64-bit kernel with other numbers),
then finds the call's number in a balanced tree, then checks arguments.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from typing import NamedTuple

from safe_triton.confinement.seccomp_profile import ALWAYS, Alternatives, Check, Rules
from safe_triton.confinement.syscall_numbers import NEWEST, number_of

# include/uapi/linux/audit.h
AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
X32_BIT = 0x4000_0000

# include/uapi/linux/seccomp.h
RET_ALLOW = 0x7FFF_0000
RET_ERRNO = 0x0005_0000

# include/uapi/linux/bpf_common.h
LOAD, AND, JUMP, EQUAL, GREATER_EQUAL, RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x06

MAX_INSTRUCTIONS = 4096

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6];
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_LOW_HALF = 0xFFFF_FFFF


class Instruction(NamedTuple):
    """One ``struct sock_filter``."""

    code: int
    value: int
    if_true: int = 0
    if_false: int = 0

    def pack(self) -> bytes:
        """Return the eight bytes that the kernel reads."""
        return struct.pack("=HBBI", self.code, self.if_true, self.if_false, self.value)


Program = tuple[Instruction, ...]


def refusal(number: int) -> int:
    """The filter's answer that makes a call fail with an error number."""
    return RET_ERRNO | number


def compile_filter(rules: Rules, absent: frozenset[str], machine: str) -> Program:
    """Return the filter that allows ``rules``, answers ``absent`` with ENOSYS, and refuses the rest with EPERM.

    Args:
        rules: alternatives by call name; calls that ``machine`` does not have are left out.
        absent: call names that should look unsupported.
        machine: ``x86_64`` or ``aarch64``.

    Raises:
        ValueError: more instructions than the kernel takes.
    """
    blocks: dict[int, Program] = {}
    for name, alternatives in rules.items():
        number = number_of(name, machine)
        if number is not None:
            blocks[number] = _block(alternatives)
    for name in absent:
        number = number_of(name, machine)
        if number is not None:
            blocks[number] = (Instruction(RETURN, refusal(errno.ENOSYS)),)
    refuse = Instruction(RETURN, refusal(errno.EPERM))
    program = [
        Instruction(LOAD, _ARCH),
        Instruction(EQUAL, AUDIT_ARCH[machine], 1, 0),
        refuse,
        Instruction(LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        program += [Instruction(GREATER_EQUAL, X32_BIT, 0, 1), refuse]
    program += _tree(_ranges(blocks, (refuse,)))
    if len(program) > MAX_INSTRUCTIONS:
        raise ValueError(f"a filter of {len(program)} instructions, the kernel takes {MAX_INSTRUCTIONS}")
    return tuple(program)


def pack(program: Program) -> bytes:
    """Return the program as an array of ``struct sock_filter``."""
    return b"".join(instruction.pack() for instruction in program)


def _ranges(blocks: Mapping[int, Program], refuse: Program) -> list[tuple[int, Program]]:
    """``(first number, block)`` in ascending order; neighbours with equal blocks are one."""
    ranges: list[tuple[int, Program]] = []
    for number in range(NEWEST + 1):
        block = blocks.get(number, refuse)
        if not ranges or ranges[-1][1] != block:
            ranges.append((number, block))
    ranges.append((NEWEST + 1, (Instruction(RETURN, refusal(errno.ENOSYS)),)))
    return ranges


def _tree(ranges: list[tuple[int, Program]]) -> Program:
    """A balanced search over the ranges with the number in the accumulator."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    lower, upper = _tree(ranges[:middle]), _tree(ranges[middle:])
    # Conditional offsets have eight bits, a plain jump has 32.
    return (Instruction(GREATER_EQUAL, ranges[middle][0], 0, 1), Instruction(JUMP, len(lower)), *lower, *upper)


def _block(alternatives: Alternatives) -> Program:
    """Allow when one alternative holds, else refuse."""
    if alternatives == ALWAYS:
        return (Instruction(RETURN, RET_ALLOW),)
    program: list[Instruction] = []
    for alternative in alternatives:
        program += _alternative(alternative)
    return (*program, Instruction(RETURN, refusal(errno.EPERM)))


def _alternative(checks: tuple[Check, ...]) -> list[Instruction]:
    """Return ALLOW when every check holds, else fall through to what follows."""
    tests: list[Instruction] = []
    for check in checks:
        tests += _comparison(check)
    tests.append(Instruction(RETURN, RET_ALLOW))
    end = len(tests)
    return [
        Instruction(test.code, test.value, 0, end - index - 1) if test.code == EQUAL else test
        for index, test in enumerate(tests)
    ]


def _comparison(check: Check) -> list[Instruction]:
    """Load, mask and compare an argument's low half, and a wide one's high half; both machines are little-endian."""
    low = _ARGUMENTS + 8 * check.argument
    if check.wide:
        return [
            Instruction(LOAD, low),
            Instruction(EQUAL, check.value & _LOW_HALF),
            Instruction(LOAD, low + 4),
            Instruction(EQUAL, check.value >> 32),
        ]
    mask = [] if check.mask == _LOW_HALF else [Instruction(AND, check.mask)]
    return [Instruction(LOAD, low), *mask, Instruction(EQUAL, check.value & _LOW_HALF)]
