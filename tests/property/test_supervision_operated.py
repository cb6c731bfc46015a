"""Faults, an operator who changes policy and models meanwhile, and time, in any order: one restart at a time, all counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from safe_triton.policyfile import SupervisionPolicy
from safe_triton.supervision.fleet import Fleet
from safe_triton.supervision.server_state import Answers, ServerDied, TooLarge
from safe_triton.supervision.state import Changed, Died, Hung, Loaded, LoadFailed, Phase, Started
from tests.property.test_supervision import CRASH, World

NAMES = ("a", "b")
ROUNDED_S = 0.051
"""Waits are reported with one digit."""

POLICIES = st.builds(
    SupervisionPolicy,
    max_failures=st.integers(1, 4),
    window_s=st.sampled_from([5.0, 60.0]),
    backoff_initial_ms=st.sampled_from([0, 100, 1000]),
    backoff_max_s=st.sampled_from([1.0, 8.0]),
    quarantine_s=st.sampled_from([2.0, 30.0]),
    load_timeout_s=st.sampled_from([3.0, 20.0]),
)


class Ledger(World):
    """What the supervision does, checked against what it may do at that moment."""

    def __init__(self, policy: SupervisionPolicy) -> None:
        super().__init__()
        self.tries = {name: [] for name in NAMES}
        self.policy = policy
        self.restarting: set[str] = set()
        self.failures: dict[str, list[float]] = {name: [] for name in NAMES}
        self.reported: Counter[str] = Counter()
        self.server_deaths = 0

    def reload(self, model: str) -> None:
        self._restart(model)
        super().reload(model)

    def restore(self, model: str) -> None:
        self._restart(model)
        super().restore(model)

    def _restart(self, model: str) -> None:
        assert model not in self.restarting
        self.restarting.add(model)

    def report(self, message: str, fields: Mapping[str, Any]) -> None:
        super().report(message, fields)
        if message.startswith("tritonserver ended"):
            self.restarting.clear()
            self.server_deaths += 1
            assert fields["retry_s"] <= self.policy.backoff_max_s + ROUNDED_S
        elif "retry_s" in fields:
            self._failed(fields["model"], fields["retry_s"], is_quarantined="quarantined" in message)

    def _failed(self, model: str, retry_s: float, *, is_quarantined: bool) -> None:
        """The back-off doubles with each failure in the window; one too many is a quarantine."""
        self.restarting.discard(model)
        self.reported[model] += 1
        recent = [time for time in self.failures[model] if self.now_s - time < self.policy.window_s]
        self.failures[model] = [*recent, self.now_s]
        count = len(self.failures[model])
        assert is_quarantined == (count > self.policy.max_failures)
        doubled_s = min(self.policy.backoff_initial_ms / 1000 * 2 ** (count - 1), self.policy.backoff_max_s)
        assert abs(retry_s - (self.policy.quarantine_s if is_quarantined else doubled_s)) <= ROUNDED_S


class Operated(RuleBasedStateMachine):
    """Guarantee: "a model that dies or hangs is loaded again; one that keeps failing is quarantined"; each counted once."""

    @initialize(policy=POLICIES)
    def begin(self, policy: SupervisionPolicy) -> None:
        self.world = Ledger(policy)
        self.fleet = Fleet(self.world, policy, self.world.clock)
        self.fleet.add(NAMES)
        self.pid = 100
        self.pids: dict[str, list[int]] = {name: [] for name in NAMES}
        self.counted: Counter[str] = Counter()
        self.longest_s = 0.0

    @precondition(lambda self: self.world.is_server_up)
    @rule(name=st.sampled_from(NAMES), is_loaded=st.booleans())
    def process_starts(self, name: str, is_loaded: bool) -> None:
        self.pid += 1
        self.pids[name].append(self.pid)
        self.fleet.apply(name, Started(self.pid, f"{name}_0_0"))
        if is_loaded:
            self.fleet.apply(name, Loaded())

    @rule(name=st.sampled_from(NAMES), hangs=st.booleans())
    def process_fails(self, name: str, hangs: bool) -> None:
        if self.pids[name]:
            if hangs:
                self.fleet.apply(name, Hung(self.pids[name][-1], CRASH))
            self.fleet.apply(name, Died(self.pids[name].pop(), CRASH))

    @rule(name=st.sampled_from(NAMES))
    def load_fails(self, name: str) -> None:
        self.fleet.apply(name, LoadFailed(CRASH))

    @precondition(lambda self: self.world.is_server_up and self.world.server_deaths < 4)
    @rule(is_large=st.booleans())
    def server_ends(self, is_large: bool) -> None:
        """By itself, or since it holds too much; nobody is suspected here."""
        if is_large:
            self.fleet.apply_to_server(TooLarge(2, 1))
            assert not self.world.is_server_up or self.fleet.server.phase is Phase.WAITING
        self.world.is_server_up = False
        for pids in self.pids.values():
            pids.clear()
        self.fleet.apply_to_server(ServerDied(CRASH))
        assert not is_large or self.fleet.server.last_cause != CRASH

    @precondition(lambda self: self.world.is_server_up and self.fleet.server.phase is Phase.LOADING)
    @rule()
    def server_answers(self) -> None:
        self.fleet.apply_to_server(Answers())

    @rule(policy=POLICIES)
    def operator_writes_another_policy(self, policy: SupervisionPolicy) -> None:
        self.world.policy = self.fleet.policy = policy

    @rule(name=st.sampled_from(NAMES))
    def operator_changes_a_model(self, name: str) -> None:
        if name in self.fleet.models:
            self._forget(name)
            self.fleet.apply(name, Changed())
            assert self.fleet.models[name].phase is Phase.LOADING

    @rule(name=st.sampled_from(NAMES))
    def operator_takes_a_model_away_or_back(self, name: str) -> None:
        if name in self.fleet.models:
            self.fleet.remove([name])
        else:
            self.fleet.add([name])
        self.pids[name].clear()
        self._forget(name)

    def _forget(self, name: str) -> None:
        self.world.withdrawn.discard(name)
        self.world.held.discard(name)
        self.world.restarting.discard(name)
        self.world.failures[name].clear()

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.5, 9.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now_s += seconds
        quarantined = {name for name, health in self.fleet.models.items() if health.phase is Phase.QUARANTINED}
        for name in quarantined:
            due_s = self.fleet.models[name].due_s
            if due_s is not None and due_s <= self.world.now_s:  # one more failure is enough then
                self.world.failures[name] = [self.world.now_s] * self.world.policy.max_failures
        self.fleet.tick()

    @invariant()
    def every_failure_is_counted_once(self) -> None:
        """Counters only grow, and say what was reported."""
        counted = Counter(dict.fromkeys(NAMES, 0))
        for (name, _), number in self.fleet.restarts.items():
            counted[name] += number
        assert all(counted[name] == self.world.reported[name] >= self.counted[name] for name in NAMES)
        assert sum(self.fleet.server_restarts.values()) == self.world.server_deaths
        self.counted = counted

    @invariant()
    def waits_end(self) -> None:
        """Whatever waits has a time, no further away than the longest wait that any policy so far allowed."""
        policy = self.world.policy
        self.longest_s = max(self.longest_s, policy.quarantine_s, policy.backoff_max_s)
        for health in self.fleet.models.values():
            assert (health.due_s is not None) == (health.phase in {Phase.WAITING, Phase.QUARANTINED})
            assert health.due_s is None or health.due_s <= self.world.now_s + self.longest_s

    def teardown(self) -> None:
        """From any state: once nothing fails any more, every model serves, and itself, not a stand-in."""
        if not hasattr(self, "fleet"):
            return
        for _ in range(20):
            if self.fleet.server.phase is Phase.LOADING:
                self.fleet.apply_to_server(Answers())
            if self.fleet.server.phase is Phase.READY:
                for name, health in self.fleet.models.items():
                    if health.phase is Phase.LOADING:
                        self.process_starts(name, is_loaded=True)
            if (due_s := self.fleet.due_s()) is not None:
                self.time_passes(max(0.0, due_s - self.world.now_s))
        assert self.fleet.server.phase is Phase.READY
        assert {health.phase for health in self.fleet.models.values()} <= {Phase.READY}
        assert self.world.withdrawn | self.world.held == set()


Operated.TestCase.settings = settings(max_examples=120, stateful_step_count=40)
TestOperated = Operated.TestCase
