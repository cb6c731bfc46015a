"""Read a config.pbtxt as the server does, say what the server would refuse, and go on with the rest."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any

from safe_triton.audit.finding import Finding
from safe_triton.audit.pbtxt.tokens import Lines, tokenize
from safe_triton.audit.pbtxt.tree import Field, TreeError, TreeSizeError, parse_tree

OVERSIZED_BYTES = 256 << 10
"""Above this a configuration is suspicious: real ones have a few kilobytes, the largest known about 100."""

MAX_BYTES = 8 << 20
"""Above this a configuration is not parsed: text of that size takes seconds and hundreds of megabytes."""

MAX_UNKNOWN = 20
"""Unknown fields that are named one by one."""

_PLACE = re.compile(r"^(\d+):(\d+) : (.*)$", re.DOTALL)
_BEFORE = re.compile(r"(\w+)\s*:?\s*\[?\s*$")
_FIELD = re.compile(r"(?m)^[ \t]{0,40}(\w+)[ \t]{0,8}[:{<[]")
_LONE_MINUS = re.compile(r"-[ \t\r\n]+[0-9.]")
_BAD_ESCAPE = re.compile(r"\\(?:x[89a-fA-F][0-9a-fA-F]|[23][0-7]{2})")


@dataclass
class Config:
    """One config.pbtxt.

    Args:
        path: as it is shown.
        text: decoded; what is not UTF-8 is replaced.
        message: Triton's ``ModelConfig``; what could be read of it when the file is broken.
        tree: the fields as they are written; empty when the text has no structure.
        is_broken: whether the server refuses the text.
        has_placeholders: whether it is a template; fields with a placeholder are missing in ``message``.
        findings: what was wrong with the text itself.
    """

    path: str
    text: str
    message: Any
    tree: Field = field(default_factory=lambda: Field(start=0))
    is_broken: bool = False
    has_placeholders: bool = False
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lines: Lines | None = None

    def place(self, where: Field | int) -> dict[str, Any]:
        """Line and column of a field or an offset, as a finding takes them."""
        if self._lines is None:
            self._lines = Lines(self.text)
        line, column = self._lines.place(where if isinstance(where, int) else where.start)
        return {"line": line, "column": column}

    def find(self, rule: str, where: Field | int, message: str, **more: Any) -> Finding:
        """A finding at a field or an offset of this file."""
        return Finding(rule=rule, path=self.path, message=message, **self.place(where), **more)


def parse_config(data: bytes, path: str) -> Config:
    """Read a model configuration.

    Args:
        data: the file's bytes.
        path: as it is shown in findings.
    Returns:
        What could be read, with findings of the family ``parse``.
    Raises:
        EnvironmentMissingError: protobuf or tritonclient is not installed.
    Does not cover:
        Fields that are newer than the installed tritonclient: they are reported as unknown.
    """
    from safe_triton.config.pbtxt import model_config_class

    message = model_config_class()()
    config = Config(path=path, text="", message=message)
    if len(data) > OVERSIZED_BYTES:
        tail = "" if len(data) <= MAX_BYTES else "; it was not parsed"
        config.findings.append(
            Finding(
                rule="config-oversized",
                path=path,
                message=f"the file has {len(data):,} bytes, above {OVERSIZED_BYTES:,}{tail}",
            )
        )
    if len(data) > MAX_BYTES:
        config.is_broken = True
        config.findings.append(
            Finding(
                rule="audit-limit", path=path, message=f"{len(data):,} bytes, above the {MAX_BYTES:,} that are read"
            )
        )
        return config
    config.text = data.decode("utf-8", errors="replace")
    if _refused_bytes(config, data):
        return config
    _note_encoding(config, data)
    fault = None
    try:
        config.tree = parse_tree(config.text)
    except TreeError as error:
        fault = error
    except TreeSizeError:
        pass  # oversized as well: what is said of it has no line
    _judge(config, fault)
    return config


def _refused_bytes(config: Config, data: bytes) -> bool:
    """Report what no text-format file begins with or holds."""
    reason = ""
    offset = 0
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        reason = "the file is UTF-16; the server reads UTF-8"
    elif data.startswith(b"\xef\xbb\xbf"):
        reason = "the file begins with a byte order mark, which the server refuses"
    elif b"\0" in data:
        offset = config.text.find("\0")
        reason = "the file holds a NUL byte"
    if reason:
        config.is_broken = True
        config.findings.append(
            config.find("config-parse-error", offset, reason, fix="Save the file as UTF-8 without a byte order mark.")
        )
        if data.startswith(b"\xef\xbb\xbf"):  # the rest can be looked at
            config.text = " " + config.text[1:]
            _judge_leniently(config)
    return bool(reason)


def _judge_leniently(config: Config) -> None:
    """Fill in what can be read of a file that was already reported as refused."""
    from google.protobuf import text_format

    try:
        config.tree = parse_tree(config.text)
        text_format.Parse(config.text, config.message, allow_unknown_field=True)
    except (text_format.ParseError, RecursionError, ValueError):
        config.tree = Field(start=0)


def _note_encoding(config: Config, data: bytes) -> None:
    """Report bytes outside UTF-8, written as such or as an escape in a string; the server reads over both."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        config.findings.append(
            config.find(
                "config-not-utf8",
                len(data[: error.start].decode("utf-8", errors="replace")),
                f"byte 0x{data[error.start]:02x} is not UTF-8",
            )
        )
        return
    if not _BAD_ESCAPE.search(config.text):
        return
    for token in tokenize(config.text):
        if token.kind == "string" and _BAD_ESCAPE.search(token.text) and not _is_utf8_literal(token.text):
            config.findings.append(
                config.find("config-not-utf8", token.start, "the escapes of this string are not UTF-8")
            )
            return


def _is_utf8_literal(literal: str) -> bool:
    from google.protobuf import text_encoding

    try:
        text_encoding.CUnescape(literal[1:-1]).decode("utf-8")
    except ValueError:
        return False
    return True


def _readable(config: Config) -> str:
    """The text as the definition's Python reader can take it, where that is stricter than the server.

    Strings lose escapes that are not UTF-8, and a minus sign is joined with its number.
    """
    has_escape, has_minus = _BAD_ESCAPE.search(config.text), _LONE_MINUS.search(config.text)
    if not has_escape and not has_minus:
        return config.text
    changes = []
    minus = -1
    for token in tokenize(config.text):
        if token.kind == "string" and has_escape and not _is_utf8_literal(token.text):
            changes.append((token.start, token.end, _BAD_ESCAPE.sub("?", token.text)))
        elif (
            token.kind == "number" and 0 <= minus < token.start - 1 and not config.text[minus + 1 : token.start].strip()
        ):
            changes.append((minus, token.start, " " * (token.start - minus - 1) + "-"))
        minus = token.start if token.text == "-" else -1
    return _rewritten(config.text, changes)


def _rewritten(text: str, changes: Any) -> str:
    parts, position = [], 0
    for start, end, new in changes:
        parts += [text[position:start], new]
        position = end
    return "".join([*parts, text[position:]])


def _judge(config: Config, fault: TreeError | None) -> None:
    """Let the definition decide; findings for what it refuses, placeholders and unknown fields told apart."""
    from google.protobuf import text_format

    placeholders = _placeholders(config)
    if placeholders and (fault is None or _has_field(config)):
        _note_template(config, placeholders)
        return
    has_unknown = _note_unknown(config)
    try:
        text_format.Parse(_readable(config), config.message, allow_unknown_field=has_unknown)
    except text_format.ParseError as error:
        if fault is not None:
            _note_broken(config, str(fault), fault.offset)
        else:
            _note_refusal(config, str(error))
        return
    except (RecursionError, ValueError) as error:
        _note_broken(config, f"it cannot be read: {type(error).__name__}", 0)
        return
    if config.text.isascii():
        return
    foreign = next((each for each in tokenize(config.text) if each.kind == "other"), None)
    if foreign is not None:
        # The definition's Python reader takes every Unicode blank for one, the server's does not.
        config.is_broken = True
        said = f"character U+{ord(foreign.text):04X} outside strings and comments: the server refuses the file"
        config.findings.append(config.find("config-invalid", foreign.start, said, fix="Replace it by a plain blank."))


def _placeholders(config: Config) -> list[int]:
    """Offsets of template placeholders, in strings too."""
    found = [
        token.start
        for token in tokenize(config.text)
        if token.kind == "placeholder" and not _is_field(config, token.text, token.start)
    ]
    if not found:
        found = [each.start for each in config.tree.walk() if each.is_placeholder and each.is_string]
    return found


def _is_field(config: Config, text: str, offset: int) -> bool:
    """Whether braces around a field's name stand where a message does: ``{ all }`` is a mistake, not a template."""
    if text[0] not in "{<" or text[1:2] in set("{%#"):
        return False
    before = _BEFORE.search(config.text[max(0, offset - 120) : offset])
    names, messages = _field_names(config.message.DESCRIPTOR)
    return text.strip("{}<> \t\n") in names and (before is None or before[1] in messages)


def _has_field(config: Config) -> bool:
    """Whether any field of the definition stands in the text: a page of HTML has angle brackets too."""
    names = {each.name for each in config.message.DESCRIPTOR.fields}
    return any(match[1] in names for match in _FIELD.finditer(config.text))


def _field_names(descriptor: Any) -> tuple[set[str], set[str]]:
    """Every field's name in a message and in the messages in it, and those whose value is a message."""
    names: set[str] = set()
    messages: set[str] = set()
    pending, seen = [descriptor], set()
    while pending:
        top = pending.pop()
        if top.full_name in seen:
            continue
        seen.add(top.full_name)
        for each in top.fields:
            names.add(each.name)
            if each.message_type is not None:
                messages.add(each.name)
                pending.append(each.message_type)
    return names, messages


def _note_template(config: Config, placeholders: list[int]) -> None:
    """Report a template once and read what is around its placeholders."""
    from google.protobuf import text_format

    config.has_placeholders = True
    first = config.text[placeholders[0] : placeholders[0] + 40].splitlines()[0]
    more = f" and {len(placeholders) - 1} more" if len(placeholders) > 1 else ""
    config.findings.append(config.find("config-placeholder", placeholders[0], f"placeholder {first!r}{more}"))
    cuts = sorted({each.whole for each in config.tree.walk() if each.is_placeholder and not each.is_string})
    outer: list[tuple[int, int, str]] = []
    for start, end in cuts:
        if not outer or start >= outer[-1][1]:
            outer.append((start, end, " " * (end - start)))
    try:
        text_format.Parse(_rewritten(config.text, outer), config.message, allow_unknown_field=True)
    except (text_format.ParseError, RecursionError, ValueError):
        config.message.Clear()  # what was read before the fault may hold placeholders of its own


def _note_unknown(config: Config) -> bool:
    """Report every field that the definition does not have, with the nearest one that it has."""
    unknown: list[tuple[Field, Any]] = []
    pending = [(config.tree, config.message.DESCRIPTOR)]
    while pending:
        parent, descriptor = pending.pop()
        for child in parent.children:
            known = descriptor.fields_by_name.get(child.name)
            if known is None:
                unknown.append((child, descriptor))
            elif known.message_type is not None:
                pending.append((child, known.message_type))
    unknown.sort(key=lambda pair: pair[0].start)
    for child, descriptor in unknown[:MAX_UNKNOWN]:
        near = difflib.get_close_matches(child.name, list(descriptor.fields_by_name), n=1)
        config.findings.append(
            config.find(
                "config-unknown-field",
                child,
                f"{descriptor.name} has no field {child.name[:60]!r}" + (f"; nearest: {near[0]}" if near else ""),
                fix=f"{near[0]}: …" if near else "",
            )
        )
    if unknown:
        config.is_broken = True
    return bool(unknown)


def _note_refusal(config: Config, text: str) -> None:
    """Report what the definition says, at the place that it names."""
    match = _PLACE.match(text)
    line, column = (int(match[1]), int(match[2])) if match else (0, 0)
    source = config.text.split("\n", line)[line - 1] if line else ""
    said = " ".join((match[3] if match else text).removeprefix(f"'{source}': ").split())
    config.is_broken = True
    rule = "config-unknown-field" if "has no field named" in said else "config-parse-error"
    fix = _nearest_value(config, said)
    config.findings.append(Finding(rule=rule, path=config.path, message=said[:300], line=line, column=column, fix=fix))


def _nearest_value(config: Config, said: str) -> str:
    """For a value that an enumeration does not have: the nearest that it has."""
    match = re.search(r'Enum type "([\w.]+)" has no value named (\w+)', said)
    if match is None:
        return ""
    values = list(config.message.DESCRIPTOR.file.pool.FindEnumTypeByName(match[1]).values_by_name)
    near = difflib.get_close_matches(match[2], values, n=1)
    return near[0] if near else ""


def _note_broken(config: Config, message: str, offset: int) -> None:
    config.is_broken = True
    config.findings.append(config.find("config-parse-error", offset, message))
