"""Putting a frame around the author's code, so that its calls belong to the request that it answers.

Nothing of a request is asked for until the first call is made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from safe_triton.errors import ParameterError
from safe_triton.policy.defaults import CALL_PARAMETER
from safe_triton.runtime.bls.frames import Frame, read_call

if TYPE_CHECKING:
    from safe_triton.runtime.bls.client import BlsClient
    from safe_triton.runtime.forms.engine import Execute

Form = Callable[..., Any]


def framed(client: BlsClient, kind: str, function: Form, deadline_s: float) -> Form:
    """Return the author's form with a frame around it.

    Args:
        client: of the model.
        kind: ``infer``, ``async`` (for ``async infer``), ``infer_batch`` or ``stream``.
        function: the author's; all but ``infer_batch`` take the inputs and the request.
        deadline_s: seconds that one call of it may take.
    """
    makers = {
        "infer": _around_infer,
        "async": _around_async_infer,
        "infer_batch": _around_batch,
        "stream": _around_stream,
    }
    return makers[kind](client, function, deadline_s)


def _around_infer(client: BlsClient, infer: Form, deadline_s: float) -> Form:
    """Return ``infer(inputs, request)`` with a frame around it."""

    def framed(inputs: dict[str, Any], info: Any) -> Any:
        client.frame = Frame(client.bounds, info._request, monotonic() + deadline_s)
        try:
            return infer(inputs, info)
        finally:
            client.frame = None

    return framed


def _around_async_infer(client: BlsClient, infer: Form, deadline_s: float) -> Form:
    """Return ``async infer(inputs, request)`` with a frame of its own for each of the tasks that run at a time."""

    async def framed(inputs: dict[str, Any], info: Any) -> Any:
        client.task_frame.set(Frame(client.bounds, info._request, monotonic() + deadline_s))  # of this task alone
        return await infer(inputs, info)

    return framed


def _around_stream(client: BlsClient, stream: Form, deadline_s: float) -> Form:
    """Return ``stream(inputs, request)`` with a frame around each step of its generator."""

    def framed(inputs: dict[str, Any], info: Any) -> Any:
        frame = Frame(client.bounds, info._request, monotonic() + deadline_s)
        client.frame = frame
        try:
            responses = stream(inputs, info)
        finally:
            client.frame = None
        return _Framed(client, responses, frame, deadline_s) if isinstance(responses, Iterator) else responses

    return framed


class _Framed:
    """A generator of the author's whose frame is there while it runs; each response has the time of one call."""

    def __init__(self, client: BlsClient, responses: Iterator[Any], frame: Frame, deadline_s: float) -> None:
        self._client, self._responses = client, responses
        self._frame, self._deadline_s = frame, deadline_s

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._frame.renew(monotonic() + self._deadline_s)
        self._client.frame = self._frame
        try:
            return next(self._responses)
        finally:
            self._client.frame = None

    def close(self) -> None:
        """Close the generator, whose ``finally`` blocks may still call."""
        self._client.frame = self._frame
        try:
            getattr(self._responses, "close", lambda: None)()
        finally:
            self._client.frame = None


def _around_batch(client: BlsClient, infer_batch: Form, deadline_s: float) -> Form:
    """Return ``infer_batch(inputs)`` with one frame for the requests that it answers at once."""

    def framed(inputs: dict[str, Any]) -> Any:
        client.frame = Frame(client.bounds, None, monotonic() + deadline_s, client.callers)
        try:
            return infer_batch(inputs)
        finally:
            client.frame = None

    return framed


def by_callers(client: BlsClient, execute: Execute) -> Execute:
    """Return an ``execute`` that never answers requests of different callers in one ``infer_batch``.

    Otherwise the path of one request would refuse its neighbours.
    """

    def apart(requests: list[Any]) -> list[Any]:
        groups: dict[tuple[str, ...], tuple[list[int], str]] = {}
        least: dict[tuple[str, ...], int] = {}
        for index, request in enumerate(requests):
            left_ms, path, text = _callers_of(request, index)
            members, known = groups.get(path, ([], text))
            members.append(index)
            groups[path] = members, text if left_ms <= least.get(path, left_ms) else known
            least[path] = min(left_ms, least.get(path, left_ms))
        responses: list[Any] = [None] * len(requests)
        for members, client.callers in groups.values():
            answered = execute([requests[index] for index in members])
            for index, response in zip(members, answered, strict=True):
                responses[index] = response
        return responses

    return apart


def _callers_of(request: Any, index: int) -> tuple[int, tuple[str, ...], str]:
    """Return a request's remaining time, its path, and the text that says so; one that nobody can read is alone."""
    try:
        text = str(request.parameters())
        if CALL_PARAMETER not in text:
            return sys.maxsize, (), "{}"
        return (*read_call(text), text)
    except (ParameterError, ValueError):  # UnicodeError too; the checks of the request refuse what is no text
        return 0, ("", str(index)), f'{{"{CALL_PARAMETER}": ""}}'
