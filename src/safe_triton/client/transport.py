"""The seam: what a client hands to a transport and gets back. The public fake implements the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from safe_triton.client.request import Array, InferRequest

Kind = Literal[
    "infer", "config", "metadata", "model_ready", "server_live", "server_ready", "server_metadata"
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Call:
    """One exchange of the v2 protocol.

    Args:
        kind: which.
        model: the model's name; empty for the server itself.
        version: the model's version; ``None`` for the one that the server chooses.
        request: what to infer (``infer`` only).
        tensors: data type and array by input name, as they are sent (``infer`` only).
        declared: data type and shape by output name, for a protocol that sends neither; one axis may be -1.
    """

    kind: Kind
    model: str = ""
    version: int | None = None
    request: InferRequest | None = None
    tensors: Mapping[str, tuple[str, Array]] = field(default_factory=dict)
    declared: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)

    @property
    def inference(self) -> InferRequest:
        """The request of a call that has one."""
        if self.request is None:
            raise TypeError(f"a call of kind {self.kind} has no request")
        return self.request


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back.

    Args:
        outputs: data type and array by output name (``infer``).
        document: the rest: what is asked for, or ``model_name``, ``model_version`` and ``id`` of an inference.
    """

    outputs: Mapping[str, tuple[str, Array]] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)


Cause = Literal["status", "connect", "tls", "lost", "timeout", "answer"]


class Failure(Exception):  # noqa: N818 - what a transport reports; a client raises errors of the project's tree
    """A call without an answer.

    Args:
        cause: ``status``: the server answered with an error; ``connect``: nothing was sent; ``tls``: a certificate was
            not accepted; ``lost``: the connection broke half-way; ``timeout``: no answer in time; ``answer``: one that
            breaks the protocol.
        message: the server's text, or what happened.
        status: gRPC's name such as ``UNAVAILABLE``, or HTTP's number such as ``503``.
        retry_after_s: seconds that the server asks to wait.
    """

    def __init__(self, cause: Cause, message: str, *, status: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s


class Transport(Protocol):
    """Sends calls. Every method may be called from several threads."""

    def send(self, call: Call, timeout_s: float) -> Reply:
        """Send one call and return its reply; raise :class:`Failure`."""

    def stream(self, call: Call, timeout_s: float) -> Iterator[Reply]:
        """Send one call and yield its replies; raise :class:`Failure`. Closing the iterator cancels the call."""

    def close(self) -> None:
        """Close the connections. May be repeated."""


class AsyncTransport(Protocol):
    """The same in one event loop."""

    async def send(self, call: Call, timeout_s: float) -> Reply:
        """Send one call and return its reply; raise :class:`Failure`."""

    def stream(self, call: Call, timeout_s: float) -> AsyncIterator[Reply]:
        """Send one call and yield its replies; raise :class:`Failure`. Closing the iterator cancels the call."""

    async def close(self) -> None:
        """Close the connections. May be repeated."""


REQUEST_REASONS = ("limit.", "input.", "content.", "parameter.", "request.", "sequence.")
"""What a server's text begins with when the client has to change its request."""


def stream_failure(message: str) -> Failure:
    """Return the failure that one response of a stream stands for, which has a text and no status."""
    return Failure("status", message, status="INVALID_ARGUMENT" if message.startswith(REQUEST_REASONS) else "UNKNOWN")


def seconds_of(text: str) -> float | None:
    """Return the seconds of a ``retry-after`` header; a date, which depends on two clocks, counts as none."""
    return float(text) if text.isascii() and text.isdigit() and len(text) <= len("86400") else None
