"""Source files: read with bounds, parsed as Python would, and found as the stub's imports find them."""

from __future__ import annotations

import ast
import errno
import os
import stat
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from safe_triton.audit.pycode.value import Value

MAX_SOURCE_BYTES = 4 << 20
MAX_MODULES = 200
MAX_ROOTS = 40  # folders in which imported modules are looked for
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # whose grammar decides


class SourceError(Exception):
    """A file that cannot be parsed.

    Args:
        rule: of the finding.
        message: what is wrong.
        line: where, 0 when unknown.
    """

    def __init__(self, rule: str, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.rule = rule
        self.line = line


@dataclass
class Module:
    """One file and its names."""

    path: Path
    shown: str
    tree: ast.Module
    names: dict[str, Value] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)  # modules whose names were all imported
    is_done: bool = False
    source: bytes = b""
    options: dict[str, list[int]] | None = None  # of commands, with the lines that write them


def read(path: Path) -> bytes:
    """Return a regular file's bytes.

    Raises:
        SourceError: it is none, too large, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError("py-unexamined", f"cannot be opened ({os.strerror(error.errno or errno.EIO)})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SourceError("py-unexamined", "is no regular file")
        if status.st_size > MAX_SOURCE_BYTES:
            raise SourceError(
                "py-unexamined", f"{status.st_size} bytes are more than the {MAX_SOURCE_BYTES} that are read"
            )
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(MAX_SOURCE_BYTES)
    except OSError as error:
        raise SourceError("py-unexamined", f"cannot be read ({os.strerror(error.errno or errno.EIO)})") from error
    finally:
        os.close(descriptor)


def parse(data: bytes | str) -> ast.Module:
    """Parse source as Python does, its coding declaration included.

    Raises:
        SourceError: Python would refuse it, or it is nested deeper than can be looked at.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(data)
    except SyntaxError as error:
        text = " ".join(str(error.msg).split())[:200]
        raise SourceError("py-syntax-error", f"Python {PYTHON} cannot read it: {text}", error.lineno or 0) from error
    except (ValueError, UnicodeError, LookupError) as error:
        text = " ".join(str(error).split())[:200]
        raise SourceError("py-syntax-error", f"Python {PYTHON} cannot read it: {text}") from error
    except (RecursionError, MemoryError) as error:
        raise SourceError("py-syntax-error", "nested too deep to be read") from error


class Finder:
    """Finds imported modules among the repository's files, as the stub does.

    Args:
        entry: the model's file; its version folder and its model folder are on the path.
        repository: nothing outside it is read.
    """

    def __init__(self, entry: Path, repository: Path) -> None:
        folder = entry.parent
        self.repository = Path(os.path.realpath(repository))
        self.roots = [folder, folder.parent, repository]

    def open(self) -> None:
        """Take the folders below the model's own, one of which the code puts on the path."""
        for home in self.roots[:2]:
            for folder in (*sorted(home.glob("*/")), *sorted(home.glob("*/*/"))):
                if folder not in self.roots and len(self.roots) < MAX_ROOTS:
                    self.roots.append(folder)

    def find(self, name: str, importer: Path, level: int = 0) -> Path | None:
        """Return the file of a module, nothing when it is none of the repository's."""
        parts = name.split(".") if name else []
        if level:
            base = importer.parent
            for _ in range(level - 1):
                base = base.parent
            return self._at(base, parts)
        if not parts or parts[0] in sys.stdlib_module_names:
            return None
        for root in (importer.parent, *self.roots):
            found = self._at(root, parts)
            if found is not None:
                return found
        return None

    def _at(self, base: Path, parts: list[str]) -> Path | None:
        """Return the module's file below a folder."""
        if any(not part.isidentifier() and not part.isdigit() for part in parts):
            return None
        place = base.joinpath(*parts)
        candidates = [place / "__init__.py"]
        if parts:
            candidates.insert(0, place.with_name(place.name + ".py"))
        for candidate in candidates:
            try:
                if candidate.is_file() and self._is_inside(candidate):
                    return candidate
            except OSError:
                continue
        return None

    def _is_inside(self, path: Path) -> bool:
        """Tell whether a file lies in the repository, links resolved."""
        return Path(os.path.realpath(path)).is_relative_to(self.repository)
