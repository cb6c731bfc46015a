"""What a model repository may hold that tritonserver itself would run, load or read, outside every confinement."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safe_triton._declared import STUB_NAME
from safe_triton.confinement.root import is_beneath
from safe_triton.errors import ServerStartError


def check_folder(folder: Path) -> None:
    """Reject files of a model that Triton takes instead of its own.

    Args:
        folder: of the model.

    Raises:
        ServerStartError: reason ``server.confinement``; so does a folder that cannot be listed, since Triton asks for
            names that it knows.

    Does not cover:
        What is put there after the server has started.

    Source:
        Triton core, ``backend_model.cc``: a backend's library is looked for in the version's folder, the model's, then
        the backend directory. python_backend, ``stub_launcher.cc``: so is the stub.
    """
    _check_listable(folder)
    if os.path.lexists(folder / STUB_NAME):
        raise refused(f"{folder / STUB_NAME} would run in the launcher's place, unconfined; remove it")
    for place in (folder, *(entry for entry in folder.iterdir() if entry.name.isdecimal() and entry.is_dir())):
        _check_listable(place)
        for found in sorted(place.glob("libtriton_*")):
            raise refused(f"{found} would be loaded into tritonserver itself, unconfined; remove it")


def _check_listable(place: Path) -> None:
    """Reject a folder that hides what is in it from the user who serves."""
    if not os.access(place, os.R_OK | os.X_OK):
        raise refused(f"{place}: the user who serves cannot list this folder")


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Reject fields that make tritonserver run, load or read something for the one who wrote them.

    Args:
        path: of ``config.pbtxt``, in the model's folder.
        config: its fields.

    Raises:
        ServerStartError: reason ``server.confinement``; the message names the field.

    Does not cover:
        A configuration that changes after the server has started, or that the load API brings.
    """
    backend, runtime = str(config.get("backend", "")), str(config.get("runtime", ""))
    if backend and not is_plain(backend):
        raise refused(f"{path}: backend {backend!r} is no plain name; Triton would load a library from there")
    if runtime not in {"", f"libtriton_{backend}.so"}:
        raise refused(f"{path}: runtime {runtime!r} would be loaded into tritonserver itself, unconfined; remove it")
    if "EXECUTION_ENV_PATH" in config.get("parameters", {}):
        raise refused(
            f"{path}: EXECUTION_ENV_PATH: Triton runs bin/activate of that environment in a shell, unconfined; install "
            "what the model needs into the server's Python environment"
        )
    for group in config.get("instance_group", ()):
        name = str(group.get("name", ""))
        if name and not is_plain(name):
            raise refused(f"{path}: instance_group name {name!r} is no plain name; Triton would run it in a shell")
    folder = os.path.realpath(path.parent)
    for field, file in files_to_read(config):
        if not is_beneath(folder, path.parent / file):
            raise refused(f"{path}: {field} leads out of the model's folder; tritonserver would read that file itself")


def is_plain(name: str) -> bool:
    """Whether a name is one path component without anything that a shell or a loader takes for more."""
    return name.replace("_", "").replace("-", "").replace(".", "").isalnum() and not name.startswith((".", "-"))


def refused(message: str) -> ServerStartError:
    """A start that is refused because the confinement could be got around."""
    return ServerStartError(message, reason="server.confinement")


def files_to_read(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield field and path, relative to the model's folder, of what the server reads for a model."""
    for warmup in config.get("model_warmup", ()):
        for tensor in warmup.get("inputs", {}).values():
            if file := str(tensor.get("input_data_file", "")):
                yield "model_warmup input_data_file", f"warmup/{file}"
    for output in config.get("output", ()):
        if file := str(output.get("label_filename", "")):
            yield "label_filename", f"./{file}"  # Triton joins, an absolute path stays inside
