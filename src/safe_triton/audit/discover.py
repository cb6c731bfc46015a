"""What there is to check under a path: model repositories, model folders, files; nothing of it is opened here."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.repository.facts import version_number

CONFIG = "config.pbtxt"
MAX_DEPTH = 64
MAX_ENTRIES = 2_000_000
"""Files and folders of one check: more would take minutes and gigabytes to list."""

SKIPPED = {".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".nox", ".idea", ".vscode"}
SKIPPED |= {".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "site-packages"}
"""Folders outside models that hold no deployment."""

_MODEL_FILE = re.compile(
    r"model\.(?:bin|json|joblib|npz?|txt|dali)|.+\.(?:py|pt2?|onnx|plan|engine|savedmodel|graphdef|xml|pkl|safetensors|so)"
)
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file: its path, as it is shown, and its size in bytes."""

    path: str
    shown: str
    size_bytes: int


@dataclass(kw_only=True)
class ModelFolder:
    """One model of a repository.

    Args:
        path: its folder; empty when only a configuration was given on standard input.
        shown: as it is shown.
        name: the folder's name, under which the server serves it; empty when the folder is no model folder.
        config: its config.pbtxt, if there is one.
        versions: names of the files in each version folder.
        subfolders: names of the files in each folder.
        files: all files below.
        is_complete: whether the whole folder was listed.
    """

    path: str
    shown: str
    name: str
    config: Entry | None = None
    versions: dict[int, frozenset[str]] = field(default_factory=dict)
    subfolders: dict[str, frozenset[str]] = field(default_factory=dict)
    files: list[Entry] = field(default_factory=list)
    is_complete: bool = True


@dataclass(kw_only=True)
class Repository:
    """A folder of models.

    Args:
        path: the folder.
        shown: as it is shown.
        models: its models that are to be checked.
        neighbours: its other models, which exist for ensembles and are not reported.
        is_whole: whether all of its models are known, so that a missing one is missing.
    """

    path: str
    shown: str
    models: list[ModelFolder] = field(default_factory=list)
    neighbours: list[ModelFolder] = field(default_factory=list)
    is_whole: bool = True


@dataclass(kw_only=True)
class Inventory:
    """Everything that is to be checked.

    Args:
        repositories: of models.
        loose: files outside models.
        findings: what was wrong on the way.
        is_explicit: paths that were given one by one, which are looked at whatever they are called.
    """

    repositories: list[Repository] = field(default_factory=list)
    loose: list[Entry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    is_explicit: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        """Files, those of models included."""
        models = [model for repository in self.repositories for model in repository.models]
        return len(self.loose) + sum(len(model.files) or bool(model.config) for model in models)


def discover(paths: Sequence[str | Path]) -> Inventory:
    """List what is under some paths.

    Args:
        paths: repositories, model folders, folders above them, or files.
    Returns:
        What is to be checked; findings for special files, links and modes.
    Raises:
        FileNotFoundError: a path does not exist.
    Does not cover:
        Reading any file.
    """
    walk = _Walk()
    for path in paths:
        walk.start(str(path))
    # What was given twice, as a folder and a part of it may be, counts once: where it was listed as a whole.
    inventory = walk.inventory
    inventory.loose = list({entry.shown: entry for entry in inventory.loose}.values())
    for repository in inventory.repositories:
        ordered = sorted(repository.models, key=lambda model: (model.shown, model.is_complete))
        repository.models = list({(each.shown, each.config and each.config.shown): each for each in ordered}.values())
    return inventory


def _shown(path: str) -> str:
    return path if path in {".", "/"} else os.path.normpath(path)


def _join(shown: str, name: str) -> str:
    return name if shown == "." else f"{shown.rstrip('/')}/{name}"


class _Walk:
    def __init__(self) -> None:
        self.inventory = Inventory()
        self._seen: set[tuple[int, int]] = set()
        self._entries = 0
        self._root = ""
        self._repositories: dict[str, Repository] = {}

    def start(self, path: str) -> None:
        """Take one path that the user gave."""
        status = os.stat(path)
        self._root = os.path.realpath(path)
        shown = _shown(path)
        if not stat.S_ISDIR(status.st_mode):
            self._file(path, shown, status)
            return
        self._mode(shown, status.st_mode)
        entries = self._list(path, shown)
        if _is_model(entries, path):
            parent = os.path.dirname(self._root)
            self._root = self._root if parent == "/" else parent
            repository = self._repository(os.path.join(path, os.pardir), os.path.dirname(shown) or ".")
            repository.is_whole = False
            # Without a version beside it, a configuration was put here by itself: the folder's name says nothing.
            name = os.path.basename(os.path.realpath(path)) if _has_versions(entries) else ""
            self._add_model(repository, path, shown, name, 0)
            if name:
                self._neighbours(repository, os.path.realpath(path))
        else:
            self._folder(path, shown, entries, 0)

    def _file(self, path: str, shown: str, status: os.stat_result) -> None:
        """A file that was given by itself: a configuration brings its folder's name and neighbours."""
        if self._special(shown, status.st_mode):
            return
        self._mode(shown, status.st_mode)
        entry = Entry(path, shown, status.st_size)
        self.inventory.is_explicit.add(shown)
        if not path.endswith(".pbtxt"):
            self.inventory.loose.append(entry)
            return
        real = os.path.dirname(os.path.realpath(path))
        repository = self._repository(os.path.dirname(real), os.path.dirname(shown) or ".")
        repository.is_whole = False
        siblings = self._list(real, os.path.dirname(shown), quiet=True)
        is_folder = os.path.basename(path) == CONFIG and _has_versions(siblings)
        folder = ModelFolder(
            path=real,
            shown=os.path.dirname(shown) or ".",
            name=os.path.basename(real) if is_folder else "",
            config=entry,
            is_complete=False,
        )
        if is_folder:
            self._versions(folder, siblings)
            self._neighbours(repository, real)
        repository.models.append(folder)

    def _repository(self, path: str, shown: str) -> Repository:
        real = os.path.realpath(path)
        if real not in self._repositories:
            self._repositories[real] = Repository(path=path, shown=shown)
            self.inventory.repositories.append(self._repositories[real])
        return self._repositories[real]

    def _neighbours(self, repository: Repository, model: str) -> None:
        """The other models of a repository of which one model was given."""
        parent = os.path.dirname(model)
        for name in sorted(entry.name for entry in self._list(parent, parent, quiet=True)):
            place = os.path.join(parent, name)
            if place == model or not os.path.isdir(place):
                continue
            entries = self._list(place, place, quiet=True)
            if _is_model(entries, place):
                folder = ModelFolder(path=place, shown=place, name=name, is_complete=False)
                self._versions(folder, entries)
                repository.neighbours.append(folder)
        repository.is_whole = bool(repository.neighbours)

    def _list(self, path: str, shown: str, *, quiet: bool = False) -> list[os.DirEntry[str]]:
        """A folder's entries by name; a folder that cannot be read is a finding."""
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if not quiet:
                self._note("audit-unreadable", shown, f"the folder cannot be listed: {error.strerror}")
            return []
        self._entries += len(entries)
        return entries

    def _note(self, rule: str, shown: str, message: str, level: Level | None = None) -> None:
        self.inventory.findings.append(Finding(rule=rule, path=shown, message=message, level=level))

    def _is_too_much(self, shown: str, depth: int) -> bool:
        if depth > MAX_DEPTH:
            self._note("audit-limit", shown, f"folders nested deeper than {MAX_DEPTH}: what is below was not looked at")
        elif self._entries > MAX_ENTRIES:
            self._note("audit-limit", shown, f"more than {MAX_ENTRIES:,} files: the rest was not looked at")
        else:
            return False
        return True

    def _folder(self, path: str, shown: str, entries: list[os.DirEntry[str]], depth: int) -> None:
        """A folder that is no model: a repository when there are models in it."""
        if self._is_too_much(shown, depth):
            return
        for entry in entries:
            place, name = _join(shown, entry.name), entry.name
            if not self._is_plain(entry, place):
                self._linked_model(path, shown, entry)
                continue
            if entry.is_dir():
                below = self._list(entry.path, place, quiet=name in SKIPPED)
                if _is_model(below, entry.path):  # whatever it is called: the server serves it
                    self._add_model(self._repository(path, shown), entry.path, place, name, depth, below)
                elif name not in SKIPPED:
                    self._folder(entry.path, place, below, depth + 1)
            else:
                self.inventory.loose.append(Entry(entry.path, place, self._size(entry)))

    def _linked_model(self, path: str, shown: str, entry: os.DirEntry[str]) -> None:
        """A model behind a link that is not followed: the server has it, so that ensembles may name it."""
        if entry.is_symlink() and _is_dir(entry) and entry.name not in SKIPPED:
            below = self._list(entry.path, shown, quiet=True)
            if _is_model(below, entry.path):
                folder = ModelFolder(
                    path=entry.path, shown=_join(shown, entry.name), name=entry.name, is_complete=False
                )
                self._versions(folder, below)
                self._repository(path, shown).neighbours.append(folder)

    def _size(self, entry: os.DirEntry[str]) -> int:
        try:
            return entry.stat().st_size
        except OSError:
            return 0

    def _add_model(
        self,
        repository: Repository,
        path: str,
        shown: str,
        name: str,
        depth: int,
        entries: list[os.DirEntry[str]] | None = None,
    ) -> None:
        folder = ModelFolder(path=path, shown=shown, name=name, is_complete=bool(name))
        entries = self._list(path, shown) if entries is None else entries
        if name.startswith("."):
            self._note(
                "hidden-model-directory", shown, f"{name!r} is hidden from ls, and served like every other model"
            )
        self._model_entries(folder, entries, shown, depth)
        self._versions(folder, entries)
        if folder.config is None and any(entry.name == CONFIG for entry in entries):
            self._note("audit-unreadable", _join(shown, CONFIG), "config.pbtxt is no file that can be read")
        repository.models.append(folder)

    def _model_entries(self, folder: ModelFolder, entries: list[os.DirEntry[str]], shown: str, depth: int) -> None:
        if self._is_too_much(shown, depth):
            return
        for entry in entries:
            place = _join(shown, entry.name)
            if not self._is_plain(entry, place):
                continue
            if entry.is_dir():
                self._model_entries(folder, self._list(entry.path, place), place, depth + 1)
                continue
            file = Entry(entry.path, place, self._size(entry))
            if shown == folder.shown and entry.name == CONFIG:
                folder.config = file
            folder.files.append(file)

    def _versions(self, folder: ModelFolder, entries: list[os.DirEntry[str]]) -> None:
        for entry in entries:
            if not _is_dir(entry) or entry.name in SKIPPED:
                continue
            names = frozenset(each.name for each in self._list(entry.path, entry.path, quiet=True))
            folder.subfolders[entry.name] = names
            number = version_number(entry.name)
            if number is not None:
                folder.versions[number] = names
        if folder.config is None and any(entry.name == CONFIG for entry in entries):
            place = os.path.join(folder.path, CONFIG)
            if os.path.isfile(place):
                folder.config = Entry(place, _join(folder.shown, CONFIG), os.path.getsize(place))

    def _is_plain(self, entry: os.DirEntry[str], shown: str) -> bool:
        """Whether an entry is a file or folder to go on with; otherwise, and for bad modes, there is a finding."""
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            self._note("audit-unreadable", shown, f"it cannot be looked at: {error.strerror}")
            return False
        if stat.S_ISLNK(status.st_mode):
            return self._link(entry, shown)
        if self._special(shown, status.st_mode):
            return False
        self._mode(shown, status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            self._seen.add((status.st_dev, status.st_ino))
        return True

    def _mode(self, shown: str, mode: int) -> None:
        if mode & stat.S_IWOTH:
            sticky = " (sticky: others may add, not replace)" if mode & stat.S_ISVTX else ""
            self._note("world-writable", shown, f"mode {stat.S_IMODE(mode):04o}: anyone may write it{sticky}")

    def _special(self, shown: str, mode: int) -> bool:
        for is_kind, words in _KINDS:
            if is_kind(mode):
                self._note("special-file", shown, f"{words}: whatever reads it waits, or reads something else")
                return True
        return False

    def _link(self, entry: os.DirEntry[str], shown: str) -> bool:
        """Follow a link inside what is checked once; report one that leads out, to nowhere or in circles."""
        try:
            target = os.path.realpath(entry.path, strict=True)
            status = os.stat(target)
        except OSError as error:
            outside = not _is_below(os.path.realpath(entry.path), self._root)
            said = "leads nowhere" if isinstance(error, FileNotFoundError) else f"cannot be followed: {error.strerror}"
            rule = "symlink-escape" if outside or not isinstance(error, FileNotFoundError) else "audit-unreadable"
            self._note(rule, shown, f"the link {said}")
            return False
        if not _is_below(target, self._root):
            readable = os.access(target, os.R_OK)
            self._note(
                "symlink-escape",
                shown,
                "the link leads out of the repository" + ("" if readable else ", to what cannot be read here"),
                Level.ERROR if readable else Level.WARNING,
            )
            return False
        if self._special(shown, status.st_mode):
            return False
        if stat.S_ISDIR(status.st_mode):
            if _is_below(os.path.realpath(os.path.dirname(entry.path)), target):
                self._note("symlink-escape", shown, "the link leads to a folder above itself: a circle")
                return False
            if (status.st_dev, status.st_ino) in self._seen:
                return False
            self._seen.add((status.st_dev, status.st_ino))
        return True


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _has_versions(entries: list[os.DirEntry[str]]) -> bool:
    return any(_is_dir(entry) and version_number(entry.name) is not None for entry in entries)


def _is_model(entries: list[os.DirEntry[str]], path: str) -> bool:
    """Whether a folder is a model's: it has a configuration, or a version folder with a model's file."""
    if any(entry.name == CONFIG for entry in entries):
        return True
    return any(_names_in(os.path.join(path, entry.name)) for entry in entries if _is_version(entry))


def _is_version(entry: os.DirEntry[str]) -> bool:
    return entry.name.isdigit() and _is_dir(entry)


def _names_in(path: str) -> bool:
    """Whether a folder holds a model's file."""
    try:
        with os.scandir(path) as found:
            return any(_MODEL_FILE.fullmatch(entry.name) for entry in found)
    except OSError:
        return False
