"""Which installed packages were imported, from the module files that were opened. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from safe_triton.learning.records import Record

_INSTALLED = ("site-packages", "dist-packages")
_MODULES = (".py", ".pyc", ".so")
_CACHE = "__pycache__"


def imported_packages(records: Iterable[Record]) -> tuple[str, ...]:
    """Return the top-level names of installed packages whose modules were read, sorted.

    Does not cover:
        The standard library. Modules of the model's own folder. Packages in archives.
    """
    found = set()
    for record in records:
        if record.kind != "read" or not record.target.endswith(_MODULES):
            continue
        parts = record.target.split("/")
        places = [index for index, part in enumerate(parts) if part in _INSTALLED]
        if places:
            below = [part for part in parts[places[-1] + 1 :] if part != _CACHE]
            found.add(below[0].split(".", 1)[0])
    return tuple(sorted(found))
