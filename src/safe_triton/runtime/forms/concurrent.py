"""``async def infer(inputs)``: the requests of one execute run concurrently on Triton's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from safe_triton.errors import DeadlineExceededError
from safe_triton.runtime.deadline import SHORTENED
from safe_triton.runtime.forms.engine import Engine, Execute


def compile_async_infer(engine: Engine, infer: Callable[..., Any], *, takes_request: bool) -> Execute:
    """Compile ``execute`` for an asynchronous ``infer``.

    The soft deadline cancels the request's task. A task that ignores that is left to the hard deadline, which counts
    from the start of the execute.

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

    async def call(inputs: dict[str, Any], request: Any) -> Any:
        try:
            return await started(inputs, request)
        except (SystemExit, KeyboardInterrupt) as error:
            # asyncio lets these two end the thread of Triton's event loop.
            raise RuntimeError("the model's code tried to end the process") from error

    async def answer(request: Any) -> Any:
        try:
            start = monotonic()
            inputs = plan.check_request(request)
            due_s = engine.take_due()
            rows = engine.rows_of(inputs)
            called = monotonic()
            stats.guard_s += called - start
            task = asyncio.ensure_future(call(inputs, request))
            done, _ = await asyncio.wait({task}, timeout=min(deadline_s, max(due_s - called, 0.0)))
            if not done:
                task.cancel()
                await asyncio.wait({task})
                raise DeadlineExceededError(SHORTENED if due_s - called < deadline_s else "deadline.exceeded")
            stats.execution_s += monotonic() - called
            checked = plan.check_outputs(task.result(), rows)
            response = InferenceResponse([Tensor(name, array) for name, array in checked])
        except BaseException as error:
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
            return list(await asyncio.gather(*[answer(request) for request in requests]))
        except BaseException as error:
            return engine.answer_rest([], requests, error)
        finally:
            slot[0] = 0.0

    return run
