"""``infer(inputs)`` with one input and one output of numbers: the same checks, in one loop without a call in between.

Between two requests of real traffic the processor's caches are lost to the server and the kernel, and every call and
every object on the way costs several times what it costs in a loop. So the commonest signature has none that it can
do without; whatever is not remembered as good goes the common way.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np

from safe_triton.runtime.deadline import late
from safe_triton.runtime.forms.engine import Engine, Execute
from safe_triton.runtime.request_info import RequestInfo
from safe_triton.validation.remembered import Remembered
from safe_triton.validation.requests import PlainSignature


def compile_plain_infer(
    engine: Engine, infer: Callable[..., Any], signature: PlainSignature, *, takes_request: bool
) -> Execute:
    """Compile ``execute`` for ``infer`` of a model whose requests and outputs metadata alone decides.

    Args:
        engine: the parts of the request path.
        infer: the author's bound method.
        signature: the one input and the one output.
        takes_request: whether ``infer`` has a second parameter for the request's facts.
    """
    check_request, check_outputs = engine.plan.check_request, engine.plan.check_outputs
    parse = engine.plan.check_parameters
    Tensor, InferenceResponse = engine.backend.Tensor, engine.backend.InferenceResponse
    answer = engine.outcomes.answer
    is_batched = engine.plan.max_batch_rows > 0
    stats, slot, rearm = engine.stats, engine.watchdog.slot, engine.watchdog.rearm
    outcomes = stats.outcomes
    given, given_dtype = signature.input_name, signature.input_dtype
    returned, returned_dtype = signature.output_name, signature.output_dtype
    max_id_length, trivial = signature.max_id_length, signature.trivial_parameters
    caller_due, shorten, was_late = engine.plan.caller_due, engine.watchdog.shorten, engine.watchdog.is_late
    clock, ndarray = monotonic, np.ndarray
    # From the shape of a good input to that of the good output it had last.
    good: Remembered[tuple[int, ...], tuple[int, ...]] = Remembered()
    find_good = good.get

    def respond(array: Any, outputs: Any) -> Any:
        rows = 0 if not is_batched else 1 if array is None else array.shape[0]
        ((_, output),) = check_outputs(outputs, rows)
        if array is not None:
            good.note(array.shape, output.shape)
        return InferenceResponse([Tensor(returned, output)])

    def execute(requests: list[Any]) -> list[Any]:
        responses: list[Any] = []
        execution_s = called = 0.0
        answered = 0
        first = now = clock()
        while len(responses) < len(requests):
            try:
                for request in requests[len(responses) :] if responses else requests:
                    try:
                        tensors = request.inputs()
                        inputs = expected = array = None
                        if len(tensors) == 1:
                            tensor = tensors[0]
                            array = tensor.as_numpy()
                            if (
                                array.dtype is given_dtype
                                and tensor.name() == given
                                and len(request.request_id()) <= max_id_length
                                and len(request.parameters()) <= trivial
                            ):
                                expected = find_good(array.shape)
                                if expected is not None:
                                    inputs = {given: array}
                        if inputs is None:
                            inputs = check_request(request)
                            if caller_due[0]:
                                due_s, caller_due[0] = caller_due[0], 0.0
                                shorten(due_s)
                            array = inputs.get(given)  # kept: the author may change the dict
                        called = clock()
                        if called >= slot[1]:
                            rearm()
                        slot[0] = called
                        outputs = infer(inputs, RequestInfo(request, parse)) if takes_request else infer(inputs)
                        now = clock()
                        slot[0] = slot[2] = 0.0
                        execution_s += now - called
                        output = outputs.get(returned) if type(outputs) is dict and len(outputs) == 1 else None
                        if type(output) is ndarray and output.dtype is returned_dtype and output.shape == expected:
                            responses.append(InferenceResponse([Tensor(returned, output)]))
                        else:
                            responses.append(respond(array, outputs))
                        answered += 1
                    except BaseException as error:
                        start, slot[0] = slot[0], 0.0
                        ended = clock()
                        if called > now:
                            execution_s += ended - called
                        is_late = was_late(start, ended)
                        slot[2] = caller_due[0] = 0.0
                        responses.append(answer(late(error) if is_late else error))
                        now = clock()
            except BaseException as error:
                # An interrupt between two bytecodes of the handler above: it costs the request that it was meant for.
                slot[0] = slot[2] = 0.0
                responses.append(answer(error))
        outcomes["ok"] += answered
        stats.execution_s += execution_s
        stats.guard_s += clock() - first - execution_s
        return responses

    return execute
