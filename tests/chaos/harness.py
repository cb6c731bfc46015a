"""A served repository under steady traffic, one fault at a time, and what everybody saw of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient import grpc, http

from tests.triton.stubs import wait_until

HERE = Path(__file__).parent
REPOSITORY = HERE / "repository"
POLICY = HERE / "policy.toml"
COMMAND = [sys.executable, "-c", "from safe_triton.cli import main; main()", "serve"]
START_S = 150.0
MACHINE_FACTOR = float(os.environ.get("SAFE_TRITON_SLOWNESS", "10"))
"""How much slower than a quiet machine this one may be; the figures of the documentation are taken with 1."""
STEADY = ("steady", "steady_sdk")


@dataclass
class Served:
    """A running ``safe-triton serve``.

    Args:
        process: the command.
        text: what it printed before it was ready.
        temporary: folder with its standard output, its runtime folder ``run`` and its temporary files ``tmp``.
    """

    process: subprocess.Popen[str]
    text: str
    temporary: Path

    def address(self, name: str) -> str:
        """``127.0.0.1:port`` of ``HTTP``, ``gRPC``, ``metrics`` or ``health``."""
        found = re.search(rf"{name} +(?:http://)?(127\.0\.0\.1:\d+)", self.text)
        assert found, self.text
        return found.group(1)

    def status(self) -> dict[str, dict[str, object]]:
        """The supervisor's rows by model."""
        return {row["model"]: row for row in self.snapshot()["models"]}

    def snapshot(self) -> dict[str, Any]:
        """Everything that the supervisor tells the user who started it."""
        folder = self.temporary / "run" / "safe-triton"
        wait_until(lambda: any(folder.glob("*.json")))  # written after the lines that a start prints
        (file,) = folder.glob("*.json")
        session = json.loads(file.read_text())
        request = urllib.request.Request(
            f"{session['url']}/status", headers={"Authorization": f"Bearer {session['token']}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))

    def readyz(self) -> int:
        """HTTP status of the supervisor's readiness."""
        try:
            with urllib.request.urlopen(f"http://{self.address('health')}/readyz", timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


@contextlib.contextmanager
def served(
    temporary: Path,
    *arguments: str,
    repository: Path = REPOSITORY,
    policy: Path = POLICY,
    prefix: Sequence[str] = (),
) -> Iterator[Served]:
    """Serve a repository and end it; the caller looks at what is left."""
    ports = ["--", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    for folder in ("run", "tmp"):
        (temporary / folder).mkdir()
    with (temporary / "stdout").open("w") as stdout:
        process = subprocess.Popen(
            [*prefix, *COMMAND, str(repository), "--policy", str(policy), *arguments, *ports],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "TMPDIR": str(temporary / "tmp"),
                "XDG_RUNTIME_DIR": str(temporary / "run"),
                "COLUMNS": "200",
            },
        )
    assert process.stderr is not None
    text = ""
    reader: threading.Thread | None = None
    stuck = threading.Timer(START_S, process.kill)
    stuck.start()
    try:
        for line in process.stderr:
            text += line
            if "Ctrl-C ends the server" in line:
                break
        stuck.cancel()
        assert process.poll() is None, text
        reader = threading.Thread(target=process.stderr.read, daemon=True)
        reader.start()
        yield Served(process, text, temporary)
    finally:
        stuck.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if reader is not None:
            reader.join(timeout=60)
        process.stderr.close()


@dataclass
class Answer:
    """One answer: HTTP status (0: the connection broke), text, seconds."""

    status: int
    text: str
    seconds: float


def infer(served: Served, model: str, action: str, *, timeout_s: float = 60.0) -> Answer:
    """Send one action to a model over HTTP."""
    body = {"inputs": [{"name": "ACTION", "shape": [1], "datatype": "BYTES", "data": [action]}]}
    return post(served, model, json.dumps(body).encode(), timeout_s=timeout_s)


def post(
    served: Served, model: str, body: bytes, *, timeout_s: float = 60.0, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send a body to a model over HTTP."""
    url = f"http://{served.address('HTTP')}/v2/models/{model}/infer"
    request = urllib.request.Request(url, body, dict(headers or {}))
    started = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            status, text = answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        status, text = 0, type(error).__name__
    return Answer(status, text, time.monotonic() - started)


def wait_for_good_answer(served: Served, model: str, *, timeout_s: float = 120.0) -> float:
    """Ask until the model answers; return the seconds that it took."""
    started = time.monotonic()
    answer = None
    while time.monotonic() - started < timeout_s:
        answer = infer(served, model, "hello", timeout_s=30.0)
        if answer.status == 200 and "hello" in answer.text:
            return time.monotonic() - started
        time.sleep(0.02)
    raise AssertionError(f"{model} did not come back within {timeout_s:g} s: {answer}")


@dataclass
class Traffic:
    """Steady requests to models over HTTP and gRPC.

    Attributes:
        failures: what went wrong, with model and protocol.
        answered: good answers by model and protocol.
        latencies_s: seconds of each good answer.
    """

    failures: list[str] = field(default_factory=list)
    answered: dict[str, int] = field(default_factory=dict)
    latencies_s: array[float] = field(default_factory=lambda: array("d"))


@contextlib.contextmanager
def steady_traffic(served: Served, models: Sequence[str] = STEADY, *, pause_s: float = 0.01) -> Iterator[Traffic]:
    """Send requests to the neighbours until the block ends; each has to be answered rightly."""
    traffic, ended = Traffic(), threading.Event()

    def run(module: object, address: str, model: str, protocol: str) -> None:
        x = np.arange(4, dtype=np.float32).reshape(1, 4)
        key = f"{model} over {protocol}"
        client = module.InferenceServerClient(address)  # type: ignore[attr-defined]
        with contextlib.closing(client):
            while not ended.is_set():
                tensor = module.InferInput("X", [1, 4], "FP32")  # type: ignore[attr-defined]
                tensor.set_data_from_numpy(x)
                began_s = time.monotonic()
                try:
                    result = client.infer(model, [tensor])
                    assert np.array_equal(result.as_numpy("Y"), x * 2)
                    traffic.latencies_s.append(time.monotonic() - began_s)
                    traffic.answered[key] = traffic.answered.get(key, 0) + 1
                except Exception as error:
                    traffic.failures.append(f"{key}: {error}")
                time.sleep(pause_s)

    threads = [
        threading.Thread(target=run, args=(module, served.address(protocol), model, protocol), daemon=True)
        for model in models
        for module, protocol in ((http, "HTTP"), (grpc, "gRPC"))
    ]
    for thread in threads:
        thread.start()
    try:
        yield traffic
    finally:
        ended.set()
        for thread in threads:
            thread.join(timeout=60)
