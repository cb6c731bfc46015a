"""Files with secrets that a command writes: readable by their owner alone, whole or not at all, never over others."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from errno import EEXIST
from pathlib import Path

PRIVATE, PUBLIC = 0o600, 0o644


def write_files(folder: Path, files: Mapping[str, str], *, public: tuple[str, ...] = (), force: bool = False) -> None:
    """Write files into a folder, which is made, for its owner alone, if it is missing.

    Args:
        folder: where.
        files: texts by name.
        public: endings of the names that everybody may read.
        force: put them in the place of those that are there, each by one move.

    Raises:
        FileExistsError: one is there already; nothing was written.
        OSError: what the system answered.
    """
    there = [name for name in files if os.path.lexists(folder / name)]
    if there and not force:
        raise FileExistsError(EEXIST, "is there already; --force makes all of them anew", str(folder / there[0]))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in files.items():
        made = folder / f".{name}.{secrets.token_hex(4)}"
        mode = PUBLIC if name.endswith(public) else PRIVATE
        # O_EXCL: not into a file that somebody else prepared.
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(text)
        made.replace(folder / name)
