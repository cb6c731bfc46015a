"""Writing rendered files into a folder: what somebody else wrote, or changed there, is not lost by it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from safe_triton.errors import DeployError

RECORD = ".safe-triton-render.json"
"""What was written, with digests: the next time tells from it what is still as it was."""

Change = Literal["written", "unchanged", "removed"]


def write_folder(
    folder: Path, form: str, files: Mapping[str, str], *, is_secret: bool = False, overwrite: bool = False
) -> dict[str, Change]:
    """Make a folder hold these files, and no longer those that the last time wrote and this time does not.

    Args:
        folder: made if it is missing.
        form: the subcommand; a folder is of one.
        files: texts by plain name.
        is_secret: only this user may read them.
        overwrite: replace files that this did not write, or that were changed since.

    Returns:
        what became of each file, in their order.

    Raises:
        DeployError: ``deploy.output``; a file is not ours to replace, or the folder cannot be written.
    """
    try:
        return _write(folder, form, files, is_secret=is_secret, overwrite=overwrite)
    except OSError as error:
        raise _refused(f"{error.filename or folder}: {error.strerror or error}") from None


def _write(folder: Path, form: str, files: Mapping[str, str], *, is_secret: bool, overwrite: bool) -> dict[str, Change]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700 if is_secret else 0o755)
    known = _recorded(folder, form, overwrite=overwrite)
    changes: dict[str, Change] = {}
    stale = [name for name in known if name not in files]
    for name in (*files, *stale):
        found = _content(folder / name)
        text = files.get(name)
        if text is not None and found == text.encode():
            changes[name] = "written" if is_secret and _is_open(folder / name) else "unchanged"
            continue
        if found is not None and _digest(found) != known.get(name) and not overwrite:
            whose = "was changed since it was written" if name in known else "was not written by render"
            raise _refused(f"{folder / name} {whose}; keep it elsewhere, or replace it with --force")
        if text is not None:
            changes[name] = "written"
        elif found is not None:
            changes[name] = "removed"
    for name, change in changes.items():
        if change == "written":
            _replace(folder / name, files[name], 0o600 if is_secret else 0o644)
        elif change == "removed":
            (folder / name).unlink()
    digests = {name: _digest(text.encode()) for name, text in files.items()}
    record = json.dumps({"form": form, "files": digests}, indent=2) + "\n"
    if _content(folder / RECORD) != record.encode():
        _replace(folder / RECORD, record, 0o644)
    return changes


def _recorded(folder: Path, form: str, *, overwrite: bool) -> dict[str, str]:
    """Digests of what was written the last time, by name."""
    content = _content(folder / RECORD)
    if content is None:
        return {}
    try:
        record = json.loads(content)
        files = {str(name): str(digest) for name, digest in record["files"].items()}
        plain = {
            name: digest for name, digest in files.items() if os.path.basename(name) == name and name not in {"", ".."}
        }
        last = str(record["form"])
    except (ValueError, KeyError, TypeError, AttributeError):
        last, plain = "something else", {}
    if last != form and not overwrite:
        raise _refused(f"{folder} holds what render {last} wrote; name another folder, or replace it with --force")
    return plain


def _content(path: Path) -> bytes | None:
    """A plain file's content; None where there is nothing.

    Raises:
        DeployError: there is something that is no plain file.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _refused(f"{path} is no plain file")
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _is_open(path: Path) -> bool:
    """Whether others may read a file that is written anew for this user alone."""
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _replace(path: Path, text: str, mode: int) -> None:
    """At once: whoever reads sees the old or the new one."""
    beside = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(beside, path)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _refused(message: str) -> DeployError:
    return DeployError(message, reason="deploy.output")
