"""The state of sequences under any traffic."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from safe_triton import SequenceLimits
from safe_triton.config import ModelConfig
from safe_triton.errors import LimitExceededError, SequenceError, SequencesFullError
from safe_triton.runtime.sequences import END, START, SequenceStore

CONFIG = ModelConfig.from_dict(
    {
        "name": "m",
        "max_batch_size": 1,
        "sequence_batching": {},
        "input": [{"name": "X", "data_type": "TYPE_INT64", "dims": [1]}],
        "output": [{"name": "Y", "data_type": "TYPE_INT64", "dims": [1]}],
    }
)
IDLE_S = 2.0
STEPS = st.tuples(
    st.integers(1, 4),  # whose
    st.sampled_from([0, START, END, START | END]),
    st.booleans(),  # whether the author's code succeeds
    st.sampled_from([0.0, 0.5, IDLE_S + 0.1]),  # seconds before it
)


class Request:
    """What is used of a request."""

    def __init__(self, key: int, flags: int) -> None:
        self.correlation_id, self.flags = (lambda: key), (lambda: flags)


class TestStore:
    """Each request finds "the state of the sequence that the request belongs to", within ``SequenceLimits``."""

    @given(st.lists(STEPS, max_size=40))
    def test_finds_what_the_last_good_request_left(self, steps: list[tuple[int, int, bool, float]]) -> None:
        """The same as a plain dict of dicts that follows the documented rules."""
        now = 0.0
        counts = {"started": 0, "ended": 0, "restarted": 0, "expired": 0}
        limits = SequenceLimits(max_sequences=2, max_steps=3, max_idle_ms=int(IDLE_S * 1000))
        store = SequenceStore(limits, CONFIG, counts, lambda: now)
        expected: dict[int, tuple[int, int, float]] = {}  # steps, value, last used
        for number, (key, flags, is_good, pause_s) in enumerate(steps):
            now += pause_s
            expected = {name: row for name, row in expected.items() if row[2] > now - IDLE_S}
            is_full = flags & START and len(expected.keys() - {key}) >= 2
            known = None if flags & START else expected.get(key)
            outcome: Any = None
            sequence: Any = None
            try:
                sequence = store.begin(Request(key, flags))
            except (SequenceError, LimitExceededError) as error:
                outcome = type(error)
            if is_full:
                assert outcome is SequencesFullError
                expected.pop(key, None)
            elif not flags & START and known is None:
                assert outcome is SequenceError
            elif known is not None and known[0] == 3:
                assert outcome is LimitExceededError
                del expected[key]
            else:
                assert outcome is None
                assert sequence.state.get("value", 0) == (known[1] if known else 0)
                sequence.state["value"] = number
                store.finish(sequence, is_good=is_good)
                steps_so_far, value = (known[0] if known else 0) + 1, known[1] if known else 0
                expected[key] = (steps_so_far, number if is_good else value, now)
                if flags & END or (flags & START and not is_good):
                    del expected[key]
            assert len(store) == len(expected) <= 2
        gone = counts["ended"] + counts["restarted"] + counts["expired"]
        assert counts["started"] - gone == len(store)
