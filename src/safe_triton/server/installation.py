"""Finding a tritonserver and proving, before it starts, that its model processes can run."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safe_triton._declared import STUB_NAME
from safe_triton.errors import IncompatibleEnvironmentError, ServerNotFoundError
from safe_triton.server.environment import PythonEnvironment, inspect_python
from safe_triton.server.process import run_briefly

if TYPE_CHECKING:
    from collections.abc import Mapping

Source = Literal["environment", "container", "wheel"]

CONTAINER_ROOT = Path("/opt/tritonserver")
CONTAINER_PYTHON = Path("/usr/bin/python3")
NUMPY_2_RELEASE = (2, 52)
"""First release whose Python backend is built against a pybind11 that knows numpy 2.

Source:
    Triton python_backend, pull request 384, merged after 2.51 was branched; numpy 2 fails on 2.51.0, measured.
"""
WHEEL_PYTHONS = "3.10, 3.11 or 3.12"
INSTALL = "python -m pip install 'safe-triton[server]'"


@dataclass(frozen=True, kw_only=True)
class TritonInstallation:
    """A tritonserver and the Python environment that its models will see.

    ``backend_directory`` holds the Python backend's library and ``triton_python_backend_utils.py``; ``stub`` is the
    model process for ``python_version``; ``library_path`` is what the dynamic loader needs to find.
    """

    binary: Path
    backend_directory: Path
    stub: Path
    library_path: tuple[Path, ...]
    release: str
    source: Source
    python: Path
    python_version: str
    numpy_version: str


def locate(*, environ: Mapping[str, str] | None = None, python: Path | str | None = None) -> TritonInstallation:
    """Find tritonserver: ``$TRITONSERVER``, the container's, then the ``nvidia-pytriton`` wheel of ``python``.

    Args:
        environ: variables to read instead of this process's; ``TRITONSERVER`` names a binary or an install root.
        python: interpreter whose environment the models get. Left out: this one; in NVIDIA's container, the
            container's own where this one does not fit the server.

    Raises:
        ServerNotFoundError: nothing found; the message holds the install command.
        IncompatibleEnvironmentError: found, but its model processes would fail or hang; the message holds the fix.

    Does not cover:
        Whether a GPU can be used, and what a model itself imports.
    """
    named = (os.environ if environ is None else environ).get("TRITONSERVER", "")
    root: Path | None = None
    source: Source = "wheel"
    if named:
        root, source = _named_root(Path(named).expanduser()), "environment"
    elif (CONTAINER_ROOT / "bin" / "tritonserver").is_file():
        root, source = CONTAINER_ROOT, "container"
    found = inspect_python(Path(python) if python is not None else None)
    if root is None:
        root = _wheel_root(found)
    elif python is None and source == "container":
        found = _container_python(root, found)
    return describe(root, source, found)


def describe(root: Path, source: Source, found: PythonEnvironment) -> TritonInstallation:
    """Put an install root and an interpreter together, or say why they do not fit.

    Raises:
        ServerNotFoundError: files of the server are missing below ``root``.
        IncompatibleEnvironmentError: the interpreter does not fit it.
    """
    binary = root / "bin" / "tritonserver"
    backend = root / "backends" / "python"
    for needed in (binary, backend / "libtriton_python.so", backend / "triton_python_backend_utils.py"):
        if not needed.is_file():
            raise ServerNotFoundError(
                f"the tritonserver at {root} is incomplete: {needed} is missing; {INSTALL} installs one"
            )
    libraries = tuple(
        folder for folder in (root / "lib", root.parent.parent / "nvidia_pytriton.libs") if folder.is_dir()
    )
    stub = _stub(root, found)
    library_path = _library_path(stub, libraries, found)
    release = _release(root, binary, library_path)
    return TritonInstallation(
        binary=binary,
        backend_directory=backend,
        stub=stub,
        library_path=library_path,
        release=release,
        source=source,
        python=found.python,
        python_version=".".join(str(part) for part in found.version),
        numpy_version=_checked_numpy(release, found),
    )


def _named_root(named: Path) -> Path:
    root = named.parent.parent if named.is_file() else named
    if not (root / "bin" / "tritonserver").is_file():
        raise ServerNotFoundError(
            f"TRITONSERVER={named} is neither a tritonserver binary nor a folder with bin/tritonserver; unset it, or "
            f"{INSTALL} and unset it"
        )
    return root.resolve()


def _wheel_root(found: PythonEnvironment) -> Path:
    if found.wheel is not None:
        root = found.wheel / "tritonserver"
        if (root / "bin" / "tritonserver").is_file():
            return root
    if found.version >= (3, 13):
        raise ServerNotFoundError(
            f"no tritonserver for {found.python} (Python {found.minor}): there is no /opt/tritonserver, TRITONSERVER "
            f"is not set, and the server of the nvidia-pytriton wheel needs Python {WHEEL_PYTHONS}; with one of these: "
            f"{INSTALL}"
        )
    raise ServerNotFoundError(
        f"no tritonserver: there is no /opt/tritonserver, TRITONSERVER is not set, and {found.python} has no "
        f"nvidia-pytriton; install it with {_pip(found)} 'safe-triton[server]'"
    )


def _container_python(root: Path, found: PythonEnvironment) -> PythonEnvironment:
    wanted = _python_of(root / "backends" / "python" / STUB_NAME)
    if wanted is None or found.minor == wanted or not CONTAINER_PYTHON.is_file():
        return found
    return inspect_python(CONTAINER_PYTHON)


def _stub(root: Path, found: PythonEnvironment) -> Path:
    """The model process for the interpreter's version: one per version in the wheel, a single one in the container."""
    folder = root / "python_backend_stubs"
    if folder.is_dir():
        stub = folder / found.minor / STUB_NAME
        if stub.is_file():
            return stub
        have = ", ".join(sorted((path.name for path in folder.iterdir()), key=lambda name: (len(name), name)))
        raise IncompatibleEnvironmentError(
            f"this tritonserver runs models on Python {have}, not on {found.minor} ({found.python}); use one of these",
            reason="server.python",
        )
    stub = root / "backends" / "python" / STUB_NAME
    if not stub.is_file():
        raise ServerNotFoundError(
            f"the tritonserver at {root} is incomplete: {stub} is missing; {INSTALL} installs one"
        )
    wanted = _python_of(stub)
    if wanted is not None and wanted != found.minor:
        raise IncompatibleEnvironmentError(
            f"the tritonserver at {root} runs models on Python {wanted}, and {found.python} is {found.minor}; "
            f"use a python{wanted}",
            reason="server.python",
        )
    return stub


def _python_libraries(stub: Path) -> list[str]:
    """Names of the shared Python libraries that a stub may be linked with; the wheel's may carry a hash."""
    pattern = rb"libpython3(?:-[0-9a-f]+)?\.\d+\.so[.\d]*"
    return sorted({name.decode() for name in re.findall(pattern, stub.read_bytes())})


def _python_of(stub: Path) -> str | None:
    if not stub.is_file():
        return None
    versions = {match for name in _python_libraries(stub) for match in re.findall(r"\.(\d+)\.so", name)}
    return f"3.{versions.pop()}" if len(versions) == 1 else None


def _library_path(stub: Path, libraries: tuple[Path, ...], found: PythonEnvironment) -> tuple[Path, ...]:
    """Folders for LD_LIBRARY_PATH. A stub that lacks a library exits at once and the server waits for it for ever."""
    names = _python_libraries(stub)
    for folder in (*libraries, *found.library_folders):
        if any((folder / name).exists() for name in names):
            return tuple(dict.fromkeys((*libraries, folder)))
    if not names:
        return libraries
    looked = ", ".join(str(folder) for folder in found.library_folders)
    raise IncompatibleEnvironmentError(
        f"{found.python} (Python {found.minor}) has no shared library {names[0]}, which the server's model process "
        f"needs (looked in {looked}); Debian and Ubuntu: apt-get install libpython{found.minor}; pyenv: "
        f"PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {found.minor}",
        reason="server.libpython",
    )


@functools.lru_cache(maxsize=8)
def _release(root: Path, binary: Path, library_path: tuple[Path, ...]) -> str:
    """The server's release, such as ``2.51.0``: the container's file, or what the binary prints.

    Given a repository that does not exist the server prints its options, its version among them, and exits in
    40 ms without having opened a port.
    """
    stated = root / "TRITON_VERSION"
    if stated.is_file():
        text = stated.read_text(encoding="utf-8").strip()
        if re.fullmatch(r"\d+(\.\d+)+\w*", text):
            return text
    command = [
        str(binary),
        "--model-repository=/nonexistent",
        "--allow-http=false",
        "--allow-grpc=false",
        "--allow-metrics=false",
    ]
    variables = {"PATH": os.defpath, "LD_LIBRARY_PATH": os.pathsep.join(str(folder) for folder in library_path)}
    try:
        output = run_briefly(command, environment=variables).output
    except (OSError, TimeoutError) as error:
        raise IncompatibleEnvironmentError(f"{binary} does not run here: {error}", reason="server.binary") from None
    match = re.search(r"^\|\s*server_version\s*\|\s*(\S+)", output, re.MULTILINE)
    if match is None:
        said = output.strip().splitlines()[-1:] or ["it printed nothing"]
        raise IncompatibleEnvironmentError(f"{binary} does not run here: {said[0]}", reason="server.binary")
    return match.group(1)


def _checked_numpy(release: str, found: PythonEnvironment) -> str:
    needs_numpy_1 = tuple(int(part) for part in re.findall(r"\d+", release)[:2]) < NUMPY_2_RELEASE
    fix = f"{_pip(found)} " + ("'numpy<2'" if needs_numpy_1 else "numpy")
    if needs_numpy_1 and found.version >= (3, 13):
        fix = f"use Python {WHEEL_PYTHONS}: numpy 1.26, the last one that works, has no binary for {found.minor}"
    if found.numpy_version is None:
        raise IncompatibleEnvironmentError(
            f"{found.python} has no numpy, which every model process imports; {fix}", reason="server.numpy"
        )
    if needs_numpy_1 and not found.numpy_version.startswith(("0.", "1.")):
        raise IncompatibleEnvironmentError(
            f"numpy {found.numpy_version} in {found.python} does not work with tritonserver {release}: its Python "
            f"backend was built for numpy 1, so every tensor arrives broken; {fix}",
            reason="server.numpy",
        )
    return found.numpy_version


def _pip(found: PythonEnvironment) -> str:
    return f"{found.python} -m pip install"
