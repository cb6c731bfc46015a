"""The one program that a confined process may become: found beforehand, executed once.

A filter cannot say "once". It can compare the addresses of ``execve``'s arguments, and the new program does not know
them: they
are random, and their memory is gone with the old program. So the call works for the caller and for nobody after it.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from safe_triton import _libc
from safe_triton.confinement.enforcement import refused
from safe_triton.confinement.syscall_numbers import number_of

_MAP_FIXED_NOREPLACE = 0x10_0000
_LOWEST, _HIGHEST = 1 << 32, 1 << 38  # inside the address space of every 64-bit configuration
_AREA = 16 * mmap.PAGESIZE
_ALIGNMENT = 16
_MAX_SCRIPTS = 4
_PT_INTERP = 3


@dataclass(frozen=True)
class Program:
    """A program to execute.

    Args:
        path: what is executed.
        arguments: its argument list, its own name first.
        files: what has to be readable and executable: the file, its loader, and a script's interpreter.
    """

    path: str
    arguments: tuple[str, ...]
    files: tuple[str, ...]


def find_program(command: Sequence[str], environment: Mapping[str, str]) -> Program:
    """Find a command on ``PATH`` and follow ``#!`` lines, ``env`` included, to the program that really runs.

    Raises:
        ConfinementError: reason ``confinement.program``; there is no such program.
    """
    arguments = list(command)
    scripts: list[str] = []
    for _ in range(_MAX_SCRIPTS):
        path = _which(arguments[0] if arguments else "", environment.get("PATH", os.defpath))
        with open(path, "rb") as file:
            head = file.read(4096)
        if not head.startswith(b"#!"):
            real = os.path.realpath(path)
            return Program(os.path.abspath(path), tuple(arguments), (real, *loader(real), *scripts))
        words = os.fsdecode(head[2:].split(b"\n", 1)[0]).split(None, 1)
        scripts.append(os.path.realpath(path))
        arguments = [*_interpreter(words), path, *arguments[1:]]
    raise refused("confinement.program", "scripts that run scripts that run scripts")


def loader(path: str) -> tuple[str, ...]:
    """Return the dynamic loader that an ELF file names, as a real path; empty for a static program.

    Raises:
        ConfinementError: reason ``confinement.program``; not an ELF file of 64 bits.
    """
    with open(path, "rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:5] != b"\x7fELF\x02":
            raise refused("confinement.program", "not a 64-bit ELF program")
        offset, size, count = struct.unpack_from("<Q", header, 32)[0], *struct.unpack_from("<HH", header, 54)
        for index in range(count):
            file.seek(offset + index * size)
            segment = file.read(size)
            kind, where, length = struct.unpack_from("<I4xQ16xQ", segment)
            if kind == _PT_INTERP:
                file.seek(where)
                return (os.path.realpath(os.fsdecode(file.read(length).rstrip(b"\0"))),)
    return ()


class OneExec:
    """Three random addresses, and the ``execve`` that only they allow."""

    def __init__(self) -> None:
        self.addresses = (_random_area(), _random_area(), _random_area())

    def run(self, program: Program, environment: Mapping[str, str]) -> NoReturn:
        """Become the program.

        Raises:
            OSError: what the kernel answered.
            ValueError: a NUL byte, or more arguments than the area holds.
        """
        path, arguments, variables = self.addresses
        kept = [
            _fill(path, [os.fsencode(program.path)], is_list=False),
            _fill(arguments, [os.fsencode(word) for word in program.arguments], is_list=True),
            _fill(variables, [os.fsencode(f"{name}={value}") for name, value in environment.items()], is_list=True),
        ]
        number = number_of("execve", os.uname().machine) or 0
        _libc.syscall(number, *self.addresses)
        raise OSError(f"execve returned with {len(kept)} areas")


def _which(name: str, search: str) -> str:
    """The first executable file of a name on a search path."""
    folders = [""] if "/" in name else search.split(os.pathsep)
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise refused("confinement.program", f"no program '{os.path.basename(name)}' to execute")


def _interpreter(words: list[str]) -> list[str]:
    """The command of a ``#!`` line; ``env NAME`` becomes the name, since ``env`` would execute a second time."""
    if not words:
        raise refused("confinement.program", "an empty '#!' line")
    if os.path.basename(words[0]) != "env" or len(words) == 1:
        return words
    rest = words[1].split()
    return rest[1:] if rest[0] == "-S" else rest


def _random_below(bound: int) -> int:
    """A random number; ``secrets`` would import hashing and more at every start of a model."""
    return int.from_bytes(os.urandom(16), "little") % bound


def _random_area() -> int:
    """Map memory at a random place and return a random address in its first page."""
    number = number_of("mmap", os.uname().machine) or 0
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE
    for _ in range(8):
        page = _LOWEST + _random_below((_HIGHEST - _LOWEST) // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            start = _libc.syscall(number, page, _AREA, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1 & 0xFFFF_FFFF, 0)
        except FileExistsError:
            continue
        return start + _random_below(mmap.PAGESIZE // _ALIGNMENT) * _ALIGNMENT
    raise refused("confinement.program", "no free address for the program's arguments")


def _fill(address: int, words: list[bytes], *, is_list: bool) -> bytearray:
    """Put a string, or a list of pointers to strings, at an address; return what has to stay in memory."""
    if any(b"\0" in word for word in words):
        raise ValueError("embedded null byte")
    strings = bytearray(b"".join(word + b"\0" for word in words) or b"\0")
    if not is_list:
        data = bytes(strings)
    else:
        place, pointers = _libc.address_of(strings), []
        for word in words:
            pointers.append(place)
            place += len(word) + 1
        data = struct.pack(f"={len(pointers) + 1}Q", *pointers, 0)
    if len(data) > _AREA - mmap.PAGESIZE:
        raise ValueError(f"{len(words)} arguments, more than fit")
    _libc.copy_to(address, data)
    return strings
