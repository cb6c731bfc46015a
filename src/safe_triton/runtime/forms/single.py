"""``infer(inputs)``: one request at a time."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from safe_triton.runtime.deadline import late
from safe_triton.runtime.forms.engine import Engine, Execute
from safe_triton.runtime.request_info import RequestInfo


def compile_infer(engine: Engine, infer: Callable[..., Any], *, takes_request: bool) -> Execute:
    """Compile ``execute`` for ``infer``.

    Args:
        engine: the parts of the request path.
        infer: the author's bound method.
        takes_request: whether it has a second parameter for the request's facts.
    """
    check_request = engine.plan.check_request
    check_outputs = engine.plan.check_outputs
    parse = engine.plan.check_parameters
    Tensor, InferenceResponse = engine.backend.Tensor, engine.backend.InferenceResponse
    answer = engine.outcomes.answer
    rows_of = engine.rows_of
    stats, slot, rearm = engine.stats, engine.watchdog.slot, engine.watchdog.rearm
    outcomes = stats.outcomes
    is_batched = engine.plan.max_batch_rows > 0
    only = next(iter(engine.plan.inputs)) if len(engine.plan.inputs) == 1 else None
    caller_due, shorten, was_late = engine.plan.caller_due, engine.watchdog.shorten, engine.watchdog.is_late
    clock = monotonic

    def execute(requests: list[Any]) -> list[Any]:
        responses: list[Any] = []
        append = responses.append
        execution_s = called = 0.0
        good = 0
        first = now = clock()
        while len(responses) < len(requests):
            try:
                for request in requests[len(responses) :] if responses else requests:
                    try:
                        # From here on: a schema's validators are the author's code too.
                        if now >= slot[1]:
                            rearm()
                        slot[0] = now
                        inputs = check_request(request)
                        if caller_due[0]:
                            due_s, caller_due[0] = caller_due[0], 0.0
                            shorten(due_s)
                        rows = (inputs[only].shape[0] if only in inputs else rows_of(inputs)) if is_batched else 0
                        called = clock()
                        outputs = infer(inputs, RequestInfo(request, parse)) if takes_request else infer(inputs)
                        now = clock()
                        slot[0] = slot[2] = 0.0
                        execution_s += now - called
                        checked = check_outputs(outputs, rows)
                        if len(checked) == 1:
                            ((name, array),) = checked  # a comprehension is a call
                            append(InferenceResponse([Tensor(name, array)]))
                        else:
                            append(InferenceResponse([Tensor(name, array) for name, array in checked]))
                        good += 1
                    except BaseException as error:
                        start, slot[0] = slot[0], 0.0
                        ended = clock()
                        if called > now:
                            execution_s += ended - called
                        is_late = was_late(start, ended)
                        slot[2] = caller_due[0] = 0.0
                        append(answer(late(error) if is_late else error))
                        now = clock()
            except BaseException as error:
                # An interrupt between two bytecodes of the handler above: it costs the request that it was meant for.
                slot[0] = slot[2] = 0.0
                append(answer(error))
        outcomes["ok"] += good
        stats.execution_s += execution_s
        stats.guard_s += clock() - first - execution_s
        return responses

    return execute
