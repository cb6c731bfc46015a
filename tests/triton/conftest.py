"""Servers that several modules share, of the example models and of what an operator sees; a watcher of what servers leave."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safe_triton.server import TritonServer
from tests.triton.doubling import Traces
from tests.triton.stubs import wait_until

MODEL_REPOSITORY = Path(__file__).parents[2] / "model_repository"
OBSERVED = Path(__file__).parent / "observed_repository"


@pytest.fixture(scope="module")
def server(triton_server: Any) -> TritonServer:
    """The server of the example models, where a module has none of its own."""
    running: TritonServer = triton_server(MODEL_REPOSITORY)
    return running


@pytest.fixture(scope="session")
def observed_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since a test touches a model's file."""
    return Path(shutil.copytree(OBSERVED, tmp_path_factory.mktemp("observed") / "models"))


@pytest.fixture(scope="session")
def observed(triton_server: Any, observed_repository: Path) -> TritonServer:
    """A running server of the models whose metrics and log lines are looked at."""
    server: TritonServer = triton_server(observed_repository, load=("counted", "counting", "failing", "loosened"))
    return server


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """Return a watcher of what servers leave; the test fails if anything is left at its end."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    watcher = Traces(temporary)
    yield watcher
    wait_until(lambda: watcher.found() == [], watcher.found)  # the kernel takes a moment for a process that was killed
