"""Every reason slug: what it means, who changes what, an example of its message. Words only, for the command line.

The texts stand in modules by who meets them first: client, author, operator, writer of the policy file. A test holds
them against the reasons that the code raises.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from safe_triton.cli.reasons import (
    authors,
    callers,
    calls,
    clients,
    contents,
    deployments,
    gateway,
    operators,
    policies,
)

ROLES = ("client", "author", "operator")

_LINES = 4
_NEAREST = 5


@dataclass(frozen=True)
class Reason:
    """One reason.

    Args:
        slug: what a message begins with, or what the log has as ``reason``.
        meaning: what has happened.
        who: ``client``, ``author`` (of the model) or ``operator`` (of the server).
        fix: what that person changes.
        example: a message.
    """

    slug: str
    meaning: str
    who: str
    fix: str
    example: str


def read_reasons(text: str) -> dict[str, Reason]:
    """Read blocks of four lines: the slug; below it, indented, the meaning, ``who: fix`` and the example.

    Raises:
        ValueError: a block that is something else, or a slug that stands twice.
    """
    found: dict[str, Reason] = {}
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        slug = lines[0]
        if len(lines) != _LINES or any(line[:2] != "  " or line[2:3].isspace() for line in lines[1:]):
            raise ValueError(f"{slug}: expected a slug and three lines indented by two")
        meaning, change, example = (line.strip() for line in lines[1:])
        who, _, fix = change.partition(": ")
        if who not in ROLES or not fix:
            raise ValueError(f"{slug}: the second line begins with one of {', '.join(ROLES)} and a colon")
        if slug in found:
            raise ValueError(f"{slug} stands twice")
        found[slug] = Reason(slug, meaning, who, fix, example)
    return found


def nearest(slug: str) -> list[str]:
    """Return the known reasons most like a word, those of its group first."""
    word = slug.strip().lower()
    close = difflib.get_close_matches(word, REASONS, n=_NEAREST, cutoff=0.5)
    inside = [name for name in REASONS if word and word in name]
    return list(dict.fromkeys([*inside, *close]))[:_NEAREST]


def _table() -> dict[str, Reason]:
    found: dict[str, Reason] = {}
    for module in (clients, callers, authors, calls, contents, deployments, gateway, operators, policies):
        for slug, row in read_reasons(module.TEXT).items():
            if slug in found:
                raise ValueError(f"{slug} stands twice")
            found[slug] = row
    return dict(sorted(found.items()))


REASONS: Mapping[str, Reason] = MappingProxyType(_table())
"""Every reason by its slug, in alphabetical order."""
