"""From what was raised to one answer, one count and, where it is the model's fault, one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from safe_triton import errors
from safe_triton.runtime import outcome
from safe_triton.runtime._pb import Backend
from safe_triton.runtime.deadline import Watchdog
from safe_triton.runtime.outcome import Outcomes
from safe_triton.runtime.stats import Stats
from tests.unit.runtime.backends import Lines, fake_backend, kept_logger

FAILED = r"model failed \(id ([0-9a-f]{16})\)"


class Setup:
    """Outcomes with their counters and their log."""

    def __init__(self, lines: Lines, logger: Any) -> None:
        self.backend: Backend = fake_backend()
        self.stats = Stats()
        self.lines = lines
        self.watchdog = Watchdog(logger, ends_process=False)
        self.outcomes = Outcomes(self.backend, logger, self.stats, 0.3, self.watchdog)

    def answer(self, error: BaseException) -> tuple[str, str]:
        """Text and code of the answer to what was raised."""
        try:
            raise error
        except BaseException as caught:
            response = self.outcomes.answer(caught)
        return response.error().message(), response.error().code().name

    @property
    def counts(self) -> dict[str, int]:
        """The outcomes that were counted."""
        return {name: count for name, count in self.stats.outcomes.items() if count}


@pytest.fixture
def made() -> Iterator[Setup]:
    """Outcomes over the public stand-in of Triton's module."""
    with kept_logger(model="m") as (logger, lines):
        setup = Setup(lines, logger)
        yield setup
        setup.watchdog.stop()


class TestAnswers:
    """Each kind of error has its text, its code, its counter; only the model's own reach the log."""

    @pytest.mark.parametrize(
        ("error", "text", "code", "counted"),
        [
            (
                errors.LimitExceededError("limit.batch_size", 9, 8, "inputs['X'].shape[0]"),
                r"limit\.batch_size: 9 > 8 at inputs\['X'\]\.shape\[0\]",
                "INVALID_ARG",
                "refused",
            ),
            (
                errors.ContentError("content.utf8: no", reason="content.utf8"),
                "content.utf8: no",
                "INVALID_ARG",
                "refused",
            ),
            (errors.ModelError("not in /srv/users", code="NOT_FOUND"), "not in <path>", "NOT_FOUND", "answered"),
            (errors.ModelError(7), "7", "INVALID_ARG", "answered"),  # type: ignore[arg-type]
        ],
        ids=["limit", "content", "model error", "a number"],
    )
    def test_meant_for_the_client(self, made: Setup, error: Exception, text: str, code: str, counted: str) -> None:
        """What is meant for the client reaches it and is counted, and a client cannot fill the log with it."""
        said, said_code = made.answer(error)
        assert re.fullmatch(text, said), said
        assert (said_code, made.counts) == (code, {counted: 1})
        assert made.lines.text == ""

    def test_refusals_are_counted_by_reason(self, made: Setup) -> None:
        """Each reason slug has its own counter."""
        for reason in ("input.dtype", "input.rank", "input.dtype"):
            made.answer(errors.SignatureError("no", reason=reason))
        assert made.stats.refusals == {"input.dtype": 2, "input.rank": 1}

    def test_tritons_own_exception(self, made: Setup) -> None:
        """A ``TritonModelException`` is the author's answer too."""
        assert made.answer(made.backend.TritonModelException("see /srv/x")) == ("see <path>", "INTERNAL")
        assert made.counts == {"answered": 1}

    @pytest.mark.parametrize("error", [errors.DeadlineExceeded(), errors.DeadlineExceededError("x")])
    def test_a_deadline(self, made: Setup, error: BaseException) -> None:
        """The client learns the limit; the log has where the code was."""
        assert made.answer(error) == ("deadline.exceeded: the model did not answer within 300 ms", "UNAVAILABLE")
        assert made.counts == {"deadline": 1}
        assert [line["reason"] for line in made.lines.parsed] == ["deadline.exceeded"]

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ValueError("password=hunter2"), "model.failed"),
            (SystemExit(3), "model.failed"),
            (KeyboardInterrupt(), "model.failed"),
            (GeneratorExit(), "model.failed"),
            (RecursionError("deep"), "model.failed"),
            (MemoryError(), "model.failed"),
            (errors.OutputError("output.dtype: FP64, expected FP32", reason="output.dtype"), "output.dtype"),
            (errors.PathError("path.parent: no", reason="path.parent"), "model.failed"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
    )
    def test_the_models_failure(self, made: Setup, error: BaseException, reason: str) -> None:
        """A client sees an id; the log has the traceback under it."""
        said, code = made.answer(error)
        found = re.fullmatch(FAILED, said)
        assert found, said
        assert (code, made.counts) == ("INTERNAL", {"failed": 1})
        (line,) = made.lines.parsed
        assert (line["error_id"], line["reason"]) == (found[1], reason)
        assert line["traceback"].startswith("Traceback")

    def test_ids_differ(self, made: Setup) -> None:
        """Two failures never share an id."""
        assert len({made.answer(ValueError())[0] for _ in range(50)}) == 50


def out_of_memory(*_: Any, **__: Any) -> NoReturn:
    raise MemoryError


class TestLastResort:
    """An error while answering is answered too, and counted once."""

    ERRORS = (
        ValueError("x"),
        errors.SignatureError("no", reason="input.rank"),
        errors.ModelError("no"),
        errors.DeadlineExceeded(),
    )

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    def test_no_memory_for_an_answer(self, made: Setup, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
        """The answer that was made at the start is given."""
        monkeypatch.setattr(made.outcomes, "response", out_of_memory)
        assert made.answer(error) == ("model failed", "INTERNAL")
        assert made.counts == {"failed": 1}

    @pytest.mark.parametrize(("step", "text"), [("new_error_id", "model failed"), ("log_failure", FAILED)])
    def test_no_memory_for_a_line(self, made: Setup, step: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither id nor line is needed for an answer."""
        monkeypatch.setattr(outcome, step, out_of_memory)
        assert re.fullmatch(text, made.answer(ValueError("x"))[0])
        assert made.counts == {"failed": 1}

    def test_an_exception_that_resists_every_question(self, made: Setup) -> None:
        """``isinstance`` itself raises, and the client is answered."""
        poisoned = type("PoisonedError", (Exception,), {"__class__": property(out_of_memory)})
        assert re.fullmatch(FAILED, made.answer(poisoned())[0])
        assert made.counts == {"failed": 1}

    def test_no_two_requests_share_an_answer(self, made: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
        """One error response for two requests of a batch would crash tritonserver."""
        monkeypatch.setattr(made.outcomes, "response", out_of_memory)
        given = [made.outcomes.answer(ValueError()) for _ in range(32)]
        assert len({id(response) for response in given}) == 32

    def test_a_failing_handler_is_not_the_requests_problem(self, made: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
        """A log that cannot be written costs the line, not the answer's id."""
        monkeypatch.setattr(json, "dumps", out_of_memory)
        monkeypatch.setattr("logging.raiseExceptions", False)
        assert re.fullmatch(FAILED, made.answer(ValueError("x"))[0])
