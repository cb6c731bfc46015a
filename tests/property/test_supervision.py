"""Whatever happens to models and server, in whatever order: no storms, no model given up, nobody else touched."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from safe_triton.policyfile import SupervisionPolicy
from safe_triton.supervision.causes import Cause
from safe_triton.supervision.fleet import Fleet
from safe_triton.supervision.server_state import Answers, ServerDied, Stuck
from safe_triton.supervision.state import Asked, Changed, Died, Hung, Loaded, LoadFailed, Phase, Started

NAMES = ("a", "b", "c")
QUIET = "quiet"
"""A model to which nothing ever happens."""

CRASH = Cause("signal", "SIGKILL")
POLICY = SupervisionPolicy(
    max_failures=3,
    window_s=60.0,
    backoff_initial_ms=100,
    backoff_max_s=8.0,
    quarantine_s=30.0,
    load_timeout_s=5.0,
)


class World:
    """What the supervision does, written down."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.tries: dict[str, list[float]] = {name: [] for name in (*NAMES, QUIET)}
        self.killed: list[int] = []
        self.withdrawn: set[str] = set()
        self.held: set[str] = set()
        self.is_server_up = True
        self.starts = 0

    def clock(self) -> float:
        return self.now_s

    def kill(self, pid: int) -> None:
        self.killed.append(pid)

    def reload(self, model: str) -> None:
        assert model not in self.withdrawn | self.held
        self.tries[model].append(self.now_s)

    def withdraw(self, model: str, message: str) -> None:
        assert model not in self.withdrawn, message
        self.withdrawn.add(model)
        self.held.discard(model)

    def hold(self, model: str) -> None:
        assert model not in self.withdrawn | self.held
        self.held.add(model)

    def restore(self, model: str) -> None:
        (self.withdrawn if model in self.withdrawn else self.held).remove(model)
        self.tries[model].append(self.now_s)

    def start_server(self) -> Cause | None:
        assert not self.is_server_up
        self.is_server_up = True
        self.starts += 1
        return None

    def kill_server(self) -> None:
        self.is_server_up = False

    def report(self, message: str, fields: Mapping[str, Any]) -> None:
        assert message
        assert fields


class Supervised(RuleBasedStateMachine):
    """Guarantee: "reloaded with back-off, quarantined after N failures in a window, tried again; others untouched"."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.fleet = Fleet(self.world, POLICY, self.world.clock)
        self.fleet.add((*NAMES, QUIET))
        self.pid = 100
        self.pids: dict[str, list[int]] = {name: [] for name in NAMES}
        self.fleet.apply(QUIET, Started(1, f"{QUIET}_0_0"))
        self.fleet.apply(QUIET, Loaded())
        self.server_deaths = 0

    @rule(name=st.sampled_from(NAMES), instance=st.integers(0, 1))
    def process_starts(self, name: str, instance: int) -> None:
        self.pid += 1
        self.pids[name].append(self.pid)
        self.fleet.apply(name, Started(self.pid, f"{name}_0_{instance}"))

    @rule(name=st.sampled_from(NAMES))
    def model_is_loaded(self, name: str) -> None:
        if self.fleet.models[name].current:
            self.fleet.apply(name, Loaded())

    @rule(name=st.sampled_from(NAMES), is_new=st.booleans())
    def operator_has_it_loaded(self, name: str, is_new: bool) -> None:
        self.world.tries[name].clear()  # what the operator asks for is no storm
        if is_new:
            self.world.withdrawn.discard(name)
            self.world.held.discard(name)
        self.fleet.apply(name, Changed() if is_new else Asked())

    @rule(name=st.sampled_from(NAMES))
    def load_fails(self, name: str) -> None:
        self.fleet.apply(name, LoadFailed(CRASH))

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def process_dies(self, name: str, data: st.DataObject) -> None:
        if self.pids[name]:
            pid = data.draw(st.sampled_from(self.pids[name]))
            self.pids[name].remove(pid)
            self.fleet.apply(name, Died(pid, CRASH))

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def process_hangs(self, name: str, data: st.DataObject) -> None:
        if self.pids[name]:
            self.fleet.apply(name, Hung(data.draw(st.sampled_from(self.pids[name])), CRASH))

    @precondition(lambda self: self.server_deaths < 4)
    @rule(suspects=st.sets(st.sampled_from(NAMES)))
    def server_dies(self, suspects: set[str]) -> None:
        self.server_deaths += 1
        self.world.is_server_up = False
        for pids in self.pids.values():
            pids.clear()
        self.fleet.apply_to_server(ServerDied(CRASH, frozenset(suspects)))

    @precondition(lambda self: self.world.is_server_up)
    @rule()
    def server_answers(self) -> None:
        if self.fleet.server.phase is Phase.LOADING:
            self.fleet.apply_to_server(Answers())
            self.fleet.apply(QUIET, Loaded())

    @precondition(lambda self: self.server_deaths < 4)
    @rule(name=st.sampled_from(NAMES))
    def server_is_stuck(self, name: str) -> None:
        self.fleet.apply_to_server(Stuck(name))
        if not self.world.is_server_up and self.fleet.server.phase is not Phase.WAITING:
            self.server_dies(set())

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.0, 5.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now_s += seconds
        self.fleet.tick()

    @invariant()
    def never_a_storm(self) -> None:
        """In every window at most the allowed failures, and one try for each quarantine that ended in it."""
        most = POLICY.max_failures + math.ceil(POLICY.window_s / POLICY.quarantine_s) + 1
        for tries in self.world.tries.values():
            for first in tries:
                assert sum(first <= time < first + POLICY.window_s for time in tries) <= most

    @invariant()
    def nobody_is_given_up(self) -> None:
        """Every model serves, is being loaded, or has a time at which it is tried again."""
        for health in self.fleet.models.values():
            assert (health.due_s is not None) == (health.phase in {Phase.WAITING, Phase.QUARANTINED})
            if health.due_s is not None:
                assert health.due_s <= self.world.now_s + max(POLICY.quarantine_s, POLICY.backoff_max_s)

    @invariant()
    def the_stand_in_is_known(self) -> None:
        """The view and the states agree on who is withdrawn or held; a model that serves is not."""
        assert self.world.withdrawn == {name for name, health in self.fleet.models.items() if health.is_withdrawn}
        assert self.world.held == {name for name, health in self.fleet.models.items() if health.is_held}
        away = self.world.withdrawn | self.world.held
        assert all(self.fleet.models[name].phase in {Phase.WAITING, Phase.QUARANTINED} for name in away)

    @invariant()
    def who_serves_on_is_left_alone(self) -> None:
        """A stand-in takes nobody's place whose processes of before serve, and none is held whose processes are gone."""
        for health in self.fleet.models.values():
            assert not (health.serving and health.is_withdrawn)
            assert health.serving or not health.is_held
            assert health.serving <= health.processes.keys()

    @invariant()
    def others_are_untouched(self) -> None:
        """A model to which nothing happens is never killed, reloaded or withdrawn."""
        assert self.world.tries[QUIET] == []
        assert QUIET not in self.world.withdrawn
        assert 1 not in self.world.killed

    @invariant()
    def nobody_is_killed_twice(self) -> None:
        """A kill is sent once."""
        assert max(Counter(self.world.killed).values(), default=1) == 1

    def teardown(self) -> None:
        """From any state, with time alone, everything that is due is tried."""
        if not hasattr(self, "fleet"):
            return
        waiting = {name for name, health in self.fleet.models.items() if health.due_s is not None}
        self.world.now_s += max(POLICY.quarantine_s, POLICY.backoff_max_s)
        self.fleet.tick()
        assert all(self.fleet.models[name].phase is Phase.LOADING for name in waiting)
        assert self.world.is_server_up or self.fleet.server.phase is not Phase.WAITING


Supervised.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestSupervised = Supervised.TestCase
