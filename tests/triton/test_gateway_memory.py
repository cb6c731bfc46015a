"""The real Envoy holds its memory against bodies that were begun while there was room."""

from __future__ import annotations

import re
import ssl
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from safe_triton.policyfile.gateway_tables import Upstream
from tests.triton.fronts import SERVICE, Front, front, recorder
from tests.triton.stubs import wait_until

pytestmark = [pytest.mark.triton, pytest.mark.attack]

MIB = 1 << 20
MOST_BYTES = 64 * MIB
CONNECTIONS, BODY_BYTES = 24, 60 * MIB
INFER = "/v2/models/one/infer"
POLICY = f"""[gateway]
{{head}}
max_memory_bytes = {MOST_BYTES}
[gateway.roles.caller]
models = ["one"]
verbs = ["infer"]
[gateway.identities.reader]
roles = ["caller"]
api_key_file = "{{folder}}/reader.key"
"""


def held_bytes(gateway: Front) -> int:
    """What Envoy says that it has in use."""
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/metrics", timeout=60) as answer:
        found = re.search(r"^envoy_server_memory_allocated\{\} (\d+)", answer.read().decode(), re.MULTILINE)
    assert found
    return int(found[1])


def test_bodies_that_were_begun(tmp_path: Path) -> None:
    """Many long ones are all begun and then sent: they are cut, not kept until the machine has no more memory."""
    with recorder() as behind, ExitStack() as stack:
        upstream = Upstream(
            address="127.0.0.1", http_port=behind.port, grpc_port=behind.port, health_port=0, metrics_port=0
        )
        gateway = stack.enter_context(front(tmp_path, POLICY, upstream, ["one"]))
        credential = f"authorization: {gateway.credential('reader')}\r\ncontent-length: {BODY_BYTES}"
        for path in (INFER, f"{SERVICE}ModelInfer"):
            opened = [stack.enter_context(gateway.connect()) for _ in range(CONNECTIONS)]
            for connection in opened:
                connection.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\n{credential}\r\n\r\n".encode())
            _send(opened)
            assert held_bytes(gateway) < CONNECTIONS * BODY_BYTES / 2
            for connection in opened:
                connection.close()
            wait_until(lambda: gateway.ask("POST", INFER, identity="reader", body=b"{}")[0] == 200)


def _send(connections: list[ssl.SSLSocket]) -> None:
    """Send a part of each body at a time, to those that are still there, but no body's end."""
    part = bytes(MIB)
    left = list(connections)
    for _ in range(BODY_BYTES // MIB - 1):
        for connection in list(left):
            with suppress(OSError):
                connection.sendall(part)
                continue
            left.remove(connection)
        if not left:
            return
    pytest.fail(f"{len(left)} bodies were kept")
