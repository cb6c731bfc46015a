"""Many requests: order, bounds, progress, and that nothing is lost when one fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from safe_triton.client import AsyncFakeTransport, AsyncSafeTritonClient, Failure, FakeTransport, Retries
from safe_triton.client.batch import split_rows
from safe_triton.errors import BatchError, ClientAccessError, RequestError, SafeTritonError
from tests.unit.client.parts import URL, client_of, fake, rows, sent

ONCE = Retries(max_attempts=1)


def as_sync(transport: FakeTransport, do: str, *arguments: Any, **options: Any) -> Any:
    with client_of(transport, retries=ONCE) as client:
        return getattr(client, do)("double", *arguments, **options)


def as_async(transport: FakeTransport, do: str, *arguments: Any, **options: Any) -> Any:
    async def run() -> Any:
        async with AsyncSafeTritonClient(
            URL, transport=AsyncFakeTransport(transport), models="any", retries=ONCE
        ) as client:
            return await getattr(client, do)("double", *arguments, **options)

    return asyncio.run(run())


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"X": np.full((1, 3), number, np.float32)} for number in range(count)]


@pytest.mark.parametrize("ask", [as_sync, as_async])
class TestBothClients:
    def test_answers_stand_in_the_order_of_the_requests(self, ask: Callable[..., Any]) -> None:
        """Whatever is answered first."""
        answers = ask(fake(), "infer_many", numbered(50), concurrency=7)
        assert [int(answer["Y"][0, 0]) for answer in answers] == [2 * number for number in range(50)]

    def test_progress_is_told_after_each(self, ask: Callable[..., Any]) -> None:
        """Done and all; for an iterator, which has no length, done alone."""
        told: list[tuple[int, int | None]] = []
        ask(fake(), "infer_many", numbered(4), progress=lambda done, total: told.append((done, total)))
        assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
        told.clear()
        ask(fake(), "infer_many", iter(numbered(2)), progress=lambda done, total: told.append((done, total)))
        assert told == [(1, None), (2, None)]

    def test_an_iterator_is_read_as_requests_are_sent(self, ask: Callable[..., Any]) -> None:
        """No more is taken from it than is under way."""
        transport, taken = fake(), []

        def requests() -> Iterator[dict[str, Any]]:
            for number, inputs in enumerate(numbered(20)):
                taken.append(number - sent(transport))
                yield inputs

        ask(transport, "infer_many", requests(), concurrency=3)
        assert max(taken) <= 3

    def test_one_failure_is_named_and_nothing_is_lost(self, ask: Callable[..., Any]) -> None:
        """The error has the index, every other answer, and the failure itself."""
        requests = numbered(9)
        requests[5] = {"X": rows()[:, :2]}
        with pytest.raises(BatchError) as raised:
            ask(fake(), "infer_many", requests)
        error = raised.value
        assert error.message.startswith("client.batch: request 5: input.shape: 2, expected 3 at inputs['X'].shape[1]")
        assert error.message.endswith("(1 of 9 requests failed)")
        assert error.index == 5
        assert isinstance(error.errors[5], RequestError)
        assert [answer is None for answer in error.answers] == [number == 5 for number in range(9)]

    def test_what_every_request_would_meet_ends_it(self, ask: Callable[..., Any]) -> None:
        """After a refused credential no further request is sent; those not sent are counted."""
        transport = fake(*[Failure("status", "who", status="401")] * 100)
        with pytest.raises(BatchError, match="were not sent") as raised:
            ask(transport, "infer_many", numbered(100), concurrency=2)
        assert sent(transport) < 10
        assert isinstance(raised.value.errors[raised.value.index], ClientAccessError)
        assert len(raised.value.answers) == 100

    def test_nothing_to_do(self, ask: Callable[..., Any]) -> None:
        """No requests, no answers."""
        assert ask(fake(), "infer_many", []) == []

    @pytest.mark.parametrize(
        ("count", "asked", "expected"),
        [(1, None, [1]), (4, None, [4]), (9, None, [4, 4, 1]), (9, 2, [2, 2, 2, 2, 1]), (9, 99, [4, 4, 1])],
    )
    def test_rows_are_split_and_joined(
        self, ask: Callable[..., Any], count: int, asked: int | None, expected: list[int]
    ) -> None:
        """By the model's ``max_batch_size`` or less, and put together in order."""
        transport = fake()
        answer = ask(transport, "infer_rows", {"X": rows(count)}, rows_per_request=asked, concurrency=2)
        assert answer["Y"].tolist() == (rows(count) * 2).tolist()
        sizes = [call.tensors["X"][1].shape[0] for call in transport.calls if call.kind == "infer"]
        assert sorted(sizes, reverse=True) == expected

    def test_a_failure_of_rows_names_the_row(self, ask: Callable[..., Any]) -> None:
        """The first row of the request that failed, and the answers of the others."""

        def picky(inputs: Any) -> Any:
            if inputs["X"][0, 0] == 12.0:
                raise Failure("status", "model failed (id 7)", status="INTERNAL")
            return {"Y": inputs["X"]}

        with pytest.raises(BatchError, match=r"client\.batch: row 4: model failed \(id 7\)") as raised:
            ask(fake(infer=picky), "infer_rows", {"X": rows(10)})
        assert raised.value.index == 4
        assert [answer is None for answer in raised.value.answers] == [False, True, False]

    def test_a_server_that_does_not_say_how_many_rows(self, ask: Callable[..., Any]) -> None:
        """Then the caller says it."""
        with pytest.raises(SafeTritonError, match="give rows_per_request"):
            ask(fake(is_shown=False), "infer_rows", {"X": rows(9)})
        assert len(ask(fake(is_shown=False), "infer_rows", {"X": rows(9)}, rows_per_request=3)["Y"]) == 9


def test_at_most_so_many_at_a_time() -> None:
    """``concurrency`` is a bound."""
    lock, now, most = threading.Lock(), [0], [0]
    full = threading.Event()

    def counting(inputs: Any) -> Any:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 3:
                full.set()
        full.wait(30)
        with lock:
            now[0] -= 1
        return {"Y": inputs["X"]}

    as_sync(fake(infer=counting), "infer_many", numbered(30), concurrency=3)
    assert most[0] == 3


def test_progress_is_told_in_the_callers_thread() -> None:
    """A progress bar needs no lock."""
    threads = set()
    as_sync(fake(), "infer_many", numbered(20), progress=lambda done, total: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_parts_are_views() -> None:
    """Splitting copies no row."""
    whole = rows(9)
    assert all(
        part["X"].base is not None and np.shares_memory(part["X"], whole) for part in split_rows({"X": whole}, 4)
    )
