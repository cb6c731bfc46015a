"""A repository view on the real server: models are reloaded by touching it, and by nobody but its owner."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import Self

from safe_triton.errors import ServerStartError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonServer
from safe_triton.server.workspace import SHARED_MEMORY
from tests.triton.stubs import stub_of, stubs_of, until, wait_until
from tests.triton.viewed import MODEL, Reply, ask, kill, make_model, new_process, wait_for

DECOUPLED = "model_transaction_policy {decoupled: true}\n"
ROUNDS = 5
VIEWED: dict[str, Any] = {"view": True, "confinement": SandboxPolicy(), "stop_timeout_s": 1.0}
"""Of a server of one test's own, whose models need no time to end."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("viewed") / "models"
    for name in ("worker", "other"):
        make_model(repository, name)
    make_model(repository, "many", config="instance_group [{kind: KIND_CPU count: 2}]\n")
    make_model(repository, "streaming", config=DECOUPLED)
    make_model(repository, "sequence", config="sequence_batching {}\n")
    (repository / "chain" / "1").mkdir(parents=True)
    (repository / "chain" / "config.pbtxt").write_text(
        'platform: "ensemble"\ninput [{name: "MODE" data_type: TYPE_STRING dims: [1]}]\n'
        'output [{name: "T" data_type: TYPE_STRING dims: [1]}]\n'
        'ensemble_scheduling {step [{model_name: "worker" model_version: -1 '
        'input_map {key: "MODE" value: "MODE"} output_map {key: "T" value: "T"}}]}\n'
    )
    return repository


@pytest.fixture(scope="module")
def server(triton_server: Any, folder: Path) -> TritonServer:
    running: TritonServer = triton_server(folder, view=True, confinement=SandboxPolicy())
    return running


def waiting(server: TritonServer, model: str) -> int:
    """How many requests wait in a model's queue."""
    with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=60) as answer:
        found = re.search(
            rf'^nv_inference_pending_request_count{{model="{model}",.*}} (\d+)', answer.read().decode(), re.MULTILINE
        )
    assert found
    return int(found[1])


def failures(server: TritonServer, model: str) -> int:
    """How often a model could not be loaded."""
    return server.log_text().count(f"failed to load '{model}' version 1")


class Steady:
    """Asks a model again and again in a thread and keeps what went wrong."""

    def __init__(self, server: TritonServer, model: str) -> None:
        self.bad: list[Reply | OSError] = []
        self.count = 0
        self._server, self._model = server, model
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopping.wait(0.01):
            try:
                reply = ask(self._server, self._model)
            except OSError as error:
                self.bad.append(error)
                continue
            self.count += 1
            if not reply.is_good:
                self.bad.append(reply)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()


class TestReload:
    def test_a_dead_model_serves_again_and_nobody_else_notices(self, server: TritonServer) -> None:
        """After each death a touch brings a new process; the other model keeps its process and loses no request.

        In the end there is one living process a model instance, one heartbeat a process, and no entry in the view but
        its models.
        """
        other = stub_of(server, "other").pid
        with Steady(server, "other") as steady:
            for _ in range(ROUNDS):
                dead = kill(server, "worker")
                server.view.reload("worker")
                wait_for(server, "worker", new_process(dead))
                assert ask(server, "chain").is_good
        assert steady.bad == []
        assert steady.count > ROUNDS
        assert stub_of(server, "other").pid == other
        wait_until(lambda: len(stubs_of(server, "worker")) == 1)
        wait_until(lambda: {beat.pid for beat in server.beats()} == {stub.pid for stub in server.stubs()})
        assert {entry.name for entry in server.view.path.iterdir()} == set(server.view.models)

    def test_requests_on_the_way_are_answered_by_the_old_process(self, server: TritonServer) -> None:
        """A reload without a death: what was sent before finishes where it began, and then that process ends."""
        before = int(ask(server, "worker").text)
        replies: list[Reply] = []
        slow = [threading.Thread(target=lambda: replies.append(ask(server, "worker", "sleep 2"))) for _ in range(2)]
        for thread in slow:
            thread.start()
        wait_until(lambda: waiting(server, "worker") == 1)  # the other one is in progress
        server.view.reload("worker")
        wait_for(server, "worker", new_process(before))
        for thread in slow:
            thread.join()
        assert [(reply.is_good, reply.text) for reply in replies] == [(True, str(before))] * 2
        wait_until(lambda: before not in {stub.pid for stub in stubs_of(server, "worker")})

    def test_a_hanging_process_has_to_be_ended(self, server: TritonServer) -> None:
        """The new process serves beside it; its own request ends with an error once it is killed."""
        before = int(ask(server, "worker").text)
        replies: list[Reply] = []
        hanging = threading.Thread(target=lambda: replies.append(ask(server, "worker", "loop")))
        hanging.start()
        wait_until(lambda: any(beat.pid == before and beat.busy_since_s for beat in server.beats()))
        server.view.reload("worker")
        wait_for(server, "worker", new_process(before), patience_s=2.0)  # the queue behind the hang does not move
        assert replies == []
        os.kill(before, signal.SIGKILL)
        hanging.join()
        assert replies[0].status == 500

    def test_every_instance_comes_back(self, server: TritonServer) -> None:
        """A reload replaces all instances of a model, of which one may be dead."""
        before = {stub.pid for stub in stubs_of(server, "many")}
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        server.view.reload("many")

        def are_new() -> bool:
            now = {stub.pid for stub in stubs_of(server, "many")}
            return len(now) == 2 and not now & before

        wait_until(are_new)
        assert all(ask(server, "many").is_good for _ in range(8))


@pytest.fixture(scope="module")
def failing_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model for each test to break, and one that stays well."""
    repository = tmp_path_factory.mktemp("failing") / "models"
    for name in ("broken", "hanging", "withdrawn", "other"):
        make_model(repository, name)
    return repository


@pytest.fixture(scope="module")
def failing(triton_server: Any, failing_folder: Path) -> TritonServer:
    running: TritonServer = triton_server(failing_folder, view=True, confinement=SandboxPolicy())
    return running


class TestFailingLoads:
    def test_the_old_process_serves_until_the_file_is_good_again(
        self, failing: TritonServer, failing_folder: Path
    ) -> None:
        """Triton keeps what it has and tries again at every poll, by itself."""
        entry = failing_folder / "broken" / "1" / "model.py"
        before = int(ask(failing, "broken").text)
        entry.write_text("raise RuntimeError('broken')")
        failing.view.reload("broken")
        wait_until(lambda: failures(failing, "broken") >= 2)
        assert ask(failing, "broken") == Reply(200, str(before))
        entry.write_text(MODEL)
        wait_for(failing, "broken", new_process(before))

    def test_a_load_that_hangs_holds_the_others_up_until_it_is_ended(
        self, failing: TritonServer, failing_folder: Path
    ) -> None:
        """Triton loads at one poll what is new and polls again when that is done: a limit of this mode."""
        entry = failing_folder / "hanging" / "1" / "model.py"
        entry.write_text(MODEL.replace("self.args = args", "print('LOADING', flush=True); time.sleep(600)"))
        before = stub_of(failing, "hanging").pid
        failing.view.reload("hanging")
        wait_until(lambda: "LOADING" in failing.log_text())  # to release 25.07 one that ends earlier is waited for
        (loading,) = {stub.pid for stub in stubs_of(failing, "hanging")} - {before}
        dead = kill(failing, "other")
        failing.view.reload("other")
        entry.write_text(MODEL)
        os.kill(loading, signal.SIGKILL)
        wait_for(failing, "other", new_process(dead))
        wait_for(failing, "hanging", new_process(before))

    def test_a_withdrawn_model_is_not_tried_again(self, failing: TritonServer, failing_folder: Path) -> None:
        """The stand-in loads, so that the attempts to load the broken file end."""
        (failing_folder / "withdrawn" / "1" / "model.py").write_text("raise RuntimeError('broken')")
        kill(failing, "withdrawn")
        failing.view.reload("withdrawn")
        wait_until(lambda: failures(failing, "withdrawn") > 0)
        failing.view.withdraw("withdrawn", "model 'withdrawn' is quarantined: it does not load")
        wait_for(failing, "withdrawn", lambda reply: reply.status == 503)
        found = failures(failing, "withdrawn")
        for _ in until(3.0):
            assert ask(failing, "other").is_good
        assert failures(failing, "withdrawn") == found

    def test_a_model_that_fails_at_the_start_leaves_the_others(self, triton_server: Any, tmp_path: Path) -> None:
        """It is named with its reason, and served once its file is good."""
        assert triton_server
        entry = make_model(tmp_path / "models", "broken", "raise RuntimeError('not today')")
        make_model(tmp_path / "models", "other")
        with pytest.raises(ServerStartError, match="not today"):
            TritonServer(tmp_path / "models", **VIEWED).start()
        with TritonServer(tmp_path / "models", **VIEWED, allow_failed_models=True) as server:
            assert "not today" in server.failed_models["broken"]
            assert ask(server, "other").is_good
            entry.write_text(MODEL)
            wait_for(server, "broken", lambda reply: reply.is_good)


class TestWithdraw:
    MESSAGE = "model 'X' is quarantined: it died 5 times in 60 s"

    @pytest.mark.parametrize(
        ("model", "more"),
        [
            ("worker", {}),
            ("many", {}),
            ("sequence", {"parameters": {"sequence_id": 7, "sequence_start": True, "sequence_end": True}}),
        ],
    )
    def test_every_request_is_told(self, server: TritonServer, model: str, more: dict[str, Any]) -> None:
        """UNAVAILABLE with the message, at once, until the model is restored."""
        server.view.withdraw(model, self.MESSAGE)
        wait_until(lambda: ask(server, model, **more).status == 503)
        assert ask(server, model, **more) == Reply(503, self.MESSAGE)
        assert server.view.withdrawn == {model: self.MESSAGE}
        server.view.restore(model)
        wait_until(lambda: ask(server, model, **more).is_good)
        assert server.view.withdrawn == {}

    def test_a_decoupled_model(self, server: TritonServer) -> None:
        """The error ends the stream, too."""
        import queue

        import numpy as np
        import tritonclient.grpc as client

        server.view.withdraw("streaming", self.MESSAGE)
        texts = ""
        for _ in until():
            answers: queue.Queue[Any] = queue.Queue()
            with client.InferenceServerClient(server.grpc_url) as connection:
                connection.start_stream(lambda result, error, kept=answers: kept.put(error))
                tensor = client.InferInput("MODE", [1], "BYTES")
                tensor.set_data_from_numpy(np.array([b"pid"], dtype=object))
                connection.async_stream_infer("streaming", [tensor])
                texts = str(answers.get(timeout=60))
                connection.stop_stream()
            if self.MESSAGE in texts:
                break
        assert self.MESSAGE in texts
        server.view.restore("streaming")

    def test_only_python_models(self, server: TritonServer) -> None:
        """An ensemble has no process to replace."""
        with pytest.raises(ValueError, match="Python backend"):
            server.view.withdraw("chain", self.MESSAGE)


@pytest.fixture(scope="module")
def refreshed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model; others come and go."""
    repository = tmp_path_factory.mktemp("refreshed") / "models"
    make_model(repository, "first")
    return repository


@pytest.fixture(scope="module")
def refreshed(triton_server: Any, refreshed_folder: Path) -> TritonServer:
    running: TritonServer = triton_server(refreshed_folder, view=True, confinement=SandboxPolicy())
    return running


class TestRefresh:
    def test_models_come_change_and_go(self, refreshed: TritonServer, refreshed_folder: Path) -> None:
        """Only when the owner says so, and each once."""
        assert refreshed.refresh() == type(refreshed.refresh())()
        make_model(refreshed_folder, "second")
        assert refreshed.refresh().added == ("second",)
        wait_for(refreshed, "second", lambda reply: reply.is_good)
        first = stub_of(refreshed, "first").pid
        entry = refreshed_folder / "second" / "1" / "model.py"
        entry.write_text(MODEL.replace("return os.getpid()", "return 0"))
        assert refreshed.refresh().changed == ("second",)
        wait_for(refreshed, "second", lambda reply: reply.text == "0")
        shutil.copytree(refreshed_folder / "second" / "1", refreshed_folder / "second" / "2")
        assert refreshed.refresh().changed == ("second",)

        def ready() -> set[str]:
            return {row.version for row in refreshed.models() if row.name == "second" and row.state == "READY"}

        wait_until(lambda: ready() == {"2"})
        assert ask(refreshed, "second").is_good
        shutil.rmtree(refreshed_folder / "second")
        assert refreshed.refresh().removed == ("second",)
        wait_until(lambda: not stubs_of(refreshed, "second"))
        assert stub_of(refreshed, "first").pid == first

    def test_what_is_refused_changes_nothing(self, refreshed: TritonServer, refreshed_folder: Path) -> None:
        """A file that would run in the server is refused; everything serves on."""
        make_model(refreshed_folder, "third")
        (refreshed_folder / "third" / "triton_python_backend_stub").touch()
        with pytest.raises(ServerStartError, match="would run in the launcher's place"):
            refreshed.refresh()
        assert refreshed.view.models == ("first",)
        assert ask(refreshed, "first").is_good


class TestModelControl:
    def test_clients_cannot_load(self, server: TritonServer) -> None:
        """Triton refuses explicit loads and unloads while it polls."""
        for call in ("load", "unload"):
            connection = http.client.HTTPConnection(server.http_url, timeout=60)
            connection.request("POST", f"/v2/repository/models/worker/{call}", "{}")
            answer = connection.getresponse()
            assert (answer.status, b"not allowed if polling is enabled" in answer.read()) == (503, True)
            connection.close()

    @pytest.mark.parametrize(
        "call",
        [
            'pb_utils.load_model("other")',
            'pb_utils.load_model(model_name="other", files={"file:1/model.py": b""}, config="{}")',
            'pb_utils.unload_model("other")',
            'pb_utils.is_model_ready("other", "x")',
            '__import__("c_python_backend_utils").load_model("other")',
        ],
    )
    def test_models_neither_load_nor_end_the_server(self, server: TritonServer, call: str) -> None:
        """On bare Triton most of these end tritonserver within a few calls."""
        before = ask(server, "other").text
        for _ in range(6):
            assert ask(server, "worker", f"evaluate {call}").text.startswith("TritonModelException: pb_utils.")
        assert ask(server, "other").text == before

    @pytest.mark.parametrize(
        "call",
        [
            'family("one", "COUNTER").Metric(labels={}).increment(-1)',
            'family("one", "COUNTER").Metric(labels={}).increment(float("nan"))',
            'family("one", "COUNTER").Metric(labels={}).set(1)',
            'family("one", "COUNTER").Metric(labels={}).observe(1)',
            'family("two", "GAUGE").Metric(labels={}).observe(1)',
            'family("three", "HISTOGRAM").Metric(labels={}, buckets=[1.0]).increment(1)',
            'family("three", "HISTOGRAM").Metric(labels={}, buckets=[1.0]).set(1)',
            'family("three", "HISTOGRAM").Metric(labels={}, buckets=[1.0]).value()',
            'family("three", "HISTOGRAM").Metric(labels={"x": "y"}, buckets=[2.0, 1.0])',
            'family("three", "HISTOGRAM").Metric(labels={"le": "y"}, buckets=[1.0])',
            'family("one", "COUNTER").Metric(labels={"no label!": "y"})',
            'family("one", "COUNTER").Metric(labels={"__reserved": "y"})',
            'family("no name!", "COUNTER")',
            'family("", "COUNTER")',
            '(family("one", "COUNTER"), family("one", "GAUGE"))',
        ],
    )
    def test_refused_metric_calls_end_in_the_model(self, server: TritonServer, call: str) -> None:
        """On bare Triton most of these end tritonserver within a few calls."""
        family = (
            "(lambda family: {})(lambda name, kind: ANSWERS[name, kind] if (name, kind) in ANSWERS "
            "else ANSWERS.setdefault((name, kind), pb_utils.MetricFamily(name=name, description='d', "
            "kind=getattr(pb_utils.MetricFamily, kind))))"
        )
        for _ in range(6):
            text = ask(server, "worker", f"evaluate {family.format(call)}").text
            assert text.startswith("TritonModelException: Metric")
        assert ask(server, "other").is_good

    def test_the_view_is_not_writable(self, server: TritonServer) -> None:
        """The kernel holds the model: it cannot touch an entry file, nor read the launch table."""
        entry = server.view.path / "other" / "1" / "model.py"
        for call in (f'open("{entry}", "a")', f'os.utime("{entry}")', f'open("{entry}")'):
            assert ask(server, "worker", f"evaluate {call}").text.startswith("PermissionError")


def test_no_region_is_left(triton_server: Any, tmp_path: Path) -> None:
    """After the end of a server whose models died and were reloaded, nothing of it is in ``/dev/shm``."""
    assert triton_server
    make_model(tmp_path / "models", "worker")
    with TritonServer(tmp_path / "models", **VIEWED) as server:
        prefix = server.region_prefix
        dead = kill(server, "worker")
        server.view.reload("worker")
        wait_for(server, "worker", new_process(dead))
    assert list(SHARED_MEMORY.glob(f"{prefix}*")) == []
