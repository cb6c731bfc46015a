"""What is done about one model, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from safe_triton.policyfile import SupervisionPolicy
from safe_triton.supervision.causes import Cause
from safe_triton.supervision.state import (
    NO_PROCESS_S,
    Action,
    Asked,
    Blamed,
    Changed,
    Died,
    Event,
    Failed,
    Hold,
    Hung,
    Kill,
    Loaded,
    LoadFailed,
    ModelHealth,
    Phase,
    Reload,
    Restore,
    ServerStarts,
    Started,
    Tick,
    Withdraw,
    next_due_s,
    step,
)

POLICY = SupervisionPolicy(
    max_failures=3,
    window_s=60.0,
    backoff_initial_ms=100,
    backoff_max_s=30.0,
    quarantine_s=120.0,
    load_timeout_s=10.0,
)
CRASH = Cause("signal", "SIGSEGV")
INSTANCE = "m_0_0"


@dataclass
class Model:
    """One model and its clock."""

    health: ModelHealth = field(default_factory=lambda: ModelHealth("m"))
    now_s: float = 1000.0

    def __call__(self, event: Event, *, after_s: float = 0.0) -> list[Action]:
        self.now_s += after_s
        self.health, actions = step(self.health, event, self.now_s, POLICY)
        return list(actions)

    def wait(self) -> list[Action]:
        """Let the time pass until something is due."""
        due_s = next_due_s(self.health, POLICY)
        assert due_s is not None
        self.now_s = due_s
        return self(Tick())

    @property
    def phase(self) -> Phase:
        return self.health.phase


@pytest.fixture
def model() -> Model:
    """A model that serves with process 1."""
    made = Model()
    made(Started(1, INSTANCE))
    made(Loaded())
    return made


class TestDeath:
    def test_is_reloaded_after_the_back_off(self, model: Model) -> None:
        """One failure is counted, and the model loaded again after the first wait."""
        assert model(Died(1, CRASH)) == [Failed(CRASH, False, 0.1)]
        assert model(Tick(), after_s=0.05) == []
        assert model(Tick(), after_s=0.06) == [Reload()]
        model(Started(2, INSTANCE))
        assert model(Loaded()) == []
        assert model.phase is Phase.READY

    def test_the_wait_doubles(self, model: Model) -> None:
        """Each failure in the window waits twice as long as the one before."""
        waits = []
        for pid in range(1, 4):
            (failed, *_) = model(Died(pid, CRASH))
            assert isinstance(failed, Failed)
            waits.append(failed.retry_s)
            model.wait()
            model(Started(pid + 1, INSTANCE))
            model(Loaded())
        assert waits == [0.1, 0.2, 0.4]

    def test_failures_far_apart_do_not_add_up(self, model: Model) -> None:
        """What failed before the window is forgotten."""
        for pid in range(1, 20):
            assert model(Died(pid, CRASH), after_s=POLICY.window_s)[0] == Failed(CRASH, False, 0.1)
            model.wait()
            model(Started(pid + 1, INSTANCE))
            model(Loaded())

    def test_two_instances_that_die_together_are_one_failure(self) -> None:
        """The reload replaces both."""
        model = Model()
        model(Started(1, "m_0_0"))
        model(Started(2, "m_0_1"))
        model(Loaded())
        assert len(model(Died(1, CRASH))) == 1
        assert model(Died(2, CRASH)) == []

    def test_a_process_that_was_replaced(self, model: Model) -> None:
        """The end of an old process after the new one of its instance has started is no failure."""
        model(Started(2, INSTANCE))
        assert model(Died(1, Cause("exit", "exit status 0"))) == []
        assert model.phase is Phase.READY

    def test_an_old_process_while_the_new_one_loads(self) -> None:
        """Ends of what ran before the reload do not count."""
        model = Model()
        model(Started(1, "m_0_0"))
        model(Started(2, "m_0_1"))
        model(Loaded())
        model(Died(1, CRASH))
        assert model.wait() == [Reload()]
        assert model(Died(2, CRASH)) == []
        assert model.phase is Phase.LOADING

    def test_a_process_that_completes_a_configuration(self) -> None:
        """Its end says nothing about the model."""
        model = Model()
        model(Started(1, "m"))
        assert model(Died(1, Cause("exit", "exit status 0"))) == []
        assert model.phase is Phase.LOADING

    def test_nobody_knows_it(self, model: Model) -> None:
        """The end of a process that was never seen changes nothing."""
        assert model(Died(77, CRASH)) == []


class TestHang:
    def test_is_killed_and_counted_as_what_it_was(self, model: Model) -> None:
        """The cause is the hang, not the signal that ended it; it is killed once."""
        hang = Cause("deadline", "busy for 9 s")
        assert model(Hung(1, hang)) == [Kill(1, hang)]
        assert model(Hung(1, hang)) == []
        assert model(Died(1, Cause("signal", "SIGKILL"))) == [Failed(hang, False, 0.1)]

    def test_an_old_process(self, model: Model) -> None:
        """It is killed too, and does not count."""
        model(Died(1, CRASH))
        model(Started(2, INSTANCE))
        model.wait()
        assert model(Hung(2, CRASH)) == [Kill(2, CRASH)]


class TestLoad:
    def test_that_is_too_slow(self) -> None:
        """Its process is killed, once, and the failure is the load's."""
        model = Model()
        model(Started(1, INSTANCE))
        (kill,) = model(Tick(), after_s=POLICY.load_timeout_s)
        assert isinstance(kill, Kill) and kill.pid == 1 and kill.cause.kind == "load_timeout"
        assert model(Tick(), after_s=1.0) == []
        (failed,) = model(Died(1, Cause("signal", "SIGKILL")))
        assert isinstance(failed, Failed) and failed.cause.kind == "load_timeout"

    def test_the_time_begins_with_the_process(self) -> None:
        """A load that waits for others has not begun."""
        model = Model()
        model(Started(1, INSTANCE), after_s=NO_PROCESS_S - 1)
        assert model(Tick(), after_s=POLICY.load_timeout_s - 0.1) == []

    def test_that_fails(self) -> None:
        """A process that ends before the model is loaded is a failed load."""
        model = Model()
        model(Started(1, INSTANCE))
        (failed,) = model(Died(1, Cause("exit", "exit status 1")))
        assert isinstance(failed, Failed) and failed.cause.kind == "load"

    def test_that_tritonserver_reports(self) -> None:
        """So is one that tritonserver says has failed."""
        model = Model()
        assert model(LoadFailed(CRASH)) == [Failed(CRASH, False, 0.1)]
        assert model(LoadFailed(CRASH)) == []

    def test_that_never_begins(self) -> None:
        """Without a process it is a failure after a while, unless another model's load goes first."""
        model = Model()
        assert model(Tick(is_held_up=True), after_s=NO_PROCESS_S) == []
        assert model(Tick(), after_s=NO_PROCESS_S - 1) == []
        (failed,) = model(Tick(), after_s=1.0)
        assert isinstance(failed, Failed) and failed.cause.kind == "load"

    def test_that_triton_tries_again_by_itself(self) -> None:
        """Then nothing has to be reloaded."""
        model = Model()
        model(LoadFailed(CRASH))
        model(Started(2, INSTANCE))
        assert model.wait() == []
        model(Loaded())
        assert model.phase is Phase.READY


class TestQuarantine:
    def quarantine(self, model: Model) -> list[Action]:
        """Let it fail until it is quarantined; the last actions."""
        for pid in range(1, POLICY.max_failures + 2):
            actions = model(Died(pid, CRASH))
            if model.phase is Phase.QUARANTINED:
                return actions
            model.wait()
            model(Started(pid + 1, INSTANCE))
            model(Loaded())
        raise AssertionError("not quarantined")

    def test_after_too_many_failures(self, model: Model) -> None:
        """One more than allowed within the window; clients are told, without paths or causes."""
        failed, withdraw = self.quarantine(model)
        assert failed == Failed(CRASH, True, POLICY.quarantine_s)
        assert isinstance(withdraw, Withdraw)
        assert "'m' is quarantined" in withdraw.message
        assert "SIGSEGV" not in withdraw.message

    def test_is_tried_again_later(self, model: Model) -> None:
        """It returns by itself, and serves when it is well."""
        self.quarantine(model)
        assert model(Tick(), after_s=POLICY.quarantine_s - 1) == []
        assert model(Tick(), after_s=1.0) == [Restore()]
        model(Started(99, INSTANCE))
        model(Loaded())
        assert model.phase is Phase.READY

    def test_one_more_failure_is_enough_then(self, model: Model) -> None:
        """A model that returns from quarantine is not trusted with the whole number again."""
        self.quarantine(model)
        model.wait()
        model(Started(99, INSTANCE))
        assert model(Died(99, CRASH))[0] == Failed(CRASH, True, POLICY.quarantine_s)

    def test_the_stand_in_does_not_count(self, model: Model) -> None:
        """Its load is no load of the model, its end no failure."""
        self.quarantine(model)
        model(Started(50, INSTANCE))
        model(Loaded())
        assert model(Died(50, CRASH)) == []
        assert model.phase is Phase.QUARANTINED

    def test_of_a_blamed_model(self, model: Model) -> None:
        """A model that ends the server is quarantined at once, once."""
        failed, withdraw = model(Blamed(CRASH))
        assert failed == Failed(CRASH, True, POLICY.quarantine_s)
        assert isinstance(withdraw, Withdraw)
        assert model(Blamed(CRASH)) == []

    def test_stays_when_the_server_starts_again(self, model: Model) -> None:
        """The stand-in is what the new server loads."""
        model(Blamed(CRASH))
        assert model(ServerStarts()) == []
        assert model.phase is Phase.QUARANTINED

    def test_ends_when_the_operator_changes_the_model(self, model: Model) -> None:
        """The view shows the model anew, and its failures are forgotten."""
        model(Blamed(CRASH))
        assert model(Changed()) == []
        assert (model.phase, model.health.failures, model.health.is_withdrawn) == (Phase.LOADING, (), False)


def test_a_server_that_starts_again(model: Model) -> None:
    """Its models load, and the ends of the old processes do not count."""
    assert model(ServerStarts()) == []
    assert model(Died(1, CRASH)) == []
    assert model.phase is Phase.LOADING


def test_a_long_wait_is_announced() -> None:
    """Where the back-off takes seconds, clients get the stand-in's answer meanwhile."""
    policy = POLICY.model_copy(update={"backoff_initial_ms": 5000, "max_failures": 10})
    health, _ = step(ModelHealth("m"), Started(1, INSTANCE), 0.0, policy)
    health, actions = step(health, Died(1, CRASH), 0.0, policy)
    assert actions[1] == Withdraw("model 'm' has failed and is loaded again in 5 s")
    health, actions = step(health, Tick(), 5.0, policy)
    assert actions == (Restore(),)


class TestAnUpdateThatFails:
    @pytest.fixture
    def updated(self, model: Model) -> Model:
        """A model whose new version has failed to load until it was quarantined; process 1 is of before."""
        model(Changed())
        actions: list[Action] = []
        for pid in range(2, 3 + POLICY.max_failures):
            assert actions in ([], [Reload()])
            model(Started(pid, INSTANCE))
            (*_, last) = model(Died(pid, Cause("exit", "exit status 0")))
            actions = model.wait() if model.phase is Phase.WAITING else [last]
        assert actions == [Hold()]
        return model

    def test_leaves_the_old_one_in_its_place(self, updated: Model) -> None:
        """It is quarantined and serves: no stand-in, and no further attempt until it is due."""
        assert updated.phase is Phase.QUARANTINED
        assert updated.health.old_serves
        assert updated.health.is_held
        assert not updated.health.is_withdrawn

    def test_is_tried_again(self, updated: Model) -> None:
        """After its time, and at once when the operator asks; a good load ends it."""
        for try_again in (updated.wait, lambda: updated(Asked())):
            assert try_again() == [Restore()]
            assert updated.phase is Phase.LOADING
            assert updated.health.old_serves
            updated(Started(updated.now_s.__hash__(), INSTANCE))
            if try_again == updated.wait:
                assert Hold() in updated(Died(updated.now_s.__hash__(), CRASH))
        updated(Loaded())
        assert updated.phase is Phase.READY
        assert not updated.health.old_serves

    @pytest.mark.parametrize("event", [Died(1, CRASH), ServerStarts()], ids=["process", "server"])
    def test_the_old_one_goes(self, updated: Model, event: Event) -> None:
        """Then there is nobody to serve: the stand-in answers."""
        (withdraw,) = updated(event)
        assert isinstance(withdraw, Withdraw)
        assert "is quarantined" in withdraw.message
        assert updated.health.is_withdrawn
        assert not updated.health.is_held
        assert updated.wait() == [Restore()]

    def test_one_instance_of_the_old_one_is_missing(self) -> None:
        """What is left of a load of which a process has died does not count as serving."""
        model = Model()
        model(Started(1, "m_0_0"))
        model(Started(2, "m_0_1"))
        model(Loaded())
        model(Changed())
        model(Died(1, CRASH))
        assert not model.health.old_serves

    def test_a_model_that_ends_the_server(self, model: Model) -> None:
        """Is withdrawn, whatever of it serves."""
        actions = model(Blamed(CRASH))
        assert isinstance(actions[1], Withdraw)


@pytest.mark.parametrize("is_ready", [True, False])
def test_the_operator_asks(model: Model, is_ready: bool) -> None:
    """A model that serves or waits is loaded again at once, and what it did before is forgotten."""
    if not is_ready:
        model(Died(1, CRASH))
    assert model(Asked()) == [Reload()]
    assert model.phase is Phase.LOADING
    assert model.health.failures == ()
    assert model.health.old_serves == is_ready
