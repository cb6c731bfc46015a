"""Words of a command with the place each one comes from, and what their variables stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_TEXT_CHARS = 1 << 20
"""A deployment file above this is not read: one of a hundred thousand lines is no deployment."""

MAX_WORD_CHARS = 1 << 16
"""What a word may grow to by its variables: ``A=$B$B; B=$A$A`` doubles with every line."""


@dataclass(frozen=True)
class Word:
    """One word.

    Args:
        text: after quotes and variables; ``$NAME`` stays where nothing is known about NAME.
        line: 1 for the first line of the file.
        is_dynamic: whether a part of it is only known when the command runs.
    """

    text: str
    line: int
    is_dynamic: bool = False


_COMPOSE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?[-+?])([^{}]*))?\}|(\w+))")
_KUBERNETES = re.compile(r"\$(?:(\$)(?=\()|\((\w+)\))")
_DOCKER = re.compile(r"(?<!\\)\$(?:\{(\w+)(?:(:?[-+])([^{}]*))?\}|([A-Za-z_]\w*))")


def is_unknown(text: str) -> bool:
    """Tell whether a text holds what only the running system or a template engine knows."""
    return bool(re.search(r"\$[\w({@*]|\{\{|`|<[A-Za-z][\w. -]*>", text))


def expand_compose(text: str) -> str:
    """Put in what compose knows by itself: ``$$`` and the defaults of ``${NAME:-default}``."""

    def value(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        if found[3] in {":-", "-"}:
            return found[4]
        return found[0]

    return _COMPOSE.sub(value, text)


def expand_kubernetes(text: str, variables: Mapping[str, str]) -> str:
    """Put the container's literal variables in place of ``$(NAME)``."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[1] else variables.get(found[2], found[0])

    return _KUBERNETES.sub(value, text)[:MAX_WORD_CHARS]


def expand_dockerfile(text: str, variables: Mapping[str, str]) -> str:
    """Put ARG and ENV values in place of ``$NAME``, ``${NAME}`` and ``${NAME:-default}``."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[4]
        known = variables.get(name)
        if found[2] in {":+", "+"}:
            return found[3] if known else ""
        if known is not None and (known or found[2] != ":-"):
            return known
        return found[3] if found[2] else found[0]

    return _DOCKER.sub(value, text)[:MAX_WORD_CHARS]


def basename(text: str) -> str:
    """The last component of a path."""
    return text.rsplit("/", 1)[-1]
