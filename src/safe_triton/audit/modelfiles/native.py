"""Machine code by its first bytes."""

from __future__ import annotations

from safe_triton.audit.modelfiles.source import Source

_MACHO = {b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe"}


def kind(source: Source) -> str:
    """Return what a file is when a processor or a virtual machine runs it, else nothing."""
    head = source.read(0, 64)
    if head.startswith(b"\x7fELF"):
        return "an ELF program or library"
    if head.startswith(b"MZ") and len(head) == 64:
        start = int.from_bytes(head[60:64], "little")
        if source.read(start, 4) == b"PE\0\0":
            return "a Windows program or library"
    if head[:4] in _MACHO:
        return "a Mach-O program or library"
    if head.startswith((b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf")):
        # Java's classes start the same way; there the next number is a version above 40.
        return "a universal Mach-O file" if int.from_bytes(head[4:8], "big") < 30 else "a Java class"
    if head.startswith(b"!<arch>\n"):
        return "a static library"
    return ""


def is_python_bytecode(source: Source) -> bool:
    """Tell compiled Python by its magic number."""
    head = source.read(0, 16)
    return len(head) == 16 and head[2:4] == b"\r\n" and 3000 <= int.from_bytes(head[:2], "little") <= 3999


def skips_its_source(source: Source) -> bool:
    """Tell bytecode that Python runs without comparing it with the source."""
    return int.from_bytes(source.read(4, 4), "little") == 1
