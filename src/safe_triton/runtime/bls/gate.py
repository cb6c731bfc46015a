"""The calls to other models that an unmodified class makes with ``pb_utils.InferenceRequest``, held to a policy.

Python's means: while a gate is installed, three methods of Triton's class are others. Code that looks for the original
ones finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from safe_triton.errors import BlsError, BlsUsageError, ParameterError
from safe_triton.runtime.bls.call import Call
from safe_triton.runtime.bls.frames import BatchFrame, Frame

if TYPE_CHECKING:
    from safe_triton.policy.bls import BlsGrants
    from safe_triton.runtime._pb import Backend
    from safe_triton.runtime.bls.client import BlsClient
    from safe_triton.runtime.log import ModelLogger

Execute = Callable[[list[Any]], Any]

ARGUMENTS = (
    "request_id", "correlation_id", "inputs", "requested_output_names", "model_name", "model_version", "flags",
    "timeout", "preferred_memory", "trace", "parameters",
)  # fmt: skip
"""Arguments of ``InferenceRequest``, in Triton's order."""

CARRIED = ("request_id", "correlation_id", "flags", "timeout", "trace")
"""Those of them that a call carries on as the author wrote them."""

METHODS = ("__init__", "exec", "async_exec")
NEWEST = -1
"""``model_version`` of a call that names none."""


class CallGate:
    """Stands before the calls of an unmodified class: what the policy refuses is answered with an error response.

    Args:
        backend: Triton's.
        logger: is told of what was refused.
        grants: the operator's; ``None`` where there are none.
        client: made from the ``BlsPolicy`` that ``protect`` was given: its targets' versions and tensors, its bounds
            and the time of the request hold for each call. ``None``: names and versions alone, by ``grants``.
        deadline_s: seconds that one execute may take.

    Does not cover:
        Code that keeps Triton's own methods from before. Calls from threads of the original's own after ``execute``:
        each is a request of its own for the bounds.
    """

    def __init__(
        self,
        backend: Backend,
        logger: ModelLogger,
        *,
        grants: BlsGrants | None,
        client: BlsClient | None,
        deadline_s: float,
    ) -> None:
        self._backend = backend
        self._class = backend.InferenceRequest
        self._logger = logger
        self._grants = grants
        self._client = client
        self._deadline_s = min(deadline_s, 1e9)
        self._methods = {name: getattr(self._class, name) for name in METHODS}
        # What Triton's request was made of; it tells nobody afterwards.
        self._made: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()

    def install(self) -> None:
        """Put this gate's methods in the place of Triton's."""
        construct, known = self._methods["__init__"], self._made

        def made(request: Any, *args: Any, **kwargs: Any) -> None:
            construct(request, *args, **kwargs)
            known[request] = {**dict(zip(ARGUMENTS, args, strict=False)), **kwargs}

        def execute(request: Any, decoupled: bool = False) -> Any:
            return self._exec(request, decoupled)

        def async_execute(request: Any, decoupled: bool = False) -> Any:
            import asyncio

            # As Triton's own, it begins when it is called.
            return asyncio.get_running_loop().create_task(self._async_exec(request, decoupled))

        for name, method in zip(METHODS, (made, execute, async_execute), strict=True):
            setattr(self._class, name, method)

    def remove(self) -> None:
        """Give Triton's class its own methods back."""
        for name, method in self._methods.items():
            setattr(self._class, name, method)

    def around(self, execute: Execute) -> Execute:
        """Return ``execute`` with the bounds of a request's calls around it."""
        client = self._client
        if client is None:
            return execute

        async def awaited(running: Any, frame: Frame) -> Any:
            client.task_frame.set(frame)  # of this task alone
            return await running

        def framed(requests: list[Any]) -> Any:
            frame = BatchFrame(client.bounds, requests, monotonic() + self._deadline_s)
            client.frame = frame
            try:
                returned = execute(requests)
            finally:
                client.frame = None
            return awaited(returned, frame) if type(returned) is CoroutineType else returned

        return framed

    # -- one call --------------------------------------------------------------------------------------------------

    def _exec(self, request: Any, decoupled: bool) -> Any:
        execute = self._methods["exec"]
        try:
            if self._client is None:
                return execute(self._named(request), decoupled=decoupled)
            call = self._call(request)
            start = monotonic()
            try:
                answer = self._client.waited(call, partial(execute, call.request, decoupled=decoupled))
                return _Answers(self, call, answer) if decoupled else self._accepted(call, answer)
            finally:
                call.note_time(start)
        except (BlsError, ParameterError) as error:
            return iter([self.refusal(error)]) if decoupled else self.refusal(error)

    async def _async_exec(self, request: Any, decoupled: bool) -> Any:
        execute = self._methods["async_exec"]
        try:
            if self._client is None:
                return await execute(self._named(request), decoupled=decoupled)
            self._client.check_late()
            call = self._call(request)
            start = monotonic()
            try:
                answer = await self._client.awaited(call, execute(call.request, decoupled=decoupled))
                return _Answers(self, call, answer) if decoupled else self._accepted(call, answer)
            finally:
                call.note_time(start)
        except (BlsError, ParameterError) as error:
            return iter([self.refusal(error)]) if decoupled else self.refusal(error)

    def _named(self, request: Any) -> Any:
        """Return a request to a model and version that the operator grants."""
        made, grants = self._made.get(request), self._grants
        if made is None or grants is None:
            return request
        name, version = _text(made["model_name"]), int(made.get("model_version", NEWEST))
        granted = grants.versions.get(name, ())
        if version == NEWEST and granted:
            if len(granted) > 1:
                raise BlsUsageError(f"bls.usage: the call of '{name}' names no version; granted: {_listed(granted)}")
            return self._class(**{**made, "model_version": granted[0]})
        if not grants.allows(name, version):
            what = name if version == NEWEST else f"{name}:{version}"
            raise BlsUsageError(f"bls.usage: the operator's policy does not let this model call '{what[:64]}'")
        return request

    def _call(self, request: Any) -> Call:
        """Return the call as the policy lets it leave."""
        client, made = self._client, self._made.get(request)
        if client is None or made is None:
            raise BlsUsageError("bls.usage: this request was not made by the model: it cannot be sent")
        name, version = _text(made["model_name"]), int(made.get("model_version", NEWEST))
        target = client.targets.get(name) or client.refuse_target(name)
        if version not in (NEWEST, int(target.version)):
            raise BlsUsageError(f"bls.usage: version {version} of '{name}' is called, {target.version} is allowed")
        inputs = {tensor.name(): tensor for tensor in made["inputs"]}
        if len(inputs) != len(made["inputs"]):
            raise BlsUsageError(f"bls.usage: an input of '{name}' is there twice")
        carried = {key: made[key] for key in CARRIED if key in made}
        if made.get("preferred_memory") is not None:
            carried["preferred_memory"] = made["preferred_memory"]
        outputs = [_text(each) for each in made["requested_output_names"]] or None
        return Call(client, name, inputs, outputs, made.get("parameters"), None, self._frame(client), carried)

    def _frame(self, client: BlsClient) -> Frame:
        """Return what is known of the requests that are answered now; a thread's call after them stands alone."""
        frame = client.frame or client.task_frame.get()
        return (frame or BatchFrame(client.bounds, [], monotonic() + self._deadline_s)).open()

    def _accepted(self, call: Call, response: Any) -> Any:
        """Return Triton's own response once it was checked; an error is the author's to see, as it is."""
        if not response.has_error():
            call.accept(response)
        return response

    def refusal(self, error: BlsError | ParameterError) -> Any:
        """Return the response of a call that the policy refuses, and say so in the log."""
        fields = {"reason": error.reason, "detail": error.message}
        self._logger.warning("a call to another model was refused", extra={"fields": fields})
        backend = self._backend
        code = backend.codes.get(error.code, backend.codes["INTERNAL"])
        return backend.InferenceResponse(output_tensors=[], error=backend.TritonError(error.message, code))


class _Answers:
    """What Triton's iterator of a decoupled model's answers gives, each checked; as that one it can be read again."""

    def __init__(self, gate: CallGate, call: Call, responses: Any) -> None:
        self._gate, self._call = gate, call
        self._responses = call.client.answers(responses)
        self._seen: list[Any] = []
        self._next = self._counted = 0
        self._is_over = False

    def __iter__(self) -> Iterator[Any]:
        if self._is_over:
            self._next = 0
        return self

    def __next__(self) -> Any:
        if self._next == len(self._seen):
            if self._is_over:
                raise StopIteration
            self._fetch()
        response = self._seen[self._next]
        self._next += 1
        return response

    def cancel(self) -> None:
        """Tell the called model that nobody listens any more, where the release can."""
        self._responses.cancel()

    def __del__(self) -> None:
        self._responses.close()

    def _fetch(self) -> None:
        client, call, end = self._call.client, self._call, object()
        try:
            response = client.waited(call, partial(next, self._responses, end))
            if response is end:
                self._is_over = True
                raise StopIteration
            if not response.has_error() and response.output_tensors():
                self._counted += 1
                client.check_responses(self._counted)
                call.accept(response)
        except (BlsError, ParameterError) as error:
            self._is_over = True
            self.cancel()
            response = self._gate.refusal(error)
        self._seen.append(response)


def _text(name: Any) -> str:
    """Return a name as text: Triton takes bytes too."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
