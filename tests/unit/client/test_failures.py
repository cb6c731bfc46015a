"""From statuses and texts of servers and gateways to errors of the project's tree, and which may be sent again."""

from __future__ import annotations

import pytest

from safe_triton.client import Failure, Retries
from safe_triton.client.failures import ADVICE, CLIENT_ADVICE, MAX_TEXT, MEANINGS, error_of, may_retry, meaning_of
from safe_triton.errors import (
    AnswerError,
    ClientAccessError,
    ClientRateError,
    ClientTimeoutError,
    ConnectionLostError,
    RefusedError,
    SafeTritonError,
    ServerFailedError,
    ServerUnavailableError,
)

SLUG = "limit.sequence_length: 600 > 512 at inputs['X'].shape[1]"

CASES: list[tuple[Failure, type[SafeTritonError], str, bool]] = [
    (Failure("status", SLUG, status="INVALID_ARGUMENT"), RefusedError, "limit.sequence_length", False),
    (Failure("status", SLUG, status="400"), RefusedError, "limit.sequence_length", False),
    (Failure("status", "[request id: 7] input.dtype: FP64", status="400"), RefusedError, "input.dtype", False),
    (Failure("status", "unexpected shape", status="400"), RefusedError, "client.refused", False),
    (Failure("status", "not found", status="NOT_FOUND"), RefusedError, "client.not_found", False),
    (Failure("status", "not found", status="404"), RefusedError, "client.not_found", False),
    (Failure("status", "", status="413"), RefusedError, "client.refused", False),
    (Failure("status", "no such call", status="UNIMPLEMENTED"), RefusedError, "client.refused", False),
    (Failure("status", "", status="401"), ClientAccessError, "client.access", False),
    (Failure("status", "RBAC: access denied", status="403"), ClientAccessError, "client.access", False),
    (Failure("status", "", status="UNAUTHENTICATED"), ClientAccessError, "client.access", False),
    (Failure("status", "", status="PERMISSION_DENIED"), ClientAccessError, "client.access", False),
    (Failure("status", "This protocol is restricted, expecting header 'x'", status="UNAVAILABLE"), ClientAccessError, "client.access", False),
    (Failure("tls", "certificate verify failed"), ClientAccessError, "client.tls", False),
    (Failure("status", "local_rate_limited", status="429"), ClientRateError, "client.rate", True),
    (Failure("status", "", status="RESOURCE_EXHAUSTED"), ClientRateError, "client.rate", True),
    (Failure("status", "Received message larger than max (9 vs. 4)", status="RESOURCE_EXHAUSTED"), AnswerError, "client.answer", False),
    (Failure("status", "SERVER: Received message larger than max (9 vs. 4)", status="RESOURCE_EXHAUSTED"), RefusedError, "client.refused", False),
    (Failure("status", "this model takes no request as large", status="RESOURCE_EXHAUSTED"), RefusedError, "client.refused", False),
    (Failure("status", "Payload Too Large", status="RESOURCE_EXHAUSTED"), RefusedError, "client.refused", False),
    (Failure("status", "sequence.full: 8 are open", status="503"), ServerUnavailableError, "sequence.full", True),
    (Failure("status", "not ready", status="UNAVAILABLE"), ServerUnavailableError, "client.unavailable", True),
    (Failure("connect", "refused"), ServerUnavailableError, "client.unavailable", True),
    (Failure("status", "deadline.exceeded: 200 ms", status="503"), ClientTimeoutError, "deadline.exceeded", False),
    (Failure("status", "bls.deadline: a model", status="UNAVAILABLE"), ClientTimeoutError, "bls.deadline", False),
    (Failure("status", "", status="504"), ClientTimeoutError, "client.timeout", False),
    (Failure("timeout", "no answer"), ClientTimeoutError, "client.timeout", False),
    (Failure("lost", "reset"), ConnectionLostError, "client.connection_lost", False),
    (Failure("status", "", status="502"), ConnectionLostError, "client.connection_lost", False),
    (Failure("status", "the connection to the model broke", status="UNAVAILABLE"), ConnectionLostError, "client.connection_lost", False),
    (Failure("status", "model failed (id 7f3a)", status="INTERNAL"), ServerFailedError, "model.failed", False),
    (Failure("status", "Stub process 'm_0_0' is not healthy.", status="500"), ServerFailedError, "client.failed", False),
    (Failure("status", "teapot", status="418"), ServerFailedError, "client.failed", False),
    (Failure("answer", "not of the protocol"), AnswerError, "client.answer", False),
]  # fmt: skip


@pytest.mark.parametrize(("failure", "kind", "reason", "is_repeated"), CASES, ids=str)
def test_the_table(failure: Failure, kind: type[SafeTritonError], reason: str, is_repeated: bool) -> None:
    """Class, reason and whether it is sent again; the message begins with its reason, or is the server's own."""
    error = error_of(failure)
    assert (type(error), error.reason, may_retry(failure)) == (kind, reason, is_repeated)
    assert error.message.startswith((reason, "model failed", "[request id"))


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (Failure("tls", "self-signed certificate"), f"client.tls: self-signed certificate: {ADVICE['tls']}"),
        (Failure("tls", "certificate has expired"), "client.tls: certificate has expired"),
        (Failure("tls", "alert certificate expired"), f"client.tls: alert certificate expired: {CLIENT_ADVICE}"),
        (Failure("status", "", status="404"), "client.not_found: status 404: no such model or API here"),
        (
            Failure("status", "", status="UNIMPLEMENTED"),
            "client.refused: status UNIMPLEMENTED: no such model or API here",
        ),
        (Failure("status", "", status="413"), "client.refused: status 413"),
    ],
    ids=str,
)
def test_advice(failure: Failure, message: str) -> None:
    """What TLS says, and a status without a word, come with what to look at."""
    assert error_of(failure).message == message


def test_every_meaning_has_an_error() -> None:
    """No status of the table leads nowhere."""
    for status in MEANINGS:
        assert isinstance(error_of(Failure("status", "x", status=status)), SafeTritonError)


def test_a_servers_text_is_one_line_of_bounded_length() -> None:
    """Control characters and line breaks of a hostile server do not reach a terminal or a log."""
    error = error_of(Failure("status", "a\x1b[31m\r\nb" + "x" * 10_000, status="500"))
    assert error.message.isprintable()
    assert len(error.message) < MAX_TEXT + 50


def test_an_error_keeps_what_a_program_needs() -> None:
    """Status, seconds to wait, number of attempts, Triton's code."""
    error = error_of(Failure("status", "slow down", status="429", retry_after_s=2.0), attempts=3)
    assert isinstance(error, ClientRateError)
    assert (error.status, error.retry_after_s, error.code) == ("429", 2.0, "UNAVAILABLE")
    assert error.message == "client.rate: slow down (after 3 attempts)"
    refused = error_of(Failure("status", "gone", status="404"))
    assert (refused.code, refused.status) == ("NOT_FOUND", "404")


def test_a_death_is_repeated_only_if_that_was_asked_for() -> None:
    """The request may have been its cause."""
    dead = Failure("status", "Stub process 'm_0_0' is not healthy.", status="INTERNAL")
    assert not may_retry(dead)
    assert may_retry(dead, after_death=True)
    assert meaning_of(dead) == "failed"
    assert not may_retry(Failure("status", "model failed (id 7)", status="INTERNAL"), after_death=True)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.2), (2, 0.4), (3, 0.8), (6, 5.0), (20, 5.0)])
def test_waits_grow_to_a_bound(attempt: int, longest: float) -> None:
    """Each wait is twice the one before, up to the longest; chance takes at most half of it."""
    retries = Retries()
    assert retries.delay_s(attempt, 0.0) == pytest.approx(longest)
    assert retries.delay_s(attempt, 1.0) == pytest.approx(longest / 2)
