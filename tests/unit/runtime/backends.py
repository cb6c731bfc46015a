"""Stand-ins for what the runtime's parts are given: Triton's backend, a logger whose lines are kept, metrics."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safe_triton.runtime._pb import Backend, bind
from safe_triton.runtime.log import JsonFormatter, ModelLogger
from safe_triton.testing import fakes


def fake_backend() -> Backend:
    """The public stand-in of Triton's module, as ``initialize`` binds it."""
    with fakes.registered():
        return bind()


class Lines:
    """The log lines of one logger."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        """Everything written."""
        return self.stream.getvalue()

    @property
    def parsed(self) -> list[dict[str, Any]]:
        """Every line as JSON; a line that is none fails the test."""
        return [json.loads(line) for line in self.text.splitlines()]


@contextmanager
def kept_logger(**identity: str) -> Iterator[tuple[ModelLogger, Lines]]:
    """A model's logger that writes into memory."""
    lines = Lines()
    handler = logging.StreamHandler(lines.stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("kept", logging.INFO)
    logger.addHandler(handler)
    yield ModelLogger(logger, identity), lines


class FakeMetric:
    """Remembers its increments."""

    def __init__(self, family: FakeFamily, labels: dict[str, str]) -> None:
        self.family = family
        self.labels = labels
        self.increments: list[float] = []

    def increment(self, amount: float) -> None:
        """Add, or fail as its family is told to."""
        if FakeFamily.fails_at == "increment":
            raise RuntimeError("refused")
        self.increments.append(amount)


class FakeFamily:
    """Remembers its metrics; ``fails_at`` names the step that fails."""

    COUNTER = "counter"
    fails_at = ""
    made: dict[str, FakeFamily]

    def __init__(self, *, name: str, description: str, kind: str) -> None:
        if FakeFamily.fails_at == "family":
            raise RuntimeError("metrics are off")
        assert description and kind == self.COUNTER
        self.metrics: list[FakeMetric] = []
        FakeFamily.made[name] = self

    def Metric(self, *, labels: dict[str, str]) -> FakeMetric:  # noqa: N802  # Triton's name
        """A new metric with these labels."""
        if FakeFamily.fails_at == "metric":
            raise RuntimeError("refused")
        self.metrics.append(FakeMetric(self, labels))
        return self.metrics[-1]
