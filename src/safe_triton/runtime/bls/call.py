"""One call of another model: what leaves, how long it may take, and what its answer is held against."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from safe_triton.errors import BlsUsageError
from safe_triton.policy.defaults import CALL_PARAMETER
from safe_triton.runtime.bls.frames import Frame, cycle

if TYPE_CHECKING:
    from safe_triton.runtime.bls.client import BlsClient


class Call:
    """One call: the request as it leaves, and what its answer is held against.

    Args:
        client: of the model that calls.
        model: that is called.
        inputs: arrays or tensors by name.
        outputs: names of the outputs to ask for; ``None`` for all that are declared.
        parameters: for the called model.
        preferred_memory: ``pb_utils.PreferredMemory`` for the outputs.
        frame: of the request that is answered, where the client does not know it.
        carried: what the request carries on, in the place of the frame's.

    Raises:
        BlsError: it must not leave.
    """

    __slots__ = ("client", "frame", "left_s", "request", "rows", "target", "wanted")

    def __init__(
        self,
        client: BlsClient,
        model: str,
        inputs: Any,
        outputs: Any,
        parameters: Any,
        preferred_memory: Any,
        frame: Frame | None = None,
        carried: dict[str, Any] | None = None,
    ) -> None:
        self.client = client
        self.frame = frame = frame or client.open_frame()
        self.target = target = client.targets.get(model) or client.refuse_target(model)
        if target.key in frame.path:
            raise cycle((*frame.path, target.key))
        tensors, self.rows, sent = target.tensors_of(inputs)
        frame.count_call(sent)
        self.wanted = target.output_names if outputs is None else target.wanted(outputs)
        self.left_s = left_s = frame.left_s(target.timeout_s)
        if parameters:
            _check_parameters(parameters, target.name)
        own: dict[str, Any] = {CALL_PARAMETER: f"{int(left_s * 1000)}{frame.path_text}"}
        if parameters:
            own = {**parameters, **own}
        if carried is None:
            arguments = {} if frame.trace is None else {"trace": frame.trace}
            if preferred_memory is not None:
                arguments["preferred_memory"] = preferred_memory
            self.request = client.request_class(  # by position: each name costs Triton's constructor a look-up
                frame.request_id,
                frame.correlation_id,
                tensors,
                self.wanted,
                target.name,
                target.version,
                frame.flags,
                parameters=own,
                **arguments,
            )
            return
        self.request = client.request_class(
            model_name=target.name,
            model_version=target.version,
            inputs=tensors,
            requested_output_names=self.wanted,
            parameters=own,
            **carried,
        )

    def note_time(self, start: float) -> None:
        """Count the call and the seconds since its start, which settle how the target is called next."""
        self.target.note_call(monotonic() - start)
        if self.client.in_place is not None:
            self.client.in_place.settle(self.target)

    def now_left_s(self) -> float:
        """Return the seconds that are left for the call now."""
        return self.frame.left_s(self.target.timeout_s)

    def accept(self, response: Any) -> dict[str, Any]:
        """Return a checked answer, or raise what its error stands for."""
        if response.has_error():
            raise self.client.answered(self.target, response.error())
        outputs, received = self.target.outputs_of(response, self.rows, self.wanted)
        self.frame.count_bytes(received)
        return outputs


def _check_parameters(parameters: Mapping[Any, Any], name: str) -> None:
    """Refuse what Triton would refuse with words of its own."""
    for key, value in parameters.items():
        if type(key) is not str or type(value) not in (str, int, bool):
            raise BlsUsageError(f"bls.usage: parameters of '{name}' are names with str, int or bool")
