"""Answers of a stream outlive Triton's iterator, so that its own thread frees none of them."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from safe_triton.runtime.bls import answers as answers_module
from safe_triton.runtime.bls.answers import Answers, LettingGo
from tests.triton.stubs import wait_until


class Response:
    """As Triton's."""


class Source:
    """Triton's iterator: holds what it has given, and says how many of these were held by others when it went."""

    def __init__(self, count: int | None, gate: threading.Event | None = None) -> None:
        self.left = itertools.count() if count is None else iter(range(count))
        self.given: list[weakref.ref[Response]] = []
        self.gate = gate
        self.cancelled = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Response:
        if self.gate is not None and self.given:
            assert self.gate.wait(60)
        next(self.left)
        response = Response()
        self.given.append(weakref.ref(response))
        return response

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture
def letting_go() -> LettingGo:
    return LettingGo(2)


def alive(given: list[weakref.ref[Response]]) -> int:
    gc.collect()
    return sum(each() is not None for each in given)


def test_read_to_the_end(letting_go: LettingGo) -> None:
    """The iterator goes at once, its answers stay."""
    source = Source(3)
    given, gone = source.given, weakref.ref(source)
    read = Answers(source, letting_go)
    del source
    assert len(list(read)) == 3
    read.close()
    read.close()
    assert gone() is None
    assert alive(given) == 3


def test_later_streams_free_them(letting_go: LettingGo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of streams that were over long enough ago; never the last one's."""
    seen = []
    for kept_s in (60.0, 60.0, 0.0):
        monkeypatch.setattr(answers_module, "KEPT_S", kept_s)
        source = Source(2)
        seen.append(source.given)
        read = Answers(source, letting_go)
        del source
        list(read)
        read.close()
        del read
    assert [alive(given) for given in seen] == [0, 0, 2]


def test_stopped_early(letting_go: LettingGo) -> None:
    """It is cancelled, read to its end by a thread, and then let go of; who stopped it does not wait."""
    gate = threading.Event()
    source = Source(5, gate)
    given, gone = source.given, weakref.ref(source)
    read = Answers(source, letting_go)
    next(read)
    read.close()
    assert source.cancelled == 1
    assert len(given) == 1
    del source
    gate.set()
    wait_until(lambda: gone() is None)
    assert alive(given) == 5


def test_an_error_ends_it(letting_go: LettingGo) -> None:
    """As the end does."""
    source = Source(1)
    source.left = iter([0])
    gone = weakref.ref(source)
    read = Answers((each for each in [Response()] if 1 / 0), letting_go)
    with pytest.raises(ZeroDivisionError):
        next(read)
    read.close()
    read = Answers(source, letting_go)
    del source
    next(read)
    assert next(read, None) is None
    read.close()
    assert gone() is None


def test_more_than_threads(letting_go: LettingGo) -> None:
    """What no thread can read now stays as it is, in bounded number."""
    gate = threading.Event()
    sources = [Source(2, gate) for _ in range(4)]
    for source in sources:
        read = Answers(source, letting_go)
        next(read)
        read.close()
    assert len(letting_go._unfinished) == 2
    assert letting_go._unfinished.maxlen == answers_module.MOST_UNFINISHED
    gate.set()
    wait_until(lambda: letting_go._free._value == 2)


def test_two_readers(letting_go: LettingGo) -> None:
    """A thread that was left behind and the one that reads on take turns."""
    gate = threading.Event()
    source = Source(3, gate)
    read = Answers(source, letting_go)
    next(read)
    late = threading.Thread(target=next, args=(read,))
    late.start()
    read.close()
    gate.set()
    late.join()
    wait_until(lambda: len(source.given) == 3 and read._responses is None)
