"""``BlsClient``: calls to other models of the same server, checked, bounded in time and number, never in a circle."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from safe_triton.errors import BlsDeadlineError, BlsError, BlsLimitError, BlsUsageError
from safe_triton.policy import bound
from safe_triton.policy.bls import BlsPolicy
from safe_triton.policy.defaults import CALL_PARAMETER
from safe_triton.runtime.bls.frames import Bounds, Frame, Opener, cycle
from safe_triton.runtime.bls.remote import as_bls_error
from safe_triton.runtime.bls.targets import Target
from safe_triton.runtime.bls.workers import Workers

if TYPE_CHECKING:
    import asyncio

    from safe_triton.runtime._pb import Backend
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
        self._backend = backend
        self.request_class = backend.InferenceRequest
        self._logger = logger
        self._policy = policy
        self._max_responses = bound(policy.max_responses)
        self._is_threaded = policy.when_late == "abandon"
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
        self._codes = {code: word for word, code in backend.codes.items()}
        self._late = 0
        self.callers = "{}"
        self.opener: Opener | None = None
        self.task_opener: ContextVar[Opener | None] = ContextVar("safe_triton_bls", default=None)

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
        call = _Call(self, model, inputs, outputs, parameters, preferred_memory)
        start = monotonic()
        try:
            if self._is_threaded:
                return call.accept(self._workers.run(call.request.exec, call.left_s))
            return call.accept(call.request.exec())
        except self._backend.TritonModelException as error:
            raise call.error(str(error), "") from None
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
        if self._late >= self._policy.max_parallel:
            raise BlsLimitError(f"bls.limit: {self._late} earlier calls have not come back")
        import asyncio  # not above: it would make the start slower, and only this form needs it

        call = _Call(self, model, inputs, outputs, parameters, preferred_memory)
        start = monotonic()
        task = asyncio.ensure_future(call.request.async_exec())
        try:
            done, _ = await asyncio.wait({task}, timeout=call.left_s)
            if not done:
                raise BlsDeadlineError(f"bls.deadline: '{model}' did not answer in time")
            return call.accept(task.result())
        except self._backend.TritonModelException as error:
            raise call.error(str(error), "") from None
        finally:
            if not task.done():  # Triton's thread waits on; cancelling the task would only hide that
                self._late += 1
                task.add_done_callback(self._came_back)
            call.note_time(start)

    def gather(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Call several models at a time, within the one time that the request has left.

        Args:
            calls: pairs of a model's name and its inputs; ``max_parallel`` of them run at a time.

        Returns:
            The answers in the order of the calls. Where some fail, the first one's error is raised once all are over.
        """
        waiting: deque[tuple[_Call, Any, float]] = deque()
        results: list[dict[str, Any]] = []
        failure: BaseException | None = None

        def finish() -> None:
            nonlocal failure
            call, worker, start = waiting[0]
            try:
                results.append(call.accept(worker.wait(call.now_left_s())))
            except BlsError as error:
                failure = failure or error
            except self._backend.TritonModelException as error:
                failure = failure or call.error(str(error), "")
            finally:
                worker.abandon()  # nothing to do where the answer came
                waiting.popleft()
                call.note_time(start)

        try:
            for model, inputs in calls:
                if failure is not None:
                    break
                if len(waiting) >= self._policy.max_parallel:
                    finish()
                try:
                    call = _Call(self, model, inputs, None, None, None)
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
        """
        call = _Call(self, model, inputs, outputs, parameters, None)
        return self._stream(call)

    def _stream(self, call: _Call) -> Iterator[dict[str, Any]]:
        start = monotonic()
        responses: Any = None
        end = object()
        try:
            responses = self._wait(call, lambda: iter(call.request.exec(decoupled=True)))
            for count in range(self._max_responses + 1):
                response = self._wait(call, lambda: next(responses, end))
                if response is end:
                    return
                if count == self._max_responses:
                    raise BlsLimitError(f"bls.limit: more than {self._max_responses} responses (max_responses)")
                if response.has_error() or response.output_tensors():  # the last one may only be the end's mark
                    yield call.accept(response)
        except self._backend.TritonModelException as error:
            raise call.error(str(error), "") from None
        finally:
            cancel = getattr(responses, "cancel", None)
            if cancel is not None:
                cancel()
            call.note_time(start)

    def _wait(self, call: _Call, function: Callable[[], Any]) -> Any:
        left_s = call.now_left_s()
        return self._workers.run(function, left_s) if self._is_threaded else function()

    def _came_back(self, task: asyncio.Future[Any]) -> None:
        self._late -= 1
        if not task.cancelled():
            task.exception()

    def frame(self) -> Frame:
        """Return what is known of the request that is answered now.

        Raises:
            BlsUsageError: none is.
        """
        opener = self.opener or self.task_opener.get()
        if opener is None:
            raise BlsUsageError(
                "bls.usage: other models can be called only while a request is answered, not in load or unload"
            )
        return opener.open()

    def refuse_target(self, model: Any) -> Target:
        """Refuse a call of a model that the policy does not name.

        Raises:
            BlsUsageError: always.
        """
        raise BlsUsageError(f"bls.usage: '{str(model)[:64]}' is not in BlsPolicy.allow")

    def close(self) -> None:
        """End the threads that wait for nothing."""
        self._workers.close()


class _Call:
    """One call: the request as it leaves, and what its answer is held against."""

    __slots__ = ("_client", "frame", "left_s", "request", "rows", "target", "wanted")

    def __init__(
        self, client: BlsClient, model: str, inputs: Any, outputs: Any, parameters: Any, preferred_memory: Any
    ) -> None:
        self._client = client
        opener = client.opener
        self.frame = frame = (opener.frame if opener is not None else None) or client.frame()
        self.target = target = client.targets.get(model) or client.refuse_target(model)
        if target.key in frame.path:
            raise cycle((*frame.path, target.key))
        tensors, self.rows, sent = target.tensors_of(inputs)
        frame.count_call(sent)
        self.wanted = target.output_names if outputs is None else target.wanted(outputs)
        self.left_s = left_s = frame.left_s(target.timeout_s)
        if parameters:
            _check_parameters(parameters, target.name)
        own = {CALL_PARAMETER: f"{int(left_s * 1000)}{frame.path_text}"}
        arguments = frame.arguments
        if preferred_memory is not None:
            arguments = {**arguments, "preferred_memory": preferred_memory}
        self.request = client.request_class(
            model_name=target.name,
            model_version=target.version,
            inputs=tensors,
            requested_output_names=self.wanted,
            parameters={**parameters, **own} if parameters else own,
            **arguments,
        )

    def note_time(self, start: float) -> None:
        """Count the call and the seconds since its start."""
        spent = self.target.spent
        spent[0] += 1
        spent[1] += monotonic() - start

    def now_left_s(self) -> float:
        return self.frame.left_s(self.target.timeout_s)

    def accept(self, response: Any) -> dict[str, Any]:
        """Return a checked answer, or raise what its error stands for."""
        if response.has_error():
            error = response.error()
            raise self.error(str(error.message()), self._client._codes.get(error.code(), ""))
        outputs, received = self.target.outputs_of(response, self.rows, self.wanted)
        self.frame.count_bytes(received)
        return outputs

    def error(self, text: str, code: str) -> BlsError:
        """Return what another model's error stands for; its text goes to the log only."""
        error = as_bls_error(self.target.name, text, code)
        fields = {"reason": error.reason, "target": self.target.key, "answered": text[:MAX_LOGGED]}
        self._client._logger.warning("a called model answered with an error", extra={"fields": fields})
        return error


def _check_parameters(parameters: Mapping[Any, Any], name: str) -> None:
    """Refuse what Triton would refuse with words of its own."""
    for key, value in parameters.items():
        if type(key) is not str or type(value) not in (str, int, bool):
            raise BlsUsageError(f"bls.usage: parameters of '{name}' are names with str, int or bool")
