"""From a failure of a transport to an error of the project's tree, and whether the call may be sent again. Pure."""

from __future__ import annotations

import re

from safe_triton.client.transport import Failure
from safe_triton.errors import (
    AnswerError,
    ClientAccessError,
    ClientError,
    ClientRateError,
    ClientTimeoutError,
    ConnectionLostError,
    RefusedError,
    ServerFailedError,
    ServerUnavailableError,
)

MAX_TEXT = 1_000
"""Characters of a server's text that an error holds."""

_SLUG = re.compile(r"^(?:\[request id: [^\]]*\] )?([a-z]+(?:\.[a-z0-9_]+)+): ")
_TIMEOUTS = ("deadline.", "bls.deadline")
# Triton's words for a model's process that has died, with this request or before it.
_DEAD = re.compile(r"Stub process '.{1,256}' is not healthy")
_RESTRICTED = re.compile(r"protocol is restricted", re.IGNORECASE)
# A message above a bound has the status of a rate limit, and would be as long the next time: gRPC's words on either
# side, Envoy's, and the gateway's own.
_TOO_LONG = re.compile(
    r"(?P<request>SERVER: Received message larger than max|Payload Too Large|takes no request as large"
    r"|gateway\.headers: )"
    r"|Received message larger than max",
    re.IGNORECASE,
)

# The gateway's words for a Triton that went away while it worked: over gRPC the status is the one of a busy server.
_BROKEN = re.compile(r"the connection to the model broke")

# Status of gRPC or HTTP -> what it means for whoever called.
MEANINGS = {
    "INVALID_ARGUMENT": "refused", "OUT_OF_RANGE": "refused", "FAILED_PRECONDITION": "refused",
    "UNIMPLEMENTED": "unsupported", "NOT_FOUND": "not_found", "ALREADY_EXISTS": "refused",
    "UNAUTHENTICATED": "access", "PERMISSION_DENIED": "access", "RESOURCE_EXHAUSTED": "rate",
    "UNAVAILABLE": "unavailable", "DEADLINE_EXCEEDED": "timeout", "CANCELLED": "lost",
    "400": "refused", "401": "access", "403": "access", "404": "not_found", "405": "unsupported", "408": "timeout",
    "409": "refused", "411": "refused", "413": "refused", "415": "refused", "422": "refused", "429": "rate",
    "431": "refused", "501": "unsupported", "502": "lost", "503": "unavailable", "504": "timeout",
}  # fmt: skip
"""Every other status means that the server failed."""

ADVICE = {
    "tls": "is ca_file the authority of the server's certificate, and does this port speak TLS?",
    "not_found": "no such model or API here",
    "unsupported": "no such model or API here",
}
"""What to look at, by what a failure means: after what TLS says, and where a status comes without a word."""

CLIENT_ADVICE = "does the server ask for a client certificate, and is this one valid and of its authority?"
"""After what the server's side of TLS says, which is all that it says of a client."""

# An alert in words; what gRPC makes of one; an end without one.
_ALERT = re.compile(r"alert|unwrap failed|EOF occurred", re.IGNORECASE)

_CODES = {"refused": "INVALID_ARG", "not_found": "NOT_FOUND", "unsupported": "UNSUPPORTED"}


def meaning_of(failure: Failure) -> str:
    """Return what a failure means: a value of :data:`MEANINGS`, ``failed``, ``tls``, ``connect`` or ``answer``."""
    if failure.cause != "status":
        return failure.cause
    if slug_of(failure.message).startswith(_TIMEOUTS):
        return "timeout"
    # Triton says UNAVAILABLE for an API that is not for this caller: waiting would change nothing.
    if _RESTRICTED.search(failure.message):
        return "access"
    if _BROKEN.search(failure.message):
        return "lost"
    too_long = _TOO_LONG.search(failure.message)
    if too_long and failure.status == "RESOURCE_EXHAUSTED":
        return "refused" if too_long["request"] else "answer"
    return MEANINGS.get(failure.status, "failed")


def may_retry(failure: Failure, *, after_death: bool = False) -> bool:
    """Tell whether the server has not worked on a call, so that sending it again repeats nothing.

    Args:
        failure: what the attempt ended with.
        after_death: whether a process that died counts too, whatever it died of.
    """
    if after_death and _DEAD.match(failure.message):
        return True
    return meaning_of(failure) in ("connect", "unavailable", "rate")


def slug_of(message: str) -> str:
    """Return the reason that a server's text begins with, such as ``limit.sequence_length``; empty without one."""
    match = _SLUG.match(message)
    return match[1] if match else ""


def error_of(failure: Failure, *, attempts: int = 1) -> RefusedError | ClientError:
    """Return the error to raise.

    Args:
        failure: what the last attempt ended with.
        attempts: how many there were.
    """
    meaning = meaning_of(failure)
    text = one_line(failure.message) or one_line(f"status {failure.status}")
    if advice := _advice(meaning, failure.message):
        text = f"{text}: {advice}"
    slug = slug_of(text)
    if not slug and text.startswith("model failed"):
        slug = "model.failed"
    tries = f" (after {attempts} attempts)" if attempts > 1 else ""
    if meaning in _CODES:
        reason = slug or ("client.not_found" if meaning == "not_found" else "client.refused")
        return RefusedError(
            _told(text, slug, reason) + tries, reason=reason, code=_CODES[meaning], status=failure.status
        )
    cls, own = _KINDS[meaning]
    reason = slug or own
    return cls(
        _told(text, slug, reason) + tries, reason=reason, status=failure.status, retry_after_s=failure.retry_after_s
    )


def _advice(meaning: str, message: str) -> str:
    if meaning != "tls":
        return "" if message else ADVICE.get(meaning, "")
    if _ALERT.search(message):
        return CLIENT_ADVICE
    return "" if "expired" in message else ADVICE["tls"]


_KINDS: dict[str, tuple[type[ClientError], str]] = {
    "access": (ClientAccessError, "client.access"),
    "tls": (ClientAccessError, "client.tls"),
    "rate": (ClientRateError, "client.rate"),
    "connect": (ServerUnavailableError, "client.unavailable"),
    "unavailable": (ServerUnavailableError, "client.unavailable"),
    "timeout": (ClientTimeoutError, "client.timeout"),
    "lost": (ConnectionLostError, "client.connection_lost"),
    "answer": (AnswerError, "client.answer"),
    "failed": (ServerFailedError, "client.failed"),
}


def one_line(text: str) -> str:
    """Return a server's text as one printable line of bounded length."""
    flat = " ".join("".join(each if each.isprintable() else " " for each in text[: 4 * MAX_TEXT]).split())
    return flat if len(flat) <= MAX_TEXT else flat[: MAX_TEXT - 1] + "…"


def _told(text: str, slug: str, reason: str) -> str:
    """A message begins with its reason; where the server gave none, with the client's."""
    return text if slug else f"{reason}: {text}"
