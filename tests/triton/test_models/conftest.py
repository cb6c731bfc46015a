"""One server with all example models, asked over both protocols."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from safe_triton.server import TritonServer
from tests.triton.test_models.asking import Asker


@pytest.fixture(params=["grpc", "http"])
def ask(server: TritonServer, request: pytest.FixtureRequest) -> Iterator[Asker]:
    """A client over gRPC, then over HTTP."""
    asker = Asker(server, request.param)
    yield asker
    asker.close()


@pytest.fixture
def ask_once(server: TritonServer) -> Iterator[Asker]:
    """A client over gRPC, where the protocol makes no difference."""
    asker = Asker(server, "grpc")
    yield asker
    asker.close()
