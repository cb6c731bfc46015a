"""``safe-triton gateway``: a real Envoy in front of something that another program starts."""

from __future__ import annotations

import base64
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from safe_triton.server.ports import ReservedPorts
from tests.triton.fronts import needed_envoy
from tests.triton.stubs import PATIENCE_S, wait_until

PROGRAM = str(Path(sys.executable).with_name("safe-triton"))
KEY = "0123456789abcdef" * 4
POLICY = """
[gateway]
port = {port}
metrics_port = {metrics}
plaintext = {{ reason = "a test on loopback" }}
[gateway.roles.reader]
models = ["{model}"]
verbs = ["infer", "metadata", "health"]
[gateway.identities.alice]
roles = ["reader"]
api_key_file = "{key}"
[[gateway.upstreams]]
address = "127.0.0.1"
http_port = {upstream}
grpc_port = {grpc}
health_port = 0
metrics_port = 0
"""


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers like a Triton that is well, whatever it is asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"name": "digits"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing of this belongs into the tests' output."""


@pytest.fixture
def upstream() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


class Running:
    """The command, with its policy's file; its ports are kept from other programs, at one of which nobody is."""

    def __init__(self, folder: Path, upstream: int) -> None:
        self.reserved = ReservedPorts([0, 0, 0])
        self.port, self.metrics, self.grpc = self.reserved.numbers
        self.upstream = upstream
        self.policy = folder / "gateway.toml"
        self.key = folder / "alice.key"
        self.key.write_text(KEY)
        self.key.chmod(0o600)
        self.write("digits")
        self.output = folder / "output"
        with self.output.open("wb") as output:
            command = [PROGRAM, "gateway", "--policy", str(self.policy)]
            self.process = subprocess.Popen(
                [*command, "--model", "digits", "--model", "other"], stdout=output, stderr=subprocess.STDOUT
            )

    def write(self, model: str) -> None:
        places = {
            "port": self.port,
            "metrics": self.metrics,
            "upstream": self.upstream,
            "grpc": self.grpc,
            "key": self.key,
        }
        self.policy.write_text(POLICY.format(model=model, **places))

    def status(self, path: str = "/v2/models/digits", key: str = KEY, port: int = 0) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.port}{path}")
        if key:
            request.add_header("authorization", "Basic " + base64.b64encode(f"alice:{key}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def wait(self, is_so: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            assert self.process.poll() is None, self.output.read_text()
            return is_so()

        wait_until(holds, lambda: f"{what}: {self.output.read_text()[-2000:]}")

    def end(self) -> None:
        """End it whatever it does."""
        self.process.kill()
        self.process.wait()
        self.reserved.release()


@pytest.fixture
def running(tmp_path: Path, upstream: int) -> Iterator[Running]:
    needed_envoy()
    found = Running(tmp_path, upstream)
    try:
        found.wait(lambda: found.status() == 200, "ready")
        yield found
    finally:
        found.end()


def test_it_serves_reloads_heals_and_ends(running: Running, tmp_path: Path) -> None:
    """Callers are asked who they are; SIGHUP takes a new policy over; a dead Envoy comes back; SIGTERM ends it all."""
    assert [running.status(key=""), running.status(key="f" * 64), running.status("/v2/models/other")] == [401, 401, 403]
    assert running.status("/metrics", key="", port=running.metrics) == 200
    running.write("other")
    running.process.send_signal(signal.SIGHUP)
    running.wait(lambda: running.status("/v2/models/other") == 200, "reloaded")
    assert running.status() == 403
    running.policy.write_text("[gateway\n")
    running.process.send_signal(signal.SIGHUP)
    running.wait(lambda: "keeps its old policy" in running.output.read_text(), "refused")
    assert running.status("/v2/models/other") == 200
    (envoy,) = children(running.process.pid)
    os.kill(envoy, signal.SIGKILL)
    running.wait(lambda: children(running.process.pid) not in ([envoy], []), "started again")
    running.wait(lambda: running.status("/v2/models/other") == 200, "healed")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=PATIENCE_S) == 0
    assert running.status() == 0


def children(pid: int) -> list[int]:
    """Processes whose parent is one."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("", "no table [gateway]"),
        (POLICY.split("[[gateway.upstreams]]", maxsplit=1)[0], "gateway.upstreams names no Triton"),
    ],
)
def test_what_does_not_start(tmp_path: Path, policy: str, words: str) -> None:
    """A policy without a gateway, or without anything behind it: one line, exit status 2."""
    key = tmp_path / "alice.key"
    key.write_text(KEY)
    key.chmod(0o600)
    file = tmp_path / "gateway.toml"
    file.write_text(policy.format(port=1, metrics=2, model="digits", key=key, upstream=3, grpc=4) if policy else policy)
    command = [PROGRAM, "gateway", "--policy", str(file), "--model", "digits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("safe-triton: ")
    assert words in line


def test_nothing_is_left(tmp_path: Path, upstream: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The private folder goes with the command."""
    needed_envoy()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    found = Running(tmp_path, upstream)
    try:
        found.wait(lambda: found.status() == 200, "ready")
        assert list((tmp_path / "t").iterdir()) != []
        found.process.send_signal(signal.SIGINT)
        assert found.process.wait(timeout=PATIENCE_S) == 0
    finally:
        found.end()
    assert list((tmp_path / "t").iterdir()) == []
