"""What is done when tritonserver itself ends, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from safe_triton.policyfile import SupervisionPolicy
from safe_triton.supervision.causes import Cause
from safe_triton.supervision.server_state import (
    START_GRACE_S,
    SUSPICION_S,
    Answers,
    Blame,
    KillServer,
    ServerAction,
    ServerDied,
    ServerEvent,
    ServerFailed,
    ServerHealth,
    ServerTick,
    Start,
    Stuck,
    TooLarge,
    server_step,
)
from safe_triton.supervision.state import Phase

POLICY = SupervisionPolicy(backoff_initial_ms=100, backoff_max_s=30.0, window_s=60.0, load_timeout_s=10.0)
CRASH = Cause("signal", "SIGSEGV")


@dataclass
class Server:
    """One server and its clock."""

    health: ServerHealth = field(default_factory=ServerHealth)
    now_s: float = 1000.0

    def __call__(self, event: ServerEvent, *, after_s: float = 0.0) -> list[ServerAction]:
        self.now_s += after_s
        self.health, actions = server_step(self.health, event, self.now_s, POLICY)
        return list(actions)

    def die(self, *suspects: str) -> list[str]:
        """Die, start again and answer; the models that are blamed."""
        actions = self(ServerDied(CRASH, frozenset(suspects)))
        assert self(ServerTick(), after_s=POLICY.backoff_max_s) == [Start()]
        self(Answers())
        return [action.model for action in actions if isinstance(action, Blame)]


def test_is_started_again() -> None:
    """After the back-off, again and again, with longer waits and without an end."""
    server, waits = Server(), []
    for _ in range(20):
        (failed,) = server(ServerDied(CRASH))
        assert isinstance(failed, ServerFailed)
        waits.append(failed.retry_s)
        assert server(ServerTick()) == []
        assert server(ServerTick(), after_s=failed.retry_s + 0.001) == [Start()]
        server(Answers())
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(waits) <= POLICY.backoff_max_s


def test_a_start_that_hangs_is_ended() -> None:
    """After one load's time and a grace the start is given up; the death that follows is healed like any other."""
    server = Server()
    server(ServerDied(CRASH))
    server(ServerTick(), after_s=1.0)
    assert server(ServerTick(), after_s=POLICY.load_timeout_s + START_GRACE_S - 1) == []
    (kill,) = server(ServerTick(), after_s=2.0)
    assert isinstance(kill, KillServer)


def test_a_server_that_waits_for_a_dead_process() -> None:
    """It loads nothing more: it is ended, and that model withdrawn before it starts again."""
    blame, kill = Server()(Stuck("m"))
    assert blame == Blame("m")
    assert isinstance(kill, KillServer)


class TestMemory:
    LARGE = TooLarge(9 << 30, 8 << 30)

    def test_that_nobody_needs(self) -> None:
        """A server that holds more than it may is ended, once, and the cause says what was allowed."""
        server = Server()
        (kill,) = server(self.LARGE)
        assert isinstance(kill, KillServer)
        assert kill.cause.kind == "memory"
        assert "9216 MiB, allowed 8192 MiB" in kill.cause.text
        assert server(self.LARGE) == []
        (failed,) = server(ServerDied(CRASH, frozenset("m")))
        assert isinstance(failed, ServerFailed)
        assert failed.cause == kill.cause

    def test_is_no_models_fault(self) -> None:
        """A request is to blame: whoever was at work then is not suspected, however often it happens."""
        server = Server()
        for _ in range(5):
            server(self.LARGE)
            assert server.die("m") == []
        server.die("m")
        assert server.die("m") == ["m"]

    def test_of_a_server_that_waits(self) -> None:
        """There is none to end."""
        server = Server()
        server(ServerDied(CRASH))
        assert server(self.LARGE) == []


class TestSuspicion:
    @pytest.mark.parametrize(("company", "deaths"), [(0, 2), (1, 3), (2, 5)])
    def test_grows_with_each_death(self, company: int, deaths: int) -> None:
        """Who is always there when the server dies is blamed: alone after two deaths, in company after more."""
        server = Server()
        names = [f"m{number}" for number in range(company + 1)]
        for _ in range(deaths - 1):
            assert server.die(*names) == []
        assert server.die(*names) == names

    def test_falls_on_who_is_always_there(self) -> None:
        """Those with it by chance are not blamed."""
        server, blamed = Server(), []
        for number in range(4):
            blamed += server.die("culprit", f"by_chance_{number}")
            if blamed:
                break
        assert blamed == ["culprit"]

    def test_is_forgotten(self) -> None:
        """Two deaths far apart prove nothing."""
        server = Server()
        server.die("m")
        server.now_s += SUSPICION_S
        assert server.die("m") == []

    def test_without_suspects(self) -> None:
        """Somebody else's kill blames nobody."""
        server = Server()
        assert [server.die() for _ in range(5)] == [[]] * 5


def test_an_answer_changes_nothing_for_a_server_that_waits() -> None:
    """Only a server that was started can answer."""
    server = Server()
    server(ServerDied(CRASH))
    server(Answers())
    assert server.health.phase is Phase.WAITING
