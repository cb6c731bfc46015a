"""What a model's call to another model (BLS) is answered with: by a loaded fake, or by a plain function."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_triton.errors import ModelError
from safe_triton.testing.fake_values import InferenceResponse, ServerAbort, Tensor, TritonError
from safe_triton.testing.outcomes import Outcome, Request, as_received

if TYPE_CHECKING:
    from safe_triton.testing.fake_requests import InferenceRequest
    from safe_triton.testing.model import FakeModel

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
Stand_in = Callable[[dict[str, Any]], Arrays | Iterable[Arrays]]


def answers_of(request: InferenceRequest, models: Mapping[str, Any]) -> list[InferenceResponse]:
    """Return the responses of the model that a request names, the last of a stream's being empty.

    Args:
        request: made by the model under test.
        models: by name: what :func:`load_model` yields, or a function of the arrays by name that returns the outputs,
            or an iterable of them for a decoupled model.
    """
    model = models.get(request._model_name)
    if model is None or request._model_version not in (-1, _version_of(model, request)):
        return [
            _error(f"Failed for execute the inference request. Model '{request._model_name}' is not ready.", request)
        ]
    arrays = {tensor.name(): as_received(tensor.as_numpy()) for tensor in request._inputs}
    if callable(model):
        return _called(model, arrays, request)
    return _responses(model.execute([_request(arrays, request)])[0], model, request)


def _version_of(model: Any, request: InferenceRequest) -> int:
    return int(request._model_version if callable(model) else model.args["model_version"])


def _request(arrays: dict[str, Any], request: InferenceRequest) -> Request:
    return Request(
        arrays,
        parameters=json.loads(request._parameters),
        request_id=request._request_id,
        correlation_id=request._correlation_id,
        flags=int(request._flags),
        timeout_us=int(request._timeout),
        outputs=sorted(request._outputs),
    )


def _responses(outcome: Outcome, model: FakeModel, request: InferenceRequest) -> list[InferenceResponse]:
    if outcome.hangs:
        raise ServerAbort(f"'{request._model_name}' never answers this call: {outcome.error}")
    if outcome.is_refused:
        return [_error(str(outcome.error), request)]
    found = [
        InferenceResponse(error=TritonError(each.error)) if each.error is not None else _response(each.outputs)
        for each in outcome.responses
    ]
    is_decoupled = bool(model.config.get("model_transaction_policy", {}).get("decoupled"))
    return [*found, InferenceResponse([])] if is_decoupled else found


def _called(function: Stand_in, arrays: dict[str, Any], request: InferenceRequest) -> list[InferenceResponse]:
    try:
        returned = function(arrays)
        if isinstance(returned, Mapping):
            return [_response(returned)]
        return [*map(_response, returned), InferenceResponse([])]
    except ModelError as error:
        return [InferenceResponse(error=TritonError(error.message))]
    except Exception as error:  # noqa: BLE001  # whatever a test's function raises
        text = f"Failed to process the request(s) for model '{request._model_name}_0_0', message: "
        return [InferenceResponse(error=TritonError(f"{text}{type(error).__name__}: {error}"))]


def _response(outputs: Arrays) -> InferenceResponse:
    return InferenceResponse([Tensor(name, array) for name, array in outputs.items()])


def _error(text: str, request: InferenceRequest) -> InferenceResponse:
    """An error as the server words its own for a call."""
    return InferenceResponse(error=TritonError(f"Model {request._model_name} - Error when running inference: {text}"))
