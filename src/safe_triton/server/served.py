"""What a model repository holds, looked at before a server is started: its models, and what is refused in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safe_triton.config.pbtxt import read_pbtxt
from safe_triton.confinement.root import is_beneath
from safe_triton.errors import ConfigError, ServerStartError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server.planted import check_config, check_folder, is_plain, refused

DEFAULT_ENTRY = "model.py"


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model of a repository.

    Args:
        folder: in the repository, absolute; its name is the model's.
        config: the fields of its ``config.pbtxt``; empty without one.
        entry: name of the file that Triton's Python backend imports.
        versions: names of the version folders.
        backend_file: the code of a backend that is itself written in Python, which runs in the entry file's place.
    """

    folder: Path
    config: Mapping[str, Any]
    entry: str
    versions: tuple[str, ...]
    backend_file: Path | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.folder.name

    @property
    def is_python(self) -> bool:
        """Whether Triton's Python backend runs it; without a word in its configuration, its files decide."""
        backend, platform = self.config.get("backend", ""), self.config.get("platform", "")
        if self.backend_file is not None:
            return True
        if backend or platform:
            return bool(backend == "python")
        return any((self.folder / version / self.entry).is_file() for version in self.versions)

    @property
    def is_decoupled(self) -> bool:
        """Whether it may send any number of responses to a request."""
        return bool(self.config.get("model_transaction_policy", {}).get("decoupled", False))

    @property
    def has_tensors(self) -> bool:
        """Whether its configuration names inputs and outputs, without which it serves nothing."""
        return bool(self.config.get("input")) and bool(self.config.get("output"))

    @property
    def size_bytes(self) -> int:
        """Of all files of its versions now."""
        return sum(_size_bytes(file) for version in self.versions for file in (self.folder / version).rglob("*"))

    def file(self, version: str) -> Path:
        """The entry file of one version, which need not exist."""
        return self.backend_file or self.folder / version / self.entry


def _size_bytes(file: Path) -> int:
    """Size of a file; 0 for a folder, and for what is gone by now."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:
        return 0


def read_models(repositories: Iterable[Path]) -> tuple[ServedModel, ...]:
    """Look at every model of some repositories; no code of theirs runs.

    Raises:
        ServerStartError: reason ``server.confinement``: a file or a field that would run in tritonserver itself, or a
            configuration that cannot be read; ``server.repository``: two models of one name, or a folder that cannot
            be read.
    """
    try:
        return _read_models(repositories)
    except OSError as error:  # such as a model that is being replaced at this moment
        raise ServerStartError(f"{error.filename}: {error.strerror}", reason="server.repository") from None


def _read_models(repositories: Iterable[Path]) -> tuple[ServedModel, ...]:
    found: dict[str, ServedModel] = {}
    for repository in repositories:
        for folder in sorted(entry for entry in repository.iterdir() if entry.is_dir()):
            if folder.name in found:
                raise ServerStartError(
                    f"the model {folder.name!r} is in {found[folder.name].folder.parent} and in {repository}; "
                    "rename one of them",
                    reason="server.repository",
                )
            found[folder.name] = read_model(folder)
    return tuple(found.values())


def read_model(folder: Path) -> ServedModel:
    """Look at one model; see :func:`read_models`."""
    check_folder(folder)
    path = folder / "config.pbtxt"
    config: Mapping[str, Any] = {}
    if path.is_file():
        try:
            config = read_pbtxt(path)
        except ConfigError as error:
            raise refused(f"{path}: {error.message}") from None
        check_config(path, config)
    entry = str(config.get("default_model_filename", "")) or DEFAULT_ENTRY
    if not is_plain(entry):
        raise refused(f"{path}: default_model_filename {entry!r} is no plain file name; Triton would run it in a shell")
    versions = tuple(sorted(place.name for place in folder.iterdir() if place.name.isdecimal() and place.is_dir()))
    return ServedModel(folder=folder, config=config, entry=entry, versions=versions)


def check_links(model: ServedModel, policy: SandboxPolicy) -> None:
    """Reject a model whose folders or entry files are links out of its repository to what it is not granted.

    Args:
        model: of a repository.
        policy: what its processes are granted, places filled in.

    Raises:
        ServerStartError: reason ``server.confinement``; the message names what to grant.

    Does not cover:
        Links to other files, which the kernel refuses when the model opens them.
    """
    allowed: tuple[str | Path, ...] = (model.folder.parent, *policy.read)
    files = () if model.backend_file else tuple(model.file(version) for version in model.versions)
    for place in (model.folder, *files):
        if place.exists() and not any(is_beneath(root, place) for root in allowed):
            target = os.path.realpath(place)
            raise refused(f"{place} leads out of the repository by a link; grant the model to read {target}")


def with_backend(model: ServedModel, backends: Path) -> ServedModel:
    """Return a model with the code of its backend, where that is written in Python.

    Args:
        model: of a repository.
        backends: tritonserver's folder of backends.

    Source:
        Triton core, ``backend_model.cc``: where there is no ``libtriton_NAME.so``, ``backends/NAME/model.py`` runs in
        the Python backend's stub.
    """
    backend = str(model.config.get("backend", ""))
    file = backends / backend / DEFAULT_ENTRY
    if not backend or backend == "python" or (file.parent / f"libtriton_{backend}.so").exists() or not file.is_file():
        return model
    return replace(model, entry=DEFAULT_ENTRY, backend_file=file)


def check_backend(model: ServedModel, backends: Path) -> None:
    """Reject a model whose backend is written in Python where Triton is shown the repository itself.

    Raises:
        ServerStartError: reason ``server.backend``; the message says what to write instead.
    """
    file = with_backend(model, backends).backend_file
    if file is not None:
        raise ServerStartError(
            f"{model.folder}: its backend is written in Python, which is only confined in a view of the repository, "
            f'as safe-triton serve has; or copy {file} into its version folders and write backend: "python"',
            reason="server.backend",
        )
