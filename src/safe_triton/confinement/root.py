"""Open files beneath one directory, whatever name is asked for."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, TYPE_CHECKING, BinaryIO, Literal, TextIO, overload

from safe_triton import _libc
from safe_triton.errors import PathError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DEFAULT_MAX_READ_BYTES", "ConfinedRoot", "is_beneath"]

DEFAULT_MAX_READ_BYTES = 256 << 20  # bytes; the size of the largest request, so that a read cannot take all memory

_RESOLVE = _libc.RESOLVE_BENEATH | _libc.RESOLVE_NO_SYMLINKS | _libc.RESOLVE_NO_MAGICLINKS
_LOOK = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
_WALK = _LOOK | os.O_DIRECTORY
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO put there after the look; O_NOCTTY: a terminal put there after the look.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_WITHOUT_OPENAT2 = (errno.ENOSYS, errno.EPERM)  # no such call, or a seccomp filter from before it


class ConfinedRoot:
    """Read-only access to the files of one directory.

    A name is resolved beneath the directory's descriptor, by ``openat2`` with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS
    where the kernel has it, otherwise one component at a time without following links. Only regular files are opened.

    Args:
        path: the directory; links on the way *to* it are followed, once, here.
    Raises:
        PathError: ``path.missing`` or ``path.directory`` when it is not a directory that can be opened.
    Does not cover:
        Hard links: a hard link is the file itself. Mounts inside the directory. Who else may write there: the content
        of a file is whatever it holds when it is read. Code that calls ``open`` itself: that is for the kernel's
        confinement.
    """

    __slots__ = ("_descriptor", "_has_openat2")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, _WALK & ~os.O_NOFOLLOW)
        except (OSError, ValueError) as error:
            reason = "path.directory" if isinstance(error, NotADirectoryError) else "path.missing"
            raise PathError("the root is not a folder that can be opened", reason=reason) from None
        self._has_openat2 = self._probe_openat2()

    @property
    def mechanism(self) -> Literal["openat2", "openat"]:
        """How names are resolved: by the kernel in one call, or component by component."""
        return "openat2" if self._has_openat2 else "openat"

    @overload
    def open(self, relative: str | os.PathLike[str], mode: Literal["rb"] = "rb", encoding: None = None) -> BinaryIO: ...

    @overload
    def open(self, relative: str | os.PathLike[str], mode: Literal["r"], encoding: str | None = None) -> TextIO: ...

    def open(
        self, relative: str | os.PathLike[str], mode: str = "rb", encoding: str | None = None
    ) -> BinaryIO | TextIO | IO[bytes]:
        """Open a regular file for reading.

        Args:
            relative: name beneath the root, components separated by ``/``.
            mode: ``"rb"`` (a buffered binary file) or ``"r"`` (text).
            encoding: of the text, UTF-8 if not given.
        Raises:
            PathError: reasons ``path.mode``, ``path.invalid``, ``path.absolute``, ``path.parent``, ``path.link``,
                ``path.special``, ``path.directory``, ``path.missing``, ``path.unreadable``, ``path.closed``.
        Does not cover:
            Hard links and mounts (see the class).
        """
        if mode not in ("rb", "r"):
            raise PathError(f"mode {mode!r}: files are opened for reading only, 'rb' or 'r'", reason="path.mode")
        if mode == "rb" and encoding is not None:
            raise PathError("an encoding is for mode 'r' only", reason="path.mode")
        descriptor = self._open_regular(relative)
        if mode == "rb":
            return os.fdopen(descriptor, "rb")
        try:
            return os.fdopen(descriptor, "r", encoding=encoding or "utf-8")
        except LookupError:  # unknown encoding; fdopen has closed the descriptor
            raise PathError(f"unknown encoding {_shown(str(encoding))}", reason="path.mode") from None

    def read_bytes(self, relative: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_READ_BYTES) -> bytes:
        """The content of a regular file.

        Args:
            relative: name beneath the root.
            max_bytes: the largest content accepted, in bytes.
        Raises:
            PathError: as `open`, and ``path.too_large``.
        """
        with self.open(relative) as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise PathError(f"more than {max_bytes} bytes in {_shown(relative)}", reason="path.too_large")
        return content

    def read_text(
        self, relative: str | os.PathLike[str], encoding: str = "utf-8", max_bytes: int = DEFAULT_MAX_READ_BYTES
    ) -> str:
        """The text of a regular file, with plain line ends.

        Args:
            relative: name beneath the root.
            encoding: of the text.
            max_bytes: the largest content accepted, in bytes.
        Raises:
            PathError: as `read_bytes`.
            UnicodeDecodeError: the content is not text of that encoding.
        """
        return io.TextIOWrapper(io.BytesIO(self.read_bytes(relative, max_bytes)), encoding=encoding).read()

    def exists(self, relative: str | os.PathLike[str]) -> bool:
        """Whether `open` or `names` would find a regular file or a folder there; False for links and special files.

        Raises:
            PathError: the name itself is refused (``path.invalid``, ``path.absolute``, ``path.parent``), or
                ``path.closed``.
        """
        parts = _parts(relative)
        try:
            with self._reached(parts, _LOOK) as descriptor:
                kind = os.fstat(descriptor).st_mode
        except OSError:
            return False
        return stat.S_ISREG(kind) or stat.S_ISDIR(kind)

    def names(self, relative: str | os.PathLike[str] = ".") -> list[str]:
        """The sorted names in a folder, links and special files included (opening those is refused).

        Raises:
            PathError: as `open`; ``path.not_a_directory`` when it is a file.
        """
        parts = _parts(relative)
        try:
            with self._reached(parts, _LIST) as descriptor:
                return sorted(os.listdir(descriptor))
        except OSError as error:
            raise self._refusal(relative, parts, error, wanted="directory") from None

    def close(self) -> None:
        """Close the directory; files that are open stay open. A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ConfinedRoot {self.mechanism}{' closed' if self._descriptor < 0 else ''}>"

    def _probe_openat2(self) -> bool:
        """Whether the kernel has openat2 and lets this process call it."""
        try:
            os.close(_libc.openat2(self._descriptor, b".", _WALK, 0, _RESOLVE))
        except OSError:
            return False
        return True

    def _open_regular(self, relative: str | os.PathLike[str]) -> int:
        """A descriptor of a regular file. The first look keeps devices and FIFOs unopened; the second check decides."""
        parts = _parts(relative)
        try:
            with self._reached(parts, _LOOK) as descriptor:
                _check_regular(relative, os.fstat(descriptor).st_mode)
            with self._reached(parts, _READ) as descriptor:
                _check_regular(relative, os.fstat(descriptor).st_mode)
                return os.dup(descriptor)
        except OSError as error:
            raise self._refusal(relative, parts, error, wanted="file") from None

    @contextmanager
    def _reached(self, parts: list[bytes], flags: int) -> Iterator[int]:
        """A descriptor of what ``parts`` name beneath the root, closed at the end."""
        if self._descriptor < 0:
            raise PathError("the root was closed", reason="path.closed")
        descriptor = self._reach(parts, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _reach(self, parts: list[bytes], flags: int) -> int:
        """Open by openat2, or component by component where a filter or the kernel does not offer it."""
        if self._has_openat2:
            while True:
                try:
                    return _libc.openat2(self._descriptor, b"/".join(parts) or b".", flags, 0, _RESOLVE)
                except InterruptedError:
                    continue
                except OSError as error:
                    if error.errno not in _WITHOUT_OPENAT2:
                        raise
                    break
        return self._reach_by_component(parts, flags)

    def _reach_by_component(self, parts: list[bytes], flags: int) -> int:
        """Open one component after the other, each beneath the descriptor of the one before, never through a link."""
        folder = os.dup(self._descriptor)
        try:
            for part in parts[:-1]:
                deeper = os.open(part, _WALK, dir_fd=folder)
                os.close(folder)
                folder = deeper
            return os.open(parts[-1] if parts else b".", flags, dir_fd=folder)
        finally:
            os.close(folder)

    def _refusal(
        self,
        relative: str | os.PathLike[str],
        parts: list[bytes],
        error: OSError,
        *,
        wanted: Literal["file", "directory"],
    ) -> PathError:
        """The error for the author: what stands in the way, found by looking again (a diagnosis, not a check)."""
        name = _shown(relative)
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
            return PathError(f"not a usable name: {name}", reason="path.invalid")
        if error.errno == errno.ENOENT:
            return PathError(f"no such {wanted}: {name}", reason="path.missing")
        if self._has_link(parts):
            return PathError(f"links are not followed: {name}", reason="path.link")
        if error.errno == errno.ENOTDIR:
            return PathError(f"not a folder, or beneath a file: {name}", reason="path.not_a_directory")
        return PathError(f"cannot be read ({os.strerror(error.errno or 0)}): {name}", reason="path.unreadable")

    def _has_link(self, parts: list[bytes]) -> bool:
        """Whether a component is a link, as far as the components before it can be reached."""
        for count in range(1, len(parts) + 1):
            try:
                descriptor = self._reach_by_component(parts[:count], _LOOK)
            except OSError as error:
                return error.errno == errno.ELOOP  # where there is no O_PATH, O_NOFOLLOW refuses the link itself
            try:
                if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                    return True
            finally:
                os.close(descriptor)
        return False


def is_beneath(root: str | os.PathLike[str], path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is ``root`` or lies beneath it once every link is resolved; compared component by component.

    ``/models-evil`` is not beneath ``/models``. What does not exist, loops or holds a NUL is beneath nothing.

    Args:
        root: a folder on this machine.
        path: what to place.
    Does not cover:
        A path that is changed after the comparison: use `ConfinedRoot` to open files.
    """
    try:
        outer = os.path.realpath(os.fspath(root), strict=True)
        inner = os.path.realpath(os.fspath(path), strict=True)
        return os.path.commonpath([outer, inner]) == outer
    except (OSError, ValueError):
        return False


def _parts(relative: str | os.PathLike[str]) -> list[bytes]:
    """The components of a relative name as the kernel will see them."""
    given = os.fspath(relative)
    if not isinstance(given, str):
        raise TypeError(f"a name is str or os.PathLike[str], not {type(given).__name__}")
    text = str.__str__(given)  # a plain str: a subclass could answer differently each time it is asked
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise PathError(f"not a usable name: {_shown(text)}", reason="path.invalid") from None
    if not encoded or b"\0" in encoded:
        raise PathError(f"not a usable name: {_shown(text)}", reason="path.invalid")
    if encoded.startswith(b"/"):
        raise PathError("an absolute path was given; names are relative to the root", reason="path.absolute")
    parts = [part for part in encoded.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise PathError(f"'..' is refused: {_shown(text)}", reason="path.parent")
    return parts


def _check_regular(relative: str | os.PathLike[str], kind: int) -> None:
    """Refuse everything that is not a regular file."""
    if stat.S_ISREG(kind):
        return
    if stat.S_ISLNK(kind):
        raise PathError(f"links are not followed: {_shown(relative)}", reason="path.link")
    if stat.S_ISDIR(kind):
        raise PathError(f"a folder, not a file: {_shown(relative)}", reason="path.directory")
    raise PathError(f"not a regular file: {_shown(relative)}", reason="path.special")


def _shown(relative: str | os.PathLike[str]) -> str:
    """The name as the caller gave it, in ASCII and shortened."""
    text = ascii(str.__str__(os.fspath(relative)))
    return text if len(text) <= 120 else f"{text[:117]}...'"
