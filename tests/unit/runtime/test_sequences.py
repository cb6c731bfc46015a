"""The state of sequences: who has one, how long, and what happens at each bound."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from safe_triton import SafeTritonPythonModel, SequenceLimits
from safe_triton.config import ModelConfig
from safe_triton.errors import (
    LimitExceededError,
    LoadError,
    OutputError,
    PolicyError,
    SequenceError,
    SequencesFullError,
)
from safe_triton.policy.passed_on import SEQUENCES_VARIABLE, sequences_to_json
from safe_triton.runtime.deadline import INTERRUPT_SIGNAL
from safe_triton.runtime.operator import tightened_sequences
from safe_triton.runtime.sequences import END, START, SequenceStore
from safe_triton.testing import Outcome, Request, load_model

TENSORS = {
    "name": "m",
    "input": [{"name": "X", "data_type": "TYPE_INT64", "dims": [1]}],
    "output": [{"name": "Y", "data_type": "TYPE_INT64", "dims": [1]}],
}
CONFIG = {**TENSORS, "max_batch_size": 1, "sequence_batching": {"oldest": {"max_candidate_sequences": 8}}}
STREAMING = {**CONFIG, "model_transaction_policy": {"decoupled": True}}


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeRequest:
    """What is used of a request."""

    def __init__(self, key: int | str, flags: int) -> None:
        self.correlation_id, self.flags = (lambda: key), (lambda: flags)


class Store:
    """A store under a test's clock."""

    def __init__(self, **limits: int) -> None:
        self.clock = Clock()
        self.counts = {"started": 0, "ended": 0, "restarted": 0, "expired": 0}
        self.store = SequenceStore(SequenceLimits(**limits), ModelConfig.from_dict(CONFIG), self.counts, self.clock)

    def step(self, key: int | str, flags: int = 0, *, is_good: bool = True, **state: Any) -> dict[str, Any]:
        """One request; returns the state that it found."""
        sequence = self.store.begin(FakeRequest(key, flags))
        found = dict(sequence.state)
        sequence.state.update(state)
        self.store.finish(sequence, is_good=is_good)
        return found


class TestStore:
    """Each bound, at it and above."""

    def test_what_was_kept_is_found(self) -> None:
        """By the id's own type: a number is no text."""
        store = Store()
        store.step(1, START, a=1)
        store.step("1", START, a=2)
        assert (store.step(1), store.step("1")) == ({"a": 1}, {"a": 2})

    @pytest.mark.parametrize("key", [0, ""])
    def test_no_id(self, key: int | str) -> None:
        """What Triton gives for a request outside every sequence."""
        with pytest.raises(SequenceError, match=r"^sequence\.id: "):
            Store().step(key, START)

    def test_unknown(self) -> None:
        """Not started, or ended."""
        store = Store()
        for prepare in (lambda: None, lambda: store.step(1, START | END)):
            prepare()
            with pytest.raises(SequenceError, match=r"^sequence\.unknown: "):
                store.step(1)

    def test_a_second_start_forgets(self) -> None:
        """The client began anew: the old one is counted."""
        store = Store()
        store.step(1, START, a=1)
        assert store.step(1, START) == {}
        assert store.counts == {"started": 2, "ended": 0, "restarted": 1, "expired": 0}

    def test_idle(self) -> None:
        """At the bound and above, from the last request's end."""
        store = Store(max_idle_ms=5_000)
        store.step(1, START, a=1)
        store.clock.now += 4.9
        assert store.step(1) == {"a": 1}
        store.clock.now += 5.1
        with pytest.raises(SequenceError):
            store.step(1)
        assert store.counts["expired"] == 1

    def test_one_that_is_being_answered_is_not_idle(self) -> None:
        """However long its step takes."""
        store = Store(max_idle_ms=5_000)
        sequence = store.store.begin(FakeRequest(1, START))
        store.clock.now += 60.0
        store.step(2, START)
        store.store.finish(sequence, is_good=True)
        assert store.step(1) == {}

    def test_one_that_was_answered_for_long_holds_up_no_other(self) -> None:
        """Its end is its last use: whoever was idle for longer goes first."""
        store = Store(max_idle_ms=5_000)
        slow = store.store.begin(FakeRequest(1, START))
        store.step(2, START)
        store.clock.now += 4.0
        store.store.finish(slow, is_good=True)
        store.clock.now += 2.0
        store.step(1)
        assert (len(store.store), store.counts["expired"]) == (1, 1)

    def test_idle_ones_make_room(self) -> None:
        """A client that is gone does not keep another one out."""
        store = Store(max_sequences=1, max_idle_ms=5_000)
        store.step(1, START)
        with pytest.raises(SequencesFullError):
            store.step(2, START)
        store.clock.now += 5.1
        store.step(2, START)
        assert len(store.store) == 1

    def test_idle_ones_go_while_no_request_comes(self) -> None:
        """A thread forgets them."""
        counts = {"started": 0, "ended": 0, "restarted": 0, "expired": 0}
        config = ModelConfig.from_dict({**CONFIG, "sequence_batching": {"max_sequence_idle_microseconds": 10_000}})
        store = SequenceStore(SequenceLimits(max_idle_ms=10), config, counts)
        store.start()
        store.finish(store.begin(FakeRequest(1, START)), is_good=True)
        until = time.monotonic() + 60.0
        while len(store) and time.monotonic() < until:
            time.sleep(0.01)
        store.close()
        assert (len(store), counts["expired"]) == (0, 1)

    def test_a_step_of_the_old_one_changes_nothing_in_the_new(self) -> None:
        """The client began anew while the last request was still being answered."""
        store = Store()
        old = store.store.begin(FakeRequest(1, START))
        old.state["a"] = 1
        store.step(1, START, b=2)
        store.store.finish(old, is_good=True)
        assert store.step(1) == {"b": 2}

    def test_a_first_step_that_fails_starts_nothing(self) -> None:
        """There is no state that the next one could go on with."""
        store = Store()
        store.step(1, START, is_good=False, a=1)
        with pytest.raises(SequenceError):
            store.step(1)

    def test_a_later_step_that_fails_changes_nothing(self) -> None:
        """The state is what it was."""
        store = Store()
        store.step(1, START, a=1)
        store.step(1, is_good=False, a=2)
        assert store.step(1) == {"a": 1}

    def test_an_interruption_while_the_state_is_copied_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A deadline may come between any two instructions."""
        store = Store()
        store.step(1, START, a=1)
        with monkeypatch.context() as patch:
            patch.setattr(store.store, "_copied", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                store.step(1, a=2)
        assert store.step(1) == {"a": 1}

    def test_arrays_are_copied_and_read_only(self) -> None:
        """An input's memory is used again for other requests."""
        store, array = Store(), np.arange(3)
        store.step(1, START, a=array)
        array[:] = 9
        kept = store.step(1)["a"]
        assert kept.tolist() == [0, 1, 2]
        with pytest.raises(ValueError, match="read-only"):
            kept[0] = 1

    def test_bytes(self) -> None:
        """At the bound and above; names count too."""
        store = Store(max_state_bytes=1_000)
        room = 1_000 - 64 - sys.getsizeof("a")
        store.step(1, START, a=np.zeros(room, np.uint8))
        with pytest.raises(OutputError, match="more than 1000 bytes"):
            store.step(1, a=np.zeros(room + 1, np.uint8))
        with pytest.raises(OutputError, match="more than 1000 bytes"):
            store.step(1, **{"a" * 1_000: 1})  # type: ignore[arg-type]
        with pytest.raises(OutputError, match="more than 1000 bytes"):
            store.step(1, **dict.fromkeys(map(str, range(20)), 1))  # type: ignore[arg-type]
        assert list(store.step(1)) == ["a"]

    @pytest.mark.parametrize(
        "value", [[1], {}, object(), None, np.array([b"x"], object)], ids=lambda value: type(value).__name__
    )
    def test_what_cannot_be_counted_is_not_kept(self, value: object) -> None:
        """Nothing whose size nobody can tell."""
        store = Store()
        with pytest.raises(OutputError, match=r"^output\.state: "):
            store.step(1, START, a=value)

    @pytest.mark.parametrize("value", [1, 1.5, True, "text", b"bytes", np.float32(2), np.zeros((2, 2))], ids=repr)
    def test_what_is_kept(self, value: Any) -> None:
        """Arrays, numbers, texts and bytes."""
        store = Store()
        store.step(1, START, a=value)
        np.testing.assert_array_equal(store.step(1)["a"], value)

    def test_steps(self) -> None:
        """At the bound and above."""
        store = Store(max_steps=2)
        store.step(1, START)
        store.step(1)
        with pytest.raises(LimitExceededError, match=r"^limit\.sequence_steps: 3 > 2 at sequence$"):
            store.step(1)
        assert len(store.store) == 0


class Summing(SafeTritonPythonModel):
    sequences = SequenceLimits()

    def infer(self, inputs: dict[str, Any], request: Any) -> Any:  # type: ignore[override]
        state = request.sequence.state
        state["sum"] = state.get("sum", 0) + inputs["X"]
        return {"Y": state["sum"]}


class SummingLater(SafeTritonPythonModel):
    sequences = SequenceLimits()

    async def infer(self, inputs: dict[str, Any], request: Any) -> Any:  # type: ignore[override]
        state = request.sequence.state
        state["sum"] = state.get("sum", 0) + inputs["X"]
        return {"Y": state["sum"]}


class SummingStream(SafeTritonPythonModel):
    sequences = SequenceLimits()

    def stream(self, inputs: dict[str, Any], request: Any) -> Any:  # type: ignore[override]
        state = request.sequence.state
        state["sum"] = state.get("sum", 0) + inputs["X"]
        yield {"Y": state["sum"]}


def ask(model: Any, number: int, flags: int = 0, key: int = 7) -> Outcome:
    outcome: Outcome = model.execute([Request({"X": np.array([[number]])}, correlation_id=key, flags=flags)])[0]
    return outcome


@pytest.mark.parametrize(
    ("model_class", "config"), [(Summing, CONFIG), (SummingLater, CONFIG), (SummingStream, STREAMING)]
)
def test_every_form_keeps_its_state(model_class: type, config: dict[str, Any]) -> None:
    """From the start to the end, which forgets it."""
    with load_model(model_class, config) as model:
        answers = [ask(model, 1, START), ask(model, 2), ask(model, 3, END)]
        assert [each.responses[0].outputs["Y"].item() for each in answers] == [1, 3, 6]
        assert model.model._instance.stats.sequences == {"started": 1, "ended": 1, "restarted": 0, "expired": 0}
        assert (ask(model, 4).error or "").startswith("sequence.unknown: ")


def test_what_triton_fills_a_batch_with_is_not_counted() -> None:
    """It has no correlation id, and reaches no code of the author's."""
    with load_model(Summing, CONFIG) as model:
        assert (ask(model, 1, key=0).error or "").startswith("sequence.id: ")
        stats = model.model._instance.stats
        assert (sum(stats.outcomes.values()), stats.refusals) == (0, {})


class Batch(SafeTritonPythonModel):
    sequences = SequenceLimits()

    def infer_batch(self, inputs: dict[str, Any]) -> Any:
        return {"Y": inputs["X"]}


class Deaf(SafeTritonPythonModel):
    sequences = SequenceLimits()

    def infer(self, inputs: dict[str, Any]) -> Any:
        return {"Y": inputs["X"]}


class Impatient(Summing):
    sequences = SequenceLimits(max_idle_ms=999)


class Wrong(Summing):
    sequences = 5  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("model_class", "config", "pattern"),
    [
        (Summing, {**TENSORS, "max_batch_size": 1}, "config.pbtxt has no sequence_batching"),
        (Batch, CONFIG, "infer_batch does not take the request"),
        (Deaf, CONFIG, "infer does not take the request"),
        (Impatient, CONFIG, "max_idle_ms 999 is below config.pbtxt's max_sequence_idle_microseconds 1000000"),
        (Wrong, CONFIG, "sequences must be a SequenceLimits"),
    ],
)
def test_what_cannot_hold_does_not_load(model_class: type, config: dict[str, Any], pattern: str) -> None:
    """One line says why, and nothing of the instance stays behind."""
    before = signal.getsignal(INTERRUPT_SIGNAL)
    with pytest.raises(LoadError, match=pattern), load_model(model_class, config):
        pass
    assert signal.getsignal(INTERRUPT_SIGNAL) == before


@pytest.mark.parametrize("make", [lambda: SequenceLimits(max_steps=0), lambda: SequenceLimits(max_idle_ms=True)])
def test_wrong_limits(make: Callable[[], SequenceLimits]) -> None:
    """Whole numbers of at least one."""
    with pytest.raises(PolicyError, match=r"SequenceLimits\.max_"):
        make()


class TestOperator:
    """The operator's policy tightens what the class declares, and never loosens it."""

    @pytest.mark.parametrize(
        ("operators", "mine", "steps", "idle_ms"),
        [
            (SequenceLimits(max_steps=5), SequenceLimits(max_steps=9), 5, 60_000),
            (SequenceLimits(max_steps=9), SequenceLimits(max_steps=5), 5, 60_000),
            (SequenceLimits(max_steps=5), SequenceLimits(), 5, 60_000),
            (SequenceLimits(max_idle_ms=90_000), SequenceLimits(max_steps=200_000), 200_000, 60_000),
        ],
    )
    def test_the_smaller_holds(
        self, operators: SequenceLimits, mine: SequenceLimits, steps: int, idle_ms: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of what the operator wrote; what was not written says nothing."""
        monkeypatch.setenv(SEQUENCES_VARIABLE, sequences_to_json(operators))
        both = tightened_sequences(mine)
        assert (both.max_steps, both.max_idle_ms) == (steps, idle_ms)

    def test_in_a_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its next step above the operator's number is refused."""
        monkeypatch.setenv(SEQUENCES_VARIABLE, '{"max_steps":1}')
        with load_model(Summing, CONFIG) as model:
            first, second = (
                model.execute([Request({"X": np.ones((1, 1), np.int64)}, correlation_id=7, flags=flags)])[0]
                for flags in (1, 0)
            )
        assert (first.error, second.error) == (None, "limit.sequence_steps: 2 > 1 at sequence")

    @pytest.mark.parametrize("text", ["[", "[]", '{"max_steps": 0}', '{"max_step": 5}'])
    def test_what_nobody_can_read(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The model does not load: nobody knows what its bounds are."""
        monkeypatch.setenv(SEQUENCES_VARIABLE, text)
        with pytest.raises(LoadError, match="SAFE_TRITON_SEQUENCES cannot be read"), load_model(Summing, CONFIG):
            pass
