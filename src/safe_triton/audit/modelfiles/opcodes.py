"""Pickle opcodes: how their arguments are written, and what a walk over them notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_LINE_BYTES = 1 << 16
MAX_KEPT_BYTES = 1 << 10  # a longer text is no name of anything
MAX_OPCODES = 3_000_000
MAX_STACK = 2_000_000
MAX_NESTED = 64
MAX_IMPORTS = 5_000
MAX_DEPTH = 20
HIGHEST_PROTOCOL = 5


class Global(NamedTuple):
    """An imported name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Blob(NamedTuple):
    """Bytes inside the stream, by place."""

    offset: int
    size: int


@dataclass
class Made:
    """The result of a call, with what can matter later."""

    maker: Global
    arguments: Any = None
    state: Any = None


class Mark:
    """MARK on the stack."""


UNKNOWN = object()
MARK = Mark()

# Opcode -> how its argument is written. Numbers are sizes in bytes.
NONE, LINE, TWO_LINES = 0, -1, -2
COUNTED_1, COUNTED_4, COUNTED_8 = -11, -14, -18
ARGUMENTS: dict[int, int] = {
    **dict.fromkeys(b"(.012NRQadeostul}])b\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98", NONE),
    **dict.fromkeys(b"FILSVPgp", LINE),
    **dict.fromkeys(b"ci", TWO_LINES),
    **dict.fromkeys(b"Khq\x80\x82", 1),
    **dict.fromkeys(b"M\x83", 2),
    **dict.fromkeys(b"Jjr\x84", 4),
    **dict.fromkeys(b"G\x95", 8),
    **dict.fromkeys(b"UC\x8a\x8c", COUNTED_1),
    **dict.fromkeys(b"TXB\x8b", COUNTED_4),
    **dict.fromkeys(b"\x8d\x8e\x96", COUNTED_8),
}
COUNTS = {COUNTED_1: ("<B", 1), COUNTED_4: ("<I", 4), COUNTED_8: ("<Q", 8)}
TEXTS = frozenset(b"SVUTX\x8c\x8d")
BYTES = frozenset(b"CB\x8e\x96")


@dataclass
class Walk:
    """What one stream does."""

    start: int
    end: int = 0
    opcodes: int = 0
    sound: int = 0  # opcodes before the first at which an interpreter would raise
    protocol: int = 0
    imports: dict[Global, int] = field(default_factory=dict)  # name -> offset of its first use
    strange: list[str] = field(default_factory=list)  # what only a hostile stream does
    nested: list[Blob] = field(default_factory=list)  # bytes that the loading code unpickles in its turn
    raw: list[Blob] = field(default_factory=list)  # array data between opcodes, as joblib writes it
    calls: int = 0
    framed: bool = False
    is_complete: bool = False
    is_cut: bool = False  # a limit of ours ended the walk
    problem: str = ""  # why an interpreter would raise


class Broken(Exception):  # noqa: N818  # ends a walk, is no error
    """The stream cannot be decoded further."""
