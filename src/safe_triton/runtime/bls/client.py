"""``BlsClient``: calls to other models of the same server, checked, bounded in time and number, never in a circle."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from safe_triton.errors import BlsDeadlineError, BlsError, BlsLimitError, BlsUsageError
from safe_triton.policy import bound
from safe_triton.policy.bls import BlsPolicy
from safe_triton.runtime.bls.answers import Answers, LettingGo
from safe_triton.runtime.bls.call import Call
from safe_triton.runtime.bls.frames import Bounds, Frame
from safe_triton.runtime.bls.remote import as_bls_error
from safe_triton.runtime.bls.targets import Target
from safe_triton.runtime.bls.workers import Workers

if TYPE_CHECKING:
    import asyncio

    from safe_triton.runtime._pb import Backend
    from safe_triton.runtime.bls.in_place import InPlace, QuickCall
    from safe_triton.runtime.forms.engine import Engine, Execute
    from safe_triton.runtime.log import ModelLogger
    from safe_triton.runtime.stats import Stats

MAX_LOGGED = 500
"""Characters of another model's error text in this server's log."""


class BlsClient:
    """Calls other models while a request is answered. Made from the class's ``bls_policy``: ``self.bls``.

    Every call goes to an allowed target and version, with the tensors declared for it, within the time that the request
    has left; its answer is checked before the author sees it. A called guarded model learns the path of callers and the
    time left, so that a call which leads back to a waiting model ends at once.

    Raises:
        BlsUsageError: the call is not what the policy declares, or no request is answered now (``load``, ``unload``).
        BlsLimitError: the request's calls came to a bound.
        BlsCycleError: the target waits for this answer.
        BlsRefusedError: the target refused what it was sent.
        BlsOutputError: its answer is not what its declaration says.
        BlsDeadlineError: it did not answer in time.
        BlsUnavailableError: it is not served.
        BlsError: it failed.

    Does not cover:
        Code that builds its own ``InferenceRequest``. A cycle through a model without this guard, or one that drops
        the request's parameters: the deadline ends it.
    """

    def __init__(
        self,
        policy: BlsPolicy,
        *,
        backend: Backend,
        stats: Stats,
        logger: ModelLogger,
        name: str,
        version: str,
        repository: Path,
    ) -> None:
        if policy.problem is not None:
            raise policy.problem
        self.request_class, self.tensor_class = backend.InferenceRequest, backend.Tensor
        self.triton_exception = backend.TritonModelException
        self.final_flag = backend.final_flag
        self.logger = logger
        self._policy = policy
        self._max_responses = bound(policy.max_responses)
        self._is_threaded = policy.when_late != "end"
        self.bounds = Bounds(
            self_key=f"{name}:{version}",
            max_calls=bound(policy.max_calls),
            max_bytes=bound(policy.max_bytes),
            max_depth=policy.max_depth,
        )
        self.targets = {
            target: Target(
                target, declared, policy, repository, backend.Tensor, stats.calls.setdefault(target, [0, 0.0])
            )
            for target, declared in policy.allow.items()
        }
        self._workers = Workers(2 * policy.max_parallel)
        self._letting_go = LettingGo(2 * policy.max_parallel)
        self.quick: dict[str, QuickCall] = {}
        self.in_place: InPlace | None = None
        self.codes = {code: word for word, code in backend.codes.items()}
        self._late = 0
        self.callers = "{}"
        self.frame: Frame | None = None
        self.task_frame: ContextVar[Frame | None] = ContextVar("safe_triton_bls", default=None)

    def around_infer(self, execute: Execute, engine: Engine) -> Execute:
        """Return ``execute`` of the form ``infer``, made ready for calls in place where the policy wants them."""
        from safe_triton.runtime.bls.in_place import InPlace, is_supervised

        if self._policy.when_late != "answer" or not is_supervised():
            return execute
        self.in_place = InPlace(engine, self)
        return self.in_place.around(execute)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, str | int | bool] | None = None,
        preferred_memory: Any = None,
    ) -> dict[str, Any]:
        """Call a model and wait for its answer.

        Args:
            model: a name of ``BlsPolicy.allow``.
            inputs: arrays by input name, the batch axis included; a ``pb_utils.Tensor`` stays where it is.
            outputs: names of the outputs to ask for; all declared ones when left out.
            parameters: request parameters for the target.
            preferred_memory: ``pb_utils.PreferredMemory`` for the outputs.

        Returns:
            Arrays by output name; an output in a GPU's memory is a ``pb_utils.Tensor``, for ``to_dlpack``.
        """
        quick = self.quick.get(model)
        if quick is not None and outputs is None and not parameters and preferred_memory is None:
            answer = quick(inputs)
            if answer is not None:
                return answer
        call = Call(self, model, inputs, outputs, parameters, preferred_memory)
        start = monotonic()
        try:
            if not self._is_threaded:
                return call.accept(call.request.exec())
            return call.accept(self._workers.run(call.request.exec, call.left_s))
        except BlsDeadlineError:
            call.target.in_place_from_s = inf
            raise
        except self.triton_exception as error:
            raise self.failed(call.target, str(error)) from None
        finally:
            call.note_time(start)

    async def async_infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, str | int | bool] | None = None,
        preferred_memory: Any = None,
    ) -> dict[str, Any]:
        """Call a model from ``async def infer``; as :meth:`infer`. Several at a time by ``asyncio.gather``."""
        self.check_late()
        call = Call(self, model, inputs, outputs, parameters, preferred_memory)
        start = monotonic()
        try:
            return call.accept(await self.awaited(call, call.request.async_exec()))
        except self.triton_exception as error:
            raise self.failed(call.target, str(error)) from None
        finally:
            call.note_time(start)

    async def awaited(self, call: Call, pending: Any) -> Any:
        """Await what Triton's ``async_exec`` returned, for as long as the call may take.

        Raises:
            BlsDeadlineError: it did not come back in time.
        """
        import asyncio  # not above: it would make the start slower, and only asynchronous forms need it

        task = asyncio.ensure_future(pending)
        try:
            done, _ = await asyncio.wait({task}, timeout=call.now_left_s())
            if not done:
                raise BlsDeadlineError(f"bls.deadline: '{call.target.name}' did not answer in time")
            return task.result()
        finally:
            if not task.done():  # Triton's thread waits on; cancelling the task would only hide that
                self._late += 1
                task.add_done_callback(self._came_back)

    def check_responses(self, count: int) -> None:
        """Refuse more responses of one stream than the policy has.

        Raises:
            BlsLimitError: reason ``bls.limit``.
        """
        if count > self._max_responses:
            raise BlsLimitError(f"bls.limit: more than {self._max_responses} responses (max_responses)")

    def check_late(self) -> None:
        """Refuse another asynchronous call while too many late ones have not come back.

        Raises:
            BlsLimitError: reason ``bls.limit``.
        """
        if self._late >= self._policy.max_parallel:
            raise BlsLimitError(f"bls.limit: {self._late} earlier calls have not come back")

    def gather(
        self, calls: Sequence[tuple[str, Mapping[str, Any]] | tuple[str, Mapping[str, Any], Sequence[str]]]
    ) -> list[dict[str, Any]]:
        """Call several models at a time, within the one time that the request has left.

        Args:
            calls: a model's name, its inputs and, where not all declared ones are wanted, the names of the outputs;
                ``max_parallel`` of them run at a time.

        Returns:
            The answers in the order of the calls. Where some fail, the first one's error is raised once all are over.
        """
        waiting: deque[tuple[Call, Any, float]] = deque()
        results: list[dict[str, Any]] = []
        failure: BaseException | None = None

        def finish() -> None:
            nonlocal failure
            call, worker, start = waiting[0]
            try:
                left_s = call.now_left_s()
            except BlsDeadlineError:
                left_s = 0.0  # what has come back by now
            try:
                results.append(call.accept(worker.wait(left_s)))
            except BlsError as error:
                failure = failure or error
            except self.triton_exception as error:
                failure = failure or self.failed(call.target, str(error))
            finally:
                call.note_time(start)
            waiting.popleft()  # an interrupt leaves it there, to be left behind with the others

        try:
            for model, inputs, *outputs in calls:
                if failure is not None:
                    break
                if len(waiting) >= self._policy.max_parallel:
                    finish()
                try:
                    call = Call(self, model, inputs, outputs[0] if outputs else None, None, None)
                    waiting.append((call, self._workers.start(call.request.exec), monotonic()))
                except BlsError as error:
                    failure = error
            while waiting:
                finish()
        finally:
            for _, worker, _ in waiting:  # the request's deadline interrupted this
                worker.abandon()
        if failure is not None:
            raise failure
        return results

    def stream(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, str | int | bool] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Call a decoupled model; yields its answers as :meth:`infer` returns one.

        Each answer has the time that the request has left. Stop early by closing the iterator: releases from 25.04
        then cancel the target's request; on older ones it runs to its end, unheard.

        Raises:
            BlsUsageError: called from ``async def infer``, whose event loop it would block: :meth:`async_stream`.
        """
        if self.frame is None and self.task_frame.get() is not None:
            raise BlsUsageError("bls.usage: stream would block the event loop; use async_stream from async def infer")
        call = Call(self, model, inputs, outputs, parameters, None)
        return self._stream(call)

    def _stream(self, call: Call) -> Iterator[dict[str, Any]]:
        start = monotonic()
        answers: Answers | None = None
        end = object()
        try:
            answers = self.waited(call, lambda: self.answers(call.request.exec(decoupled=True)))
            for count in itertools.count(1):
                response = self.waited(call, partial(next, answers, end))
                if response is end:
                    return
                self.check_responses(count)
                if response.has_error() or response.output_tensors():  # the last one may only be the end's mark
                    yield call.accept(response)
        except self.triton_exception as error:
            raise self.failed(call.target, str(error)) from None
        finally:
            if answers is not None:
                answers.close()
            call.note_time(start)

    async def async_stream(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, str | int | bool] | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Call a decoupled model from ``async def infer``; as :meth:`stream`, for ``async for``.

        Triton's iterator waits in its own code for each answer: a thread of the event loop's waits with it.
        """
        self.check_late()
        import asyncio

        call = Call(self, model, inputs, outputs, parameters, None)
        start = monotonic()
        answers: Answers | None = None
        end = object()
        loop = asyncio.get_running_loop()
        try:
            answers = self.answers(await self.awaited(call, call.request.async_exec(decoupled=True)))
            for count in itertools.count(1):
                response = await self.awaited(call, loop.run_in_executor(None, next, answers, end))
                if response is end:
                    return
                self.check_responses(count)
                if response.has_error() or response.output_tensors():
                    yield call.accept(response)
        except self.triton_exception as error:
            raise self.failed(call.target, str(error)) from None
        finally:
            if answers is not None:
                answers.close()
            call.note_time(start)

    def answers(self, responses: Any) -> Answers:
        """Return what a decoupled model answers, as :class:`Answers`."""
        return Answers(responses, self._letting_go)

    def waited(self, call: Call, function: Callable[[], Any]) -> Any:
        """Run what waits inside Triton's C++ code, for as long as the call may take.

        Raises:
            BlsDeadlineError: it did not come back in time.
            BlsLimitError: all threads wait for earlier calls.
        """
        left_s = call.now_left_s()
        return self._workers.run(function, left_s) if self._is_threaded else function()

    def _came_back(self, task: asyncio.Future[Any]) -> None:
        self._late -= 1
        if not task.cancelled():
            task.exception()

    def open_frame(self) -> Frame:
        """Return what is known of the request that is answered now.

        Raises:
            BlsUsageError: none is.
        """
        frame = self.frame or self.task_frame.get()
        if frame is None:
            raise BlsUsageError(
                "bls.usage: other models can be called only while a request is answered, not in load or unload"
            )
        return frame.open()

    def answered(self, target: Target, error: Any) -> BlsError:
        """Return what a response's error stands for."""
        return self.failed(target, str(error.message()), self.codes.get(error.code(), ""))

    def failed(self, target: Target, text: str, code: str = "") -> BlsError:
        """Return what another model's error stands for; its text goes to the log only."""
        error = as_bls_error(target.name, text, code)
        fields = {"reason": error.reason, "target": target.key, "answered": text[:MAX_LOGGED]}
        self.logger.warning("a called model answered with an error", extra={"fields": fields})
        return error

    def refuse_target(self, model: Any) -> Target:
        """Refuse a call of a model that the policy does not name.

        Raises:
            BlsUsageError: always.
        """
        raise BlsUsageError(f"bls.usage: '{str(model)[:64]}' is not in BlsPolicy.allow")

    def close(self) -> None:
        """End the threads that wait for nothing."""
        self._workers.close()
