"""What is checked before a server is started: arguments, paths, ports, the model process."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest

from safe_triton.errors import IncompatibleEnvironmentError, ServerStartError
from safe_triton.server import TritonInstallation, TritonServer
from safe_triton.server.ports import ReservedPorts
from safe_triton.server.process import run_briefly


@pytest.fixture
def installation(tmp_path: Path) -> TritonInstallation:
    """Return an installation whose model process exits with 127, as one without a library does."""
    backend = tmp_path / "backend"
    backend.mkdir()
    (backend / "libtriton_python.so").touch()
    stub = tmp_path / "triton_python_backend_stub"
    stub.write_text("#!/bin/sh\necho 'error while loading shared libraries: libpython3.11.so.1.0' >&2\nexit 127\n")
    return TritonInstallation(
        binary=Path("/bin/false"),
        backend_directory=backend,
        stub=stub,
        library_path=(),
        release="2.51.0",
        source="wheel",
        python=Path("/usr/bin/python3"),
        python_version="3.11.7",
        numpy_version="1.26.4",
    )


class TestArguments:
    @pytest.mark.parametrize(
        "options",
        [
            {"arguments": ["--http-port=1"]},
            {"arguments": ["--model-repository", "/x"]},
            {"arguments": ["--backend-config=python,shm-region-prefix-name=x"]},
            {"load": ["a"], "model_control": "poll"},
            {"repository": []},
        ],
    )
    def test_refused(self, tmp_path: Path, options: dict[str, Any]) -> None:
        """What the class sets itself, and what contradicts itself, is refused when the object is made."""
        with pytest.raises(ValueError, match=r"sets this itself|cannot do|no model repository"):
            TritonServer(**{"repository": tmp_path, **options})


class TestPaths:
    @pytest.mark.parametrize("name", ["a b", "a$(id)", "a;b", "a'b", "a`b", "a|b", "a*"])
    def test_model_folder_with_shell_characters(
        self, tmp_path: Path, installation: TritonInstallation, name: str
    ) -> None:
        """A name that would hang the server or run a command in it is refused before the start."""
        (tmp_path / "models" / name).mkdir(parents=True)
        with pytest.raises(ServerStartError, match="passes to a shell") as caught:
            TritonServer(tmp_path / "models", installation=installation).start()
        assert caught.value.reason == "server.repository"

    def test_repository_with_a_blank(self, tmp_path: Path, installation: TritonInstallation) -> None:
        """The same holds for the repository's own path."""
        (tmp_path / "my models").mkdir()
        with pytest.raises(ServerStartError, match="passes to a shell"):
            TritonServer(tmp_path / "my models", installation=installation).start()

    def test_no_repository(self, tmp_path: Path, installation: TritonInstallation) -> None:
        """A repository that does not exist is named."""
        with pytest.raises(ServerStartError, match="absent is not a folder"):
            TritonServer(tmp_path / "absent", installation=installation).start()

    def test_a_models_folder(self, tmp_path: Path, installation: TritonInstallation) -> None:
        """It is no repository, though it holds folders; the message names the one above it."""
        (tmp_path / "models" / "prices" / "1").mkdir(parents=True)
        (tmp_path / "models" / "prices" / "config.pbtxt").touch()
        with pytest.raises(ServerStartError, match=f"is the one above it: {tmp_path / 'models'}$"):
            TritonServer(tmp_path / "models" / "prices", installation=installation).start()

    def test_a_repository_that_cannot_be_read(
        self, tmp_path: Path, installation: TritonInstallation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One line instead of a traceback."""

        def refuse(_: Path) -> NoReturn:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "iterdir", refuse)  # root may list every folder
        with pytest.raises(ServerStartError, match=r"cannot be read: Permission denied"):
            TritonServer(tmp_path, installation=installation).start()

    def test_temporary_folder(
        self, tmp_path: Path, installation: TritonInstallation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A temporary folder with a blank is refused with the variable to set."""
        (tmp_path / "models").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "my temp"))
        with pytest.raises(ServerStartError, match="set TMPDIR") as caught:
            TritonServer(tmp_path / "models", installation=installation).start()
        assert caught.value.reason == "server.workspace"


def test_model_process_that_does_not_start(
    tmp_path: Path, installation: TritonInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model process that exits with 127 is refused before the server could wait for it; its folder is removed."""
    (tmp_path / "models").mkdir()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with pytest.raises(IncompatibleEnvironmentError, match=r"status 127.*libpython3\.11") as caught:
        TritonServer(tmp_path / "models", installation=installation).start()
    assert caught.value.reason == "server.stub"
    assert list(temporary.iterdir()) == []


class TestReservedPorts:
    def test_nobody_else_gets_them(self) -> None:
        """While ports are reserved, sockets that take any free port get others, and one that names it can have it."""
        with ReservedPorts([0] * 3) as reserved:
            assert len(set(reserved.numbers)) == 3
            others = []
            for _ in range(200):
                other = socket.socket()
                other.bind(("127.0.0.1", 0))
                others.append(other)
            assert not {other.getsockname()[1] for other in others} & set(reserved.numbers)
            for other in others:
                other.close()
            with socket.socket() as server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind(("127.0.0.1", reserved.numbers[0]))
                server.listen()


class TestRunBriefly:
    def test_time_limit(self) -> None:
        """A probe that does not end is killed."""
        with pytest.raises(TimeoutError, match=r"did not end within 0\.2 s"):
            run_briefly(["/bin/sleep", "60"], environment={}, timeout_s=0.2)

    def test_clean_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A probe sees the variables it was given and no others."""
        monkeypatch.setenv("A_SECRET", "s3cret")
        assert run_briefly(["/usr/bin/env"], environment={"A": "1"}).output.strip() == "A=1"
