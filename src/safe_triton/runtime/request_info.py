"""What a form with a second parameter learns about its request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safe_triton.runtime.sequences import Sequence


class RequestInfo:
    """Facts of one request beside its tensors, for forms with a second parameter.

    Each attribute asks Triton once, when it is read.

    Attributes:
        sequence: the sequence that the request belongs to, where the class declares ``sequences``.
    """

    __slots__ = ("_parameters", "_parse", "_request", "sequence")

    sequence: Sequence

    def __init__(self, request: Any, parse: Callable[[str], dict[str, Any]]) -> None:
        self._request = request
        self._parse = parse
        self._parameters: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        """The client's request id; empty if it sent none."""
        return str(self._request.request_id())

    @property
    def correlation_id(self) -> int | str:
        """The sequence's id; 0 or empty outside a sequence."""
        value: int | str = self._request.correlation_id()
        return value

    @property
    def parameters(self) -> dict[str, Any]:
        """The request's parameters by name, checked against the limits."""
        if self._parameters is None:
            self._parameters = self._parse(self._request.parameters())
        return self._parameters

    @property
    def is_cancelled(self) -> bool:
        """Whether the client is gone; asking takes some 100 microseconds."""
        return bool(self._request.is_cancelled())

    @property
    def timeout_us(self) -> int:
        """The client's queue time-out in microseconds; 0 if it set none. No execution time."""
        return int(self._request.timeout())
