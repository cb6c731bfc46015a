"""The request path around an unmodified ``execute``: requests in, its responses out, each exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from safe_triton.errors import DeadlineExceeded, OutputError
from safe_triton.runtime.forms.engine import Engine, Execute
from safe_triton.runtime.instance import Instance
from safe_triton.runtime.outcome import log_failure, new_error_id
from safe_triton.runtime.text import client_text
from safe_triton.validation.outputs import OutputPlan, check_total_bytes, sent_bytes
from safe_triton.validation.remembered import Remembered

WATCHED = ("get_response_sender", "set_release_flags")


class GuardedSender:
    """Stands before a response sender: responses are checked, and the final flag is sent once.

    A response that must not leave is answered with an error and the final flag, whatever thread it comes from: an
    exception there would end the author's thread, and the client would wait for ever.
    """

    __slots__ = ("_execution", "_rows", "_sender", "has_failed", "is_finished")

    def __init__(self, sender: Any, execution: ProtectedExecution, rows: int) -> None:
        self._sender = sender
        self._execution = execution
        self._rows = rows
        self.has_failed = False
        self.is_finished = False

    def send(self, response: Any = None, flags: int = 0) -> None:
        """Send one response, the final flag, or both, as the original sender does; after the final flag, nothing."""
        if self.is_finished:
            return
        if response is not None:
            try:
                response = self._execution.check_response(response, self._rows)
                self.has_failed = self.has_failed or response.has_error()
            except OutputError as error:
                self.fail(error)
                return
        if self._send(response, flags):
            self._execution.count("answered" if self.has_failed else "ok")
        self._execution.note_progress()

    def fail(self, error: BaseException) -> None:
        """End the request with an error; counted there."""
        if not self.is_finished:
            self._send(self._execution.answer(error), self._execution.final_flag)

    def _send(self, response: Any, flags: int) -> bool:
        if response is None:
            self._sender.send(flags=flags)
        else:
            self._sender.send(response, flags=flags)
        if flags & self._execution.final_flag:
            self.is_finished = True
        return self.is_finished

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sender, name)


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
        self._isolates = isolates and not instance.plan.config.has_sequences
        self._refuses = refuses
        # By the request itself: it is hashed by identity, and id() would be an audit event.
        self._rows: dict[Any, int] = {}
        self._senders: dict[Any, GuardedSender] = {}
        self._rescheduled: set[Any] = set()
        self._originals: dict[str, Any] = {}
        self._warned: set[str] = set()
        self._good: Remembered[Any, int] = Remembered()
        self._plans = instance.plan.outputs
        self._counting = threading.Lock()
        self.answer = instance.outcomes.answer
        self.final_flag = instance.backend.final_flag

    def watch(self) -> None:
        """Learn what the original does with its requests.

        A :class:`GuardedSender` stands before every response sender; a request that it asks for again is noted.
        """
        request_class = self._instance.backend.InferenceRequest
        self._originals = {name: getattr(request_class, name) for name in WATCHED if hasattr(request_class, name)}

        def get_response_sender(request: Any) -> Any:
            known = self._senders.get(request)
            if known is not None:
                return known
            sender = GuardedSender(self._originals["get_response_sender"](request), self, self._rows.get(request, -1))
            if request in self._rows:
                self._senders[request] = sender
            return sender

        def set_release_flags(request: Any, *args: Any, **kwargs: Any) -> Any:
            self._rescheduled.add(request)
            return self._originals["set_release_flags"](request, *args, **kwargs)

        for name, replacement in zip(WATCHED, (get_response_sender, set_release_flags), strict=True):
            if name in self._originals:
                setattr(request_class, name, replacement)

    def unwatch(self) -> None:
        """Give Triton's class its own methods back."""
        for name, original in self._originals.items():
            setattr(self._instance.backend.InferenceRequest, name, original)

    def compile(self, execute: Callable[[list[Any]], Any]) -> Execute:
        """Return Triton's ``execute`` around the original."""
        is_decoupled = self._instance.plan.config.is_decoupled

        def guarded(requests: list[Any]) -> Any:
            first, before = monotonic(), self._instance.stats.execution_s
            try:
                return self._decoupled(requests, execute) if is_decoupled else self._plain(requests, execute)
            except BaseException as error:
                self._instance.watchdog.slot[0] = 0.0
                return None if is_decoupled else [self._instance.outcomes.answer(error) for _ in requests]
            finally:
                self._rows.clear()
                self._senders.clear()
                self._rescheduled.clear()
                stats = self._instance.stats
                stats.guard_s += monotonic() - first - (stats.execution_s - before)

        return guarded

    def count(self, outcome: str) -> None:
        """Count one request; also from threads of the original's."""
        with self._counting:
            self._instance.stats.count(outcome)

    def note_progress(self) -> None:
        """Give a decoupled ``execute`` that just sent a response the time of one call again."""
        # Only the main thread runs under the deadlines; another one's response says nothing about it.
        watchdog = self._instance.watchdog
        slot = watchdog.slot
        if slot[0] and threading.current_thread() is threading.main_thread():
            now = monotonic()
            if now >= slot[1]:
                watchdog.rearm()
            slot[0] = now

    def _accept(self, requests: list[Any], refuse: Callable[[int, BaseException], None]) -> list[int]:
        check_request = self._engine.check_request
        accepted = []
        for index, request in enumerate(requests):
            try:
                self._rows[request] = self._engine.rows_of(check_request(request))
                accepted.append(index)
            except BaseException as error:
                refuse(index, error)
        return accepted

    def _plain(self, requests: list[Any], execute: Callable[[list[Any]], Any]) -> list[Any]:
        answer = self.answer
        responses: list[Any] = [None] * len(requests)
        kept: list[tuple[Any, Any]] = []

        def refuse(index: int, error: BaseException) -> None:
            responses[index] = answer(error)

        def run(indices: list[int], isolates: bool) -> None:
            chosen = [requests[index] for index in indices]
            try:
                returned = self._list_of(self._engine.timed(execute, chosen), len(chosen))
            except BaseException as error:
                self._instance.watchdog.slot[0] = 0.0
                alone = isolates and not isinstance(error, (DeadlineExceeded, OutputError))
                if alone and not self._senders:
                    for array, before in kept:
                        array[...] = before
                    for index in indices:
                        run([index], isolates=False)
                    return
                for index in indices:
                    responses[index] = self._answer_unless_sent(requests[index], error)
                return
            for index, response in zip(indices, returned, strict=True):
                try:
                    responses[index] = self._finish(requests[index], response)
                except BaseException as error:
                    responses[index] = answer(error)

        accepted = self._accept(requests, refuse)
        isolates = self._isolates and len(accepted) > 1
        if isolates:
            # The original may change its inputs in place: a second run has to see what the first one saw.
            for index in accepted:
                kept += [(array, array.copy()) for array in map(_array_of, requests[index].inputs())]
        if accepted:
            run(accepted, isolates)
        return responses

    def _list_of(self, returned: Any, count: int) -> list[Any]:
        if not isinstance(returned, list):
            if returned is None and len(self._senders) == count:
                return [None] * count
            got = type(returned).__name__
            raise OutputError(f"output.type: execute returned {got}, expected a list", reason="output.type")
        if len(returned) != count:
            raise OutputError(
                f"output.count: execute returned {len(returned)} responses for {count} requests", reason="output.count"
            )
        return returned

    def _answer_unless_sent(self, request: Any, error: BaseException) -> Any:
        sender = self._senders.get(request)
        if sender is None:
            return self.answer(error)
        sender.fail(error)
        return None

    def _finish(self, request: Any, response: Any) -> Any:
        sender = self._senders.get(request)
        if sender is not None and sender.is_finished and response is not None:
            self._warn(
                OutputError("output.twice: a request was answered by its sender, and again", reason="output.twice")
            )
            return None
        if response is None:
            # Legitimate where the original answers through the sender or asks for the request again.
            if sender is not None or request in self._rescheduled:
                return None
            raise OutputError("output.missing: execute returned no response for a request", reason="output.missing")
        checked = self.check_response(response, self._rows.get(request, -1))
        if self._refuses and not checked.has_error():
            self._check_presence(request, checked)
        self.count("answered" if checked.has_error() else "ok")
        return checked

    def _check_presence(self, request: Any, response: Any) -> None:
        there = {tensor.name() for tensor in response.output_tensors()}
        for name in self._instance.plan.outputs:
            if name not in there and name in request.requested_output_names():
                raise OutputError(f"output.missing: '{name}' was not returned", reason="output.missing")

    def check_response(self, response: Any, rows: int) -> Any:
        """Return a response as it may leave.

        Raises:
            OutputError: it must not.
        """
        if not isinstance(response, self._instance.backend.InferenceResponse):
            got = type(response).__name__
            raise OutputError(f"output.type: {got} is no InferenceResponse", reason="output.type")
        if response.has_error():
            return self._clean_error(response)
        total_bytes = 0
        for tensor in response.output_tensors():
            total_bytes += self._check_tensor(tensor, rows)
        check_total_bytes(total_bytes, self._instance.plan.max_output_bytes)
        return response

    def _check_tensor(self, tensor: Any, rows: int) -> int:
        if not tensor.is_cpu():
            return 0
        name = tensor.name()
        plan: OutputPlan | None = self._plans.get(name)
        array = tensor.as_numpy()
        key = (rows, name, array.shape)
        if plan is not None and array.dtype is plan.dtype:
            known = self._good.get(key)
            if known is not None:
                return known
        try:
            if plan is None:
                raise OutputError(
                    f"output.unknown: '{tensor.name()[:64]}' is no output of this model", reason="output.unknown"
                )
            plan.check_metadata(array, rows if rows >= 0 else array.shape[0] if array.ndim else 0)
            total_bytes = plan.check_payload(array)
            if not (plan.is_bytes or plan.finite):
                self._good.note(key, total_bytes)
            return total_bytes
        except OutputError as error:
            if self._refuses or error.reason == "output.bytes":
                raise
            self._warn(error)
            return sent_bytes(array)

    def _warn(self, error: OutputError) -> None:
        self._instance.stats.warn(error.reason)
        if error.reason not in self._warned:
            self._warned.add(error.reason)
            self._instance.logger.warning(f"passed an output that breaks config.pbtxt: {error.message}")

    def _clean_error(self, response: Any) -> Any:
        error = response.error()
        backend = self._instance.backend
        # Always a new object: an original may use one error response for several requests, which crashes the server.
        return backend.InferenceResponse(error=backend.TritonError(client_text(str(error.message())), error.code()))

    def _decoupled(self, requests: list[Any], execute: Callable[[list[Any]], Any]) -> None:
        def refuse(index: int, error: BaseException) -> None:
            self._fail(requests[index], error)

        accepted = [requests[index] for index in self._accept(requests, refuse)]
        if not accepted:
            return
        try:
            self._engine.timed(execute, accepted)
        except BaseException as error:
            self._instance.watchdog.slot[0] = 0.0
            for request in accepted:
                self._fail(request, error)

    def _fail(self, request: Any, error: BaseException) -> None:
        """End one request of a decoupled model; a sender that fails must not cost the others their answer."""
        try:
            request.get_response_sender().fail(error)
        except Exception as failure:
            log_failure(self._instance.logger, "a response could not be sent", failure, new_error_id(), "model.failed")


def _array_of(tensor: Any) -> Any:
    return tensor.as_numpy()
