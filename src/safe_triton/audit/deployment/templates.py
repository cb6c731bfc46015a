"""Helm, Jinja and other templates that nobody has rendered yet: read as far as they are plain."""

from __future__ import annotations

import re

PLACEHOLDER = "$TEMPLATE"

_UNQUOTED = re.compile(r"(?m)^[ \t]*\{\{|:[ \t]+\{\{|^[ \t]*-[ \t]+\{\{|^[^\"'\n|>]*[\w/:=-]\{\{")
_STATEMENT = re.compile(r"(?m)^[ \t]*\{[%#][^\n{}]*[%#]\}[ \t]*$")
_ONLY_ACTIONS = re.compile(r"(?m)^[ \t]*(?:\{\{[^\n{}]*\}\}[ \t]*)+$")

# What is absent from a template may come from its values: only what stands there counts.
_CERTAIN = (
    "privileged docker-socket host-path caps-added host-network host-pid host-ipc all-gpus image-unpinned "
    "image-outdated ports-public secrets-in-env secrets-on-command-line unknown-flag invalid-flag-value "
    "deprecated-flag strict-readiness-off exit-on-error-off log-file-in-repo broken-continuation allow-sagemaker "
    "restricted-api-missing restricted-api-partial model-control-open tls-ineffective writable-model-mount "
    "cache-plaintext backend-dir-writable"
)
CERTAIN = frozenset(_CERTAIN.split())


def is_template(text: str) -> bool:
    """Tell whether a text holds template actions where YAML has none."""
    return ("{{" in text and _UNQUOTED.search(text) is not None) or _STATEMENT.search(text) is not None


def line_of_template(text: str) -> int:
    """The line of the first action or statement."""
    found = re.search(r"\{[{%#]", text)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def fill_template(text: str) -> str:
    """Put a placeholder in place of every action; line numbers stay."""
    text = _STATEMENT.sub("", _ONLY_ACTIONS.sub("", text))
    parts: list[str] = []
    at = 0
    while (start := text.find("{{", at)) >= 0 and (end := text.find("}}", start)) >= 0:
        parts += [text[at:start], PLACEHOLDER, "\n" * text.count("\n", start, end)]
        at = end + 2
    return "".join([*parts, text[at:]])
