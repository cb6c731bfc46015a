"""A decoupled model's answers, let go of so that the process survives it.

Release 2.51.0 frees what such an iterator has given, or still holds, in a thread of its own and without the
interpreter's lock. To Python 3.11 that is a data race; from 3.12 on it ends the process by SIGSEGV, bare models' too.
What others still hold is not freed there: so everything is fetched, and kept until Triton has forgotten the iterator.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

KEPT_S = 5.0
"""How long answers are kept after their iterator is gone; Triton's thread takes milliseconds."""

MOST_UNFINISHED = 256
"""Streams that were stopped early and cannot be read to their end now; the bound is kept by risking the oldest."""


class LettingGo:
    """What is kept of the streams of one instance that are over.

    Args:
        most: threads at a time that read streams to their end which were stopped early.
    """

    def __init__(self, most: int) -> None:
        self._free = threading.Semaphore(most)
        self._kept: deque[tuple[float, list[Any]]] = deque()
        self._unfinished: deque[Answers] = deque(maxlen=MOST_UNFINISHED)

    def keep(self, given: list[Any]) -> None:
        """Keep answers whose iterator is gone; those of earlier streams are freed."""
        now = monotonic()
        self._kept.append((now, given))
        while self._kept[0][0] < now - KEPT_S:
            self._kept.popleft()

    def finish(self, answers: Answers) -> None:
        """Read a stream to its end, for nobody."""
        if not self._free.acquire(blocking=False):
            self._unfinished.append(answers)
            return
        try:
            threading.Thread(target=self._drain, args=(answers,), name="safe_triton-bls-rest", daemon=True).start()
        except RuntimeError:  # no thread can be had
            self._free.release()
            self._unfinished.append(answers)

    def _drain(self, answers: Answers) -> None:
        try:
            answers.drain()
        finally:
            self._free.release()


class Answers(Iterator[Any]):
    """Triton's iterator, whose :meth:`close` has to be called once nobody reads on.

    Args:
        responses: what ``exec(decoupled=True)`` returned.
        letting_go: of the instance.
    """

    def __init__(self, responses: Any, letting_go: LettingGo) -> None:
        self._responses: Any = iter(responses)
        self._letting_go = letting_go
        self._given: list[Any] = []
        self._is_over = False
        self._reading = threading.Lock()  # a thread that a deadline left behind may still wait for the next one

    def __next__(self) -> Any:
        with self._reading:
            try:
                response = next(self._responses)
            except Exception:
                self._is_over = True
                raise
            self._given.append(response)
        return response

    def cancel(self) -> None:
        """Tell the called model that nobody listens any more, where the release can."""
        getattr(self._responses, "cancel", lambda: None)()

    def close(self) -> None:
        """Let go of it all; once."""
        if self._responses is None:
            return
        if self._is_over:
            self._responses = None
            self._letting_go.keep(self._given)
        else:
            self.cancel()
            self._letting_go.finish(self)

    def drain(self) -> None:
        """Read on to the end, or to an error, and let go."""
        with suppress(Exception):
            deque(self, maxlen=0)
        self.close()
