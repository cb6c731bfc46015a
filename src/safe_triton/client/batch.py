"""Many requests: how rows are split, what is kept of a failure, and how progress is told. Pure but for the callback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from safe_triton.client.answer import Answer
from safe_triton.client.request import Array
from safe_triton.client.signature import Signature
from safe_triton.errors import (
    BatchError,
    ClientAccessError,
    ClientUsageError,
    RequestError,
    SafeTritonError,
    ServerUnavailableError,
)

Progress = Callable[[int, "int | None"], object]
"""Called with the number done and the number of all, ``None`` where that is not known."""

MAX_CONCURRENCY = 1024
"""Requests that one call of a batch may have under way."""

HOPELESS = (ClientAccessError, ClientUsageError, ServerUnavailableError)
"""What the next request would meet too: nothing more is sent after it."""


@dataclass
class Outcomes:
    """What has come of many requests.

    Args:
        total: how many there are; ``None`` where that is not known.
        progress: called after each.
        starts: the first row of each request, where rows were split.
    """

    total: int | None
    progress: Progress | None
    starts: tuple[int, ...] = ()
    answers: dict[int, Answer] = field(default_factory=dict)
    errors: dict[int, SafeTritonError] = field(default_factory=dict)
    is_hopeless: bool = False

    def note(self, index: int, outcome: Answer | SafeTritonError) -> None:
        """Keep what has come of one request."""
        if isinstance(outcome, Answer):
            self.answers[index] = outcome
        else:
            self.errors[index] = outcome
            self.is_hopeless |= isinstance(outcome, HOPELESS)
        if self.progress is not None:
            self.progress(len(self.answers) + len(self.errors), self.total)

    def in_order(self) -> list[Answer]:
        """Return the answers in the order of the requests.

        Raises:
            BatchError: one failed; it holds all answers and all errors.
        """
        if not self.errors:
            return [answer for _, answer in sorted(self.answers.items())]
        first = min(self.errors)
        count = max(self.total or 0, max((*self.answers, *self.errors)) + 1)
        unsent = count - len(self.answers) - len(self.errors)
        rest = f"; {unsent} were not sent" if unsent else ""
        place = f"row {self.starts[first]}" if self.starts else f"request {first}"
        raise BatchError(
            f"client.batch: {place}: {self.errors[first]} ({len(self.errors)} of {count} requests failed{rest})",
            answers=[self.answers.get(index) for index in range(count)],
            errors={self.starts[index] if self.starts else index: error for index, error in self.errors.items()},
        )


def split_rows(inputs: Mapping[str, Array], rows_per_request: int) -> list[dict[str, Array]]:
    """Split arrays along axis 0 into views of at most ``rows_per_request`` rows each.

    Raises:
        RequestError: reason ``request.invalid`` or ``input.batch``; no arrays, or different numbers of rows.
    """
    if not isinstance(inputs, Mapping):
        raise RequestError(
            f"request.invalid: {type(inputs).__name__}, expected a dict of numpy arrays by input name",
            reason="request.invalid",
        )
    sizes: dict[str, int] = {}
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray) or array.ndim == 0:
            raise RequestError(
                f"request.invalid: rows are split along axis 0, which is missing at inputs[{name!r}]",
                reason="request.invalid",
            )
        sizes[name] = array.shape[0]
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        shown = ", ".join(f"{name}: {rows}" for name, rows in sizes.items()) or "none"
        raise RequestError(f"input.batch: all inputs need the same rows, at least one; {shown}", reason="input.batch")
    rows = next(iter(sizes.values()))
    return [
        {name: array[start : start + rows_per_request] for name, array in inputs.items()}
        for start in range(0, rows, rows_per_request)
    ]


def rows_per_request(asked: int | None, signature: Signature | None, model: str) -> int:
    """Return how many rows one request may have.

    Args:
        asked: what the caller wants; ``None`` for as many as the model takes.
        signature: of the model; ``None`` where the server does not show it.
        model: its name.

    Raises:
        ClientUsageError: reason ``client.usage``; nobody says how many, or the model has no batch axis.
    """
    allowed = signature.plan.max_batch_rows if signature is not None else 0
    if asked is not None and (type(asked) is not int or asked < 1):
        raise _wrong("rows_per_request must be a whole number of at least 1")
    if allowed:
        return min(asked or allowed, allowed)
    if signature is not None and signature.is_complete:
        raise _wrong(f"{model!r} has no batch axis: send its requests with infer_many()")
    if asked is None:
        raise _wrong(f"the server does not say how many rows {model!r} takes: give rows_per_request")
    return asked


def plan_rows(
    inputs: Mapping[str, Array],
    asked: int | None,
    signature: Signature | None,
    model: str,
    progress: Progress | None,
) -> tuple[list[dict[str, Array]], Outcomes]:
    """Return the requests that many rows make, and what will hold their outcomes."""
    size = rows_per_request(asked, signature, model)
    parts = split_rows(inputs, size)
    starts = tuple(size * index for index in range(len(parts)))
    return parts, Outcomes(len(parts), progress, starts=starts)


def joined(answers: list[Answer]) -> Answer:
    """Return one answer with the rows of all."""
    first = answers[0]
    outputs = {name: np.concatenate([answer[name] for answer in answers]) for name in first}
    return Answer(outputs, model=first.model, version=first.version)


def check_many(requests: object, concurrency: object, progress: object) -> None:
    """Reject requests that are no series, a concurrency that is no number from 1 to 1024, and progress to no function.

    Raises:
        ClientUsageError: reason ``client.usage``.
    """
    if not isinstance(requests, Iterable) or isinstance(requests, Mapping | str | bytes | np.ndarray):
        raise _wrong(f"requests must be a list or iterator of inputs, not {type(requests).__name__}")
    if type(concurrency) is not int or not 1 <= concurrency <= MAX_CONCURRENCY:
        raise _wrong(f"concurrency must be a whole number from 1 to {MAX_CONCURRENCY}, not {concurrency!r}")
    if progress is not None and not callable(progress):
        raise _wrong(f"progress must be a function of (done, total), not {type(progress).__name__}")


def _wrong(text: str) -> ClientUsageError:
    return ClientUsageError(f"client.usage: {text}", reason="client.usage")
