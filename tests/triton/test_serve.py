"""``safe-triton serve`` as an operator runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent / "confined_repository"
COMMAND = [sys.executable, "-c", "from safe_triton.cli import main; main()", "serve"]
ANY_PORTS = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run([*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A running command, its HTTP address, and the temporary folder that it uses."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"}
    process = subprocess.Popen(
        [*COMMAND, str(REPOSITORY), *ANY_PORTS], stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    text = ""
    for line in process.stderr:
        text += line
        if "Ctrl-C ends the server" in line:
            break
    address = re.search(r"HTTP +(127\.0\.0\.1:\d+)", text)
    assert address, text
    yield process, address.group(1), tmp_path
    process.stderr.close()
    if process.poll() is None:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_it_is_told_to_stop(
    served: tuple[subprocess.Popen[str], str, Path], number: signal.Signals
) -> None:
    """Models answer, confined; a signal ends it with 0 within seconds, and nothing is left."""
    process, address, temporary = served
    body = {"inputs": [{"name": "NAME", "shape": [1], "datatype": "BYTES", "data": ["read /etc/passwd"]}]}
    request = urllib.request.Request(f"http://{address}/v2/models/attempts/infer", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert json.load(answer)["outputs"][0]["data"] == ["refused: PermissionError"]
    started = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=20) == 0
    assert time.monotonic() - started < 10
    assert list(temporary.iterdir()) == []
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{address}/v2/health/ready", timeout=5)


def test_a_missing_repository() -> None:
    """One clear line, exit status 2."""
    done = run("/srv/no/such/repository", *ANY_PORTS)
    assert done.returncode == 2
    assert "the model repository /srv/no/such/repository is not a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use() -> None:
    """The port is named; nothing is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(str(REPOSITORY), *ANY_PORTS[2:], "--http-port", str(port))
    assert done.returncode == 2
    assert f"one of the ports {port}: Address already in use" in done.stderr


def test_a_repository_that_cannot_be_confined(tmp_path: Path) -> None:
    """A file that would run in the launcher's place is named before anything starts."""
    folder = tmp_path / "models" / "victim"
    folder.mkdir(parents=True)
    (folder / "triton_python_backend_stub").write_text("#!/bin/sh\n")
    done = run(str(tmp_path / "models"), *ANY_PORTS)
    assert done.returncode == 2
    assert "would run in the launcher's place" in done.stderr
