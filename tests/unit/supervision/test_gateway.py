"""The gateway's supervision, without an Envoy: death, hang, changed files, refusals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from safe_triton.errors import ServerStartError
from safe_triton.policyfile import SupervisionPolicy
from safe_triton.policyfile.gateway_tables import Upstream
from safe_triton.supervision import gateway as module
from safe_triton.supervision.gateway import HUNG_S, LOOK_S, Gateway

SUPERVISION = SupervisionPolicy(backoff_initial_ms=0)


@dataclass
class Envoy:
    """One that does as it is told."""

    is_live: bool = True
    status: int | None = None
    starts: int = 0
    kills: int = 0
    taken: list[object] = field(default_factory=list)
    refusal: Exception | None = None

    @property
    def admin(self) -> Any:
        return SimpleNamespace(is_live=lambda timeout_s: self.is_live)

    @property
    def pid(self) -> int:
        return 100 + self.starts

    def start(self, texts: Mapping[str, str]) -> None:
        self.restart()

    def restart(self) -> None:
        if self.refusal:
            raise self.refusal
        self.starts, self.status, self.is_live = self.starts + 1, None, True

    def is_ready(self) -> bool:
        return self.is_live

    def exit_status(self) -> int | None:
        return self.status

    def replace(self, texts: Mapping[str, str]) -> bool:
        if self.refusal:
            raise self.refusal
        self.taken.append(texts)
        return True

    def kill(self) -> None:
        self.kills += 1

    def stop(self) -> None: ...


@dataclass
class Site:
    """A gateway with everything around it made up."""

    gateway: Gateway
    envoy: Envoy
    files: list[object]
    reports: list[tuple[str, Mapping[str, Any]]]
    now_s: float = 1000.0

    def pass_s(self, seconds: float) -> None:
        """Let time pass, a look at a time."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += LOOK_S
            self.gateway.tick(self.now_s, SUPERVISION)

    def messages(self) -> list[str]:
        return [message for message, _ in self.reports]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A gateway that serves."""
    envoy, files = Envoy(), [("a", 1), ("b", 1)]
    reports: list[tuple[str, Mapping[str, Any]]] = []
    policy: Any = SimpleNamespace(plaintext=False, address="0.0.0.0", metrics_address="127.0.0.1")
    made = Site(None, envoy, list(files), reports)  # type: ignore[arg-type]

    def plan(policy: Any, **_: Any) -> Any:
        return SimpleNamespace(
            policy=policy,
            gateway=policy,
            models=("m",),
            texts={"n": str(made.files)},
            static="{}",
            grants=None,
            files=("/etc/tls.crt",),
            seen=tuple(made.files),
            fixed_differences=lambda _: (),
        )

    monkeypatch.setattr(module, "Envoy", lambda *_, **__: envoy)
    monkeypatch.setattr(module, "plan_gateway", plan)
    monkeypatch.setattr(module, "fingerprint", lambda _: tuple(made.files))
    monkeypatch.setattr(module, "check_config", lambda *_: None)
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now_s)  # type: ignore[attr-defined]
    made.gateway = Gateway(
        None,  # type: ignore[arg-type]
        tmp_path,
        upstream=Upstream(address="127.0.0.1"),
        secret="s",
        ports=(8443, 8444),
        supervision=SUPERVISION,
        report=lambda message, fields: reports.append((message, fields)),
    )
    made.gateway.start(made.gateway.plan(policy, ["m"]))
    yield made
    made.gateway.stop()


class TestRow:
    def test_of_one_that_serves(self, site: Site) -> None:
        """What status shows; an address that is everywhere is reached on loopback."""
        row = site.gateway.row()
        assert (row.state, row.url, row.pid, row.restarts) == ("ready", "https://127.0.0.1:8443", 101, {})


class TestDeath:
    def test_is_healed(self, site: Site) -> None:
        """Started again, counted by cause, logged."""
        site.envoy.status = -11
        site.gateway.ended()
        assert site.gateway.row().state == "waiting"
        site.pass_s(2 * LOOK_S)
        assert site.gateway.row().state == "ready"
        assert site.gateway.row().restarts == {"signal": 1}
        assert site.gateway.row().last_cause == "SIGSEGV"
        assert site.envoy.starts == 2
        assert site.messages() == ["gateway ended; it is started again"]

    def test_that_cannot_be_started(self, site: Site) -> None:
        """It is tried again until it can."""
        site.envoy.refusal = OSError("no memory")
        site.gateway.ended()
        site.pass_s(3 * LOOK_S)
        assert site.gateway.row().state == "waiting"
        site.envoy.refusal = None
        site.pass_s(30.0)
        assert site.gateway.row().state == "ready"

    def test_while_it_starts(self, site: Site) -> None:
        """It is no death of one that served, and counts all the same."""
        site.gateway.ended()
        site.gateway.ended()
        assert sum(site.gateway.restarts.values()) == 2


class TestHang:
    def test_is_ended(self, site: Site) -> None:
        """One that does not answer for long enough is ended; its death is healed like any other."""
        site.envoy.is_live = False
        site.pass_s(HUNG_S - LOOK_S)
        assert site.envoy.kills == 0
        site.pass_s(3 * LOOK_S)
        assert site.envoy.kills == 1
        assert site.messages() == ["gateway is ended"]

    def test_a_slow_answer_is_none(self, site: Site) -> None:
        """Whoever answers in between starts the count anew."""
        for _ in range(3):
            site.envoy.is_live = False
            site.pass_s(HUNG_S - 2 * LOOK_S)
            site.envoy.is_live = True
            site.pass_s(LOOK_S)
        assert site.envoy.kills == 0


class TestFiles:
    def test_a_change_is_taken_once(self, site: Site) -> None:
        """Once it stays as it is, and not again."""
        site.files[0] = ("a", 2)
        site.pass_s(LOOK_S)
        assert site.envoy.taken == []
        site.pass_s(5 * LOOK_S)
        assert len(site.envoy.taken) == 1
        assert site.gateway.row().reloads == {"taken": 1}
        assert site.reports == [("gateway took over changed files", {"files": ["a"]})]

    def test_what_changes_all_the_time_is_waited_for(self, site: Site) -> None:
        """A file that is being written is not read."""
        for number in range(5):
            site.files[0] = ("a", number + 10)
            site.pass_s(LOOK_S)
        assert site.envoy.taken == []

    def test_wrong_files(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """One line, one count; what follows and is right is taken."""

        def refuse(*_: object) -> None:
            raise ServerStartError("Envoy refuses", reason="gateway.config")

        with monkeypatch.context() as patch:
            patch.setattr(module, "check_config", refuse)
            site.files[0] = ("a", 2)
            site.pass_s(5 * LOOK_S)
        assert site.messages() == ["gateway keeps what it has: its files changed and are not right"]
        assert site.gateway.row().reloads["refused"] == 1
        site.files[0] = ("a", 3)
        site.pass_s(5 * LOOK_S)
        assert site.gateway.row().reloads == {"refused": 1, "taken": 1}


class TestApply:
    @pytest.mark.parametrize("error", [OSError("full"), ServerStartError("no", reason="gateway.refused")])
    def test_a_refusal_is_counted(self, site: Site, error: Exception) -> None:
        """Whatever goes wrong, it keeps its plan."""
        before = site.gateway.policy
        site.envoy.refusal = error
        with pytest.raises(ServerStartError) as refused:
            site.gateway.apply(site.gateway.plan(before, ["m"]))  # type: ignore[arg-type]
        assert refused.value.reason == "gateway.refused"
        assert site.gateway.row().reloads == {"refused": 1, "taken": 0} or site.gateway.row().reloads == {"refused": 1}
        assert site.gateway.policy is before
