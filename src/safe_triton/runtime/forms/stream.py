"""``stream(inputs)``: a generator of responses, for a decoupled model, within bounds of number, bytes and time.

The generator is asked for its next response when Triton has taken the last one, so that it never runs ahead.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from time import monotonic
from types import GeneratorType
from typing import Any

from safe_triton.errors import DeadlineExceeded, DeadlineExceededError, OutputError
from safe_triton.runtime.deadline import late
from safe_triton.runtime.forms.engine import Engine, Execute
from safe_triton.runtime.forms.gone import ClientWatch
from safe_triton.validation.outputs import sent_bytes


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
    watchdog, slot = engine.watchdog, engine.watchdog.slot
    check_request = engine.check_request
    client = ClientWatch(watchdog)
    end = object()
    starts_nothing = inspect.isgeneratorfunction(stream)  # calling one only makes the generator

    deadline_s, rearm, shorten, was_late = plan.deadline_s, watchdog.rearm, watchdog.shorten, watchdog.is_late

    def timed(due_s: float, step_s: float, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run one step of the author's code under the deadlines; as ``engine.timed``, without a call on the way."""
        start = monotonic()
        if start >= due_s:
            raise DeadlineExceededError("deadline.exceeded: the responses took too long (stream_deadline_ms)")
        due_s = min(due_s, start + step_s)
        if start + deadline_s > due_s:
            shorten(due_s)
        if start >= slot[1]:
            rearm()
        slot[0] = start
        try:
            return function(*arguments)
        except DeadlineExceeded:
            raise
        except BaseException as error:
            slot[0] = 0.0
            if was_late(start, monotonic()):
                raise late(error) from error
            raise
        finally:
            slot[0] = slot[2] = 0.0
            stats.execution_s += monotonic() - start

    def send_all(request: Any, sender: Any) -> str:
        inputs = check_request(request)
        now = monotonic()
        due_s, step_s = now + plan.stream_deadline_s, engine.take_due() - now
        rows = engine.rows_of(inputs)
        count, left_bytes = 0, plan.max_stream_bytes
        client.begin(sender)
        responses = call(inputs, request) if starts_nothing else timed(due_s, step_s, call, inputs, request)
        if not isinstance(responses, Iterator):
            raise OutputError(
                f"output.type: {type(responses).__name__}, expected a generator of dicts", reason="output.type"
            )
        has_ended = False
        try:
            while True:
                outputs = timed(due_s, step_s, next, responses, end)
                if outputs is end:
                    has_ended = type(responses) is GeneratorType  # there is nothing left to close
                    return "ok"
                checked = plan.check_outputs(outputs, rows)
                count += 1
                for _, array in checked:
                    left_bytes -= sent_bytes(array)
                if count > plan.max_responses:
                    raise OutputError(
                        f"output.responses: more than {plan.max_responses} to one request (max_responses)",
                        reason="output.responses",
                    )
                if left_bytes < 0:
                    raise OutputError(
                        f"output.stream_bytes: more than {plan.max_stream_bytes} to one request (max_stream_bytes)",
                        reason="output.stream_bytes",
                    )
                # Held until it is sent: Triton drops outputs that were not asked for without the interpreter's lock,
                # which ends the process from Python 3.12 on.
                tensors = [Tensor(name, array) for name, array in checked]
                sender.send(InferenceResponse(tensors))
                if client.is_gone:
                    return "cancelled"
        except DeadlineExceeded:
            if client.is_gone:
                return "cancelled"
            raise
        finally:
            client.end()
            close = None if has_ended else getattr(responses, "close", None)
            if close is not None:
                engine.timed(close)

    def answer(request: Any) -> None:
        sender = request.get_response_sender()
        start, execution_before = monotonic(), stats.execution_s
        try:
            stats.count(send_all(request, sender))
        except BaseException as error:
            slot[0] = 0.0
            engine.take_due()
            client.end()
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
