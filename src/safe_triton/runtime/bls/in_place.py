"""Calls of quick models, made in the thread that answers the request; it is answered in time although that waits.

Handing a call to a thread and back costs two switches, more than all checks together. A model that has answered
quickly for a while is called without; if it then is late once, the watchdog answers in the place of the thread that
waits, and the model is called from threads again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from numpy import ndarray

from safe_triton.confinement.launch import BEAT_VARIABLE
from safe_triton.errors import BlsDeadlineError
from safe_triton.policy.defaults import CALL_PARAMETER
from safe_triton.runtime.bls.targets import QUICK_S, Target

if TYPE_CHECKING:
    from safe_triton.runtime.bls.client import BlsClient
    from safe_triton.runtime.forms.engine import Engine, Execute

QuickCall: TypeAlias = Callable[[Any], dict[str, Any] | None]

QUICK_CALLS = 8
"""Quick calls in a row after which a model is called in place."""


def is_supervised() -> bool:
    """Tell whether somebody brings this process back if its hard deadline has to end it."""
    return BEAT_VARIABLE in os.environ


class InPlace:
    """The calls of one instance's ``infer`` that are made in place.

    Args:
        engine: of the instance; its watchdog tells when a request is late.
        client: of the same instance.

    Does not cover:
        Executes with several requests, other forms than ``infer``, calls with parameters or chosen outputs, threads of
        the author's, and targets with a time of their own, after which the author's code may still do something else:
        their calls run in threads.
        Requests that the server has queued behind one whose call is late: they wait with this instance until the call
        comes back, or until the hard deadline ends the process.
    """

    def __init__(self, engine: Engine, client: BlsClient) -> None:
        self._outcomes, self._slot = engine.outcomes, engine.watchdog.slot
        self._client, self._logger = client, client.logger
        self._calls = client.quick
        self._main = threading.main_thread().ident
        # Whoever takes the request out of this list answers it: the main thread when it is done, or the watchdog.
        self._claim: list[Any] = []
        self._sent: list[Any] | None = None
        self._sending = threading.Lock()
        self._waits_for: Target | None = None
        engine.watchdog.on_late = self._answer_late

    def around(self, execute: Execute) -> Execute:
        """Return an ``execute`` whose only request can be answered from another thread."""

        def answered(requests: list[Any]) -> Any:
            if len(requests) != 1:
                return execute(requests)
            claim = self._claim = [requests[0]]
            responses = execute(requests)
            try:
                claim.pop()
            except IndexError:
                with self._sending:  # what is being sent has to be out before Triton lets go of the request
                    return [None] if self._sent is claim else responses
            return responses

        return answered

    def settle(self, target: Target) -> None:
        """Have a target's next calls made in place if it has been quick for long enough, else in threads."""
        if target.quick_calls < QUICK_CALLS or monotonic() < target.in_place_from_s:
            self._calls.pop(target.name, None)
        elif target.name not in self._calls:
            self._calls[target.name] = self._compile(target)

    def _compile(self, target: Target) -> QuickCall:
        """Return ``infer(inputs)`` of one target, which gives ``None`` for a call that has to go the common way.

        It is that way in one function. The caches are cold around a call: each function and object on the way costs,
        so a single input or output is held against the dtype and shape that were good last time, and no more.
        """
        client, main, clock, current = self._client, self._main, monotonic, threading.get_ident
        request_class, tensor_class, refused = client.request_class, client.tensor_class, client.triton_exception
        name, version, key, wanted, spent = target.name, target.version, target.key, target.output_names, target.spent
        max_calls, max_bytes = client.bounds.max_calls, client.bounds.max_bytes
        only_input, input_dtype = target.inputs.only
        only_output, output_dtype = target.outputs.only
        good_input: tuple[Any, int, int] = (None, 0, 0)
        good_output: tuple[Any, int, int] = (None, 0, 0)

        def infer(inputs: Any) -> dict[str, Any] | None:
            nonlocal good_input, good_output
            frame, start = client.frame, clock()
            if frame is None or len(self._claim) != 1 or current() != main:
                return None
            shape, rows, sent = good_input
            array: Any = inputs.get(only_input) if type(inputs) is dict and len(inputs) == 1 else None
            if type(array) is ndarray and array.dtype is input_dtype and array.shape == shape:
                tensors = [tensor_class(only_input, array)]
            else:
                tensors, rows, sent = target.tensors_of(inputs)
                is_plain = type(array) is ndarray and array.dtype is input_dtype
                good_input = (array.shape if is_plain else None, rows, sent)
            if not frame.path:
                frame.open()
            left_s = frame.due_s - start
            if left_s <= 0 or key in frame.path:
                return None
            frame.calls += 1
            frame.moved_bytes += sent
            if frame.calls > max_calls or frame.moved_bytes > max_bytes:
                frame.count_bytes(0)
            request = request_class(
                frame.request_id,
                frame.correlation_id,
                tensors,
                wanted,
                name,
                version,
                frame.flags,
                trace=frame.trace,
                parameters={CALL_PARAMETER: f"{int(left_s * 1000)}{frame.path_text}"},
            )
            self._waits_for = target
            try:
                response = request.exec()
            except refused as error:
                raise client.failed(target, str(error)) from None
            finally:
                self._waits_for = None
                took_s = clock() - start
                spent[0] += 1
                spent[1] += took_s
                if took_s >= QUICK_S:
                    target.quick_calls = 0
                    self.settle(target)
            if response.has_error():
                raise client.answered(target, response.error())
            if only_output is not None:
                answered = response.output_tensors()
                if len(answered) == 1 and answered[0].is_cpu() and answered[0].name() == only_output:
                    array = answered[0].as_numpy()
                    if array.dtype is output_dtype and (array.shape, rows) == good_output[:2]:
                        frame.moved_bytes += good_output[2]
                        if frame.moved_bytes > max_bytes:
                            frame.count_bytes(0)
                        return {only_output: array}
            outputs, received = target.outputs_of(response, rows, wanted)
            frame.count_bytes(received)
            if only_output is not None and type(outputs[only_output]) is ndarray:
                good_output = (outputs[only_output].shape, rows, received)
            return outputs

        return infer

    def _answer_late(self, start_s: float) -> None:
        """Answer the request whose time is over, if it waits for a call; from the watchdog's thread.

        Args:
            start_s: when the late request began; by now, another one may be under way.
        """
        claim, target = self._claim, self._waits_for
        if target is None or self._slot[0] != start_s:
            return
        with self._sending:
            try:
                request = claim.pop()
            except IndexError:
                return
            target.in_place_from_s = inf
            self.settle(target)
            error = BlsDeadlineError(f"bls.deadline: '{target.name}' did not answer in time")
            fields = {"reason": error.reason, "target": target.key}
            try:
                request.get_response_sender().send(
                    self._outcomes.response(error.public, error.code), self._client.final_flag
                )
                self._sent = claim
                self._logger.warning("a call is late: the request is answered without it", extra={"fields": fields})
            except Exception as failure:  # a release before 24.06 has no sender here: the answer waits for the call
                fields["exception"] = type(failure).__name__
                self._logger.warning("a call is late, and its request cannot be answered", extra={"fields": fields})
