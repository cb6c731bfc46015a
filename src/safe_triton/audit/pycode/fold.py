"""Constant expressions that code is hidden behind: text methods, encodings, joined characters. All bounded."""

from __future__ import annotations

import base64
import binascii
import codecs
import contextlib
import operator as operators
import re
import string
import zlib
from collections.abc import Callable
from typing import Any

from safe_triton.audit.pycode.value import MAX_TEXT, MISSING, Value, constant

_METHODS = frozenset(
    {
        "replace",
        "lower",
        "upper",
        "strip",
        "lstrip",
        "rstrip",
        "encode",
        "decode",
        "join",
        "format",
        "title",
        "capitalize",
        "swapcase",
        "casefold",
        "removeprefix",
        "removesuffix",
        "split",
        "rsplit",
        "splitlines",
        "partition",
        "hex",
        "translate",
    }
)
_CODECS = frozenset(
    {"rot13", "rot_13", "rot-13", "hex", "hex_codec", "base64", "base64_codec", "utf-8", "utf8", "ascii", "latin-1"}
)


def _codec(data: Any, name: str = "utf-8", *_rest: Any) -> Any:
    """Decode by a codec that cannot grow its input."""
    return codecs.decode(data, _known(name))


def _encoded(text: str, encoding: str = "utf-8", *_rest: Any, **_named: Any) -> bytes:
    """Encode by one of the same codecs: punycode takes minutes for a text of some thousand characters."""
    return text.encode(_known(encoding))


def _known(codec: str) -> str:
    if codec.lower() not in _CODECS:
        raise ValueError(codec)
    return codec


def _inflate(data: bytes, *_rest: Any) -> bytes:
    """Unpack a little."""
    return zlib.decompressobj().decompress(data, MAX_TEXT)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "base64.b64decode": base64.b64decode,
    "base64.standard_b64decode": base64.standard_b64decode,
    "base64.urlsafe_b64decode": base64.urlsafe_b64decode,
    "base64.decodebytes": base64.decodebytes,
    "base64.b32decode": base64.b32decode,
    "base64.b16decode": base64.b16decode,
    "base64.b85decode": base64.b85decode,
    "base64.a85decode": base64.a85decode,
    "binascii.unhexlify": binascii.unhexlify,
    "binascii.a2b_hex": binascii.a2b_hex,
    "binascii.a2b_base64": binascii.a2b_base64,
    "builtins.bytes.fromhex": bytes.fromhex,
    "builtins.bytearray.fromhex": bytes.fromhex,
    "codecs.decode": _codec,
    "zlib.decompress": _inflate,
    "builtins.chr": chr,
    "builtins.ord": ord,
    "builtins.str": str,
    "builtins.int": int,
    "builtins.repr": repr,
    "builtins.len": len,
    "builtins.reversed": lambda text: text[::-1],
    "builtins.bytes": lambda value, *rest: bytes(value, *rest) if not isinstance(value, int) else MISSING,
    "builtins.bytearray": lambda value, *rest: bytes(value, *rest) if not isinstance(value, int) else MISSING,
    "operator.add": operators.add,
    "operator.concat": operators.add,
}
PERCENT = re.compile(r"%(?:\([^)]{0,200}\))?[-+ #0-9.*]{0,20}[A-Za-z]")
BRACES = re.compile(r"\{[^{}]*\}")
"""What a format puts something else in place of. Bounded: a text of nothing but ``%(`` costs no more."""

MAX_WORK_CHARS = 1 << 24
"""What a method may make of a text at the most: each of its characters becomes another text in ``replace``."""

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Sub": operators.sub,
    "BitXor": operators.xor,
    "BitOr": operators.or_,
    "BitAnd": operators.and_,
    "FloorDiv": operators.floordiv,
    "Mult": operators.mul,
    "Mod": operators.mod,
}
_PLAIN = (str, bytes, int, float, bool, type(None))


def plain(value: Value) -> Any:
    """Return a value as a constant, a list of constants, or ``MISSING``."""
    if value.items is not None:
        inside = [plain(item) for item in value.items]
        return MISSING if any(item is MISSING for item in inside) else inside
    return value.constant


def lifted(result: Any) -> Value | None:
    """Return a constant as a value again, when it is small and plain."""
    if isinstance(result, str | bytes) and len(result) > MAX_TEXT:
        return None
    if isinstance(result, list | tuple):
        items = [lifted(item) for item in result[:128]]
        return Value(items=tuple(item for item in items if item is not None))
    return constant(result) if isinstance(result, _PLAIN) else None


def attempt(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Value | None:
    """Compute on constants; whatever fails is not known."""
    with contextlib.suppress(Exception):
        result = function(*arguments, **keywords)
        return None if result is MISSING else lifted(result)
    return None


def function(name: str, arguments: list[Value]) -> Value | None:
    """Fold a call of a known function."""
    known = FUNCTIONS.get(name)
    values = [plain(value) for value in arguments]
    if known is None or any(value is MISSING for value in values) or not values:
        return None
    return attempt(known, *values)


def _length(value: Any) -> int:
    """How long a text, or the longest of a list, is; or the list itself."""
    if isinstance(value, list):
        return max(len(value), *map(_length, value)) if value else 0
    return len(value) if isinstance(value, str | bytes) else 0


def method(base: Value, name: str, arguments: list[Value], keywords: dict[str, Value]) -> Value | None:
    """Fold a method of a text."""
    target = base.constant
    values = [plain(value) for value in arguments]
    named = {key: plain(value) for key, value in keywords.items()}
    if (
        name not in _METHODS
        or not isinstance(target, str | bytes)
        or any(value is MISSING for value in (*values, *named.values()))
    ):
        return None
    if name == "decode":
        return attempt(_codec, target, *(values or ["utf-8"])) if isinstance(target, bytes) else None
    if name == "encode":
        return attempt(_encoded, target, *values, **named) if isinstance(target, str) else None
    if len(target) * max(map(_length, (*values, *named.values())), default=1) > MAX_WORK_CHARS:
        return None
    # A width of a billion is one character to write; and what is put in may be long.
    if name == "format" and (any(sign in str(target) for sign in ":!") or len(target) > 2000):
        return None
    return attempt(lambda: getattr(target, name)(*values, **named))


def binary(operator: str, left: Value, right: Value) -> Value | None:
    """Fold an operation on constants."""
    first, second = plain(left), plain(right)
    if first is MISSING or second is MISSING:
        return None
    if operator == "Add" and isinstance(first, str | bytes | int) and type(first) is type(second):
        return attempt(operators.add, first, second)
    if operator == "Mod" and isinstance(first, str):
        # A digit or a star may be a width.
        safe = len(first) < 2000 and not any(sign in "*" + string.digits for sign in first)
        return attempt(operators.mod, first, tuple(second) if isinstance(second, list) else second) if safe else None
    if operator == "Mult" and isinstance(first, str | bytes) and isinstance(second, int):
        return attempt(operators.mul, first, second) if len(first) * second <= MAX_TEXT else None
    if operator in _ARITHMETIC and isinstance(first, int) and isinstance(second, int):
        return attempt(_ARITHMETIC[operator], first, second) if max(abs(first), abs(second)) < 1 << 64 else None
    return None
