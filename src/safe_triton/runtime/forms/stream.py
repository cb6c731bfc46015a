"""``stream(inputs)``: a generator of responses, for a decoupled model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from safe_triton.errors import OutputError
from safe_triton.runtime.forms.engine import Engine, Execute

CANCEL_CHECK_S = 0.1
"""Seconds between two questions to Triton whether the client is gone; each takes 40 to 120 microseconds."""


def compile_stream(engine: Engine, stream: Callable[..., Any], *, takes_request: bool) -> Execute:
    """Compile ``execute`` for ``stream``. Each response has the deadline of one call; the final flag is always sent.

    Args:
        engine: the parts of the request path.
        stream: the author's bound generator method.
        takes_request: whether it has a second parameter for the request's facts.
    """
    plan, outcomes, stats, watchdog = engine.plan, engine.outcomes, engine.stats, engine.watchdog
    Tensor, InferenceResponse = engine.backend.Tensor, engine.backend.InferenceResponse
    final = engine.backend.final_flag
    call = engine.call_with(stream, takes_request)
    slot = watchdog.slot
    end = object()

    def timed(function: Callable[[], Any]) -> Any:
        start = monotonic()
        if start >= slot[1]:
            watchdog.rearm()
        slot[0] = start
        try:
            return function()
        finally:
            slot[0] = 0.0
            stats.execution_s += monotonic() - start

    def send_all(request: Any, sender: Any) -> str:
        inputs = plan.check_request(request)
        rows = engine.rows_of(inputs)
        responses = timed(lambda: call(inputs, request))
        if not isinstance(responses, Iterator):
            raise OutputError(
                f"output.type: {type(responses).__name__}, expected a generator of dicts", reason="output.type"
            )
        asked = monotonic()
        try:
            while True:
                outputs = timed(lambda: next(responses, end))
                if outputs is end:
                    return "ok"
                checked = plan.check_outputs(outputs, rows)
                sender.send(InferenceResponse([Tensor(name, array) for name, array in checked]))
                if monotonic() - asked > CANCEL_CHECK_S:
                    asked = monotonic()
                    if sender.is_cancelled():
                        return "cancelled"
        finally:
            close = getattr(responses, "close", None)
            if close is not None:
                timed(close)

    def answer(request: Any) -> None:
        sender = request.get_response_sender()
        start, execution_before = monotonic(), stats.execution_s
        try:
            stats.count(send_all(request, sender))
        except BaseException as error:
            slot[0] = 0.0
            sender.send(outcomes.answer(error), flags=final)
        else:
            sender.send(flags=final)
        stats.guard_s += monotonic() - start - (stats.execution_s - execution_before)

    def execute(requests: list[Any]) -> None:
        for request in requests:
            try:
                answer(request)
            except BaseException as error:  # the sender itself failed: the client is gone
                slot[0] = 0.0
                outcomes.answer(error)

    return execute
