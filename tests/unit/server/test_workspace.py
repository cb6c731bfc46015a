"""A server's private folder: what an interrupt leaves of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from safe_triton._declared import STUB_NAME
from safe_triton.errors import ServerStartError
from safe_triton.server.workspace import Workspace

FOLDERS = 6
"""How many folders are made for a server."""


@pytest.fixture
def installation(tmp_path: Path) -> Any:
    """What is copied of an installation, and where to."""
    backend = tmp_path / "installed" / "backends" / "python"
    backend.mkdir(parents=True)
    for name in (STUB_NAME, "libtriton_python.so"):
        (backend / name).write_text(name)
    return SimpleNamespace(backend_directory=backend, stub=backend / STUB_NAME)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("nth", range(1, FOLDERS + 1))
def test_an_interrupt_leaves_nothing(
    temporary: Path, installation: Any, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Ctrl-C comes while the kernel makes a folder: Python raises it when the folder is there."""
    workspace, made, mkdir = Workspace(), [], Path.mkdir

    def interrupted(path: Path, *args: Any, **kwargs: Any) -> None:
        mkdir(path, *args, **kwargs)
        made.append(path)
        if len(made) == nth:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workspace.make(installation)
    assert list(temporary.iterdir())  # control
    workspace.remove()
    assert not list(temporary.iterdir())


def test_whole(temporary: Path, installation: Any) -> None:
    """Nobody else can enter it; removing it may be repeated, and comes before it too."""
    workspace = Workspace()
    workspace.remove()
    workspace.make(installation)
    assert workspace.root.stat().st_mode & 0o777 == 0o700
    assert workspace.stub.stat().st_mode & 0o777 == 0o755
    assert len([path for path in temporary.rglob("*") if path.is_dir()]) == FOLDERS
    for _ in range(2):
        workspace.remove()
        assert not list(temporary.iterdir())


def test_a_blank_in_the_temporary_folder(tmp_path: Path, installation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases to 25.07 would pass it to a shell; nothing is made."""
    (tmp_path / "with blank").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "with blank"))
    with pytest.raises(ServerStartError, match="without blanks"):
        Workspace().make(installation)
    assert not list((tmp_path / "with blank").iterdir())
