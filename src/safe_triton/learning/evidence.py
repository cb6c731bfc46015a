"""Records in words: who used what, when, how often. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from safe_triton.learning.records import MOMENTS, Kind, Record

_VERBS: dict[Kind, str] = {
    "read": "read",
    "list": "listed",
    "write": "written",
    "create": "created, renamed or removed",
    "execute": "executed",
    "connect": "connected to",
    "send": "sent datagrams to",
    "process": "started a process",
    "executable_memory": "executable memory",
    "call": "",
}
_SHOWN = 3


def describe(records: Iterable[Record], *, below: str = "", declares: bool = False) -> str:
    """Return one line about records.

    Args:
        records: of one grant.
        below: the granted path; a single record of the path itself does not name it again.
        declares: whether the model's class asks for it, used or not.
    """
    listed = list(records)
    parts = [f"{what}{_circumstances(used)}" for what, used in _grouped(listed, below)]
    return "; ".join(["the class asks for it", *parts] if declares else parts)


def summarise(records: Iterable[Record]) -> str:
    """Return what was used, without who, when and how often."""
    return "; ".join(what for what, _ in _grouped(list(records), ""))


def several(number: int, word: str) -> str:
    """Return a number with its noun."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _grouped(records: list[Record], below: str) -> Iterator[tuple[str, list[Record]]]:
    """What was done to what, with the records of it."""
    for kind, verb in _VERBS.items():
        used = [record for record in records if record.kind == kind]
        if used:
            yield f"{verb} {_targets(used, below)}".strip(), used


def _targets(used: list[Record], below: str) -> str:
    if used[0].kind == "process":
        return ""
    names = sorted({record.target for record in used})
    if names == [below]:
        return ""
    shown = [os.path.relpath(name, below) if below and name.startswith("/") else name for name in names[:_SHOWN]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _circumstances(used: list[Record]) -> str:
    instances = sorted({record.instance for record in used})
    shown = ", ".join(instances[:_SHOWN]) + (f" and {len(instances) - _SHOWN} more" if len(instances) > _SHOWN else "")
    moments = [words for moment, words in MOMENTS.items() if any(record.moment == moment for record in used)]
    return f" by {shown} {' and '.join(moments)}, {several(sum(record.times for record in used), 'time')}"
