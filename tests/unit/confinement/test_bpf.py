"""The compiler of filters, judged by an interpreter: no kernel needed."""

from __future__ import annotations

import errno
import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_triton.confinement import bpf
from safe_triton.confinement.seccomp_profile import ALWAYS, Alternatives, Check
from safe_triton.confinement.syscall_numbers import MACHINES, NEWEST, NUMBERS, number_of
from tests.unit.confinement.bpf_interpreter import run, verdict

EPERM, ENOSYS = bpf.refusal(errno.EPERM), bpf.refusal(errno.ENOSYS)


def expected(alternatives: Alternatives, arguments: list[int]) -> bool:
    """What the rules say, computed the obvious way."""

    def holds(check: Check) -> bool:
        value = arguments[check.argument]
        return value == check.value if check.wide else value & check.mask & 0xFFFF_FFFF == check.value

    return any(all(holds(check) for check in alternative) for alternative in alternatives)


@pytest.mark.parametrize("machine", MACHINES)
class TestVerdicts:
    def test_every_number(self, machine: str) -> None:
        """Each call gets what its name says: allowed, absent, or refused; numbers beyond the table look unsupported."""
        free = dict.fromkeys(list(NUMBERS)[::3], ALWAYS)
        absent = frozenset(list(NUMBERS)[1::3])
        program = bpf.compile_filter(free, absent, machine)
        names = {number_of(name, machine): name for name in NUMBERS}
        for number in range(NEWEST + 100):
            name = names.get(number)
            answer = run(program, number, (), bpf.AUDIT_ARCH[machine])
            if number > NEWEST or name in absent:
                assert answer == ENOSYS, name
            else:
                assert answer == (bpf.RET_ALLOW if name in free else EPERM), name

    def test_other_architectures(self, machine: str) -> None:
        """A call through another architecture's entry is refused, whatever its number."""
        program = bpf.compile_filter(dict.fromkeys(NUMBERS, ALWAYS), frozenset(), machine)
        others = {0x4000_0003, 0x4000_0028, *bpf.AUDIT_ARCH.values()} - {bpf.AUDIT_ARCH[machine]}
        for arch, number in itertools.product(others, (0, 1, 20, 59, 400)):
            assert run(program, number, (), arch) == EPERM

    def test_nothing_allowed(self, machine: str) -> None:
        """An empty table allows nothing."""
        program = bpf.compile_filter({}, frozenset(), machine)
        assert {run(program, number, (), bpf.AUDIT_ARCH[machine]) for number in range(NEWEST + 1)} == {EPERM}


def test_x32() -> None:
    """Numbers with the x32 bit are refused on x86-64, also those whose low part is allowed."""
    program = bpf.compile_filter(dict.fromkeys(NUMBERS, ALWAYS), frozenset(), "x86_64")
    for number in (0x4000_0000, 0x4000_0001, 0x4000_0208, 0x7FFF_FFFF, 0xFFFF_FFFF):
        assert run(program, number, (), bpf.AUDIT_ARCH["x86_64"]) == EPERM


@pytest.mark.parametrize(
    ("check", "passing", "refused"),
    [
        (Check(0, 5), [5, 5 | 1 << 40], [4, 6, 0]),
        (Check(1, 0, 0xFF), [0, 0x100, 0xFF00], [1, 0x80]),
        (Check(4, 0, wide=True), [0], [1, 1 << 32, 1 << 63]),
        (Check(2, 0x1234_5678_9ABC_DEF0, wide=True), [0x1234_5678_9ABC_DEF0], [0x9ABC_DEF0, 0x1234_5678_0000_0000]),
    ],
)
def test_one_check(check: Check, passing: list[int], refused: list[int]) -> None:
    """A condition looks at its own argument only: 32 bits of an int, all 64 of a pointer."""
    program = bpf.compile_filter({"kill": ((check,),)}, frozenset(), "x86_64")
    for value, is_allowed in [*((value, True) for value in passing), *((value, False) for value in refused)]:
        arguments = [7] * 6
        arguments[check.argument] = value
        assert (verdict(program, "x86_64", "kill", *arguments) is None) is is_allowed, hex(value)


checks = st.builds(
    lambda argument, value, mask, wide: Check(
        argument, value if wide else value & mask, 0xFFFF_FFFF if wide else mask, wide=wide
    ),
    st.integers(0, 5),
    st.integers(0, 7),
    st.sampled_from([1, 3, 7, 0xFFFF_FFFF]),
    st.booleans(),
)


class TestRules:
    """'Allow when one alternative holds, else refuse', for any table of rules."""

    @settings(max_examples=60)
    @given(
        st.dictionaries(
            st.sampled_from(["read", "kill", "ioctl", "clone", "mmap"]),
            st.lists(st.lists(checks, max_size=3), max_size=4),
        ),
        st.lists(st.sampled_from([0, 1, 2, 3, 4, 7, 8, 1 << 32, 1 << 40 | 3]), min_size=6, max_size=6),
    )
    def test_compiled_equals_stated(self, table: dict[str, list[list[Check]]], arguments: list[int]) -> None:
        """The compiled filter and the rules agree."""
        rules = {
            name: tuple(tuple(alternative) for alternative in alternatives) for name, alternatives in table.items()
        }
        for machine in MACHINES:
            program = bpf.compile_filter(rules, frozenset(), machine)
            for name, alternatives in rules.items():
                allowed = verdict(program, machine, name, *arguments) is None
                assert allowed is expected(alternatives, arguments), name


def test_packed_size() -> None:
    """Eight bytes per instruction, as the kernel reads them."""
    program = bpf.compile_filter({"read": ALWAYS}, frozenset(), "x86_64")
    packed = bpf.pack(program)
    assert len(packed) == 8 * len(program)
    assert struct.unpack_from("=HBBI", packed) == (bpf.LOAD, 0, 0, 4)


def test_offsets_fit() -> None:
    """Conditional jumps have eight bits; a table that large would be wrong in the kernel only."""
    many = tuple((Check(0, value), Check(1, value)) for value in range(200))
    program = bpf.compile_filter(dict.fromkeys(("read", "write", "kill"), many), frozenset(), "x86_64")
    assert all(0 <= entry.if_true < 256 and 0 <= entry.if_false < 256 for entry in program)


def test_too_long() -> None:
    """More instructions than the kernel takes is an error here, not there."""
    endless = tuple((Check(0, value),) for value in range(2000))
    with pytest.raises(ValueError, match="4096"):
        bpf.compile_filter({"read": endless}, frozenset(), "x86_64")
