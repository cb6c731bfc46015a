"""Counters on Triton's own /metrics: what is counted, that instances add up, and what a request never costs."""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_triton.runtime.metrics import FLUSH_INTERVAL_S
from safe_triton.server import TritonServer
from tests.triton.stubs import LogMark, stubs_of, until, wait_until
from tests.triton.test_models.asking import Asker

LINE = re.compile(r"^safe_triton_(?P<name>\w+)\{(?P<labels>[^}]*)\} (?P<value>\S+)$", re.MULTILINE)

Labels = tuple[tuple[str, str], ...]
Counters = dict[tuple[str, Labels], float]


def ones(rows: int = 1) -> dict[str, Any]:
    return {"X": np.ones((rows, 1), np.float32)}


def series(server: TritonServer, model: str) -> list[tuple[str, dict[str, str], float]]:
    """Name, labels and value of each of this package's counters of one model; the model's own label is left out."""
    host, _, port = server.metrics_url.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    found = []
    for match in LINE.finditer(text):
        labels = dict(pair.split("=", 1) for pair in match["labels"].replace('"', "").split(","))
        if labels.pop("model") == model:
            found.append((match["name"], labels, float(match["value"])))
    return found


def counters(server: TritonServer, model: str) -> Counters:
    """The same by name and labels, summed over the model's instances and processes."""
    found: Counters = {}
    for name, labels, value in series(server, model):
        assert labels.pop("instance").startswith(f"{model}_")
        assert labels.pop("process").isdecimal()
        key = name, tuple(sorted(labels.items()))
        found[key] = found.get(key, 0) + value
    return found


def key(name: str, **labels: str) -> tuple[str, Labels]:
    return name, tuple(sorted({"version": "1", **labels}.items()))


def outcomes(found: Counters) -> dict[str, float]:
    """Requests by outcome."""
    return {dict(labels)["outcome"]: value for (name, labels), value in found.items() if name == "requests_total"}


def wait_for(server: TritonServer, model: str, condition: Callable[[Counters], bool]) -> Counters:
    """The counters, as soon as they are as expected."""
    found: Counters = {}
    for _ in until(pause_s=0.1):
        found = counters(server, model)
        if condition(found):
            return found
    raise AssertionError(f"never as expected: {found}")


@pytest.fixture
def ask(observed: TritonServer) -> Iterator[Asker]:
    """A client."""
    asker = Asker(observed, "grpc")
    yield asker
    asker.close()


def gained(before: Mapping[Any, float], after: Mapping[Any, float]) -> dict[Any, float]:
    """What has grown."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


class TestCounters:
    """Every request is counted once, under its outcome, whichever instance answered it."""

    def test_outcomes_reasons_and_seconds(self, observed: TritonServer, ask: Asker) -> None:
        """Two instances add up to what the clients saw, exactly."""
        before = counters(observed, "counted")
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: ask("counted", ones(), seconds=0.05), range(16)))
        assert {str(reply.outputs["INSTANCE"][0, 0], "utf-8") for reply in replies} == {"counted_0_0", "counted_0_1"}
        for how, code, times in (("raise", "INTERNAL", 2), ("answer", "NOT_FOUND", 3)):
            assert [ask("counted", ones(), do=how).code for _ in range(times)] == [code] * times
        assert ask("counted", ones(), seconds=60.0).code == "UNAVAILABLE"
        refused = [{"X": np.full((1, 1), np.nan, np.float32)}] * 4 + [ones(5)] * 3
        assert {ask("counted", inputs).code for inputs in refused} == {"INVALID_ARG"}
        expected = {
            key("requests_total", outcome="ok"): 16,
            key("requests_total", outcome="failed"): 2,
            key("requests_total", outcome="answered"): 3,
            key("requests_total", outcome="deadline"): 1,
            key("requests_total", outcome="refused"): 7,
            key("refusals_total", reason="content.not_finite"): 4,
            key("refusals_total", reason="limit.batch_size"): 3,
        }

        def is_expected(found: Counters) -> bool:
            counts = gained(before, found)
            return {name: counts.get(name) for name in expected} == expected

        counts = gained(before, wait_for(observed, "counted", is_expected))
        seconds = {name: counts.pop(key(f"{name}_seconds_total")) for name in ("execution", "guard")}
        assert counts == expected
        # 16 calls of 50 ms and one that was interrupted at 1.5 s.
        assert 16 * 0.05 + 1.5 <= seconds["execution"] < 10 * (16 * 0.05 + 1.5)
        assert 0 < seconds["guard"] < seconds["execution"]

    def test_no_call_to_triton_per_request(self, observed: TritonServer, ask: Asker) -> None:
        """Hundreds of requests cost as few calls as the flushes of that time have counters."""
        began = time.monotonic()
        before = int(ask("counting", ones()).outputs["CALLS"][0, 0])
        calls = 0

        def are_flushed() -> bool:
            nonlocal calls
            calls = int(ask("counting", ones()).outputs["CALLS"][0, 0]) - before
            return calls > 0

        for _ in range(400):
            assert ask("counting", {"X": np.ones((1, 1), np.float64)}).code == "INVALID_ARG"
            assert ask("counting", ones()).code == "OK"
        wait_until(are_flushed)
        flushes = (time.monotonic() - began) / FLUSH_INTERVAL_S + 1
        counted = len(counters(observed, "counting"))
        assert calls <= flushes * counted


class TestReload:
    """Each process has counters of its own, from zero, and they go with it."""

    def touch(self, repository: Path) -> None:
        """Make Triton load the model again: it compares the files' times."""
        os.utime(repository / "counted" / "1" / "model.py")

    def test_touched_and_loaded_again(self, observed: TritonServer, observed_repository: Path, ask: Asker) -> None:
        """New processes beside the old ones' end count exactly what they answered."""
        assert [ask("counted", ones()).code for _ in range(5)] == ["OK"] * 5
        wait_for(observed, "counted", lambda found: outcomes(found).get("ok", 0) >= 5)
        self.touch(observed_repository)
        observed.load_model("counted")
        assert [ask("counted", ones()).code for _ in range(3)] == ["OK"] * 3
        wait_for(observed, "counted", lambda found: outcomes(found).get("ok") == 3)

    def test_unloaded_and_loaded_again(self, observed: TritonServer, ask: Asker) -> None:
        """An unloaded model has no counters; the next process begins anew."""
        assert ask("counting", ones()).code == "OK"
        observed.unload_model("counting")
        wait_for(observed, "counting", lambda found: found == {})
        observed.load_model("counting")
        assert ask("counting", ones()).code == "OK"
        wait_for(observed, "counting", lambda found: outcomes(found).get("ok") == 1)

    def test_reloads_under_traffic(self, observed: TritonServer, observed_repository: Path, ask: Asker) -> None:
        """Old and new processes never share a counter: the first to end would free it, and the server stops for good."""
        stopped = threading.Event()

        def traffic() -> None:
            while not stopped.wait(0.005):
                ask("counted", ones())

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(traffic)
            try:
                for _ in range(3):
                    self.touch(observed_repository)
                    observed.load_model("counted")
                    time.sleep(FLUSH_INTERVAL_S)  # old and new processes flush side by side
                    counters(observed, "counted")
            finally:
                stopped.set()
            running.result()

        def are_gone() -> bool:
            now = {str(process.pid) for process in stubs_of(observed, "counted")}
            return len(now) == 2 and {labels["process"] for _, labels, _ in series(observed, "counted")} <= now

        wait_until(are_gone)  # the old processes, and their counters with them
        assert ask("counted", ones(), do="answer").code == "NOT_FOUND"
        wait_for(observed, "counted", lambda found: outcomes(found).get("answered") == 1)
        assert observed.is_alive()


class TestSwitchedOff:
    """A server without metrics serves guarded models."""

    def test_the_model_serves(self, triton_server: Any, observed_repository: Path) -> None:
        """Requests are answered beyond several flushes, nothing is exported, and the log has no failure of metrics."""
        server = triton_server(observed_repository, load=("failing",), arguments=("--allow-metrics=false",))
        ask = Asker(server, "grpc")
        mark = LogMark(server, start=0)
        try:
            assert ask("failing", ones()).code == "OK"
            time.sleep(FLUSH_INTERVAL_S + 0.2)
            assert ask("failing", ones()).code == "OK"
        finally:
            ask.close()
            server.stop()
        assert {line["level"] for line in mark.lines()} == {"info"}
