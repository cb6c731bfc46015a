"""What a start says that fails: not only what happened, also what to write."""

from __future__ import annotations

from typing import Any

import pytest

from safe_triton.errors import ServerStartError
from safe_triton.supervision.service import _start


class FailingServer:
    """A server whose start fails."""

    def __init__(self, message: str, reason: str) -> None:
        self.error = ServerStartError(message, reason=reason)

    def start(self) -> None:
        """Fail."""
        raise self.error


@pytest.mark.parametrize(
    ("reason", "message", "more"),
    [
        ("server.model", "model 'a' failed to load: MemoryError", "memory_bytes"),
        ("server.ports", "127.0.0.1:8000: Address already in use", "--http-port"),
        ("server.timeout", "tritonserver was not ready after 600 s", ""),
    ],
)
def test_the_way_out_follows(reason: str, message: str, more: str) -> None:
    """Behind the message, where there is one; the reason stays."""
    server: Any = FailingServer(message, reason)
    with pytest.raises(ServerStartError) as caught:
        _start(server)
    assert caught.value.reason == reason
    assert caught.value.message.startswith(message)
    assert more in caught.value.message.removeprefix(message)
    assert bool(more) == (caught.value.message != message)
