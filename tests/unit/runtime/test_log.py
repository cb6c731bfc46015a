"""Log lines: one JSON object each, whatever is logged."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from safe_triton.runtime.log import LOGGER_NAME, MAX_TEXT_CHARACTERS, JsonFormatter, ModelLogger, model_logger
from safe_triton.runtime.outcome import log_failure
from tests.unit.runtime.backends import Lines, kept_logger


@pytest.fixture
def kept() -> Iterator[tuple[ModelLogger, Lines]]:
    """A logger of model ``m`` and what it wrote."""
    with kept_logger(model="m", version="1") as made:
        yield made


Kept = tuple[ModelLogger, Lines]


def fails(error: type[BaseException]) -> Callable[..., Any]:
    """A function that raises whatever it is called with."""

    def function(*_: Any) -> NoReturn:
        raise error

    return function


def poisoned(kind: type = type, **members: Any) -> BaseException:
    """An exception whose class has these members."""
    made: BaseException = kind("PoisonedError", (Exception,), members)()
    return made


UNNAMED = type("Unnamed", (type,), {"__name__": property(fails(ValueError))})
TEXT_FAILS = poisoned(__str__=fails(ValueError))

# By name: pytest itself asks a parameter for its class.
POISONED: dict[str, BaseException] = {
    "text exits": poisoned(__str__=fails(SystemExit)),
    "text fails": TEXT_FAILS,
    "text is no text": poisoned(__str__=lambda _self: 5),
    "notes exit": poisoned(__notes__=property(fails(SystemExit))),
    "class exits": poisoned(__class__=property(fails(SystemExit))),
    "odd module": poisoned(__module__=5),
    "no name": poisoned(UNNAMED),
    "syntax error": SyntaxError("m", ("f", 1, 2, 3)),  # type: ignore[arg-type]
    "characters": ValueError("\ud800 lone surrogate \0 NUL \n line \u2028 separator"),
}


class TestLines:
    """Each record is one line of JSON with the model's identity."""

    def test_identity_and_fields(self, kept: Kept) -> None:
        """A line holds time, level, message, identity and its own fields."""
        logger, lines = kept
        logger.warning("two %s", "words", extra={"fields": {"limit": "max_inputs", "path": object}})
        (line,) = lines.parsed
        assert line.pop("time").endswith("Z")
        assert line == {
            "level": "warning",
            "message": "two words",
            "model": "m",
            "version": "1",
            "limit": "max_inputs",
            "path": "<class 'object'>",
        }

    def test_line_breaks_stay_inside(self, kept: Kept) -> None:
        """No text can forge a line of its own."""
        logger, lines = kept
        logger.error('first\n{"level": "info", "message": "forged"}\r\nthird\u2028fourth\x85fifth')
        assert len(lines.text.splitlines()) == 1
        assert len(lines.parsed) == 1

    def test_a_traceback_is_a_field(self, kept: Kept) -> None:
        """The traceback is inside the line, with the exception's own text."""
        logger, lines = kept
        try:
            raise ValueError("broken weights")
        except ValueError:
            logger.exception("failed")
        (line,) = lines.parsed
        assert line["traceback"].startswith("Traceback")
        assert "test_a_traceback_is_a_field" in line["traceback"]
        assert line["traceback"].endswith("ValueError: broken weights")

    def test_a_client_cannot_make_a_line_of_any_length(self, kept: Kept) -> None:
        """A payload in an exception's text is cut in its middle; where it was raised and its end stay."""
        logger, lines = kept
        try:
            raise ValueError("x" * 10_000_000 + " the end")
        except ValueError as error:
            log_failure(logger, "y" * 100_000, error, "id", "model.failed")
        assert len(lines.text) < 3 * MAX_TEXT_CHARACTERS
        (line,) = lines.parsed
        assert "test_a_client_cannot" in line["traceback"]
        assert "characters left out" in line["traceback"]
        assert line["traceback"].endswith("the end")

    def test_text_at_the_bound_is_whole(self, kept: Kept) -> None:
        """Nothing is cut from a text at the bound; one character more is."""
        logger, lines = kept
        logger.info("x" * MAX_TEXT_CHARACTERS)
        logger.info("x" * (MAX_TEXT_CHARACTERS + 1))
        assert ["left out" in line["message"] for line in lines.parsed] == [False, True]


class TestPoisoned:
    """What cannot be printed costs its text, never the line or its error id."""

    @pytest.mark.parametrize("name", POISONED)
    def test_exceptions(self, kept: Kept, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        """An exception that resists printing is still one line with its id, and nothing beside it."""
        logger, lines = kept
        try:
            raise POISONED[name]
        except BaseException as caught:
            log_failure(logger, "the model's code failed", caught, "0123456789abcdef", "model.failed")
        (line,) = lines.parsed
        assert (line["error_id"], line["reason"], line["model"]) == ("0123456789abcdef", "model.failed", "m")
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        ("message", "arguments"),
        [("%d", ("word",)), ("%s", (TEXT_FAILS,)), (TEXT_FAILS, ())],
        ids=["format", "%s", "bare"],
    )
    def test_messages(self, kept: Kept, message: Any, arguments: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """An author's message that cannot be formatted is a line that says so."""
        logger, lines = kept
        logger.error(message, *arguments, extra={"fields": {"step": 3}})
        (line,) = lines.parsed
        assert "cannot be printed" in line["message"]
        assert line["step"] == 3
        assert capsys.readouterr().err == ""

    def test_fields(self, kept: Kept) -> None:
        """A field that cannot be printed leaves the others."""
        logger, lines = kept
        logger.error("m", extra={"fields": {"bad": TEXT_FAILS, "good": 1}})
        (line,) = lines.parsed
        assert (line["bad"], line["good"]) == ("cannot be printed", 1)


class TestLogger:
    """``model_logger`` sets the logger up once, for this package only."""

    def test_one_handler_on_standard_error(self) -> None:
        """Several models in one process write each line once; the root logger gets nothing."""
        first, second = model_logger(model="a"), model_logger(model="b")
        assert first.logger is second.logger is logging.getLogger(LOGGER_NAME)
        own = [handler for handler in first.logger.handlers if isinstance(handler.formatter, JsonFormatter)]
        assert len(own) == 1
        assert not first.logger.propagate

    def test_a_record_without_fields(self) -> None:
        """The formatter also serves records of other code."""
        record = logging.LogRecord("x", logging.INFO, "f", 1, "hello", None, None)
        line = json.loads(JsonFormatter().format(record))
        assert (line["level"], line["message"]) == ("info", "hello")
        record.exc_info = (None, None, None)
        assert json.loads(JsonFormatter().format(record))["message"] == "hello"
        assert sys.exc_info() == (None, None, None)
