"""``locate`` on trees made of small scripts: what it finds, and what it says about each thing that is missing."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from safe_triton._declared import STUB_NAME
from safe_triton.errors import IncompatibleEnvironmentError, ServerNotFoundError
from safe_triton.server import locate as public_locate
from safe_triton.server.environment import PythonEnvironment, inspect_python
from safe_triton.server.installation import describe

OPTIONS = "| Option | Value |\n| server_version | {} |\nerror: creating server: failed to stat file"


def executable(path: Path, text: str) -> Path:
    """Write a shell script that may be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def server_tree(root: Path, release: str = "2.51.0") -> Path:
    """Write a backend directory and a server that prints its options and ends, as the real one does."""
    executable(root / "bin" / "tritonserver", f"cat <<'END'\n{OPTIONS.format(release)}\nEND\nexit 1")
    backend = root / "backends" / "python"
    backend.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (backend / name).touch()
    return root


def stub(folder: Path, minor: str, hashed: bool = False) -> None:
    """Write a file that names the Python library it is linked with, as the real one does."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"libpython3-419a3a08.{minor[2:]}.so.1.0" if hashed else f"libpython{minor}.so.1.0"
    (folder / STUB_NAME).write_bytes(b"\x7fELF\0" + name.encode() + b"\0libc.so.6\0")


@pytest.fixture
def python(tmp_path: Path) -> PythonEnvironment:
    """Return an environment with Python 3.11, its shared library and numpy 1.26."""
    library = tmp_path / "pythonlib"
    library.mkdir()
    (library / "libpython3.11.so.1.0").touch()
    return PythonEnvironment(
        python=tmp_path / "venv" / "bin" / "python3",
        version=(3, 11, 7),
        prefix=tmp_path / "venv",
        library_folders=(tmp_path / "nowhere", library),
        numpy_version="1.26.4",
        wheel=tmp_path / "venv" / "site" / "pytriton",
        wheel_version="0.7.0",
    )


@pytest.fixture
def wheel(python: PythonEnvironment) -> Path:
    """Return a tree as the wheel installs it: one stub for each Python version, libraries beside the package."""
    assert python.wheel is not None
    root = server_tree(python.wheel / "tritonserver")
    for minor in ("3.8", "3.10", "3.11", "3.12"):
        stub(root / "python_backend_stubs" / minor, minor)
    stub(root / "python_backend_stubs" / "3.13", "3.13", hashed=True)
    libraries = python.wheel.parent / "nvidia_pytriton.libs"
    libraries.mkdir()
    (libraries / "libpython3-419a3a08.13.so.1.0").touch()
    return root


class TestWheel:
    def test_everything_fits(self, wheel: Path, python: PythonEnvironment, tmp_path: Path) -> None:
        """The stub is the interpreter's, libraries come from wheel and interpreter, the release from the binary."""
        found = describe(wheel, "wheel", python)
        assert found.binary == wheel / "bin" / "tritonserver"
        assert found.backend_directory == wheel / "backends" / "python"
        assert found.stub == wheel / "python_backend_stubs" / "3.11" / STUB_NAME
        assert found.library_path == (wheel.parent.parent / "nvidia_pytriton.libs", tmp_path / "pythonlib")
        assert (found.release, found.python_version, found.numpy_version) == ("2.51.0", "3.11.7", "1.26.4")

    def test_bundled_python_library(self, wheel: Path, python: PythonEnvironment) -> None:
        """The stub for 3.13 brings its own library; with numpy 1.26 built there it can be used."""
        found = describe(wheel, "wheel", dataclasses.replace(python, version=(3, 13, 0), library_folders=()))
        assert found.library_path == (wheel.parent.parent / "nvidia_pytriton.libs",)

    @pytest.mark.parametrize(
        ("numpy_version", "version", "said"),
        [
            (
                "2.0.0",
                (3, 11, 7),
                r"numpy 2\.0\.0 in \S+ does not work with tritonserver 2\.51\.0.*pip install 'numpy<2'$",
            ),
            ("2.4.1", (3, 13, 0), r"use Python 3\.10, 3\.11 or 3\.12: numpy 1\.26.*no binary for 3\.13$"),
            (None, (3, 11, 7), r"has no numpy.*pip install 'numpy<2'$"),
            (None, (3, 13, 0), r"has no numpy.*use Python 3\.10, 3\.11 or 3\.12: numpy 1\.26"),
        ],
    )
    def test_numpy(
        self,
        wheel: Path,
        python: PythonEnvironment,
        numpy_version: str | None,
        version: tuple[int, int, int],
        said: str,
    ) -> None:
        """Version 2 of numpy, and none at all, are refused with what is found, why it fails and what mends it."""
        with pytest.raises(IncompatibleEnvironmentError, match=said) as caught:
            describe(wheel, "wheel", dataclasses.replace(python, numpy_version=numpy_version, version=version))
        assert caught.value.reason == "server.numpy"
        assert str(python.python) in caught.value.message

    def test_missing_python_library(self, wheel: Path, python: PythonEnvironment) -> None:
        """An interpreter without its shared library is refused with the package to install, not met as a hang."""
        with pytest.raises(
            IncompatibleEnvironmentError, match=r"libpython3\.11\.so\.1\.0.*apt-get install libpython3\.11"
        ) as caught:
            describe(wheel, "wheel", dataclasses.replace(python, library_folders=python.library_folders[:1]))
        assert caught.value.reason == "server.libpython"

    def test_unsupported_python(self, wheel: Path, python: PythonEnvironment) -> None:
        """A version without a stub is refused with the versions that have one."""
        with pytest.raises(IncompatibleEnvironmentError, match=r"3\.8, 3\.10, 3\.11, 3\.12, 3\.13, not on 3\.14"):
            describe(wheel, "wheel", dataclasses.replace(python, version=(3, 14, 0)))

    @pytest.mark.parametrize(
        "name", ["backends/python/libtriton_python.so", "backends/python/triton_python_backend_utils.py"]
    )
    def test_incomplete(self, wheel: Path, python: PythonEnvironment, name: str) -> None:
        """A tree with a file missing names it."""
        (wheel / name).unlink()
        with pytest.raises(ServerNotFoundError, match=f"{name} is missing.*pip install"):
            describe(wheel, "wheel", python)

    @pytest.mark.parametrize("script", ["exit 127", "echo 'libssl.so.3: cannot open' >&2; exit 127"])
    def test_binary_that_does_not_run(self, wheel: Path, python: PythonEnvironment, script: str) -> None:
        """A binary that prints no release is refused with what it said."""
        executable(wheel / "bin" / "tritonserver", script)
        with pytest.raises(
            IncompatibleEnvironmentError, match=r"does not run here: (it printed nothing|libssl)"
        ) as caught:
            describe(wheel, "wheel", python)
        assert caught.value.reason == "server.binary"


class TestContainer:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Return a tree as in NVIDIA's container: a single stub, and the release in a file."""
        root = server_tree(tmp_path / "opt" / "tritonserver", "0.0.0")
        stub(root / "backends" / "python", "3.11")
        (root / "lib").mkdir()
        (root / "TRITON_VERSION").write_text("2.60.0\n")
        return root

    def test_everything_fits(self, root: Path, python: PythonEnvironment) -> None:
        """The single stub is taken and the file's release; numpy 2 is fine with this one."""
        found = describe(root, "container", dataclasses.replace(python, numpy_version="2.2.0"))
        assert found.stub == root / "backends" / "python" / STUB_NAME
        assert (found.release, found.source) == ("2.60.0", "container")
        assert found.library_path[0] == root / "lib"

    def test_other_python(self, root: Path, python: PythonEnvironment) -> None:
        """An interpreter of another version than the stub's is refused with both."""
        with pytest.raises(IncompatibleEnvironmentError, match=r"runs models on Python 3\.11, and \S+ is 3\.12"):
            describe(root, "container", dataclasses.replace(python, version=(3, 12, 1)))

    @pytest.mark.parametrize("release", ["2.51.0", "2.50.1", "1.9.0"])
    def test_old_release_and_numpy_2(self, root: Path, python: PythonEnvironment, release: str) -> None:
        """Releases before 2.52 are refused with numpy 2 wherever they come from."""
        (root / "TRITON_VERSION").write_text(release)
        with pytest.raises(IncompatibleEnvironmentError, match=release):
            describe(root, "container", dataclasses.replace(python, numpy_version="2.2.0"))

    def test_no_stub(self, root: Path, python: PythonEnvironment) -> None:
        """A tree without a model process names it."""
        (root / "backends" / "python" / STUB_NAME).unlink()
        with pytest.raises(ServerNotFoundError, match=STUB_NAME):
            describe(root, "container", python)


class TestOrder:
    @pytest.fixture
    def known(
        self, wheel: Path, python: PythonEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[PythonEnvironment], None]:
        """Return a setter of the environment that is found, with the wheel's files in place; there is no container."""
        assert wheel.is_dir()

        def know(environment: PythonEnvironment) -> None:
            monkeypatch.setattr("safe_triton.server.installation.inspect_python", lambda _python=None: environment)

        monkeypatch.setattr("safe_triton.server.installation.CONTAINER_ROOT", tmp_path / "no-container")
        know(python)
        return know

    @pytest.mark.usefixtures("known")
    def test_wheel_last(self, wheel: Path) -> None:
        """Without a variable and a container, the wheel's server is found."""
        assert public_locate(environ={}).binary == wheel / "bin" / "tritonserver"

    @pytest.mark.usefixtures("known")
    def test_container_before_wheel(self, tmp_path: Path) -> None:
        """The container's server goes before the wheel's."""
        root = server_tree(tmp_path / "no-container")
        stub(root / "backends" / "python", "3.11")
        assert public_locate(environ={}).source == "container"

    @pytest.mark.usefixtures("known")
    @pytest.mark.parametrize("named", ["", "bin/tritonserver"])
    def test_variable_first(self, tmp_path: Path, named: str) -> None:
        """$TRITONSERVER, a binary or an install root, goes before everything."""
        stub(server_tree(tmp_path / "no-container") / "backends" / "python", "3.11")
        root = server_tree(tmp_path / "own")
        stub(root / "backends" / "python", "3.11")
        found = public_locate(environ={"TRITONSERVER": str(root / named)})
        assert (found.source, found.binary) == ("environment", root / "bin" / "tritonserver")

    @pytest.mark.usefixtures("known")
    def test_variable_that_names_nothing(self, tmp_path: Path) -> None:
        """A wrong $TRITONSERVER is an error: nothing else is run in its place."""
        with pytest.raises(ServerNotFoundError, match=r"TRITONSERVER=.* is neither"):
            public_locate(environ={"TRITONSERVER": str(tmp_path / "absent")})

    @pytest.mark.parametrize(
        ("version", "said"),
        [
            ((3, 11, 7), r"python3 -m pip install 'safe-triton\[server\]'$"),
            ((3, 13, 0), r"needs Python 3\.10, 3\.11 or 3\.12"),
        ],
    )
    def test_nothing(
        self,
        known: Callable[[PythonEnvironment], None],
        python: PythonEnvironment,
        version: tuple[int, int, int],
        said: str,
    ) -> None:
        """With nothing installed the message holds the command that installs it, or the Python it needs."""
        known(dataclasses.replace(python, wheel=None, version=version))
        with pytest.raises(ServerNotFoundError, match=said):
            public_locate(environ={})


class TestInspectPython:
    def test_this_one(self) -> None:
        """The running interpreter's environment is read, and pytriton is not imported for it."""
        found = inspect_python()
        assert found.version == sys.version_info[:3]
        assert found.prefix == Path(sys.prefix)
        assert "pytriton" not in sys.modules

    def test_not_a_python(self, tmp_path: Path) -> None:
        """A program that is no interpreter is refused."""
        with pytest.raises(IncompatibleEnvironmentError, match="does not run as a Python interpreter"):
            inspect_python(executable(tmp_path / "python3", "echo no"))
        with pytest.raises(IncompatibleEnvironmentError, match="does not run as a Python interpreter"):
            inspect_python(tmp_path / "absent")

    def test_no_python3_beside_it(self, tmp_path: Path) -> None:
        """Model processes start python3: an interpreter without that name is refused with the way out."""
        other = executable(tmp_path / "python3.99", f'exec {sys.executable} "$@"')
        with pytest.raises(IncompatibleEnvironmentError, match=r"no python3 beside python3\.99.*-m venv"):
            inspect_python(other)

    def test_another_python3_beside_it(self, tmp_path: Path) -> None:
        """A python3 of another environment beside the chosen interpreter is refused: models would see that one."""
        chosen = executable(tmp_path / "python3.99", f'exec {sys.executable} "$@"')
        answer = '{"version": [3, 1, 4], "prefix": "/x", "base": "/x", "libraries": null, "numpy": null,'
        executable(tmp_path / "python3", f'echo \'{answer} "wheel": null, "wheel_version": null}}\'')
        with pytest.raises(IncompatibleEnvironmentError, match=r"python3 is Python 3\.1, \S+ is 3\.\d+"):
            inspect_python(chosen)

    def test_virtual_environment_is_kept(self) -> None:
        """The link of a virtual environment's interpreter is not followed out of the environment."""
        assert inspect_python(Path(sys.executable)).python == Path(os.path.abspath(sys.executable))
