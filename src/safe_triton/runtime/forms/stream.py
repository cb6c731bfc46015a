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
    plan, outcomes, stats = engine.plan, engine.outcomes, engine.stats
    Tensor, InferenceResponse = engine.backend.Tensor, engine.backend.InferenceResponse
    final = engine.backend.final_flag
    call = engine.call_with(stream, takes_request)
    slot = engine.watchdog.slot
    check_request = engine.check_request
    end = object()

    def send_all(request: Any, sender: Any) -> str:
        inputs = check_request(request)
        rows = engine.rows_of(inputs)
        responses = engine.timed(call, inputs, request)
        if not isinstance(responses, Iterator):
            raise OutputError(
                f"output.type: {type(responses).__name__}, expected a generator of dicts", reason="output.type"
            )
        asked = monotonic()
        try:
            while True:
                outputs = engine.timed(next, responses, end)
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
                engine.timed(close)

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
