"""Log lines as JSON on the server's standard error, each with the model's identity."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

LOGGER_NAME = "safe_triton"

MAX_TEXT_CHARACTERS = 32_768
"""Of a message and of a traceback, each: a client's payload in an exception's text must not flood the log."""


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, message, and the fields passed as ``extra={"fields": …}``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": _text(record.getMessage, lambda: f"{type(record.msg).__name__}: cannot be printed"),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            kind, _, frames = exc_info = record.exc_info
            line["traceback"] = _text(
                lambda: self.formatException(exc_info),
                lambda: "".join(traceback.format_tb(frames)) + f"{kind.__name__ if kind else None}: cannot be printed",
            )
        return json.dumps(line, default=lambda value: _text(lambda: str(value), lambda: "cannot be printed"))


def _text(produce: Callable[[], str], otherwise: Callable[[], str]) -> str:
    """Return a text without its middle where it is long; what cannot be printed must not cost the line."""
    try:
        text = produce()
    except Exception:
        text = otherwise()
    cut = len(text) - MAX_TEXT_CHARACTERS
    if cut <= 0:
        return text
    half = MAX_TEXT_CHARACTERS // 2
    return f"{text[:half]}[{cut} characters left out]{text[-half:]}"


if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter  # not subscriptable before Python 3.11


class ModelLogger(Adapter):
    """The ``context.logger``: a standard logger whose lines carry the model's name, version and instance."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge the model's identity with the fields of this line."""
        extra = kwargs.get("extra") or {}
        fields = {**(self.extra or {}), **extra.get("fields", {})}
        return msg, {**kwargs, "extra": {"fields": fields}}


def model_logger(**identity: str) -> ModelLogger:
    """Return a logger for one model instance.

    Args:
        identity: fields of every line, such as ``model="digits"``.
    """
    logger = logging.getLogger(LOGGER_NAME)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return ModelLogger(logger, identity)
