"""The server's log: JSON lines under the id that the client saw, whatever is raised, and none that a client can force."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from safe_triton.runtime.log import MAX_TEXT_CHARACTERS
from safe_triton.server import TritonServer
from tests.triton.stubs import LogMark
from tests.triton.test_models.asking import Asker

FAILED = re.compile(r"model failed \(id ([0-9a-f]{16})\)")
X = {"X": np.ones((1, 1), np.float32)}


@pytest.fixture
def ask(observed: TritonServer) -> Iterator[Asker]:
    """A client."""
    asker = Asker(observed, "grpc")
    yield asker
    asker.close()


@pytest.fixture
def mark(observed: TritonServer) -> LogMark:
    """The end of the log before the test."""
    return LogMark(observed)


class TestFailures:
    """A failure is one line with everything; the client has its id and nothing else."""

    def test_the_clients_id_finds_the_traceback(self, ask: Asker, mark: LogMark) -> None:
        """Text, file and line of what was raised are in the log under the id, and not at the client."""
        reply = ask("failing", X, do="secret")
        found = FAILED.fullmatch(reply.message)
        assert (reply.code, found is not None) == ("INTERNAL", True)
        assert found is not None
        line = mark.wait_for(error_id=found[1])
        assert (line["level"], line["model"], line["version"], line["instance"], line["reason"]) == (
            "error",
            "failing",
            "1",
            "failing_0_0",
            "model.failed",
        )
        assert "ValueError: password=hunter2 in /srv/models/weights.bin" in line["traceback"]
        assert re.search(r'failing/1/model\.py", line \d+, in infer', line["traceback"])

    @pytest.mark.parametrize("how", ["text", "module", "syntax", "lines", "long"])
    def test_poisoned_exceptions(self, ask: Asker, mark: LogMark, how: str) -> None:
        """An exception that resists printing, forges lines or is megabytes long is one bounded line with its id."""
        found = FAILED.fullmatch(ask("failing", X, do=how).message)
        assert found is not None
        mark.wait_for(error_id=found[1])
        (line,) = mark.lines()
        assert (line["error_id"], line["reason"]) == (found[1], "model.failed")
        assert len(mark.text) < 3 * MAX_TEXT_CHARACTERS
        assert "Logging error" not in mark.text

    def test_an_exception_that_resists_every_question(self, observed: TritonServer, ask: Asker, mark: LogMark) -> None:
        """Even ``isinstance`` raises: each request of the batch has an answer and a line, and the model goes on."""
        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(lambda _: ask("failing", X, do="class"), range(4)))
        ids = {found[1] for reply in replies if (found := FAILED.fullmatch(reply.message))}
        assert len(ids) == 4
        for error_id in ids:
            mark.wait_for(error_id=error_id, exception="PoisonedError")
        assert ask("failing", X).code == "OK"
        assert observed.is_alive()

    def test_the_authors_own_lines(self, ask: Asker, mark: LogMark) -> None:
        """``context.logger`` writes lines with the model's identity and the author's fields."""
        assert ask("failing", X, do="author").code == "OK"
        line = mark.wait_for(message="asked")
        assert (line["level"], line["model"], line["instance"], line["length"]) == ("info", "failing", "failing_0_0", 1)


class TestRefusals:
    """A client cannot fill the log with requests that are refused."""

    def test_no_line(self, ask: Asker, mark: LogMark) -> None:
        """A hundred refusals leave nothing in the log, neither this package's nor Triton's."""
        too_long = {"X": np.ones((1, 9), np.float32)}
        requests: list[tuple[dict[str, Any], dict[str, str]]] = [(too_long, {}), (X, {"p" * 5000: "x"})] * 50
        with ThreadPoolExecutor(20) as pool:
            refused = list(pool.map(lambda one: ask("failing", one[0], **one[1]), requests))
        assert {reply.code for reply in refused} == {"INVALID_ARG"}
        assert {reply.message.partition(":")[0] for reply in refused} == {
            "limit.sequence_length",
            "limit.parameter_bytes",
        }
        assert mark.text == ""


class TestLoading:
    """What weakens a model's protection is written down when it loads."""

    def test_tokens_and_reasons(self, observed: TritonServer) -> None:
        """Each limit that was taken away is a warning with its place and the author's reason."""
        lines = LogMark(observed, start=0).lines(model="loosened", level="warning")
        taken: dict[str, Any] = {line["limit"]: (line["token"], line["reason_given"]) for line in lines}
        assert taken == {
            "max_request_bytes": ("Unlimited", "the gateway refuses more than 1 GiB"),
            "inputs['X'].max_bytes": ("Unlimited", "one large table"),
        }

    def test_what_holds(self, observed: TritonServer) -> None:
        """One line names the deadlines and the batch that hold for a model."""
        (line,) = LogMark(observed, start=0).lines(model="failing", message="model is guarded")
        assert (line["deadline_ms"], line["hard_deadline_ms"], line["max_batch_rows"]) == (30_000, 35_000, 8)
