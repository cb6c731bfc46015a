"""What is known of the request that a model answers while it calls others: its path, its time, what is used up."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from math import inf
from time import monotonic
from typing import Any

from safe_triton.errors import BlsCycleError, BlsDeadlineError, BlsLimitError, ParameterError
from safe_triton.policy.defaults import CALL_PARAMETER

SEPARATOR = "/"
"""Between the models of a path; no model's name holds it, since it is a folder's name."""

MAX_CALL_CHARACTERS = 8192
"""Longest value of the call parameter that is read."""

MAX_PARAMETERS_CHARACTERS = 1 << 20
"""Longest text of all parameters that is parsed."""


def read_call(text: str) -> tuple[int, tuple[str, ...]]:
    """Read the call parameter out of a request's parameters.

    Args:
        text: JSON text of all parameters, as Triton gives it.

    Returns:
        Milliseconds that the caller has left (``sys.maxsize`` without a caller), and the path of callers.

    Raises:
        ParameterError: reason ``parameter.bls``; not what a guarded caller writes.

    Does not cover:
        A caller that lies: a path that is too short only lets a cycle run until a deadline ends it, and one that is too
        long refuses the liar's own request.
    """
    if CALL_PARAMETER not in text:
        return sys.maxsize, ()
    value = json.loads(text).get(CALL_PARAMETER) if len(text) <= MAX_PARAMETERS_CHARACTERS else ""
    if value is None:
        return sys.maxsize, ()
    if isinstance(value, str) and len(value) <= MAX_CALL_CHARACTERS:
        left_ms, _, path = value.partition(" ")
        callers = tuple(path.split(SEPARATOR))
        if left_ms.isascii() and left_ms.isdigit() and len(left_ms) <= len(str(sys.maxsize)) and all(callers):
            return int(left_ms), callers
    raise ParameterError(f"parameter.bls: no path of callers at parameters['{CALL_PARAMETER}']", reason="parameter.bls")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What bounds the calls of each request.

    Args:
        self_key: ``name:version`` of the model that answers.
        max_calls: calls of one request.
        max_bytes: bytes of its calls.
        max_depth: models on the way from the client to a called one.

    Attributes:
        path_text: of the call parameter, in a request without callers.
    """

    self_key: str
    max_calls: int
    max_bytes: int
    max_depth: int
    path_text: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path_text", f" {self.self_key}")


class Frame:
    """One request that is being answered; its calls to other models share these bounds.

    Nothing is asked of the request before its first call, so that a request without calls pays for none.

    Args:
        bounds: of every request.
        request: Triton's request; ``None`` where several are answered at once.
        due_s: when the answer is due, as ``monotonic()`` counts.
        callers: JSON text of the parameters, where there is no one request to ask.

    Attributes:
        path: the callers and this model; empty before :meth:`open`, which sets all that follow.
        path_text: what follows the remaining milliseconds in the call parameter.
        calls, moved_bytes: of this request so far.
        request_id, trace, correlation_id, flags: what every call carries on; the last two for one of a sequence.

    Does not cover:
        Threads of the author's that call at the same moment: the counts may then be short by one.
    """

    __slots__ = (
        "_bounds",
        "_caller_due_s",
        "_callers",
        "_request",
        "calls",
        "correlation_id",
        "due_s",
        "flags",
        "moved_bytes",
        "path",
        "path_text",
        "request_id",
        "trace",
    )

    def __init__(self, bounds: Bounds, request: Any, due_s: float, callers: str = "{}") -> None:
        self._bounds, self._request, self._callers = bounds, request, callers
        self.due_s, self._caller_due_s = due_s, inf
        self.path: tuple[str, ...] = ()

    def open(self) -> Frame:
        """Read what the request's callers say, and what its calls carry on; once.

        Raises:
            BlsCycleError: the model that answers is on its own path.
            BlsLimitError: the path is too long.
            ParameterError: the path is none.
        """
        if self.path:
            return self
        bounds, request = self._bounds, self._request
        callers = self._callers if request is None else request.parameters()
        path: tuple[str, ...] = (bounds.self_key,)
        self.path_text = bounds.path_text
        if CALL_PARAMETER in callers:
            left_ms, before = read_call(callers)
            if bounds.self_key in before:
                raise cycle((*before, bounds.self_key))
            depth = len(before) + 2
            if depth > bounds.max_depth:
                raise BlsLimitError(f"bls.limit: {depth} models from the client to a called one, above max_depth")
            path = (*before, bounds.self_key)
            self.path_text = f" {SEPARATOR.join(path)}"
            self._caller_due_s = monotonic() + left_ms / 1000
            self.renew(self.due_s)
        self.calls = self.moved_bytes = 0
        self.request_id, self.trace, self.correlation_id, self.flags = "", None, 0, 0
        if request is not None:
            self.request_id, self.trace = request.request_id(), request.trace()
            correlation_id = request.correlation_id()
            if correlation_id:
                self.correlation_id, self.flags = correlation_id, request.flags()
        self.path = path
        return self

    def renew(self, due_s: float) -> None:
        """Set when this model's answer, or the next response of its stream, is due; never after its caller's."""
        self.due_s = min(due_s, self._caller_due_s)

    def count_call(self, sent_bytes: int) -> None:
        """Count one call and what it sends.

        Raises:
            BlsLimitError: there were as many as one request may make, or they move too many bytes.
        """
        self.calls += 1
        self.count_bytes(sent_bytes)

    def count_bytes(self, count: int) -> None:
        """Count bytes that were sent or came back.

        Raises:
            BlsLimitError: they are more than one request's calls may move, or its calls are too many.
        """
        self.moved_bytes += count
        bounds = self._bounds
        if self.calls > bounds.max_calls:
            raise BlsLimitError(f"bls.limit: more than {bounds.max_calls} calls of one request (max_calls)")
        if self.moved_bytes > bounds.max_bytes:
            raise BlsLimitError(f"bls.limit: more than {bounds.max_bytes} bytes of one request's calls (max_bytes)")

    def left_s(self, timeout_s: float) -> float:
        """Return the seconds that a call may take.

        Raises:
            BlsDeadlineError: none is left.
        """
        left = min(self.due_s - monotonic(), timeout_s)
        if left <= 0:
            raise BlsDeadlineError("bls.deadline: no time is left for the call")
        return left


class BatchFrame(Frame):
    """As :class:`Frame`, for all requests of one execute: their bounds together, the least of their times.

    Their paths are one: a call that would lead back to any of their callers is a cycle.

    Args:
        bounds: of one request.
        requests: Triton's; none for a call from a thread that answers no request any more.
        due_s: when the answers are due.
    """

    __slots__ = ("_requests",)

    def __init__(self, bounds: Bounds, requests: list[Any], due_s: float) -> None:
        count = max(len(requests), 1)
        super().__init__(
            replace(bounds, max_calls=count * bounds.max_calls, max_bytes=count * bounds.max_bytes), None, due_s
        )
        self._requests = requests

    def open(self) -> Frame:
        """Read what the callers of all say; see :meth:`Frame.open`."""
        if not self.path:
            read = [read_call(request.parameters()) for request in self._requests]
            path = list(dict.fromkeys(caller for _, callers in read for caller in callers))
            if path:
                call = f"{min(left_ms for left_ms, _ in read)} {SEPARATOR.join(path)}"
                self._callers = json.dumps({CALL_PARAMETER: call})
        return super().open()


def cycle(path: tuple[str, ...]) -> BlsCycleError:
    """Return the error that names a path which leads back to where it began."""
    return BlsCycleError(f"bls.cycle: {' > '.join(path)}")
