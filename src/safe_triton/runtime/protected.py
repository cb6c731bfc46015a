"""The request path around an unmodified ``execute``: requests in, its responses out, each exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from math import inf
from time import monotonic
from types import CoroutineType
from typing import Any

from safe_triton.errors import DeadlineExceeded, OutputError
from safe_triton.runtime.deadline import REPEAT_S, late
from safe_triton.runtime.forms.engine import Engine, Execute
from safe_triton.runtime.instance import Instance
from safe_triton.runtime.outcome import log_failure, new_error_id
from safe_triton.runtime.protected_responses import ResponseCheck
from safe_triton.runtime.protected_senders import Senders
from safe_triton.runtime.unseen import check_by_shape, has_unseen

Original = Callable[[list[Any]], Any]


class Batch:
    """The requests of one execute.

    Attributes:
        requests: as Triton gave them.
        accepted: places of those that passed the checks.
        rows: of each accepted request, in that order.
        arrays: inputs by name of each accepted request.
        refused: places of the others, and why.
        responses: one per request; ``None`` where there is none to return.
        due_s: when the last of the guarded models that sent them wants its answer, as ``monotonic()`` counts; 0.0
            where one of them comes from a client.
    """

    __slots__ = ("accepted", "arrays", "due_s", "refused", "requests", "responses", "rows")

    def __init__(self, requests: list[Any]) -> None:
        self.requests = requests
        self.accepted: list[int] = []
        self.rows: list[int] = []
        self.arrays: list[Any] = []
        self.refused: tuple[tuple[int, BaseException], ...] = ()
        self.responses: list[Any] = [None] * len(requests)
        self.due_s = 0.0

    def chosen(self) -> list[Any]:
        """Return a new list of the accepted requests: the original may change it."""
        if len(self.accepted) == len(self.requests):
            return self.requests[:]
        return [self.requests[place] for place in self.accepted]


class Raised:
    """What the original's code raised instead of returning."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class ProtectedExecution:
    """Wraps one original ``execute``.

    Args:
        instance: the parts of this model instance.
        isolates: whether each request runs once alone after the original raised.
        refuses: whether outputs that break config.pbtxt are a failure instead of a counted warning.
    """

    def __init__(self, instance: Instance, *, isolates: bool, refuses: bool) -> None:
        self._instance = instance
        self._engine = Engine.of(instance, isolates=isolates)
        self._stats, self._slot = instance.stats, instance.watchdog.slot
        self._deadline_s = min(instance.plan.deadline_s, 1e9)
        by_shape = has_unseen(instance.plan)
        self._check_request = check_by_shape(instance.plan) if by_shape else self._engine.check_request
        # What numpy cannot have cannot be given back either, in case the original changed it.
        self._has_sequences = instance.plan.config.has_sequences  # another round, another request: no sender is lost
        self._isolates = isolates and not by_shape and not self._has_sequences
        self._batched = next(iter(instance.plan.inputs)) if instance.plan.max_batch_rows else ""
        self._caller_due = instance.plan.caller_due
        self._has_payload = any(spec.payload for spec in instance.plan.inputs.values())
        self._responses = ResponseCheck(instance, refuses=refuses)
        self._answer = instance.outcomes.answer
        # When the calls that are being awaited began, or last got on.
        self._awaited: dict[object, float] = {}
        self._is_async = False
        self._senders = Senders(
            instance.backend.InferenceRequest,
            instance.backend.final_flag,
            is_decoupled=instance.plan.config.is_decoupled,
            rows_of=self._rows_of,
            check_response=self._responses.check,
            answer=self._answer,
            count=instance.stats.count,
            note_progress=self._note_progress,
            end=self._end_lost,
        )
        self.watch, self.unwatch = self._senders.install, self._senders.remove

    def compile(self, execute: Original, *, is_async: bool) -> Execute:
        """Return Triton's ``execute`` around the original.

        Args:
            execute: the original's bound method.
            is_async: whether it is an ``async def``, which Triton runs on its event loop.
        """
        self._is_async = is_async
        alone, together = self._alone, self._together
        if self._instance.plan.config.is_decoupled:
            alone = together = self._decoupled
        senders, stats = self._senders, self._stats

        def guarded(requests: list[Any]) -> Any:
            first, before = monotonic(), stats.execution_s
            senders.current = requests
            try:
                returned = (alone if len(requests) == 1 else together)(requests, execute)
            except BaseException as error:
                returned = self._broken(requests, error)
            senders.current = []
            if type(returned) is CoroutineType:
                senders.awaited.append(requests)
                returned = self._whole(returned, requests)
            elif senders.taken or senders.rescheduled:
                senders.end(requests)
            stats.guard_s += monotonic() - first - (stats.execution_s - before)
            return returned

        return guarded

    async def _whole(self, running: Coroutine[Any, Any, Any], requests: list[Any]) -> Any:
        """Await the rest of one execute; nothing is raised into Triton's event loop."""
        try:
            return await running
        except BaseException as error:
            return self._broken(requests, error)
        finally:
            self._senders.end(requests)

    def _broken(self, requests: list[Any], error: BaseException) -> Any:
        """Answer everything with an error that was raised outside any single request."""
        self._slot[0] = 0.0
        if self._instance.plan.config.is_decoupled:
            for request in requests:
                self._fail(request, error)
            return None
        return [self._answer_unless_sent(request, error) for request in requests]

    # -- requests --------------------------------------------------------------------------------------------------

    def _accept(self, requests: list[Any]) -> Batch:
        batch = Batch(requests)
        check_request, batched = self._check_request, self._batched
        accepted, rows, kept = batch.accepted, batch.rows, batch.arrays
        caller_due, dues = self._caller_due, tuple[float, ...]()
        for place, request in enumerate(requests):
            try:
                arrays = check_request(request)
                rows.append(arrays[batched].shape[0] if batched in arrays else self._engine.rows_of(arrays))
            except BaseException as error:
                batch.refused = (*batch.refused, (place, error))
            else:
                accepted.append(place)
                kept.append(arrays)
                if caller_due[0]:
                    dues = (*dues, caller_due[0])
            caller_due[0] = 0.0
        if dues and len(dues) == len(accepted):
            batch.due_s = max(dues)
        return batch

    def _keep(self, batch: Batch) -> list[tuple[Any, Any]]:
        """Copy the inputs: the original may change its own in place, and a second run has to see what the first saw."""
        if self._has_payload:  # what a schema made of an input is no array of the request's
            return [
                (array, array.copy())
                for request in batch.chosen()
                for array in [tensor.as_numpy() for tensor in request.inputs()]
            ]
        return [(array, array.copy()) for arrays in batch.arrays for array in arrays.values()]

    def _rows_of(self, request: Any) -> int:
        """Return the rows of a request whose sender is taken; -1 where they cannot be told any more."""
        try:
            return self._engine.rows_of(self._check_request(request))
        except Exception:
            return -1

    # -- ordinary models -------------------------------------------------------------------------------------------

    def _alone(self, requests: list[Any], execute: Original) -> Any:
        """Answer the one request of most executes without the lists of a batch, as long as all is as usual."""
        (request,), caller_due, batched = requests, self._caller_due, self._batched
        try:
            arrays = self._check_request(request)
            rows = arrays[batched].shape[0] if batched in arrays else self._engine.rows_of(arrays)
            due_s = caller_due[0]
        except BaseException as error:
            return [self._answer(error)]
        finally:
            caller_due[0] = 0.0
        returned = self._call(execute, [request], due_s)
        senders, responses = self._senders, self._responses
        is_usual = type(returned) is list and len(returned) == 1 and returned[0] is not None
        if is_usual and not (senders.taken or senders.rescheduled or responses.refuses):
            try:
                checked = responses.check(returned[0], rows)
            except BaseException as error:
                return [self._answer(error)]
            self._stats.outcomes["ok" if checked is returned[0] else "answered"] += 1
            return [checked]
        batch = Batch(requests)
        batch.accepted, batch.rows, batch.arrays, batch.due_s = [0], [rows], [arrays], due_s
        if type(returned) is CoroutineType:
            return self._plain_awaited(batch, [], returned, execute)
        self._settle(batch, [], returned)
        return batch.responses

    def _together(self, requests: list[Any], execute: Original) -> Any:
        batch = self._accept(requests)
        for place, error in batch.refused:
            batch.responses[place] = self._answer(error)
        if not batch.accepted:
            return batch.responses
        kept = self._keep(batch) if self._isolates and len(batch.accepted) > 1 else []
        returned = self._call(execute, batch.chosen(), batch.due_s)
        if type(returned) is CoroutineType:
            return self._plain_awaited(batch, kept, returned, execute)
        for place in self._settle(batch, kept, returned):
            alone = self._call(execute, [requests[batch.accepted[place]]], batch.due_s)
            if type(alone) is CoroutineType:
                alone.close()
            self._settle_one(batch, place, alone)
        return batch.responses

    async def _plain_awaited(
        self, batch: Batch, kept: list[tuple[Any, Any]], running: Coroutine[Any, Any, Any], execute: Original
    ) -> list[Any]:
        returned = await self._within_deadline(running, batch.requests, batch.due_s)
        for place in self._settle(batch, kept, returned):
            request = batch.requests[batch.accepted[place]]
            try:
                alone = execute([request])
                if type(alone) is CoroutineType:
                    alone = await self._within_deadline(alone, [request], batch.due_s)
            except BaseException as error:
                alone = Raised(error)
            self._settle_one(batch, place, alone)
        return batch.responses

    def _settle(self, batch: Batch, kept: list[tuple[Any, Any]], returned: Any) -> list[int] | range:
        """Turn what came back into responses; return which accepted requests are to run once more, alone."""
        places = range(len(batch.accepted))
        if type(returned) is Raised:
            error = returned.error
            again = kept and not isinstance(error, (DeadlineExceeded, OutputError))
            if again and not any(request in self._senders.taken for request in batch.requests):
                for array, before in kept:
                    array[...] = before
                return places
            for place in batch.accepted:
                batch.responses[place] = self._answer_unless_sent(batch.requests[place], error)
            return []
        if type(returned) is not list or len(returned) != len(places):
            returned = self._list_of(batch, returned)
            if type(returned) is Raised:
                return self._settle(batch, [], returned)
        if len(returned) > 1:
            returned = self._responses.each_once(returned)
        good = 0
        responses, check = batch.responses, self._responses.check
        is_plain = not (self._senders.taken or self._senders.rescheduled or self._responses.refuses)
        for place, rows, response in zip(batch.accepted, batch.rows, returned, strict=True):
            try:
                if is_plain and response is not None:
                    responses[place] = checked = check(response, rows)
                    if checked is response:
                        good += 1
                    else:  # an error response
                        self._stats.count("answered")
                elif self._finish(batch, place, rows, response):
                    good += 1
            except BaseException as error:
                batch.responses[place] = self._answer_unless_sent(batch.requests[place], error)
        self._stats.outcomes["ok"] += good
        return []

    def _settle_one(self, batch: Batch, place: int, returned: Any) -> None:
        part = Batch([batch.requests[batch.accepted[place]]])
        part.accepted, part.rows = [0], [batch.rows[place]]
        self._settle(part, [], returned)
        batch.responses[batch.accepted[place]] = part.responses[0]

    def _list_of(self, batch: Batch, returned: Any) -> Any:
        count = len(batch.accepted)
        if isinstance(returned, list):
            if len(returned) == count:
                return returned
            message = f"output.count: execute returned {len(returned)} responses for {count} requests"
            return Raised(OutputError(message, reason="output.count"))
        taken, rescheduled = self._senders.taken, self._senders.rescheduled
        if returned is None and all(request in taken or request in rescheduled for request in batch.chosen()):
            return [None] * count
        got = type(returned).__name__
        return Raised(OutputError(f"output.type: execute returned {got}, expected a list", reason="output.type"))

    def _finish(self, batch: Batch, place: int, rows: int, response: Any) -> bool:
        """Put one response in its place; tell whether it is to be counted as good."""
        senders, request = self._senders, batch.requests[place]
        sender = senders.taken.get(request) if senders.taken else None
        if response is None:
            # Legitimate where the original answers through the sender or asks for the request again.
            if sender is None and request not in senders.rescheduled:
                raise OutputError("output.missing: execute returned no response for a request", reason="output.missing")
            if sender is not None and not self._has_sequences:
                senders.leave(request)
            return False
        if sender is not None and sender.is_finished:
            message = "output.twice: a request was answered by its sender, and again"
            self._responses.warn(OutputError(message, reason="output.twice"))
            return False
        checked = self._responses.check(response, rows)
        batch.responses[place] = checked
        if checked is not response:  # an error response
            self._stats.count("answered")
            return False
        if self._responses.refuses:
            self._responses.check_presence(request, checked)
        return True

    def _answer_unless_sent(self, request: Any, error: BaseException) -> Any:
        sender = self._senders.taken.get(request)
        if sender is None:
            return self._answer(error)
        self._fail(request, error)
        return None

    # -- decoupled models ------------------------------------------------------------------------------------------

    def _decoupled(self, requests: list[Any], execute: Original) -> Any:
        batch = self._accept(requests)
        for place, error in batch.refused:
            self._fail(requests[place], error)
        if not batch.accepted:
            return None
        returned = self._call(execute, batch.chosen(), 0.0)  # each response of a stream has its own time
        if type(returned) is CoroutineType:
            return self._decoupled_awaited(batch, returned)
        self._settle_decoupled(batch, returned)
        return None

    async def _decoupled_awaited(self, batch: Batch, running: Coroutine[Any, Any, Any]) -> None:
        self._settle_decoupled(batch, await self._within_deadline(running, batch.requests))

    def _settle_decoupled(self, batch: Batch, returned: Any) -> None:
        """End the requests of an execute that raised, or that returned what a decoupled model must not."""
        if returned is None:
            if not self._has_sequences:
                for place in batch.accepted:
                    self._senders.leave(batch.requests[place])
            return
        if type(returned) is not Raised:
            got = type(returned).__name__
            message = f"output.type: execute of a decoupled model returned {got}, expected None"
            returned = Raised(OutputError(message, reason="output.type"))
        for place in batch.accepted:
            self._fail(batch.requests[place], returned.error)

    def _end_lost(self, request: Any) -> None:
        message = "output.missing: nobody has the request, or its response sender, to answer it or to end it"
        self._fail(request, OutputError(message, reason="output.missing"))

    def _fail(self, request: Any, error: BaseException) -> None:
        """End one request through its sender; one that fails must not cost the others their answer."""
        try:
            sender = request.get_response_sender()
            if sender.is_finished:
                log_failure(self._instance.logger, "the model's code failed", error, new_error_id(), "model.failed")
            sender.fail(error)
        except Exception as failure:
            log_failure(self._instance.logger, "a response could not be sent", failure, new_error_id(), "model.failed")

    # -- the original's code and its time --------------------------------------------------------------------------

    def _call(self, execute: Original, requests: list[Any], due_s: float) -> Any:
        """Run the original under the deadlines; called where Triton calls, in the main thread or its event loop."""
        slot, start = self._slot, monotonic()
        if self._is_async:
            return execute(requests)  # makes a coroutine and runs nothing
        if start >= slot[1]:
            self._instance.watchdog.rearm()
        if due_s:
            self._instance.watchdog.shorten(due_s)
        slot[0] = start
        returned: Any
        try:
            returned = execute(requests)
            slot[0] = 0.0
        except BaseException as error:
            slot[0] = 0.0
            is_late = self._instance.watchdog.is_late(start, monotonic())
            returned = Raised(late(error) if is_late else error)
        slot[2] = 0.0
        self._stats.execution_s += monotonic() - start
        return returned

    async def _within_deadline(self, running: Coroutine[Any, Any, Any], requests: list[Any], due_s: float = 0.0) -> Any:
        """Await the original; its task is cancelled at the soft deadline, which each response of a stream renews.

        Args:
            running: its coroutine.
            requests: that it answers.
            due_s: when their callers want the answer; 0.0 for no other time than the deadline.
        """
        import asyncio  # Triton's stub imports it at the first execute

        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        key, start, is_late = object(), monotonic(), False
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer, is_late
            taken = self._senders.taken
            last_s = max([taken[request].last_s for request in requests if request in taken], default=0.0)
            left_s = min(max(start, last_s) + self._deadline_s, due_s or inf) - monotonic()
            if left_s <= 0 and task is not None:
                is_late = True
                task.cancel()
            elif self._is_async:
                self._note_awaited(key, max(start, last_s))
            timer = loop.call_later(left_s if left_s > 0 else REPEAT_S, look)

        timer = loop.call_later(min(self._deadline_s, max(due_s - start, 0.0) if due_s else inf), look)
        self._note_awaited(key, start)
        try:
            return await running
        except BaseException as error:
            return Raised(late(error) if is_late else error)
        finally:
            timer.cancel()
            self._note_awaited(key, 0.0)
            self._stats.execution_s += monotonic() - start

    def _note_awaited(self, key: object, since_s: float) -> None:
        """Have the hard deadline count from the oldest call that is being awaited."""
        if not self._is_async:
            return  # the soft deadline's interrupt would reach the main thread, which only waits
        if since_s:
            self._awaited[key] = since_s
        else:
            self._awaited.pop(key, None)
        if monotonic() >= self._slot[1]:
            self._instance.watchdog.rearm()
        self._slot[0] = min(list(self._awaited.values()), default=0.0)

    def _note_progress(self) -> None:
        """Give a decoupled ``execute`` that just sent a response the time of one call again."""
        # Only the main thread runs under the deadlines; another one's response says nothing about it.
        watchdog, slot = self._instance.watchdog, self._slot
        if slot[0] and not self._is_async and threading.current_thread() is threading.main_thread():
            now = monotonic()
            if now >= slot[1]:
                watchdog.rearm()
            slot[0] = now
