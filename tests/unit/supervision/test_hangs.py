"""Who hangs, by heartbeats and by the state of the process."""

from __future__ import annotations

from safe_triton.server.heartbeat import Beat
from safe_triton.supervision.hangs import STOPPED_FOR_S, HangWatch

LIMIT_S = 2.0
START_S = 1000.0


def beat(
    *,
    busy_since_s: float | None,
    progress: int = 0,
    model: str = "m",
    watches_itself: bool = False,
    hard_deadline_s: float | None = None,
) -> Beat:
    """What process 7 says."""
    return Beat(
        pid=7,
        model=model,
        version="1",
        instance="m_0_0",
        busy_since_s=busy_since_s,
        progress=progress,
        watches_itself=watches_itself,
        hard_deadline_s=hard_deadline_s,
    )


class TestBusy:
    def watch(self) -> HangWatch:
        return HangWatch(lambda model: LIMIT_S if model == "m" else None)

    def test_past_the_deadline(self) -> None:
        """A call that shows nothing for longer than the hard deadline hangs, and not before."""
        watch = self.watch()
        assert watch.look([beat(busy_since_s=START_S)], START_S + LIMIT_S) == {}
        (cause,) = watch.look([beat(busy_since_s=START_S)], START_S + LIMIT_S + 0.1).values()
        assert cause.kind == "deadline"
        assert "2.1 s" in cause.text

    def test_at_the_first_look(self) -> None:
        """A first call that is too old already is seen at once; of a process that has answered before, nothing is known."""
        assert 7 in self.watch().look([beat(busy_since_s=START_S)], START_S + LIMIT_S + 0.1)
        assert self.watch().look([beat(busy_since_s=START_S, progress=9)], START_S + LIMIT_S + 0.1) == {}

    def test_a_stream_that_goes_on(self) -> None:
        """Each response gives the call its time again, however long all of them take."""
        watch = self.watch()
        for number in range(100):
            looked = watch.look([beat(busy_since_s=START_S, progress=number)], START_S + number * 0.9 * LIMIT_S)
            assert looked == {}

    def test_a_stream_that_stops(self) -> None:
        """Silence after the last response counts from there."""
        watch = self.watch()
        watch.look([beat(busy_since_s=START_S, progress=5)], START_S + 1)
        watch.look([beat(busy_since_s=START_S, progress=6)], START_S + 10)
        assert watch.look([beat(busy_since_s=START_S, progress=6)], START_S + 10 + LIMIT_S) == {}
        assert 7 in watch.look([beat(busy_since_s=START_S, progress=6)], START_S + 10.1 + LIMIT_S)

    def test_a_call_after_long_idleness(self) -> None:
        """It has its whole time."""
        watch = self.watch()
        watch.look([beat(busy_since_s=None)], START_S)
        assert watch.look([beat(busy_since_s=START_S + 99)], START_S + 100) == {}

    def test_one_that_watches_itself(self) -> None:
        """An SDK class has deadlines of its own."""
        assert self.watch().look([beat(busy_since_s=START_S, watches_itself=True)], START_S + 999) == {}

    def test_one_whose_own_watchdog_could_not_act(self) -> None:
        """Its own hard deadline counts then, a moment later than its watchdog would have acted."""
        mine = beat(busy_since_s=START_S, watches_itself=True, hard_deadline_s=90.0)
        assert self.watch().look([mine], START_S + 90.2) == {}
        assert 7 in self.watch().look([mine], START_S + 91)

    def test_without_a_limit(self) -> None:
        """The operator may lift the limit."""
        assert self.watch().look([beat(busy_since_s=START_S, model="unlimited")], START_S + 999) == {}


class TestStopped:
    def test_for_a_while(self) -> None:
        """A process that is continued in time is left alone; one that is not hangs."""
        watch = HangWatch(lambda _: None)
        assert watch.look_at_states({7: "T"}, START_S) == {}
        assert watch.look_at_states({7: "S"}, START_S + 0.9) == {}
        assert watch.look_at_states({7: "T"}, START_S + 1.0) == {}
        assert watch.look_at_states({7: "T"}, START_S + 1.0 + STOPPED_FOR_S)[7].kind == "stopped"

    def test_a_debugger(self) -> None:
        """What is traced is stopped by somebody who watches."""
        watch = HangWatch(lambda _: None)
        watch.look_at_states({7: "t"}, START_S)
        assert watch.look_at_states({7: "t"}, START_S + 99) == {}
