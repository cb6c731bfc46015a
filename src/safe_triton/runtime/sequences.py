"""The state of sequences: one per correlation id, kept from its start to its end, within bounds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import numpy as np

from safe_triton.config import ModelConfig
from safe_triton.errors import LimitExceededError, OutputError, PolicyError, SequenceError, SequencesFullError
from safe_triton.policy.sequences import SequenceLimits
from safe_triton.runtime.outcome import FILLER

START, END = 1, 2
"""``TRITONSERVER_REQUEST_FLAG_SEQUENCE_START`` and ``…_END``."""

ENTRY_BYTES = 64
"""What one entry of a state counts beside its name and its value."""

LONGEST_SWEEP_S = 10.0

Form = Callable[..., Any]


class Sequence:
    """The sequence that a request belongs to, as ``request.sequence``.

    Attributes:
        id: the client's correlation id.
        step: this request's number in it, from 1.
        is_start: whether this request starts it.
        is_end: whether it is the last.
        state: values by name: arrays, numbers, texts, bytes. What is put here is copied when this request has been
            answered, and is there at the next one; arrays are then read only. An error leaves the state as it was.
    """

    __slots__ = ("_kept", "id", "is_end", "is_start", "state", "step")

    def __init__(self, id_: int | str, kept: _Kept, *, is_start: bool, is_end: bool) -> None:
        self.id, self.step, self.state = id_, kept.steps, dict(kept.state)
        self.is_start, self.is_end = is_start, is_end
        self._kept = kept


class _Kept:
    __slots__ = ("is_busy", "state", "steps", "used_s")

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.steps = 0
        self.used_s = 0.0
        self.is_busy = True


class SequenceStore:
    """The sequences of one instance.

    Args:
        limits: of the model.
        config: its configuration, which has to have a sequence batcher.
        counts: sequences by what became of them: ``started``, ``ended``, ``restarted``, ``expired``.
        clock: seconds.

    Raises:
        PolicyError: reason ``policy.conflict``; config.pbtxt and the declaration cannot both hold.
    """

    def __init__(
        self,
        limits: SequenceLimits,
        config: ModelConfig,
        counts: dict[str, int],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if limits.problem is not None:
            raise limits.problem
        if not config.has_sequences:
            raise PolicyError(
                "policy.conflict: sequences are declared, and config.pbtxt has no sequence_batching, which brings all"
                " requests of one sequence to one instance",
                reason="policy.conflict",
            )
        if limits.max_idle_ms * 1000 < config.sequence_idle_us:
            raise PolicyError(
                f"policy.conflict: max_idle_ms {limits.max_idle_ms} is below config.pbtxt's"
                f" max_sequence_idle_microseconds {config.sequence_idle_us}",
                reason="policy.conflict",
            )
        self._limits, self._counts, self._clock = limits, counts, clock
        self._max_idle_s = limits.max_idle_ms / 1000
        self._kept: dict[int | str, _Kept] = {}  # in the order of their last use
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._sweep, name="safe_triton-sequences", daemon=True)

    def start(self) -> None:
        """Forget idle sequences from a thread, also when no request comes."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and forget everything."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(1.0)
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self, request: Any) -> Sequence:
        """Return the sequence of a request, with a copy of its state's names.

        Raises:
            SequenceError: no correlation id, or one that was not started or has been forgotten.
            SequencesFullError: a new one, above ``max_sequences``.
            LimitExceededError: reason ``limit.sequence_steps``.
        """
        key, flags = request.correlation_id(), request.flags()
        if not key:
            raise SequenceError("sequence.id: the request belongs to no sequence", reason=FILLER)
        is_start, is_end = bool(flags & START), bool(flags & END)
        with self._lock:
            self._forget_idle()
            if is_start:
                kept = self._new(key)
            else:
                found = self._kept.pop(key, None)
                if found is None:
                    raise SequenceError("sequence.unknown: not started here, ended, or idle for too long")
                kept = self._kept[key] = found  # last in order
            kept.used_s, kept.is_busy = self._clock(), True
            kept.steps += 1
            if kept.steps > self._limits.max_steps:
                self._drop(key, "ended")
                raise LimitExceededError("limit.sequence_steps", kept.steps, self._limits.max_steps, "sequence")
            return Sequence(key, kept, is_start=is_start, is_end=is_end)

    def finish(self, sequence: Sequence, *, is_good: bool) -> None:
        """Keep the state of a request that was answered, or forget the sequence at its end.

        Raises:
            OutputError: reason ``output.state``; a value that cannot be kept, or too many bytes.
        """
        state: dict[str, Any] = {}
        try:
            if is_good and not sequence.is_end:
                state = self._copied(sequence.state)
        except BaseException:  # a deadline too: the state stays as it was
            is_good = False
            raise
        finally:
            with self._lock:
                kept = self._kept.get(sequence.id)
                if kept is not None and kept is sequence._kept:  # not one that began anew in the meantime
                    kept.is_busy, kept.used_s = False, self._clock()
                    self._kept[sequence.id] = self._kept.pop(sequence.id)  # last in order
                    if sequence.is_end or (sequence.is_start and not is_good):
                        self._drop(sequence.id, "ended")
                    elif is_good:
                        kept.state = state

    def _new(self, key: int | str) -> _Kept:
        if key in self._kept:
            self._drop(key, "restarted")
        if len(self._kept) >= self._limits.max_sequences:
            raise SequencesFullError(f"sequence.full: {len(self._kept)} sequences are open")
        kept = self._kept[key] = _Kept()
        self._counts["started"] += 1
        return kept

    def _drop(self, key: int | str, outcome: str) -> None:
        del self._kept[key]
        self._counts[outcome] += 1

    def _forget_idle(self) -> None:
        oldest = self._clock() - self._max_idle_s
        for key in [*self._idle_before(oldest)]:
            self._drop(key, "expired")

    def _idle_before(self, oldest: float) -> Iterator[int | str]:
        for key, kept in self._kept.items():
            if kept.used_s > oldest:
                return
            if not kept.is_busy:
                yield key

    def _sweep(self) -> None:
        while not self._closed.wait(min(self._max_idle_s, LONGEST_SWEEP_S)):
            with self._lock:
                self._forget_idle()

    def _copied(self, state: Any) -> dict[str, Any]:
        if type(state) is not dict:
            raise OutputError(f"output.state: {type(state).__name__}, expected a dict", reason="output.state")
        left = self._limits.max_state_bytes
        copies: dict[str, Any] = {}
        for name, value in state.items():
            left -= ENTRY_BYTES + sys.getsizeof(name)
            left -= value.nbytes if isinstance(value, np.ndarray) else sys.getsizeof(value)
            if left < 0:
                raise OutputError(
                    f"output.state: more than {self._limits.max_state_bytes} bytes in one sequence's state"
                    " (max_state_bytes)",
                    reason="output.state",
                )
            copies[name] = _copy(name, value)
        return copies


def _copy(name: Any, value: Any) -> Any:
    if isinstance(value, (str, bytes, int, float, bool)) and type(name) is str:
        return value
    if isinstance(value, np.ndarray | np.generic) and type(name) is str and not value.dtype.hasobject:
        # A copy: an input's array is a view of shared memory that other requests will use.
        copy = np.array(value)
        copy.flags.writeable = False
        return copy
    raise OutputError(
        f"output.state: {type(value).__name__} under {str(name)[:64]!r}; arrays, numbers, texts and bytes are kept",
        reason="output.state",
    )


def in_sequence(store: SequenceStore, kind: str, function: Form) -> Form:
    """Return the author's form with ``request.sequence`` filled in.

    Args:
        store: of the instance.
        kind: ``infer``, ``async`` (for ``async infer``) or ``stream``.
        function: the author's; takes the inputs and the request.
    """
    if kind == "async":

        async def awaited(inputs: dict[str, Any], info: Any) -> Any:
            step = _Step(store, info)
            with step:
                outputs = await function(inputs, info)
                step.is_good = True
            return outputs

        return awaited
    if kind == "stream":

        def streamed(inputs: dict[str, Any], info: Any) -> Iterator[Any]:
            step = _Step(store, info)
            with step:
                yield from function(inputs, info)
                step.is_good = True

        return streamed

    def stepped(inputs: dict[str, Any], info: Any) -> Any:
        step = _Step(store, info)
        with step:
            outputs = function(inputs, info)
            step.is_good = True
        return outputs

    return stepped


class _Step:
    """One request of a sequence, from its begin to its end."""

    __slots__ = ("_sequence", "_store", "is_good")

    def __init__(self, store: SequenceStore, info: Any) -> None:
        self._store = store
        self._sequence = info.sequence = store.begin(info._request)
        self.is_good = False

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._store.finish(self._sequence, is_good=self.is_good)
