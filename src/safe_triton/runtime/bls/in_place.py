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
from safe_triton.runtime.bls.targets import Target

if TYPE_CHECKING:
    from safe_triton.runtime.bls.client import BlsClient
    from safe_triton.runtime.forms.engine import Engine, Execute

QuickInfer: TypeAlias = Callable[[str, Any], dict[str, Any] | None]

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

    def compile_infer(self) -> QuickInfer:
        """Return ``infer(model, inputs)``, which gives ``None`` for a call that has to go the common way.

        It is that way in one function, for a target that is quick now, with inputs and outputs whose names, dtypes and
        shapes were good before. The caches are cold around a call, and each function and object on the way costs.
        """
        client, main = self._client, self._main
        targets, request_class, tensor_class = client.targets, client.request_class, client.tensor_class
        clock, current, refused = monotonic, threading.get_ident, client.triton_exception

        def infer(model: str, inputs: Any) -> dict[str, Any] | None:
            target, frame, start = targets.get(model), client.frame, clock()
            if (
                target is None
                or target.quick_calls < QUICK_CALLS
                or start < target.in_place_from_s
                or frame is None
                or len(self._claim) != 1
                or current() != main
                or type(inputs) is not dict
            ):
                return None
            key: list[Any] = []
            for name, array in inputs.items():
                if type(array) is not ndarray or array.dtype is not target.find_input_dtype(name):
                    return None
                key += name, array.shape
            known = target.find_good_inputs(tuple(key))
            if known is None:
                return None
            if not frame.path:
                frame.open()
            left_s = frame.due_s - start
            if left_s <= 0 or target.key in frame.path:
                return None
            rows, sent = known
            frame.count_call(sent)
            request = request_class(
                frame.request_id,
                frame.correlation_id,
                [tensor_class(name, array) for name, array in inputs.items()],
                target.output_names,
                target.name,
                target.version,
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
                target.note_call(clock() - start)
            if response.has_error():
                raise client.answered(target, response.error())
            outputs, received = target.outputs_of(response, rows, target.output_names)
            frame.count_bytes(received)
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
