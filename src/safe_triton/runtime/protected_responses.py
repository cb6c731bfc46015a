"""The check of the responses that an unmodified class makes: passed, passed with a warning, or refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from safe_triton._text import client_text
from safe_triton.errors import OutputError
from safe_triton.runtime.instance import Instance
from safe_triton.runtime.unseen import ANY_BYTE, array_of
from safe_triton.validation.outputs import OutputPlan, check_total_bytes, sent_bytes
from safe_triton.validation.remembered import Remembered


class ResponseCheck:
    """Checks one response at a time, from any thread.

    Args:
        instance: the parts of this model instance.
        refuses: whether outputs that break config.pbtxt are a failure instead of a counted warning.
    """

    def __init__(self, instance: Instance, *, refuses: bool) -> None:
        self.refuses = refuses
        self._instance = instance
        self._plans = instance.plan.outputs
        self._find_plan = instance.plan.outputs.get
        self._passed_through = instance.plan.config.server_outputs
        self._class = instance.backend.InferenceResponse
        self._max_bytes = instance.plan.max_output_bytes
        self._warned: set[str] = set()
        self._good: Remembered[Any, int] = Remembered()

    def check(self, response: Any, rows: int) -> Any:
        """Return a response as it may leave.

        Args:
            response: what the original returned or sent.
            rows: rows of its request; -1 where that is not known.

        Raises:
            OutputError: it must not.
        """
        if not isinstance(response, self._class):
            got = type(response).__name__
            raise OutputError(f"output.type: {got} is no InferenceResponse", reason="output.type")
        if response.has_error():
            return self._clean_error(response)
        total_bytes = 0
        find_good, find_plan = self._good.get, self._find_plan
        for tensor in response.output_tensors():
            name = tensor.name()
            plan = find_plan(name)
            try:
                array = tensor.as_numpy()
            except Exception:  # on a GPU, or of a type that numpy lacks
                array = array_of(tensor, ANY_BYTE if plan is None else plan.dtype)
            if plan is not None and array.dtype is plan.dtype:
                known = find_good((rows, name, array.shape))
                if known is not None:
                    total_bytes += known
                    continue
            total_bytes += self._check_tensor(name, array, plan, rows)
        if total_bytes > self._max_bytes:
            check_total_bytes(total_bytes, self._max_bytes)
        return response

    def each_once(self, responses: list[Any]) -> list[Any]:
        """Return responses of which no two are one object: two requests with the same one end tritonserver 2.51.0.

        Their tensors may be shared.
        """
        try:
            if len({*responses}) == len(responses):
                return responses
        except TypeError:  # what has no hash is no response either
            pass
        made: list[Any] = []
        for response in responses:
            is_again = isinstance(response, self._class) and any(response is each for each in made)
            made.append(self._again(response) if is_again else response)
        return made

    def _again(self, response: Any) -> Any:
        if response.has_error():
            return response  # which the check makes anew
        parameters = getattr(response, "parameters", None)  # releases from 25.02
        more = {} if parameters is None else {"parameters": json.loads(parameters() or "{}")}
        return self._class(response.output_tensors(), **more)

    def check_presence(self, request: Any, response: Any) -> None:
        """Reject a response without an output that the client asked for.

        Raises:
            OutputError: reason ``output.missing``.
        """
        there = {tensor.name() for tensor in response.output_tensors()}
        for name in self._plans:
            if name not in there and name in request.requested_output_names():
                raise OutputError(f"output.missing: '{name}' was not returned", reason="output.missing")

    def warn(self, error: OutputError) -> None:
        """Count an output that is passed all the same; the first of each kind is logged."""
        self._instance.stats.warn(error.reason)
        if error.reason not in self._warned:
            self._warned.add(error.reason)
            self._instance.logger.warning(f"passed an output that breaks config.pbtxt: {error.message}")

    def _check_tensor(self, name: str, array: np.ndarray[Any, Any], plan: OutputPlan | None, rows: int) -> int:
        if name in self._passed_through:
            return sent_bytes(array)
        try:
            if plan is None:
                raise OutputError(f"output.unknown: '{name[:64]}' is no output of this model", reason="output.unknown")
            plan.check_metadata(array, rows if rows >= 0 else array.shape[0] if array.ndim else 0)
            total_bytes = plan.check_payload(array) if array.size == 0 or any(array.strides) else array.nbytes
            if not (plan.is_bytes or plan.finite):
                self._good.note((rows, name, array.shape), total_bytes)
            return total_bytes
        except OutputError as error:
            if self.refuses or error.reason == "output.bytes":
                raise
            self.warn(error)
            return sent_bytes(array)

    def _clean_error(self, response: Any) -> Any:
        error = response.error()
        backend = self._instance.backend
        # Always a new object: an original may use one error response for several requests, which crashes the server.
        text = client_text(str(error.message()), keeps_lines=True)
        return backend.InferenceResponse(error=backend.TritonError(text, error.code()))
