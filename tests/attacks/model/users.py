"""Running a program as a user without any privileges, from a test that runs as root."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.attacks.model.schedule import OTHER_USER, ROOT

OTHER_ID = 65534
"""The user whom Linux calls nobody, and the group."""

# $1: the closed folder. The rest: what has to be seen beneath it, then "--" and the command. Everything is mounted in a
# namespace of this command's own; nobody else sees it.
OPENED = """
set -e
closed=$1 kept=$(mktemp -d) number=0 all=
shift
mount -t tmpfs -o mode=755 none "$kept"
while [ "$1" != -- ]; do
    number=$((number + 1)) all="$all $1"
    mkdir "$kept/$number"
    mount --bind "$1" "$kept/$number"
    shift
done
shift
mount -t tmpfs -o mode=755 none "$closed"
number=0
for path in $all; do
    number=$((number + 1))
    mkdir -p "$path"
    mount --bind "$kept/$number" "$path"
done
umount -R "$kept"
rmdir "$kept"
exec "$@"
"""


def command_as(user: str, command: list[str]) -> list[str]:
    """Return the command that runs ``command`` as a user; for this user it is the command itself."""
    if user != OTHER_USER or os.getuid() == OTHER_ID or os.getuid() != 0:
        return command
    switch = ["setpriv", f"--reuid={OTHER_ID}", f"--regid={OTHER_ID}", "--clear-groups", *command]
    needed = _needed_folders()
    closed = next((folder for path in needed if (folder := _closed_above(path))), None)
    if closed is None:
        return switch
    beneath = [str(path) for path in needed if path.is_relative_to(closed)]
    opening = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", OPENED, "opened", str(closed)]
    return [*opening, *beneath, "--", *switch]


def missing_for(user: str) -> str:
    """Return what keeps a test from running a program as a user, or nothing."""
    if user != OTHER_USER or os.getuid() != 0:
        return ""
    needed = ["setpriv"]
    if any(_closed_above(path) for path in _needed_folders()):
        needed += ["unshare", "mount"]  # the interpreter lies in a folder that only root may enter
    return ", ".join(program for program in needed if shutil.which(program) is None)


@contextmanager
def folder_of(user: str) -> Iterator[Path]:
    """A folder that a user owns and reaches; pytest's own are for the user of pytest alone."""
    folder = Path(tempfile.mkdtemp(prefix="safe-triton-attacks-"))
    try:
        if user == OTHER_USER and os.getuid() == 0:
            os.chown(folder, OTHER_ID, OTHER_ID)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _needed_folders() -> list[Path]:
    found = {Path(os.path.realpath(prefix)) for prefix in (sys.prefix, sys.base_prefix, ROOT)}
    return sorted(path for path in found if not any(other != path and path.is_relative_to(other) for other in found))


def _closed_above(path: Path) -> Path | None:
    """The topmost folder on the way to a path that others may not enter."""
    for folder in (*reversed(path.parents), path):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None
