"""Objects of Python in YAML and JSON: tags and keys that a careless loader turns into imports and calls."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from safe_triton.audit.finding import Level
from safe_triton.audit.modelfiles.allowed import is_allowed, runs_code
from safe_triton.audit.modelfiles.look import Look
from safe_triton.audit.modelfiles.opcodes import Global

MAX_YAML_BYTES = 1 << 20
MAX_VALUES = 200_000
# A tag may be cut in two by %TAG, or have its letters written as %6f: whatever may resolve to one of Python's is read.
_TAGGED = re.compile(rb"%TAG|(?:^|[\s\[{,])!(?:!|<)")
_NAMED = re.compile(rb"!python/|tag:yaml\.org,2002:python/")
_YAML_PREFIX = "tag:yaml.org,2002:"
# What PyYAML makes plain values of; the rest imports or calls.
_PLAIN_TAGS = frozenset(
    {"none", "bool", "str", "unicode", "bytes", "int", "long", "float", "complex", "list", "tuple", "dict"}
)
_TARGET = re.compile(rb"(?m)^[ \t-]{0,80}[\"']?_target_[\"']?[ \t]{0,8}:[ \t]{0,8}[\"']?([A-Za-z_][\w.]{0,200})")
_NAMES = frozenset({"py/object", "py/type", "py/class", "py/function", "py/repr", "py/newobj", "py/module"})
_CALLS = frozenset({"py/reduce", "py/newargs", "py/newargsex", "py/initargs"})
# Configurations name these for what they are for.
_CONFIGURED = frozenset({"logging", "functools"})


def check_yaml(data: bytes, look: Look) -> None:
    """Report tags that construct Python objects, and Hydra targets that are no class of a model."""
    if _TAGGED.search(data):
        try:
            for tag in _python_tags(data[:MAX_YAML_BYTES].decode("utf-8", "replace")):
                _report_tag(tag, look)
        except ValueError as error:  # mostly a text that is no YAML
            if _NAMED.search(data):
                look.unexamined(f"YAML with Python tags ({error})")
        if _NAMED.search(data, MAX_YAML_BYTES):
            look.unexamined(f"YAML with Python tags behind its first {MAX_YAML_BYTES:,} bytes")
    for match in _TARGET.finditer(data):
        _report_target(match.group(1).decode("ascii"), look)


def check_json(value: Any, look: Look) -> None:
    """Report what jsonpickle would construct, and a switch that lets downloaded code run."""
    if isinstance(value, dict):
        _check_switch(value, look)
    for each in _objects(value):
        for key, inner in each.items():
            if key in _NAMES and isinstance(inner, str):
                _report(_split(inner), f"{key} {inner[:100]!r}", look)
            elif key in _CALLS and isinstance(inner, list):
                look.find("data-file-object", f"{key}{look.where} calls what jsonpickle reads", once=True)
            elif key == "_target_" and isinstance(inner, str):
                _report_target(inner, look)


def _check_switch(value: dict[Any, Any], look: Look) -> None:
    """Report ``trust_remote_code`` in the engine's arguments, as the vLLM backend reads them."""
    for key, inner in value.items():
        if isinstance(key, str) and key.replace("-", "_").lower() == "trust_remote_code" and is_on(inner):
            look.find("py-trust-remote-code", f"{key}{look.where} lets a model's files bring code that runs here")


def is_on(value: Any) -> bool:
    """Tell a switch that is on, as a boolean, a number or a word."""
    return str(value).strip().lower() in {"true", "1", "yes", "on"}


def _objects(value: dict[Any, Any] | list[Any]) -> Iterator[dict[Any, Any]]:
    """Yield the objects of a JSON value, as many as are looked at."""
    pending: list[dict[Any, Any] | list[Any]] = [value]
    count = 0
    while pending and count < MAX_VALUES:
        top = pending.pop()
        count += 1
        if isinstance(top, dict):
            yield top
            pending.extend(inner for inner in top.values() if isinstance(inner, dict | list))
        else:
            pending.extend(inner for inner in top if isinstance(inner, dict | list))


def _python_tags(text: str) -> Iterator[str]:
    """Yield what stands behind ``python/`` in the tags of a YAML text.

    Raises:
        ValueError: the text is no YAML.
    """
    import yaml

    handles = {"!!": _YAML_PREFIX, "!": "!"}
    try:
        # The C scanner is ten times as fast, and PyYAML can be built without it.
        for token in yaml.scan(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(token, yaml.DirectiveToken) and token.name == "TAG":
                handles[token.value[0]] = token.value[1]
            elif isinstance(token, yaml.TagToken):
                handle, suffix = token.value
                whole = f"{handles.get(handle, handle)}{suffix}" if handle else str(suffix)
                if whole.startswith(_YAML_PREFIX + "python/"):
                    yield whole.removeprefix(_YAML_PREFIX + "python/")
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(type(error).__name__) from error


def _report_tag(tag: str, look: Look) -> None:
    kind, _, named = tag.partition(":")
    if kind not in _PLAIN_TAGS:
        _report(_split(named), f"the tag python/{tag[:100]}", look)


def _report_target(target: str, look: Look) -> None:
    name = _split(target)
    if runs_code(name) and name.module.partition(".")[0] not in _CONFIGURED:
        _report(name, f"_target_ {target[:100]!r}", look)


def _report(name: Global, what: str, look: Look) -> None:
    """Add a finding, an error where what is named runs code."""
    if name.module and is_allowed(name):
        return
    level = Level.ERROR if runs_code(name) else None
    look.find("data-file-object", f"{what}{look.where} is imported by a loader that follows it", level=level)


def _split(text: str) -> Global:
    """Return a dotted name as module and name; a name alone is the module."""
    module, _, name = text.rpartition(".")
    return Global(module or name, name)
