"""A supervised server for tests: its models can be asked, its processes found, and neighbours asked all the time."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from safe_triton.policyfile import load_policy
from safe_triton.server import TritonServer
from safe_triton.supervision import Supervisor
from tests.triton.stubs import wait_until

REPOSITORY = Path(__file__).parent / "supervised_repository"

POLICY = """schema = 1
[supervision]
max_failures = {max_failures}
window_s = {window_s}
quarantine_s = {quarantine_s}
load_timeout_s = {load_timeout_s}
hang_check_s = 0.2
"""
LIMITS = """[models.{model}.limits]
deadline_ms = 1500
hard_deadline_grace_ms = 1500
"""
HARD_S = 3.0
"""The hard deadline of all models but those that are asked all the time: a busy machine must not end one of these."""

ASKED_ALL_THE_TIME = "steady"

DEFAULTS: Mapping[str, float] = {"max_failures": 100, "window_s": 1, "quarantine_s": 5, "load_timeout_s": 120}


@dataclass
class Site:
    """A server and its supervisor."""

    server: TritonServer
    supervisor: Supervisor
    folder: Path
    stop: threading.Event
    thread: threading.Thread

    def ask(self, model: str, do: str = "answer", *, timeout_s: float = 60.0) -> tuple[int, str]:
        """Ask over HTTP: status and body; status 0 where nobody answers."""
        body = {"inputs": [{"name": "DO", "shape": [1], "datatype": "BYTES", "data": [do]}]}
        host, _, port = self.server.http_url.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
        try:
            connection.request("POST", f"/v2/models/{model}/infer", json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error)
        finally:
            connection.close()

    def health(self, path: str) -> tuple[int, str]:
        """Ask the health endpoint."""
        host, _, port = self.supervisor.url.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def pid(self, model: str) -> int:
        """The newest process of a model."""
        return max(
            (stub for stub in self.server.stubs() if stub.model == model), key=lambda stub: stub.started_ticks
        ).pid

    def row(self, model: str) -> Any:
        """What the supervisor says of a model."""
        return next(row for row in self.supervisor.snapshot().models if row.model == model)

    def wait_for(self, what: Callable[[], bool]) -> float:
        """Wait until something holds; the seconds it took."""
        return wait_until(what, lambda: f"the log ends with\n{self.server.log_text()[-3000:]}")

    def wait_for_answer(self, model: str) -> float:
        """Wait until a model answers well; the seconds it took."""
        return self.wait_for(lambda: self.ask(model, timeout_s=10.0)[0] == 200)

    def load_as(self, model: str, how: str) -> None:
        """How the model's next process loads."""
        (self.folder / model / "load").write_text(how)

    def finish(self) -> float:
        """Stop supervisor and server; the seconds it took."""
        began_s = time.monotonic()
        self.stop.set()
        self.thread.join(timeout=60)
        assert not self.thread.is_alive()
        self.server.stop(within_s=3.5)
        return time.monotonic() - began_s


@dataclass
class Load:
    """A model that is asked without a pause; what it answered."""

    answers: Counter[int] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)


@contextlib.contextmanager
def asked_all_the_time(site: Site, model: str) -> Iterator[Load]:
    """Ask a model in the background."""
    load, is_over = Load(), threading.Event()

    def run() -> None:
        while not is_over.wait(0.02):
            status, text = site.ask(model)
            load.answers[status] += 1
            if status != 200:
                load.others.append(text)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield load
    finally:
        is_over.set()
        thread.join()


@contextlib.contextmanager
def supervised(tmp_path: Path, models: Mapping[str, str], **policy: float) -> Iterator[Site]:
    """Run a server with models that are copies of the repository's.

    Args:
        tmp_path: where the copies are made.
        models: name of the copied model by name.
        policy: values of ``[supervision]`` that differ from :data:`DEFAULTS`.
    """
    folder = tmp_path / "models"
    for name, source in models.items():
        shutil.copytree(REPOSITORY / source, folder / name)
        if source == "faulty":
            (folder / name / "load").write_text("")
    file = tmp_path / "safe-triton.toml"
    tables = [LIMITS.format(model=model) for model in models if model != ASKED_ALL_THE_TIME]
    file.write_text(POLICY.format(**{**DEFAULTS, **policy}) + "".join(tables))
    operator = load_policy(file)
    server = TritonServer(folder, view=True, confinement=operator, stop_timeout_s=3.0)
    runtime = tmp_path / "runtime"  # session files of this server are nobody else's
    runtime.mkdir()
    stop = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        try:
            server.start()
            supervisor = Supervisor(server, operator, health_port=0)
            thread = threading.Thread(target=supervisor.run, args=(stop,), daemon=True)
            thread.start()
            site = Site(server, supervisor, folder, stop, thread)
            try:
                site.wait_for(lambda: site.health("/readyz")[0] == 200)
                yield site
            finally:
                site.finish()
        finally:
            server.stop(within_s=0.5)
    assert not list(runtime.iterdir())
