"""Models that cannot be loaded: bounded in time, alone in their trouble, silent about the host."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.harness import COMMAND, HERE, Served, Traffic, served, steady_traffic
from tests.triton.stubs import wait_until

pytestmark = [pytest.mark.triton, pytest.mark.slow]

LOADS = HERE / "loads"
BROKEN = ("load_hangs", "load_raises", "load_exits", "import_exits")
POLICY = """
[server]
health_port = 0
ready_timeout_s = 140

[supervision]
load_timeout_s = 5
max_failures = 2
"""


def repository_of(folder: Path, *names: str) -> Path:
    """Return a repository with some of the models."""
    for name in names:
        shutil.copytree(LOADS / name, folder / "models" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "models"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy with a short time to load."""
    file = tmp_path_factory.mktemp("policy") / "policy.toml"
    file.write_text(POLICY)
    return file


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> Iterator[tuple[Served, Traffic]]:
    """All that cannot be loaded beside one neighbour, served with --allow-failed, and the neighbour's traffic."""
    temporary = tmp_path_factory.mktemp("serve")
    repository = repository_of(temporary, "steady", *BROKEN)
    with (
        served(temporary, "--allow-failed", repository=repository, policy=policy) as running,
        steady_traffic(running, ["steady"]) as traffic,
    ):
        yield running, traffic
    assert traffic.failures == []
    assert list((temporary / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", BROKEN)
def test_others_are_served_beside_it(beside: tuple[Served, Traffic], name: str) -> None:
    """With --allow-failed: the neighbour serves, the model is tried again and then quarantined, nothing leaks."""
    running, traffic = beside
    wait_until(lambda: running.status()[name]["state"] == "quarantined")
    before = sum(traffic.answered.values())
    answer = ask_ready(running.address("HTTP"), name)
    body = json.dumps({"inputs": [{"name": "X", "shape": [1], "datatype": "FP32", "data": [1.0]}]}).encode()
    refused = ask(running.address("HTTP"), name, body)
    assert running.status()["steady"]["state"] == "ready"
    assert running.readyz() == 503
    wait_until(lambda: sum(traffic.answered.values()) > before + 10)
    assert traffic.failures == []
    assert "quarantined" in refused[1] or refused[0] in {400, 404, 503}
    for secret in ("hunter2", "/srv/private", str(running.temporary), ".py"):
        assert secret not in refused[1] + answer[1]


def test_a_model_that_fails_stops_a_start(tmp_path: Path, policy: Path) -> None:
    """Without --allow-failed: one clear line, exit status 2, nothing left."""
    repository = repository_of(tmp_path, "steady", "load_raises")
    done = subprocess.run(
        [
            *COMMAND,
            str(repository),
            "--policy",
            str(policy),
            "--",
            "--http-port=0",
            "--grpc-port=0",
            "--metrics-port=0",
        ],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "model 'load_raises' failed to load" in done.stderr
    assert "Traceback" not in done.stderr


def ask(address: str, model: str, body: bytes) -> tuple[int, str]:
    """POST an inference and return status and text."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://{address}/v2/models/{model}/infer", body), timeout=60
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask_ready(address: str, model: str) -> tuple[int, str]:
    """GET a model's readiness."""
    try:
        with urllib.request.urlopen(f"http://{address}/v2/models/{model}/ready", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
