"""One server for the tests of what an operator sees: metrics and log."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from safe_triton.server import TritonServer

OBSERVED = Path(__file__).parent / "observed_repository"


@pytest.fixture(scope="session")
def observed_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since a test touches a model's file."""
    return Path(shutil.copytree(OBSERVED, tmp_path_factory.mktemp("observed") / "models"))


@pytest.fixture(scope="session")
def observed(triton_server: Any, observed_repository: Path) -> TritonServer:
    """A running server of the models whose metrics and log lines are looked at."""
    server: TritonServer = triton_server(observed_repository, load=("counted", "counting", "failing", "loosened"))
    return server
