"""The request path around an unmodified ``execute``: requests in, its responses out, each exactly once."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from safe_triton.errors import DeadlineExceeded, OutputError
from safe_triton.runtime.forms.engine import Execute
from safe_triton.runtime.instance import Instance
from safe_triton.runtime.text import client_text
from safe_triton.validation.outputs import OutputPlan, check_total_bytes

WATCHED = ("get_response_sender", "set_release_flags")


class GuardedSender:
    """Stands before a response sender: responses are checked, and the final flag is remembered."""

    __slots__ = ("_check", "_final", "_progress", "_rows", "_sender", "is_finished")

    def __init__(
        self, sender: Any, check: Callable[[Any, int], Any], rows: int, final: int, progress: Callable[[], None]
    ) -> None:
        self._sender = sender
        self._check = check
        self._rows = rows
        self._final = final
        self._progress = progress
        self.is_finished = False

    def send(self, response: Any = None, flags: int = 0) -> None:
        """Send one response, the final flag, or both, as the original sender does."""
        if response is not None:
            response = self._check(response, self._rows)
        if flags & self._final:
            self.is_finished = True
        if response is None:
            self._sender.send(flags=flags)
        else:
            self._sender.send(response, flags=flags)
        self._progress()

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
        self._isolates = isolates and not instance.plan.config.has_sequences
        self._refuses = refuses
        self._rows: dict[int, int] = {}
        self._senders: dict[int, GuardedSender] = {}
        self._rescheduled: set[int] = set()
        self._originals: dict[str, Any] = {}
        self._warned: set[str] = set()

    def watch(self) -> None:
        """Learn what the original does with its requests.

        A :class:`GuardedSender` stands before every response sender; a request that it asks for again is noted.
        """
        request_class = self._instance.backend.InferenceRequest
        self._originals = {name: getattr(request_class, name) for name in WATCHED if hasattr(request_class, name)}

        def get_response_sender(request: Any) -> Any:
            known = self._senders.get(id(request))
            if known is not None:
                return known
            sender = GuardedSender(
                self._originals["get_response_sender"](request),
                self._check_response,
                self._rows.get(id(request), -1),
                self._instance.backend.final_flag,
                self._note_progress,
            )
            if id(request) in self._rows:
                self._senders[id(request)] = sender
            return sender

        def set_release_flags(request: Any, *args: Any, **kwargs: Any) -> Any:
            self._rescheduled.add(id(request))
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

    def _accept(self, requests: list[Any], refuse: Callable[[int, BaseException], None]) -> list[int]:
        plan = self._instance.plan
        accepted = []
        for index, request in enumerate(requests):
            try:
                inputs = plan.check_request(request)
                name = next((name for name in inputs if name in plan.inputs), None)
                self._rows[id(request)] = inputs[name].shape[0] if plan.max_batch_rows and name else 0
                accepted.append(index)
            except BaseException as error:
                refuse(index, error)
        return accepted

    def _call(self, execute: Callable[[list[Any]], Any], requests: list[Any]) -> Any:
        watchdog, stats = self._instance.watchdog, self._instance.stats
        slot = watchdog.slot
        start = monotonic()
        if start >= slot[1]:
            watchdog.rearm()
        slot[0] = start
        try:
            return execute(requests)
        finally:
            slot[0] = 0.0
            stats.execution_s += monotonic() - start

    def _note_progress(self) -> None:
        watchdog = self._instance.watchdog
        slot = watchdog.slot
        if slot[0]:
            start = monotonic()
            if start >= slot[1]:
                watchdog.rearm()
            slot[0] = start

    def _plain(self, requests: list[Any], execute: Callable[[list[Any]], Any]) -> list[Any]:
        answer = self._instance.outcomes.answer
        responses: list[Any] = [None] * len(requests)

        def refuse(index: int, error: BaseException) -> None:
            responses[index] = answer(error)

        def run(indices: list[int], isolates: bool) -> None:
            chosen = [requests[index] for index in indices]
            try:
                returned = self._list_of(self._call(execute, chosen), len(chosen))
            except BaseException as error:
                alone = isolates and len(indices) > 1 and not isinstance(error, (DeadlineExceeded, OutputError))
                if alone and not self._senders:
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
        if accepted:
            run(accepted, self._isolates)
        return responses

    def _list_of(self, returned: Any, count: int) -> list[Any]:
        if not isinstance(returned, list):
            if returned is None and len(self._senders) == count:
                return [None] * count
            raise OutputError(
                f"output.type: execute returned {type(returned).__name__}, expected a list", reason="output.type"
            )
        if len(returned) != count:
            raise OutputError(
                f"output.count: execute returned {len(returned)} responses for {count} requests", reason="output.count"
            )
        return returned

    def _answer_unless_sent(self, request: Any, error: BaseException) -> Any:
        sender = self._senders.get(id(request))
        if sender is None:
            return self._instance.outcomes.answer(error)
        if not sender.is_finished:
            sender.send(self._instance.outcomes.answer(error), self._instance.backend.final_flag)
        return None

    def _finish(self, request: Any, response: Any) -> Any:
        if response is None:
            # Legitimate where the original answers through the sender or asks for the request again.
            if id(request) in self._senders or id(request) in self._rescheduled:
                self._instance.stats.outcomes["ok"] += 1
                return None
            raise OutputError("output.missing: execute returned no response for a request", reason="output.missing")
        return self._check_response(response, self._rows.get(id(request), -1))

    def _check_response(self, response: Any, rows: int) -> Any:
        stats = self._instance.stats
        if not isinstance(response, self._instance.backend.InferenceResponse):
            raise OutputError(f"output.type: {type(response).__name__} is no InferenceResponse", reason="output.type")
        if response.has_error():
            stats.count("answered")
            return self._clean_error(response)
        total_bytes = 0
        for tensor in response.output_tensors():
            total_bytes += self._check_tensor(tensor, rows)
        check_total_bytes(total_bytes, self._instance.plan.max_output_bytes)
        stats.outcomes["ok"] += 1
        return response

    def _check_tensor(self, tensor: Any, rows: int) -> int:
        if not tensor.is_cpu():
            return 0
        plan: OutputPlan | None = self._instance.plan.outputs.get(tensor.name())
        array = tensor.as_numpy()
        try:
            if plan is None:
                raise OutputError(
                    f"output.unknown: '{tensor.name()[:64]}' is no output of this model", reason="output.unknown"
                )
            plan.check_metadata(array, rows if rows >= 0 else array.shape[0] if array.ndim else 0)
            return plan.check_payload(array)
        except OutputError as error:
            if self._refuses or error.reason == "output.bytes":
                raise
            self._warn(error)
            return int(array.size * array.itemsize)

    def _warn(self, error: OutputError) -> None:
        self._instance.stats.warn(error.reason)
        if error.reason not in self._warned:
            self._warned.add(error.reason)
            self._instance.logger.warning(f"passed an output that breaks config.pbtxt: {error.message}")

    def _clean_error(self, response: Any) -> Any:
        error = response.error()
        text = str(error.message())
        clean = client_text(text)
        if clean == text:
            return response
        backend = self._instance.backend
        return backend.InferenceResponse(error=backend.TritonError(clean, error.code()))

    def _decoupled(self, requests: list[Any], execute: Callable[[list[Any]], Any]) -> None:
        outcomes, final = self._instance.outcomes, self._instance.backend.final_flag

        def refuse(index: int, error: BaseException) -> None:
            requests[index].get_response_sender().send(outcomes.answer(error), final)

        accepted = [requests[index] for index in self._accept(requests, refuse)]
        if not accepted:
            return
        try:
            self._call(execute, accepted)
        except BaseException as error:
            for request in accepted:
                sender = request.get_response_sender()
                if not sender.is_finished:
                    sender.send(outcomes.answer(error), final)
