"""The asynchronous model: waits for many at a time, and for none longer than its deadline."""

from __future__ import annotations

import numpy as np

from tests.triton.test_models.asking import Array, Asker


def users(*ids: int) -> dict[str, Array]:
    return {"USER_ID": np.array(ids, np.int64)[:, np.newaxis]}


def test_features(ask: Asker) -> None:
    """All rows of a request are looked up, in their order."""
    reply = ask("async_lookup", users(7, 12))
    assert reply.code == "OK"
    assert reply.outputs["FEATURES"].tolist() == [[1, 1, 2, 0], [0, 0, 2, 5]]


def test_one_slow_request_holds_nobody_up(ask: Asker) -> None:
    """Requests sent with one that misses its deadline are all answered within theirs."""
    replies = ask.together("async_lookup", [users(1_500_000), *(users(number) for number in range(1, 7))])
    assert [reply.code for reply in replies] == ["UNAVAILABLE"] + ["OK"] * 6
    assert replies[0].message.startswith("deadline.exceeded")


def test_the_authors_own_answer(ask: Asker) -> None:
    """A ModelError's text and code reach the client."""
    reply = ask("async_lookup", users(3_000_000))
    assert (reply.code, reply.message) == ("NOT_FOUND", "no such user")


def test_ids_start_at_one(ask_once: Asker) -> None:
    """The id 0 is below the declared minimum."""
    assert ask_once("async_lookup", users(1)).code == "OK"
    reply = ask_once("async_lookup", users(0))
    assert reply.code == "INVALID_ARG"
    assert reply.message.startswith("content.range")
