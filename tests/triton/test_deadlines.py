"""Deadlines on the real server: whom they stop and when, whom they leave alone, and what the neighbours notice."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from safe_triton.errors import ModelLoadError
from safe_triton.runtime.deadline import END_SIGNAL, EXIT_STATUS, SLACK_S, TICK_S
from safe_triton.server import TritonServer
from tests.conformance.sides import Real
from tests.triton.stubs import LogMark, exit_status, has_ended, stub_of, stubs_of, wait_until
from tests.triton.test_models.asking import Asker, Reply

REPOSITORY = Path(__file__).parent / "deadlines_repository"
SOFT_S, HARD_S = 1.0, 2.0
"""As in the repository's models."""

LATE_S = 60.0
"""How much later than its deadline a call may end on a busy machine; left alone, it would take five minutes."""

X = {"X": np.array([[3]], np.float32)}
SERVING = ("calls", "neighbour", "swallowing", "holding", "quiet", "awaits", "steady")
DYING = {"swallowing": "swallow", "awaits": "swallow", "holding": "hold"}
LOADING = {"loads_sleeping": "sleep", "loads_swallowing": "swallow", "loads_holding": "hold"}


@dataclass
class Running:
    """The server, a client of it, and when its models were ready."""

    server: TritonServer
    ask: Asker
    since: float

    def ask_later(self, model: str, **parameters: Any) -> Future[Reply]:
        """Ask without waiting."""
        answered: Future[Reply] = Future()
        threading.Thread(target=lambda: answered.set_result(self.ask(model, X, **parameters)), daemon=True).start()
        return answered

    def check_answers(self, model: str) -> None:
        """Fail unless a model answers, within its deadline."""
        assert self.ask(model, X).outputs["Y"].tolist() == [[6]]


@pytest.fixture(scope="module")
def running(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose models can be killed; those that fail to load are not loaded yet."""
    repository = tmp_path_factory.mktemp("deadlines")
    for name in SERVING:
        shutil.copytree(REPOSITORY / (name if name in {"awaits", "steady"} else "calls"), repository / name)
    for name, how in LOADING.items():
        folder = shutil.copytree(REPOSITORY / "calls", repository / name)
        with (folder / "config.pbtxt").open("a", encoding="utf-8") as config:
            config.write(f'parameters {{ key: "load" value: {{ string_value: "{how}" }} }}\n')
    server = triton_server(repository, load=SERVING, stop_timeout_s=1.0)
    ask = Asker(server, "grpc")
    yield Running(server, ask, time.monotonic())
    ask.close()
    server.stop()  # here, so that its time is this module's


@dataclass(frozen=True)
class Death:
    """What became of a call that does not come back: how its process ended, after how long, and what a client saw."""

    status: int | None
    took_s: float
    code: str
    text: str


def die_serving(running: Running, model: str, how: str) -> Death:
    """Let a model's process run into its hard deadline."""
    process = stub_of(running.server, model)
    reply = running.ask_later(model, do=how)
    took_s = wait_until(lambda: has_ended(process))
    status = exit_status(process)
    answer = reply.result(timeout=LATE_S)
    return Death(status, took_s, answer.code, answer.message)


def die_loading(running: Running, model: str) -> Death:
    """Load a model that runs into its deadline; its process may be collected before anybody looks at it."""
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load, running, model)
        found: list[psutil.Process] = []
        while not found and not loading.done():
            found = stubs_of(running.server, model)
        status = None
        while found and status is None and not loading.done():
            status = exit_status(found[0]) if has_ended(found[0]) else None
            time.sleep(0.01)
        return Death(status, time.monotonic() - began, "", loading.result())


def load(running: Running, model: str) -> str:
    """Load a model that fails: the error's text as the load API's client sees it."""
    with pytest.raises(ModelLoadError) as raised:
        running.server.load_model(model, timeout_s=HARD_S + LATE_S)
    return str(raised.value.message)


@pytest.fixture(scope="module")
def deaths(running: Running) -> dict[str, Death]:
    """Calls that do not come back, all at the same time, while a neighbour is asked again and again."""
    with ThreadPoolExecutor(8) as pool:
        ends = {model: pool.submit(die_serving, running, model, how) for model, how in DYING.items()}
        ends |= {model: pool.submit(die_loading, running, model) for model in LOADING}
        while not all(end.done() for end in ends.values()):
            running.check_answers("neighbour")
        return {model: end.result() for model, end in ends.items()}


class TestSoft:
    """The soft deadline interrupts Python code and leaves the model ready for the next request."""

    @pytest.mark.parametrize("how", ["sleep", "loop", "swallow_once"])
    def test_is_interrupted_in_time(self, running: Running, how: str) -> None:
        """Code that sleeps, computes or swallows the first interrupt is answered for soon after its deadline."""
        pid = stub_of(running.server, "calls").pid
        began = time.monotonic()
        reply = running.ask("calls", X, do=how)
        assert SOFT_S <= time.monotonic() - began < SOFT_S + LATE_S
        assert (reply.code, reply.message) == (
            "UNAVAILABLE",
            "deadline.exceeded: the model did not answer within 1000 ms",
        )
        running.check_answers("calls")
        assert stub_of(running.server, "calls").pid == pid


class TestHard:
    """The hard deadline ends the process of code that does not come back, and of nobody else."""

    @pytest.mark.parametrize("model", ["swallowing", "awaits"])
    def test_code_that_swallows_everything(self, running: Running, deaths: dict[str, Death], model: str) -> None:
        """Python code that survives each interrupt, or a cancellation, is ended by the watchdog, with a line that says so."""
        death = deaths[model]
        assert death.status == EXIT_STATUS
        assert HARD_S <= death.took_s < HARD_S + LATE_S
        assert death.code == "INTERNAL"
        assert "/" not in death.text
        line = LogMark(running.server, start=0).wait_for(reason="deadline.hard", model=model)
        assert (line["level"], line["allowed_ms"]) == ("error", 2000)
        assert 2000 <= line["elapsed_ms"] < 2000 + LATE_S * 1000

    def test_code_that_holds_the_interpreters_lock(self, deaths: dict[str, Death]) -> None:
        """A call in C that keeps the GIL stops every thread of the process; the kernel's timer ends it."""
        death = deaths["holding"]
        assert death.status == -END_SIGNAL
        assert HARD_S <= death.took_s < HARD_S + LATE_S
        assert death.code == "INTERNAL"
        assert "/" not in death.text

    @pytest.mark.usefixtures("deaths")
    def test_the_server_and_the_other_models_go_on(self, running: Running) -> None:
        """After these deaths the rest of the server is as before."""
        assert running.server.is_alive()
        for model in ("calls", "neighbour"):
            running.check_answers(model)


class TestLeftAlone:
    """A process whose calls each end in time is never ended, however long it has lived."""

    def test_calls_back_to_back(self, running: Running) -> None:
        """Each below the deadline, together far above it: nothing happens, with the GIL held all the time or not.

        One model gets a batch that holds the GIL, another one that sleeps.
        """
        processes = [stub_of(running.server, model) for model in ("calls", "neighbour")]
        asked = [("calls", "hold")] * 12 + [("neighbour", "sleep")] * 12
        began = time.monotonic()
        with ThreadPoolExecutor(24) as pool:
            replies = list(pool.map(lambda one: running.ask(one[0], X, do=one[1], seconds=0.4), asked))
        took_s = time.monotonic() - began
        assert [reply.code for reply in replies] == ["OK"] * 24
        assert took_s > HARD_S + TICK_S + SLACK_S, "too short: the timer of the first call would not have fired"
        assert not any(has_ended(process) for process in processes)

    def test_a_wrapped_stream_that_answers_on(self, running: Running) -> None:
        """Each response gives the original's ``execute`` its time again, however long all of them take."""
        process = stub_of(running.server, "steady")
        count = round((HARD_S + TICK_S + SLACK_S) / 0.2) + 2
        with contextlib.closing(Real(running.server.grpc_url)) as client:
            seen = client.ask("steady", {"COUNT": np.array([count], np.int32)})
        assert (seen.error, seen.hangs, len(seen.responses)) == ("", False, count)
        assert not has_ended(process)

    def test_stopped_and_continued(self, running: Running) -> None:
        """A process that was stopped for a while, inside and outside a call, lives on when it continues in time."""
        process = stub_of(running.server, "calls")
        for asks in (False, True):
            reply = running.ask_later("calls", do="sleep", seconds=0.1) if asks else None
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.3)
            process.send_signal(signal.SIGCONT)
            if reply is not None:
                assert reply.result(timeout=LATE_S).code == "OK"
        running.check_answers("calls")
        assert not has_ended(process)

    def test_idle_for_longer_than_every_deadline(self, running: Running) -> None:
        """A model without requests lives on, and its first call then has its whole time, also with the GIL held."""
        process = stub_of(running.server, "quiet")
        time.sleep(max(0.0, running.since + 2 * HARD_S + TICK_S + SLACK_S - time.monotonic()))
        assert not has_ended(process)
        assert running.ask("quiet", X, do="hold", seconds=0.3).code == "OK"
        assert stub_of(running.server, "quiet").pid == process.pid


class TestLoad:
    """A ``load()`` that does not come back fails within its deadline, and the rest of the server goes on."""

    def test_python_code(self, deaths: dict[str, Death]) -> None:
        """The interrupt ends it with one clear line."""
        death = deaths["loads_sleeping"]
        assert "load.deadline: load() did not return within 1000 ms" in death.text
        assert SOFT_S <= death.took_s < SOFT_S + LATE_S

    @pytest.mark.parametrize(("model", "status"), [("loads_swallowing", EXIT_STATUS), ("loads_holding", -END_SIGNAL)])
    def test_code_that_does_not_come_back(self, deaths: dict[str, Death], model: str, status: int) -> None:
        """The process ends, the load fails, and the neighbours are answered meanwhile."""
        death = deaths[model]
        assert death.status in (status, None)
        assert HARD_S <= death.took_s < HARD_S + LATE_S
        assert str(REPOSITORY.parents[2]) not in death.text
