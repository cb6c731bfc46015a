"""Array files by their headers: numpy's, safetensors, GGUF."""

from __future__ import annotations

import ast
import json
import math
import struct
import warnings
from typing import Any

from safe_triton.audit.modelfiles.look import Look
from safe_triton.audit.modelfiles.pickles import check_hidden, leading_streams, report
from safe_triton.audit.modelfiles.source import Cursor, PartSource, Source
from safe_triton.audit.modelfiles.templates import check_template

NPY = b"\x93NUMPY"
MAX_NPY_HEADER = 1 << 20
MAX_SAFETENSORS_HEADER = 100_000_000  # the format's own limit
MAX_READ_HEADER = 16 << 20
MAX_GGUF_KEYS = 100_000
MAX_GGUF_TEXT = 1 << 20

# GGUF's value type -> bytes; 8 is a text, 9 an array.
_GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def check_npy(source: Source, look: Look) -> None:
    """Report an array of objects: its data are a pickle."""
    head = source.read(0, 12)
    major = head[6] if len(head) > 6 else 0
    width = 2 if major == 1 else 4
    if major not in {1, 2, 3} or len(head) < 8 + width:
        look.find("model-file-malformed", f"the array{look.where} has no readable header")
        return
    size = int.from_bytes(head[8 : 8 + width], "little")
    start = 8 + width
    text = source.read(start, min(size, MAX_NPY_HEADER))
    header = literal(text.decode("latin-1"))
    described = header.get("descr") if isinstance(header, dict) else None
    if described is None:
        look.find("model-file-malformed", f"the array{look.where} has no readable header")
        if b"O" in text:
            look.find("numpy-object-array", f"the array{look.where} may hold Python objects, which are a pickle")
            _check_objects(source, start + size, look)
        return
    if has_objects(described):
        look.find(
            "numpy-object-array",
            f"the array{look.where} holds Python objects (dtype {str(described)[:80]}), which are a pickle",
        )
        _check_objects(source, start + size, look)
        return
    expected = item_bytes(described)
    shape = header.get("shape") if isinstance(header, dict) else None
    if expected is not None and isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape):
        wanted = start + size + expected * math.prod(shape)
        if wanted > source.size:
            look.find("model-file-malformed", f"the array{look.where} needs {wanted} bytes, {source.size} are there")


def _check_objects(source: Source, start: int, look: Look) -> None:
    """Look at the pickle behind an array's header."""
    data = PartSource(source, start, source.size - start)
    for walk in leading_streams(data, look):
        report(walk, data, look)


def literal(text: str) -> Any:
    """Return a Python literal, or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def has_objects(described: Any, depth: int = 0) -> bool:
    """Tell whether a dtype holds Python objects, also inside a record."""
    if depth > 20:
        return True
    if isinstance(described, str):
        return described.lstrip("<>=|!").startswith(("O", "object"))
    if isinstance(described, list | tuple):
        for part in described:
            if isinstance(part, list | tuple):
                # A field: (name, dtype, shape); or a dtype with a shape.
                inner = part[1] if len(part) > 1 and isinstance(part[0], str | tuple) else part
                if has_objects(inner, depth + 1):
                    return True
        if isinstance(described, tuple) and described and isinstance(described[0], str | list):
            return has_objects(described[0], depth + 1)
    return False


def item_bytes(described: Any) -> int | None:
    """Return the bytes of one item of a simple dtype."""
    if not isinstance(described, str):
        return None
    plain = described.lstrip("<>=|!")
    if len(plain) < 2 or plain[0] not in "biufcSUVmM" or not plain[1:].split("[")[0].isdigit():
        return None
    size = int(plain[1:].split("[")[0])
    return size * 4 if plain[0] == "U" else size


def is_safetensors(source: Source) -> bool:
    """Tell a safetensors file: a length, then an object of JSON."""
    head = source.read(0, 9)
    if len(head) < 9 or head[8:9] != b"{":
        return False
    size = int.from_bytes(head[:8], "little")
    return 2 <= size <= MAX_SAFETENSORS_HEADER


def check_safetensors(source: Source, look: Look) -> None:
    """Compare the header's ranges with the file, and look at what it says beside."""
    size = int.from_bytes(source.read(0, 8), "little")
    if 8 + size > source.size:
        look.find("model-file-malformed", f"the header{look.where} needs {size} bytes, the file has {source.size}")
        return
    if size > MAX_READ_HEADER:
        look.unexamined(f"a header of {size} bytes")
        return
    try:
        header = json.loads(source.read(8, size))
    except (ValueError, RecursionError):
        look.find("model-file-malformed", f"the header{look.where} is no JSON")
        return
    ends = [0]
    for name, entry in header.items() if isinstance(header, dict) else ():
        if name == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets)):
            look.find("model-file-malformed", f"tensor {name[:80]!r}{look.where} has no range", once=True)
            continue
        ends.append(offsets[1])
        if not 0 <= offsets[0] <= offsets[1] <= source.size - 8 - size:
            look.find("model-file-malformed", f"tensor {name[:80]!r}{look.where} lies outside the file", once=True)
    rest = source.size - 8 - size - max(ends)
    if rest > 0:
        look.find("model-file-malformed", f"{rest} bytes{look.where} behind the last tensor belong to none")
        check_hidden(source, look, source.size - rest, source.size)


def check_gguf(source: Source, look: Look) -> None:
    """Read the keys of a GGUF file: chat templates are code of a kind."""
    cursor = Cursor(source, 4)
    try:
        version, _tensors, keys = struct.unpack("<IQQ", _exact(cursor, 20))
        if not 1 <= version <= 10 or keys > MAX_GGUF_KEYS:
            raise ValueError(f"version {version} with {keys} keys")
        for _ in range(keys):
            key = _gguf_text(cursor, 1 << 16)
            kind = int.from_bytes(_exact(cursor, 4), "little")
            value = _gguf_value(cursor, kind, 0)
            if "chat_template" in key and isinstance(value, str):
                check_template(value, look, what=key[:80])
    except ValueError as error:
        look.find("model-file-malformed", f"the GGUF header{look.where} is not readable: {error}")


def _exact(cursor: Cursor, size: int) -> bytes:
    """Return exactly so many bytes."""
    data = cursor.take(size)
    if data is None:
        raise ValueError(f"ends at byte {cursor.offset}")
    return data


def _gguf_text(cursor: Cursor, limit_bytes: int) -> str:
    """Read a text; a longer one than the limit is skipped."""
    size = int.from_bytes(_exact(cursor, 8), "little")
    if size > limit_bytes:
        if not cursor.skip(size):
            raise ValueError(f"a text of {size} bytes")
        return ""
    return _exact(cursor, size).decode("utf-8", "replace")


def _gguf_value(cursor: Cursor, kind: int, depth: int) -> str | None:
    """Read a text, go over anything else."""
    if kind == 8:
        return _gguf_text(cursor, MAX_GGUF_TEXT)
    if kind in _GGUF_SIZES:
        _exact(cursor, _GGUF_SIZES[kind])
        return None
    if kind != 9 or depth > 4:
        raise ValueError(f"value type {kind}")
    inner = int.from_bytes(_exact(cursor, 4), "little")
    count = int.from_bytes(_exact(cursor, 8), "little")
    if inner in _GGUF_SIZES:
        if not cursor.skip(count * _GGUF_SIZES[inner]):
            raise ValueError(f"an array of {count} values")
        return None
    if count > 2_000_000:
        raise ValueError(f"an array of {count} values")
    for _ in range(count):
        _gguf_value(cursor, inner, depth + 1)
    return None
