"""What importing loads, and what is said where a package is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from safe_triton.client import AsyncSafeTritonClient, SafeTritonClient
from safe_triton.errors import ClientUsageError

PROBE = """
import json, sys
import safe_triton
before = "safe_triton.client" in sys.modules
import safe_triton.client
print(json.dumps([before, [n for n in ("grpc", "tritonclient", "urllib3", "aiohttp", "gevent") if n in sys.modules]]))
"""


def test_nothing_is_loaded_before_it_is_used() -> None:
    """The package does not import its client, and the client imports no transport before a client is built."""
    result = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=150, check=True)
    assert json.loads(result.stdout) == [False, []]


@pytest.mark.parametrize(
    ("client", "url", "package", "transport"),
    [
        (SafeTritonClient, "grpc://localhost", "tritonclient.grpc", "grpc_transport"),
        (SafeTritonClient, "http://localhost", "urllib3", "http_transport"),
        (AsyncSafeTritonClient, "https://localhost", "aiohttp", "http_aio_transport"),
    ],
)
def test_a_package_that_is_missing(
    client: type[SafeTritonClient], url: str, package: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the command that installs it."""
    import safe_triton.client

    for name in (transport, "grpc_messages"):
        monkeypatch.delitem(sys.modules, f"safe_triton.client.{name}", raising=False)
        monkeypatch.delattr(safe_triton.client, name, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ClientUsageError, match=r"pip install 'safe-triton\[client\]'"):
        client(url, models="any")
