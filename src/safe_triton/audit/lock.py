"""Lock files: a digest of everything in a repository, and what has changed since.

Links are recorded as links and never followed; a file is opened beneath its folder's descriptor, so that nothing
outside the repository is read whatever is swapped meanwhile.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safe_triton.errors import LockError

LOCK_NAME = "safe-triton.lock"
SIGNATURE_SUFFIX = ".sig"
SCHEMA = 1

MAX_LOCK_BYTES = 256 << 20
MAX_DEPTH = 64

_CHUNK_BYTES = 1 << 20
_OPEN_FILES = 64
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FOLDER_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY

Change = Literal["changed", "added", "removed"]


@dataclass(frozen=True, kw_only=True)
class LockEntry:
    """One file, link or empty folder.

    Args:
        sha256: of a file, in hexadecimal digits; empty for everything else.
        size_bytes: of a file.
        is_executable: whether its owner may run it.
        link: target of a link, as it stands in it.
        is_folder: an empty folder: an empty version folder changes which version is served.
    """

    sha256: str = ""
    size_bytes: int = 0
    is_executable: bool = False
    link: str | None = None
    is_folder: bool = False

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        if self.is_folder:
            return {"folder": True}
        if self.link is not None:
            return {"link": self.link}
        plain: dict[str, Any] = {"bytes": self.size_bytes, "sha256": self.sha256}
        return {**plain, "executable": True} if self.is_executable else plain

    @staticmethod
    def from_plain(plain: object) -> LockEntry:
        """Read one entry strictly.

        Raises:
            ValueError: it is something else.
        """
        match plain:
            case {"folder": True, **rest} if not rest:
                return LockEntry(is_folder=True)
            case {"link": str(target), **rest} if not rest:
                return LockEntry(link=target)
            case {"bytes": int(size), "sha256": str(digest), **rest} if rest in ({}, {"executable": True}):
                if size >= 0 and size is not True and size is not False and re.fullmatch(r"[0-9a-f]{64}", digest):
                    return LockEntry(sha256=digest, size_bytes=size, is_executable=bool(rest))
        raise ValueError("neither file, link nor folder")


@dataclass(frozen=True)
class Lock:
    """What a repository holds, by path with slashes."""

    entries: dict[str, LockEntry] = field(default_factory=dict)

    def to_text(self) -> str:
        """Return the lock file's text: the same for the same files, whatever the order on disk."""
        plain = {name: self.entries[name].to_plain() for name in sorted(self.entries, key=os.fsencode)}
        return json.dumps({"schema": SCHEMA, "entries": plain}, indent=1, ensure_ascii=True) + "\n"


@dataclass(frozen=True, kw_only=True)
class LockProblem:
    """One difference between a repository and its lock.

    Args:
        change: ``changed``, ``added`` or ``removed``.
        path: relative to the repository, with slashes.
        message: what differs.
    """

    change: Change
    path: str
    message: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.change} {self.path}: {self.message}"


def make_lock(repository: Path, *, without: tuple[Path, ...] = (), jobs: int | None = None) -> Lock:
    """Read a repository and return its digests.

    Args:
        repository: a folder.
        without: files that are left out, such as the lock itself.
        jobs: threads; the number of processors by default.

    Raises:
        LockError: reason ``lock.unreadable``; a socket, pipe or device, a file that cannot be read, or that changed
            while it was read.

    Does not cover:
        Owners, times and modes other than the execute bit; what links out of the repository lead to.
    """
    real = os.path.realpath(repository)
    left_out = {os.path.relpath(os.path.realpath(path), real) for path in without}
    try:
        root = os.open(repository, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        with ThreadPoolExecutor(jobs or min(8, os.cpu_count() or 1), thread_name_prefix="lock") as pool:
            return Lock(dict(_read(root, left_out, pool)))
    except OSError as error:
        where = error.filename or repository
        raise LockError(f"{os.fsdecode(where)}: {error.strerror}", reason="lock.unreadable") from None


def _read(root: int, left_out: set[str], pool: ThreadPoolExecutor) -> Iterator[tuple[str, LockEntry]]:
    """Yield every entry; files are hashed by the pool while the walk goes on, a bounded number of them open."""
    waiting: collections.deque[tuple[str, Future[LockEntry]]] = collections.deque()
    try:
        for path, found in _walk(root, ""):
            if path in left_out:
                if isinstance(found, int):
                    os.close(found)
            elif isinstance(found, LockEntry):
                yield path, found
            else:
                waiting.append((path, pool.submit(_hash, found, path)))
                if len(waiting) >= _OPEN_FILES:
                    done, future = waiting.popleft()
                    yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        for _, future in waiting:
            # Not cancelled: each one closes its own file.
            future.exception()


def _walk(folder: int, prefix: str) -> Iterator[tuple[str, LockEntry | int]]:
    """Yield everything below an open folder, files as open descriptors; the folder is closed at the end."""
    try:
        if prefix.count("/") > MAX_DEPTH:
            raise LockError(f"{prefix}: deeper than {MAX_DEPTH} folders", reason="lock.unreadable")
        names = sorted(os.listdir(folder))
        if not names and prefix:
            yield prefix.rstrip("/"), LockEntry(is_folder=True)
        for name in names:
            path = prefix + name
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                yield path, LockEntry(link=os.readlink(name, dir_fd=folder))
            elif stat.S_ISDIR(mode):
                yield from _walk(_open(name, _FOLDER_FLAGS, folder, path), path + "/")
            elif stat.S_ISREG(mode):
                yield path, _open(name, _FILE_FLAGS, folder, path)
            else:
                raise LockError(f"{path}: neither file, folder nor link; remove it", reason="lock.unreadable")
    finally:
        os.close(folder)


def _open(name: str, flags: int, folder: int, path: str) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        raise LockError(f"{path}: {error.strerror}", reason="lock.unreadable") from None


def _hash(descriptor: int, path: str) -> LockEntry:
    """Hash one open file, and make sure that it was the same file all the time."""
    with open(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise LockError(f"{path}: is no file any more", reason="lock.unreadable")
        digest = hashlib.sha256()
        buffer = bytearray(min(_CHUNK_BYTES, max(before.st_size, 1)))
        view = memoryview(buffer)
        size = 0
        try:
            while count := file.readinto(buffer):
                digest.update(view[:count])
                size += count
        except OSError as error:
            raise LockError(f"{path}: {error.strerror}", reason="lock.unreadable") from None
        after = os.fstat(descriptor)
        if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size) or size != after.st_size:
            raise LockError(f"{path}: changed while it was read", reason="lock.unreadable")
        return LockEntry(sha256=digest.hexdigest(), size_bytes=size, is_executable=bool(before.st_mode & stat.S_IXUSR))


def lock_path(repository: Path) -> Path:
    """Return where a repository's lock is by default."""
    return repository / LOCK_NAME


def signature_path(lock: Path) -> Path:
    """Return where a lock's signature is."""
    return lock.with_name(lock.name + SIGNATURE_SUFFIX)


def write_lock(repository: Path, output: Path | None = None) -> Lock:
    """Write a repository's lock file, in one step.

    Args:
        repository: a folder.
        output: the lock file; ``safe-triton.lock`` in the repository by default. It and its signature are not in it.

    Raises:
        LockError: reason ``lock.unreadable``.
    """
    output = output or lock_path(repository)
    lock = make_lock(repository, without=(output, signature_path(output)))
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        temporary.write_text(lock.to_text(), encoding="ascii")
        temporary.replace(output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LockError(f"{output}: {error.strerror}", reason="lock.unreadable") from None
    return lock


def read_lock_bytes(path: Path) -> bytes:
    """Read a lock file's bytes.

    Raises:
        LockError: reason ``lock.invalid``; there is none, or none of a sensible size.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_LOCK_BYTES:
                raise LockError(f"{path}: no file of at most {MAX_LOCK_BYTES} bytes", reason="lock.invalid")
            return file.read()
    except OSError as error:
        raise LockError(f"{path}: {error.strerror}", reason="lock.invalid") from None


def read_lock(data: bytes, name: str = LOCK_NAME) -> Lock:
    """Read a lock file's bytes strictly.

    Raises:
        LockError: reason ``lock.invalid``; with the first place that is wrong.
    """
    try:
        plain = json.loads(data, object_pairs_hook=_unique)
        if not isinstance(plain, dict) or set(plain) != {"schema", "entries"} or plain["schema"] != SCHEMA:
            raise ValueError(f"no lock of schema {SCHEMA}")
        if not isinstance(plain["entries"], dict):
            raise TypeError("entries are no object")
        entries: dict[str, LockEntry] = {}
        for path, entry in plain["entries"].items():
            parts = path.split("/")
            if "" in parts or "." in parts or ".." in parts:
                raise ValueError(f"{path!r} is no path inside a repository")
            try:
                entries[path] = LockEntry.from_plain(entry)
            except ValueError as error:
                raise ValueError(f"{path!r}: {error}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise LockError(f"{name}: {error}", reason="lock.invalid") from None
    return Lock(entries)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) != len(pairs):
        raise ValueError("a key stands twice")
    return plain


def compare(lock: Lock, found: Lock) -> list[LockProblem]:
    """Return every difference, by path."""
    problems = []
    for path in sorted(lock.entries.keys() | found.entries.keys(), key=os.fsencode):
        old, new = lock.entries.get(path), found.entries.get(path)
        if new is None:
            problems.append(LockProblem(change="removed", path=path, message="is in the lock, and not here"))
        elif old is None:
            problems.append(LockProblem(change="added", path=path, message="is here, and not in the lock"))
        elif old != new:
            problems.append(LockProblem(change="changed", path=path, message=_difference(old, new)))
    return problems


def _difference(old: LockEntry, new: LockEntry) -> str:
    if (old.link is None) != (new.link is None) or old.is_folder != new.is_folder:
        kinds = ["a link" if one.link is not None else "a folder" if one.is_folder else "a file" for one in (old, new)]
        return f"was {kinds[0]}, is {kinds[1]}"
    if old.link != new.link:
        return f"leads to {new.link}, not to {old.link}"
    if old.sha256 != new.sha256:
        sizes = "" if old.size_bytes == new.size_bytes else f": {old.size_bytes} bytes, now {new.size_bytes}"
        return f"has other content{sizes}"
    return "is executable now" if new.is_executable else "is not executable any more"


def verify_lock(repository: Path, path: Path | None = None, *, data: bytes | None = None) -> list[LockProblem]:
    """Compare a repository with a lock file.

    Args:
        repository: a folder.
        path: the lock file; ``safe-triton.lock`` in the repository by default.
        data: its bytes, where they were read before, such as those that a signature was checked for.

    Raises:
        LockError: reason ``lock.invalid`` or ``lock.unreadable``.

    Does not cover:
        Changes after it returns; who wrote the lock file, which a signature tells.
    """
    path = path or lock_path(repository)
    lock = read_lock(read_lock_bytes(path) if data is None else data, path.name)
    return compare(lock, make_lock(repository, without=(path, signature_path(path))))
