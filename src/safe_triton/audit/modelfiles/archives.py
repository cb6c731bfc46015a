"""Archives and compressed files: unpacked within a budget, names and links judged, members looked at as files."""

from __future__ import annotations

import bz2
import contextlib
import lzma
import posixpath
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from safe_triton.audit.finding import Level
from safe_triton.audit.modelfiles import tars, zips
from safe_triton.audit.modelfiles.look import MAX_DEPTH, Look
from safe_triton.audit.modelfiles.source import PartSource, Source, SpooledSource

zstd: Any = None
with contextlib.suppress(ImportError):
    from backports import zstd

BOMB_RATIO = 100
BOMB_BYTES = 8 << 20
READ_BYTES = 1 << 18
LZMA_HEADER_BYTES = 9

_BROKEN: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, MemoryError)
_BROKEN += (zstd.ZstdError,) if zstd is not None else ()

_DRIVE = re.compile(r"[A-Za-z]:")


def check_name(name: str, look: Look, *, what: str = "member") -> bool:
    """Report a name that unpacking would put outside the folder; tell whether it stays inside."""
    plain = name.replace("\\", "/")
    escapes = plain.startswith("/") or bool(_DRIVE.match(plain)) or ".." in plain.split("/")
    if escapes:
        look.find("archive-unsafe-path", f"{what} {name[:200]!r}{look.where} lies outside the archive's folder")
    return not escapes


def check_link(name: str, link: str, look: Look, *, is_hard: bool = False) -> None:
    """Report a link whose target lies outside the archive."""
    target = link.replace("\\", "/")
    base = "" if is_hard else posixpath.dirname(name)
    resolved = posixpath.normpath(posixpath.join(base, target))
    if target.startswith("/") or _DRIVE.match(target) or resolved == ".." or resolved.startswith("../"):
        look.find("archive-unsafe-path", f"link {name[:200]!r}{look.where} points to {link[:200]!r}")


def check_bomb(packed: int, full: int, look: Look, name: str) -> bool:
    """Report a member that grows out of proportion; tell whether it is one."""
    if full >= BOMB_BYTES and full > BOMB_RATIO * max(1, packed):
        look.find("archive-bomb", f"{name[:200]}{look.where}: {packed} bytes unpack to {full} or more")
        return True
    return False


def pieces(source: Source, make: Callable[[], Any], *, many: bool) -> Iterator[bytes]:
    """Yield a compressed source's content, never more than a piece at a time.

    Args:
        source: the packed bytes.
        make: returns a decompressor for each stream.
        many: streams may follow one another, as in gzip, bzip2 and xz.
    Raises:
        EOFError: the source ends before its stream does.
    """
    machine, offset = make(), 0
    while offset < source.size:
        data = source.read(offset, READ_BYTES)
        offset += len(data)
        while True:
            piece = machine.decompress(data, READ_BYTES)
            if piece:
                yield piece
            if machine.eof:
                offset -= len(machine.unused_data or b"")
                if not many or offset >= source.size or source.read(offset, 1) == b"\0":
                    return
                machine = make()
                break
            # zlib hands back what it has not taken, the others keep it and say so.
            data = getattr(machine, "unconsumed_tail", b"")
            if not data and getattr(machine, "needs_input", len(piece) < READ_BYTES):
                break
    raise EOFError


def unpack(source: Source, look: Look, name: str, make: Callable[[], Any], *, many: bool = False) -> Source | None:
    """Decompress within the budget; what could be read before an error or a limit is kept."""
    result = SpooledSource()
    try:
        for piece in pieces(source, make, many=many):
            result.write(piece)
            if result.size >= look.budget.unpacked_bytes:
                look.find("archive-bomb", f"{name[:200]}{look.where}: unpacks to more than the budget left")
                break
    except _BROKEN as error:
        if not result.size:
            return None
        reason = "is cut off" if isinstance(error, EOFError) else "does not unpack to its end"
        look.find("model-file-malformed", f"{name[:200]}{look.where} {reason}")
    look.budget.unpacked_bytes -= min(result.size, look.budget.unpacked_bytes)
    check_bomb(source.size, result.size, look, name)
    return result


def _xz() -> lzma.LZMADecompressor:
    """Return a decompressor that refuses dictionaries of gigabytes."""
    return lzma.LZMADecompressor(memlimit=256 << 20)


PACKERS: tuple[tuple[bytes, str, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", "gzip", lambda: zlib.decompressobj(31)),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", "xz", _xz),
    (b"\x5d\x00\x00", "lzma", _xz),
)
_SKIPPED = frozenset(bytes([number]) for number in range(0x50, 0x60))
ZSTD = b"\x28\xb5\x2f\xfd"
UNREADABLE = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (ZSTD, "a Zstandard file"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
    (b"MSCF\0\0\0\0", "a cabinet file"),
    (b"\0asm", "a WebAssembly module"),
)


def packer(source: Source) -> tuple[str, Callable[[], Any]] | None:
    """Return how a source is compressed, by its first bytes."""
    head = source.read(0, 8)
    for magic, name, make in PACKERS:
        if head.startswith(magic):
            return name, make
    # zlib: a method, and a header that divides by 31.
    if len(head) >= 2 and head[0] & 0x0F == 8 and head[0] >> 4 <= 7 and (head[0] << 8 | head[1]) % 31 == 0:
        first = zlib.decompressobj()
        try:
            if first.decompress(source.read(0, 4096), 64):
                return "zlib", zlib.decompressobj
        except zlib.error:
            return None
    # A frame that is skipped may stand in front of the first one.
    is_skipped = head[:1] in _SKIPPED and head[1:4] == b"\x2a\x4d\x18"
    if zstd is not None and (is_skipped or head.startswith(ZSTD)):
        return "zstd", zstd.ZstdDecompressor
    return None


def check_unreadable(source: Source, look: Look) -> None:
    """Report an archive that only other tools open: what is inside is not known."""
    head = source.read(0, 8)
    for magic, name in UNREADABLE:
        if head.startswith(magic):
            look.unexamined(name)


def check_packed(source: Source, look: Look, examine: Callable[[Source, Look], None]) -> bool:
    """Unpack a compressed file and look at the content; tell whether it was one."""
    found = packer(source)
    if found is None:
        return False
    name, make = found
    if look.depth >= MAX_DEPTH:
        look.find("archive-bomb", f"archives inside one another, deeper than {MAX_DEPTH}{look.where}")
        return True
    inner = unpack(source, look, f"the {name} data", make, many=name != "zlib")
    if inner is None:
        return False
    inside = look.inside(look.name)
    inside.member = look.member
    examine(inner, inside)
    return True


def zip_members(source: Source, look: Look) -> list[zips.Member]:
    """Return an archive's members, judged by name, link and size."""
    found = list(zips.members(source, look))
    declared = 0
    spans: dict[int, int] = {}
    for member in found:
        check_name(member.name, look)
        if stat.S_ISLNK(member.mode):
            check_link(member.name, zips.text(member.packed.read(0, 4096)), look)
        check_bomb(member.packed.size, member.size_bytes, look, member.name)
        declared += member.size_bytes
        start = getattr(member.packed, "start", 0)
        spans[start] = max(spans.get(start, 0), member.packed.size)
    if len(spans) > 1 and sum(spans.values()) > 2 * source.size:
        look.find("archive-bomb", f"the members{look.where} overlap: they share the same bytes")
    check_bomb(source.size, declared, look, "all members together")
    return found


def open_member(member: zips.Member, look: Look) -> Source | None:
    """Return a member's content, or nothing when it cannot be read."""
    if member.method == 0:
        return member.packed
    makers: dict[int, Callable[[], Any]] = {
        8: lambda: zlib.decompressobj(-15),
        12: bz2.BZ2Decompressor,
        14: lambda: _zipped_lzma(member.packed),
    }
    if zstd is not None:
        makers[93] = zstd.ZstdDecompressor
    if member.method not in makers:
        look.unexamined(f"member {member.name}, packed by method {member.method},")
        return None
    if look.budget.unpacked_bytes <= 0:
        look.unexamined("more unpacked bytes than are looked at")
        return None
    packed = member.packed
    if member.method == 14:
        packed = PartSource(packed, LZMA_HEADER_BYTES, packed.size)
    inner = unpack(packed, look, f"member {member.name}", makers[member.method])
    if inner is None and packed.size > 2:
        look.unexamined(f"member {member.name} does not unpack and")
    return inner


def _zipped_lzma(packed: Source) -> lzma.LZMADecompressor:
    """Return a decompressor for a member packed by method 14, whose properties stand in front."""
    # The FORMAT_ALONE header is the five properties and a size; all ones: until the end mark.
    machine = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=256 << 20)
    machine.decompress(packed.read(4, LZMA_HEADER_BYTES - 4) + b"\xff" * 8, 0)
    return machine


def check_tar(source: Source, look: Look, examine: Callable[[Source, Look], None]) -> bool:
    """Look at a TAR archive's members; tell whether it was one."""
    if not tars.is_tar(source):
        return False
    if look.depth >= MAX_DEPTH:
        look.find("archive-bomb", f"archives inside one another, deeper than {MAX_DEPTH}{look.where}")
        return True
    for entry in tars.entries(source, look):
        inside = check_name(entry.name, look)
        if entry.kind in {b"1", b"2"}:
            check_link(entry.name if inside else "x", entry.link, look, is_hard=entry.kind == b"1")
        elif entry.kind in {b"3", b"4", b"6"}:
            look.find(
                "archive-unsafe-path", f"member {entry.name!r}{look.where} is a device or a pipe", level=Level.WARNING
            )
        elif entry.content.size and take_member(look):
            examine(entry.content, look.inside(entry.name))
    return True


def take_member(look: Look) -> bool:
    """Count a member against the budget; tell whether it may be looked at."""
    look.budget.members -= 1
    if look.budget.members < 0:
        look.unexamined("more members than are looked at")
        return False
    return True
