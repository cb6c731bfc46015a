"""A repository view: the folder that tritonserver serves in the place of the operator's model repositories.

The server polls it, so that it loads what changes there and refuses every load that a client or a model asks for. The
view lies in the server's private folder. Of a Python model it holds copies of what tritonserver itself reads, and an
entry file that runs the model's own; a new date of that file makes Triton start new processes for the model.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safe_triton
from safe_triton.config.pbtxt import change_pbtxt
from safe_triton.errors import ServerStartError
from safe_triton.server import shim
from safe_triton.server.planted import files_to_read
from safe_triton.server.served import ServedModel, read_models, with_backend

Files = frozenset[tuple[str | int, ...]]
"""Path, dates in nanoseconds, number and size of every file and link of a model; of a link also those of its target."""

LATER_NS = 1_000_000_000
"""How much later a date is than the one before it where the clock has been set back meanwhile."""

HELD = 'name: "the update of this model failed; its processes of before serve on"\n'
"""In the place of a configuration: Triton's poll refuses a name that is not the folder's, and leaves it alone."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What :meth:`RepositoryView.refresh` took over, by model name."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class RepositoryView:
    """The view of one server.

    Args:
        root: private folder that may be created; the view is ``root/models``.
        repositories: the model repositories, absolute; one that is a link leads where it did at the last look.
        protect: models that run under ``safe_triton.protect``; True: all.
        auto_complete: models whose own code may complete their configuration.
        backends: tritonserver's folder of backends, of which some may be written in Python: a model of theirs is shown
            as a Python model that runs the backend's code.

    Raises:
        ServerStartError: see :func:`safe_triton.server.served.read_models`.

    Does not cover:
        Changes in the code of such a backend. Changes in a repository between two calls of :meth:`refresh`: a Python
        model's next process runs the code that lies there then, with the configuration that was read before. Files of
        other backends are links, which the server follows at once.
    """

    def __init__(
        self,
        root: Path,
        repositories: Sequence[Path],
        *,
        protect: Collection[str] | bool = False,
        auto_complete: Collection[str] = (),
        backends: Path | None = None,
    ) -> None:
        self.path = root / "models"
        self._backends = backends
        self._building = root / "building"  # the server would read a folder that is half made
        self._repositories = tuple(repositories)
        self._protect = protect
        self._auto_complete = frozenset(auto_complete)
        self._lock = threading.Lock()
        self._withdrawn: dict[str, str] = {}
        self._held: dict[str, bytes] = {}  # configurations of models that Triton is kept from loading
        self._latest_ns = time.time_ns()
        self._files: dict[str, Files] = {}
        for folder in (root, self.path, self._building):
            folder.mkdir(exist_ok=True)
        self.code = shim.install(root)
        self._models = {model.name: model for model in self.look()}
        for model, files in self._made(tuple(self._models.values())):
            self._show(model, files)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in order."""
        return tuple(sorted(self._models))

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Python models whose configuration names no input or no output, and that may not complete it themselves."""
        return tuple(
            name
            for name, model in sorted(self._models.items())
            if model.is_python and not model.has_tensors and name not in self._auto_complete
        )

    @property
    def served(self) -> tuple[ServedModel, ...]:
        """What was read of each model."""
        return tuple(self._models.values())

    @property
    def withdrawn(self) -> dict[str, str]:
        """The models that are withdrawn, with their messages."""
        return dict(self._withdrawn)

    def entry(self, model: ServedModel, version: str) -> Path:
        """The entry file that Triton is shown for one version."""
        return self.path / model.name / version / model.entry

    def reload(self, name: str) -> None:
        """Have Triton start new processes for a model at its next poll, within about a second.

        Those that run serve until the new ones are ready and then finish what they have; one that hangs must be ended
        by the caller. A load that fails leaves the old ones in place, and Triton tries again at every poll until it
        succeeds or the model is withdrawn.

        Raises:
            KeyError: there is no such model.
            ValueError: Triton's Python backend does not run it.
        """
        with self._lock:
            self._date(self._entries(name))

    def withdraw(self, name: str, message: str) -> None:
        """Put a stand-in in a model's place that answers every request with UNAVAILABLE and the message.

        Raises:
            KeyError: there is no such model.
            ValueError: Triton's Python backend does not run it.
        """
        with self._lock:
            for entry in self._entries(name):
                self._write(entry, shim.stand_in_text(message))
            self._release(name)
            self._withdrawn[name] = message

    def hold(self, name: str) -> None:
        """Keep Triton from trying to load a model whose load failed; its processes of before serve on.

        Until the next :meth:`restore` or :meth:`withdraw`, or a :meth:`refresh` that finds it changed. At each poll,
        Triton writes one line about it to its log.

        Raises:
            KeyError: there is no such model.
            ValueError: Triton's Python backend does not run it.
        """
        with self._lock:
            if name not in self._held and self._entries(name):
                config = self.path / name / "config.pbtxt"
                self._held[name] = config.read_bytes() if config.exists() else b""
                self._write(config, HELD)

    def restore(self, name: str) -> None:
        """Serve a model again that was withdrawn, or have one loaded again that was held.

        Raises:
            KeyError: there is no such model.
            ValueError: Triton's Python backend does not run it.
        """
        with self._lock:
            model = self._models[name]
            for entry in self._entries(name):
                self._write(entry, self._entry_text(model, entry.parent.name))
            self._release(name)
            self._withdrawn.pop(name, None)

    def look(self) -> tuple[ServedModel, ...]:
        """Read the repositories as they are now; nothing changes yet.

        Raises:
            ServerStartError: see :func:`safe_triton.server.served.read_models`.
        """
        models = read_models([path.resolve() for path in self._repositories])
        return models if self._backends is None else tuple(with_backend(model, self._backends) for model in models)

    def refresh(self, models: Sequence[ServedModel] | None = None) -> Changes:
        """Take over models that came, went or changed in the repositories, versions included.

        A model counts as changed when its configuration, its versions, or the date or size of one of its files differ.
        One that was withdrawn and changed is served again.

        Args:
            models: what :meth:`look` returned; None: look now.

        Raises:
            ServerStartError: see :func:`safe_triton.server.served.read_models`, or a file cannot be copied; nothing has
                changed then.
        """
        found = {model.name: model for model in (self.look() if models is None else models)}
        with self._lock:
            removed = tuple(sorted(self._models.keys() - found.keys()))
            added = tuple(sorted(found.keys() - self._models.keys()))
            changed = self._changed(found)
            made = self._made([found[name] for name in (*added, *changed)])
            for name in removed:
                self._hide(name)
            for model, files in made:
                self._show(model, files)
            for name in (*removed, *changed):
                self._withdrawn.pop(name, None)
                self._held.pop(name, None)
            self._models = found
        return Changes(added=added, changed=changed, removed=removed)

    # -- inside ------------------------------------------------------------------------------------------------

    def _entries(self, name: str) -> list[Path]:
        model = self._models[name]
        if not model.is_python:
            raise ValueError(f"model {name!r} is not run by Triton's Python backend")
        return [self.entry(model, version) for version in model.versions]

    def _changed(self, found: Mapping[str, ServedModel]) -> tuple[str, ...]:
        try:
            return tuple(
                name
                for name in sorted(found.keys() & self._models.keys())
                if self._is_changed(self._models[name], found[name])
            )
        except OSError as error:  # a file that went between two looks: somebody is at work
            text = f"{error.filename}: {error.strerror}; the repository is being changed at this moment"
            raise ServerStartError(text, reason="server.repository") from None

    def _is_changed(self, old: ServedModel, new: ServedModel) -> bool:
        return old != new or (new.is_python and self._files[new.name] != _files_of(new.folder))

    def _hide(self, name: str) -> None:
        gone = self._building / f"{name}.gone"
        (self.path / name).rename(gone)
        shutil.rmtree(gone)

    def _made(self, models: Sequence[ServedModel]) -> list[tuple[ServedModel, Files]]:
        """Make the folders of models, none of which is shown yet; return what each one's own files were before."""
        made = []
        try:
            for model in models:
                made.append((model, _files_of(model.folder)))
                folder = self._building / model.name
                shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
                folder.mkdir()
                if model.is_python:
                    self._copy_python(model, folder)
                else:
                    _link_other(model, folder)
                self._date(path for path in folder.rglob("*") if not path.is_symlink())
        except OSError as error:
            text = f"{error.filename or 'a model'} cannot be shown to the server: {error.strerror}"
            raise ServerStartError(text, reason="server.repository") from None
        return made

    def _show(self, model: ServedModel, files: Files) -> None:
        """Move a model's folder in whole."""
        self._files[model.name] = files
        if (self.path / model.name).exists():
            self._hide(model.name)
        (self._building / model.name).rename(self.path / model.name)

    def _copy_python(self, model: ServedModel, folder: Path) -> None:
        for file in ("config.pbtxt", *(file for _, file in files_to_read(model.config))):
            source, target = model.folder / file, Path(os.path.normpath(folder / file))
            if source.is_file() and target.is_relative_to(folder):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        if model.backend_file is not None:
            change_pbtxt(folder / "config.pbtxt", backend="python", runtime="", default_model_filename="")
        for version in model.versions:
            (folder / version).mkdir()
            # A file of this name: Python keeps no compiled copy there, which would be news for the server's poll.
            (folder / version / "__pycache__").touch()
            # Also where the model's own file is missing, as in a version that is only half copied: that load fails. A
            # stub without an entry file crashes, and releases to 25.07 wait for it for ever, whole server included.
            (folder / version / model.entry).write_text(self._entry_text(model, version), encoding="utf-8")

    def _entry_text(self, model: ServedModel, version: str) -> str:
        return shim.entry_text(
            self.code,
            {
                "model": model.name,
                "version": version,
                "file": str(model.file(version)),
                "folder": str(model.folder),
                "view": str(self.path / model.name),
                "decoupled": model.is_decoupled,
                "protect": self._protect is True or (self._protect is not False and model.name in self._protect),
                "completes": model.name in self._auto_complete,
                "package": str(Path(safe_triton.__file__).parents[1]),
            },
        )

    def _write(self, entry: Path, text: str) -> None:
        made = self._building / entry.name
        made.write_text(text, encoding="utf-8")
        self._date([made])
        made.replace(entry)

    def _release(self, name: str) -> None:
        """Show the configuration of a model that was held; last of all, since Triton loads it from then on."""
        config, data = self.path / name / "config.pbtxt", self._held.pop(name, None)
        if data:
            self._write(config, data.decode("utf-8"))
        elif data is not None:
            config.unlink()

    def _date(self, paths: Iterable[Path]) -> None:
        """Give files a date that is later than every one before: Triton takes no other for a change.

        The clock alone would not do. Where it is set back, by a time server after a start or on a machine that was
        asleep, no model would be loaded again until it has caught up.
        """
        self._latest_ns = max(time.time_ns(), self._latest_ns + LATER_NS)
        for path in paths:
            os.utime(path, ns=(self._latest_ns, self._latest_ns))


def _link_other(model: ServedModel, folder: Path) -> None:
    """Show the files of a model that another backend runs, or of an ensemble."""
    for entry in model.folder.iterdir():
        if entry.name in model.versions:
            (folder / entry.name).mkdir()
            for file in entry.iterdir():
                (folder / entry.name / file.name).symlink_to(file)
        elif entry.name == "config.pbtxt":
            shutil.copyfile(entry, folder / entry.name)
        else:
            (folder / entry.name).symlink_to(entry)


def _files_of(folder: Path) -> Files:
    """What tells whether a file beneath a folder was replaced, compiled Python apart.

    The kernel's own date is in it: a copy may have the size and the date of what it replaces. Links are not followed,
    but what they lead to counts, such as a version's folder elsewhere.
    """
    found: set[tuple[str | int, ...]] = set()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for path in (os.path.join(place, name) for name in (*files, *folders)):
            is_link = os.path.islink(path)
            if is_link or not os.path.isdir(path):
                found.add((path, *_dates(os.lstat(path))))
            if is_link and os.path.exists(path):
                found.add((path, os.readlink(path), *_dates(os.stat(path))))
    return frozenset(found)


def _dates(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def incomplete_text(names: Sequence[str]) -> str:
    """What to tell the operator about models whose configurations are not complete."""
    lines = "; ".join(f'[models.{name}] auto_complete = {{ reason = "…" }}' for name in names)
    return (
        f"no inputs or outputs in the config.pbtxt of {', '.join(names)}: declare them, or let the model's own code do "
        f"so by a line in safe-triton.toml: {lines}"
    )
