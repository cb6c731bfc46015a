"""``RequestInfo`` asks Triton for nothing that the author does not read, and for nothing twice that costs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from safe_triton import RequestInfo
from safe_triton.errors import LimitExceededError


class Asked:
    """A request that notes each question."""

    def __init__(self, correlation_id: int | str = 0) -> None:
        self.questions: list[str] = []
        self._correlation_id = correlation_id

    def request_id(self) -> Any:
        return self._note("request_id", "abc")

    def correlation_id(self) -> Any:
        return self._note("correlation_id", self._correlation_id)

    def parameters(self) -> Any:
        return self._note("parameters", '{"tries": 3}')

    def timeout(self) -> Any:
        return self._note("timeout", 250)

    def _note(self, name: str, value: Any) -> Any:
        self.questions.append(name)
        return value


def test_nothing_is_asked_before_it_is_read() -> None:
    """Making it costs no question."""
    request = Asked()
    RequestInfo(request, json.loads)
    assert request.questions == []


@pytest.mark.parametrize(
    ("attribute", "question", "value"),
    [
        ("id", "request_id", "abc"),
        ("parameters", "parameters", {"tries": 3}),
        ("timeout_us", "timeout", 250),
        ("correlation_id", "correlation_id", 0),
    ],
)
def test_reading_asks_one_question(attribute: str, question: str, value: object) -> None:
    """Each attribute asks for itself only."""
    request = Asked()
    assert getattr(RequestInfo(request, json.loads), attribute) == value
    assert request.questions == [question]


def test_parameters_are_parsed_once() -> None:
    """Reading the parameters again gives the same dict."""
    request = Asked()
    parsed: list[str] = []

    def parse(text: str) -> dict[str, Any]:
        parsed.append(text)
        return dict(json.loads(text))

    info = RequestInfo(request, parse)
    assert info.parameters is info.parameters
    assert (len(parsed), request.questions) == (1, ["parameters"])


def test_parameters_are_checked() -> None:
    """What the limits refuse is not handed out, the second time neither."""

    def refuse(_text: str) -> dict[str, Any]:
        raise LimitExceededError("limit.parameters", 65, 64, "parameters")

    info = RequestInfo(Asked(), refuse)
    for _ in range(2):
        with pytest.raises(LimitExceededError):
            _ = info.parameters


def test_a_text_id_stays_text() -> None:
    """A sequence's id keeps its type."""
    assert RequestInfo(Asked("session-1"), json.loads).correlation_id == "session-1"


def test_nothing_else_can_be_kept_on_it() -> None:
    """An author cannot attach state to one request's facts by mistake."""
    with pytest.raises(AttributeError):
        RequestInfo(Asked(), json.loads).note = 1  # type: ignore[attr-defined]
