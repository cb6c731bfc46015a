"""``safe-triton status`` without a server."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safe_triton.cli.app import app
from safe_triton.supervision.endpoint import HealthEndpoint
from safe_triton.supervision.session import Session, write_session
from safe_triton.supervision.snapshot import GatewayRow, ModelRow, Snapshot

ROWS = (
    ModelRow(model="good", state="ready", pids=(41,), memory_bytes=40 << 20, cpu_percent=12.4, requests=7, refusals=2),
    ModelRow(model="[bad]", state="quarantined", restarts={"oom": 3}, last_cause="SIGKILL; memory", retry_s=99.0),
)
SNAPSHOT = Snapshot(server="ready", answers=True, pid=40, server_restarts={}, enforcement_gaps={}, models=ROWS)


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sessions but the test's, and a wide terminal."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def snapshots() -> Iterator[list[Snapshot]]:
    """What a running endpoint shows: the last of these."""
    shown = [SNAPSHOT]
    endpoint = HealthEndpoint(0, token="token", is_alive=lambda: True, snapshot=lambda: shown[-1])
    write_session(Session(os.getpid(), endpoint.url, "token", ("/models",)))
    yield shown
    endpoint.close()


def run(*arguments: str) -> tuple[int, str]:
    """Exit status and everything that was printed."""
    done = CliRunner().invoke(app, ["status", *arguments])
    return done.exit_code, done.output


class TestTable:
    def test_of_a_server_with_a_gateway(self, snapshots: list[Snapshot]) -> None:
        """Its line says where it is, and what became of it."""
        row = GatewayRow(
            state="ready", url="https://h:1", pid=42, restarts={"signal": 1}, reloads={"taken": 2}, last_cause="SIGKILL"
        )
        snapshots.append(replace(SNAPSHOT, gateway=row))
        line = "gateway 42: ready, https://h:1, restarted 1 times, new files taken 2 times, refused 0 times, last cause: SIGKILL"
        assert line in run()[1]

    @pytest.mark.parametrize(("state", "status"), [("ready", 0), ("waiting", 1)])
    def test_a_gateway_counts(self, snapshots: list[Snapshot], state: str, status: int) -> None:
        """Models that nobody can reach do not serve."""
        row = GatewayRow(state=state, url="https://h:1", pid=42, restarts={}, reloads={}, last_cause="")
        snapshots.append(replace(SNAPSHOT, models=ROWS[:1], gateway=row))
        assert run()[0] == status

    def test_an_update_that_failed(self, snapshots: list[Snapshot]) -> None:
        """Who serves meanwhile is said, and for programs the server is ready; so is why the last reload was refused."""
        row = ModelRow(model="m", state="quarantined", retry_s=9.0, old_serves=True)
        snapshots.append(replace(SNAPSHOT, models=(row,), reload_refusal="p.toml:3: [x] is unknown"))
        status, text = run()
        assert status == 0
        assert "quarantined, again in 9 s, the old one serves" in text
        assert "the last reload was refused, what held before holds: p.toml:3: [x] is unknown" in text

    def test_of_a_server_with_a_bad_model(self, snapshots: list[Snapshot]) -> None:
        """Each model has its line; the status tells programs that one does not serve."""
        assert snapshots
        status, text = run()
        assert status == 1
        rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
        for part in ("ready", "41", "40 MiB", "12 %", "7", "2"):
            assert part in rows["good"]
        assert "[bad]: last cause: SIGKILL; memory" in text.splitlines()
        for part in ("quarantined, again in 99 s", "3"):
            assert part in rows["[bad]"]

    def test_of_a_good_server(self, snapshots: list[Snapshot]) -> None:
        """Exit status 0."""
        snapshots.append(replace(SNAPSHOT, models=ROWS[:1]))
        assert run()[0] == 0

    def test_as_json(self, snapshots: list[Snapshot]) -> None:
        """The same as plain data."""
        assert snapshots
        status, text = run("--format", "json")
        assert status == 1
        assert json.loads(text)["models"][1]["restarts"] == {"oom": 3}

    def test_of_somebody_elses_server(self, snapshots: list[Snapshot], tmp_path: Path) -> None:
        """Without the token there are states."""
        assert snapshots
        (file,) = (tmp_path / "safe-triton").iterdir()
        url = json.loads(file.read_text())["url"]
        file.unlink()
        status, text = run("--url", url)
        assert status == 1
        assert "quarantined" in text
        assert "SIGKILL" not in text


class TestMistakes:
    def test_no_server(self) -> None:
        """One line, exit status 2."""
        status, text = run()
        assert (status, text.count("\n")) == (2, 1)
        assert "no running safe-triton serve" in text

    def test_several_servers(self, snapshots: list[Snapshot]) -> None:
        """They are named with their repositories."""
        assert snapshots
        write_session(Session(os.getppid(), "http://127.0.0.1:9", "token", ("/others",)))
        status, text = run()
        assert status == 2
        assert "http://127.0.0.1:9 (/others)" in text

    @pytest.mark.parametrize("url", ["nonsense", "https://127.0.0.1:1", "http://127.0.0.1:99999", "http://[::bad"])
    def test_a_wrong_address(self, url: str) -> None:
        """Named, without a traceback."""
        status, text = run("--url", url)
        assert status == 2
        assert text.startswith(f"safe-triton: {url}")

    def test_a_port_where_nobody_listens(self) -> None:
        """Says so."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            status, text = run("--url", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert status == 2
        assert "Connection refused" in text


def test_names_stay_whole_in_a_pipe(snapshots: list[Snapshot], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no terminal has a width, a long name is on one line, and grep finds it."""
    monkeypatch.setenv("COLUMNS", "40")
    snapshots.append(replace(SNAPSHOT, models=(replace(ROWS[0], model="a_name_of_thirty_five_characters_now"),)))
    (line,) = (line for line in run()[1].splitlines() if "a_name_of_thirty_five_characters_now" in line)
    assert line.split()[1:3] == ["ready", "41"]
