"""From many files to a few grants: pure functions on paths."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping

MANY = 5
"""So many files or folders side by side become a grant of the folder they are in."""

# Folders that are never granted as a whole: other programs keep their files there.
BROAD: frozenset[str] = frozenset(
    """
    / /bin /boot /dev /dev/shm /etc /home /lib /lib64 /media /mnt /opt /proc /proc/self /root /run /sbin /srv /sys
    /tmp /usr /usr/bin /usr/lib /usr/local /usr/share /var /var/cache /var/lib /var/log /var/run /var/tmp
    """.split()  # noqa: SIM905 - a table of words
)
_HOMES = "/home"
_PASSING = re.compile(r"/proc/(\d+|self/(fd|fdinfo|map_files|ns|task)/.*)(/.*)?")


def is_broad(path: str, kept_out: Collection[str] = ()) -> bool:
    """Tell whether a folder holds more than one model's files: a system folder, a home, or one of ``kept_out``."""
    return path in BROAD or path in kept_out or os.path.dirname(path) == _HOMES


def is_passing(path: str) -> bool:
    """Tell whether a path names a process, a thread or a descriptor, and so means something else at the next start."""
    return _PASSING.fullmatch(path) is not None


def is_beneath(path: str, folder: str) -> bool:
    """Tell whether a path is a folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def merge(paths: Iterable[str], kept_out: Collection[str] = ()) -> tuple[str, ...]:
    """Return the fewest grants for paths: what lies below another is dropped, :data:`MANY` side by side are one.

    Args:
        paths: files and folders.
        kept_out: folders that are not granted as a whole, beside :data:`BROAD`.
    """
    kept = set(_outermost(paths))
    while True:
        below: dict[str, int] = {}
        for path in kept:
            below[os.path.dirname(path)] = below.get(os.path.dirname(path), 0) + 1
        folders = [folder for folder, number in below.items() if number >= MANY and not is_broad(folder, kept_out)]
        if not folders:
            return tuple(sorted(kept))
        kept = set(_outermost((*kept, *folders)))


def _outermost(paths: Iterable[str]) -> list[str]:
    found: list[str] = []
    for path in sorted(set(paths), key=len):
        if not any(is_beneath(path, folder) for folder in found):
            found.append(path)
    return found


def placed(path: str, places: Mapping[str, str]) -> str:
    """Return a path with the innermost of the placeholders that it lies below, such as ``{model}/labels.txt``."""
    fitting = [(folder, name) for name, folder in places.items() if is_beneath(path, folder)]
    if not fitting:
        return path
    folder, name = max(fitting, key=lambda pair: len(pair[0]))
    return "{" + name + "}" + path[len(folder) :]
