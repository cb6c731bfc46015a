"""``async def infer(inputs)``: the requests of one execute run concurrently on Triton's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from safe_triton.errors import DeadlineExceededError
from safe_triton.runtime.deadline import SHORTENED
from safe_triton.runtime.forms.engine import Engine, Execute


def compile_async_infer(engine: Engine, infer: Callable[..., Any], *, takes_request: bool) -> Execute:
    """Compile ``execute`` for an asynchronous ``infer``.

    The soft deadline cancels the task that answers the request: Triton's own where an execute has one request, else
    one for each. Code that ignores that is left to the hard deadline, which counts from the start of the execute.

    Args:
        engine: the parts of the request path.
        infer: the author's bound coroutine method.
        takes_request: whether it has a second parameter for the request's facts.
    """
    plan, outcomes, stats, watchdog = engine.plan, engine.outcomes, engine.stats, engine.watchdog
    Tensor, InferenceResponse = engine.backend.Tensor, engine.backend.InferenceResponse
    started = engine.call_with(infer, takes_request)
    slot = watchdog.slot
    deadline_s = min(plan.deadline_s, 1e9)

    async def within(left_s: float, running: Any) -> Any:
        """Await the author's code; cancel it when its time is over."""
        task, is_late, outputs = asyncio.current_task(), False, None

        def end() -> None:
            nonlocal is_late
            is_late = True
            if task is not None:
                task.cancel()

        timer = asyncio.get_running_loop().call_later(left_s, end)
        try:
            outputs = await running
        except BaseException:
            if not is_late:
                raise
        finally:
            timer.cancel()
        if is_late:  # also where it came back all the same
            raise DeadlineExceededError(SHORTENED if left_s < deadline_s else "deadline.exceeded")
        return outputs

    async def answer(request: Any) -> Any:
        try:
            start = monotonic()
            inputs = plan.check_request(request)
            due_s = engine.take_due()
            rows = engine.rows_of(inputs)
            called = monotonic()
            stats.guard_s += called - start
            left_s = deadline_s if due_s == inf else min(deadline_s, max(due_s - called, 0.0))
            outputs = await within(left_s, started(inputs, request))
            stats.execution_s += monotonic() - called
            checked = plan.check_outputs(outputs, rows)
            response = InferenceResponse([Tensor(name, array) for name, array in checked])
        except BaseException as error:
            # SystemExit and KeyboardInterrupt too: asyncio lets them end the thread of Triton's event loop.
            engine.take_due()
            return outcomes.answer(error)
        stats.outcomes["ok"] += 1
        return response

    async def run(requests: list[Any]) -> list[Any]:
        start = monotonic()
        if start >= slot[1]:
            watchdog.rearm()
        slot[0] = start
        try:
            if len(requests) == 1:
                return [await answer(requests[0])]
            return list(await asyncio.gather(*[answer(request) for request in requests]))
        except BaseException as error:
            return engine.answer_rest([], requests, error)
        finally:
            slot[0] = 0.0

    return run
