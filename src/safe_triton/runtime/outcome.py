"""From whatever was raised to the one answer a client gets, the counter it adds to, and the line in the log."""

from __future__ import annotations

import logging
import os
from typing import Any

from safe_triton._text import client_text
from safe_triton.errors import (
    BlsDeadlineError,
    BlsError,
    DeadlineExceeded,
    DeadlineExceededError,
    ModelError,
    OutputError,
    RequestError,
)
from safe_triton.runtime._pb import Backend
from safe_triton.runtime.deadline import Watchdog
from safe_triton.runtime.log import ModelLogger
from safe_triton.runtime.stats import Stats

FILLER = "sequence.id"
"""Reason of what is answered and not counted: a request without a correlation id, which Triton refuses to clients.

Its direct sequence batcher fills the places of silent sequences in a batch with such requests of its own.
"""

SPARE_RESPONSES = 64
"""Error responses that exist before memory runs out."""


class Outcomes:
    """Turns errors into responses. Never raises: an error while answering is answered too.

    Args:
        backend: Triton's Python backend.
        logger: gets the details under the error id.
        stats: counts every outcome.
        deadline_s: soft deadline, named in the answer when it has passed.
        watchdog: deadlines hold here too, since an exception's own text is the author's code.
    """

    def __init__(
        self, backend: Backend, logger: ModelLogger, stats: Stats, deadline_s: float, watchdog: Watchdog
    ) -> None:
        self._backend = backend
        self._logger = logger
        self._stats = stats
        self._deadline_text = f"deadline.exceeded: the model did not answer within {deadline_s * 1000:.0f} ms"
        self._watchdog = watchdog
        # Made now, so that they exist when memory has run out. Several, because tritonserver 2.51.0 crashes when two
        # requests of a batch share one error response.
        self._spare = [self.response("model failed", "INTERNAL") for _ in range(SPARE_RESPONSES)]

    def response(self, message: str, code: str) -> Any:
        """Return an error response."""
        backend = self._backend
        return backend.InferenceResponse(
            error=backend.TritonError(message, backend.codes.get(code, backend.codes["INTERNAL"]))
        )

    def answer(self, error: BaseException) -> Any:
        """Return the error response for what was raised while one request was handled; count and log it."""
        try:
            outcome, reason, response = self._watchdog.run(self._answer, error)
            if reason != FILLER:
                self._stats.count(outcome, reason)
            return response
        except BaseException:  # memory, recursion, an interrupt: the request is answered all the same
            self._stats.outcomes["failed"] += 1
            return self._answer_plainly(error)

    def _answer_plainly(self, error: BaseException) -> Any:
        try:
            error_id = new_error_id()
            fields = {"error_id": error_id, "reason": "model.failed", "exception": type(error).__name__}
            self._logger.error("the model's code failed and cannot be described", extra={"fields": fields})
            return self.response(f"model failed (id {error_id})", "INTERNAL")
        except BaseException:  # memory has run out
            return self._spare.pop() if len(self._spare) > 1 else self._spare[0]

    def _answer(self, error: BaseException) -> tuple[str, str, Any]:
        if isinstance(error, RequestError):
            return "refused", error.reason, self.response(client_text(str(error.message)), error.code)
        if isinstance(error, (DeadlineExceeded, DeadlineExceededError)):
            self._log(error, "deadline", "deadline.exceeded")
            own = str(error)
            text = own if own.startswith("deadline.exceeded: ") else self._deadline_text
            return "deadline", "", self.response(text, DeadlineExceededError.code)
        if isinstance(error, ModelError):
            return "answered", "", self.response(client_text(str(error.message)), error.code)
        if isinstance(error, self._backend.TritonModelException):
            return "answered", "", self.response(client_text(str(error), keeps_lines=True), "INTERNAL")
        reason = error.reason if isinstance(error, (OutputError, BlsError)) else "model.failed"
        error_id = self._log(error, "the model's code failed", reason)
        if isinstance(error, BlsError) and error.public:
            outcome = "deadline" if isinstance(error, BlsDeadlineError) else "failed"
            return outcome, "", self.response(client_text(error.public), error.code)
        return "failed", "", self.response(f"model failed (id {error_id})", "INTERNAL")

    def _log(self, error: BaseException, message: str, reason: str) -> str:
        error_id = new_error_id()
        log_failure(self._logger, message, error, error_id, reason)
        return error_id


def new_error_id() -> str:
    """Return an id that joins what a client sees with a line of the log."""
    return os.urandom(8).hex()


def log_failure(logger: ModelLogger, message: str, error: BaseException, error_id: str, reason: str) -> None:
    """Log what was raised with its traceback; what cannot be printed is left out, never raised."""
    fields = {"error_id": error_id, "reason": reason}
    try:
        logger.error(message, exc_info=(type(error), error, error.__traceback__), extra={"fields": fields})
    except BaseException:  # an exception whose own text raises
        logger.log(logging.ERROR, message, extra={"fields": {**fields, "exception": type(error).__name__}})
