"""From whatever was raised to the one answer a client gets, the counter it adds to, and the line in the log."""

from __future__ import annotations

import logging
import os
from typing import Any

from safe_triton.errors import (
    DeadlineExceeded,
    DeadlineExceededError,
    ModelError,
    OutputError,
    RequestError,
)
from safe_triton.runtime._pb import Backend
from safe_triton.runtime.log import ModelLogger
from safe_triton.runtime.stats import Stats
from safe_triton.runtime.text import client_text


class Outcomes:
    """Turns errors into responses. Never raises: an error while answering is answered too.

    Args:
        backend: Triton's Python backend.
        logger: gets the details under the error id.
        stats: counts every outcome.
        deadline_s: soft deadline, named in the answer when it has passed.
    """

    def __init__(self, backend: Backend, logger: ModelLogger, stats: Stats, deadline_s: float) -> None:
        self._backend = backend
        self._logger = logger
        self._stats = stats
        self._deadline_text = f"deadline.exceeded: the model did not answer within {deadline_s * 1000:.0f} ms"
        # Made now, so that it exists when memory has run out.
        self._last_resort = self.response("model failed", "INTERNAL")

    def response(self, message: str, code: str) -> Any:
        """Return an error response."""
        backend = self._backend
        return backend.InferenceResponse(
            error=backend.TritonError(message, backend.codes.get(code, backend.codes["INTERNAL"]))
        )

    def answer(self, error: BaseException) -> Any:
        """Return the error response for what was raised while one request was handled; count and log it."""
        try:
            return self._answer(error)
        except BaseException:  # memory, recursion, an interrupt: the request is answered all the same
            self._stats.outcomes["failed"] += 1
            return self._last_resort

    def _answer(self, error: BaseException) -> Any:
        if isinstance(error, RequestError):
            self._stats.count("refused", error.reason)
            return self.response(error.message, error.code)
        if isinstance(error, (DeadlineExceeded, DeadlineExceededError)):
            self._stats.count("deadline")
            self._log(error, "deadline", "deadline.exceeded")
            return self.response(self._deadline_text, DeadlineExceededError.code)
        if isinstance(error, ModelError):
            self._stats.count("answered")
            return self.response(client_text(error.message), error.code)
        if isinstance(error, self._backend.TritonModelException):
            self._stats.count("answered")
            return self.response(client_text(str(error)), "INTERNAL")
        self._stats.count("failed")
        error_id = self._log(
            error, "the model's code failed", error.reason if isinstance(error, OutputError) else "model.failed"
        )
        return self.response(f"model failed (id {error_id})", "INTERNAL")

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
