"""`make demo`: every outcome as promised, a broken promise is named, and nothing is left behind."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.triton.stubs import PATIENCE_S, descendants, has_ended, wait_until

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "demo.py"
MODULES = ("cases", "demo", "gateway", "healing", "report", "wire")


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(DEMO), *arguments]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """This one's, with a temporary folder that can be looked at afterwards."""
    return {**os.environ, "TMPDIR": str(tmp_path), **more}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The demo's modules, which import each other by their plain names."""
    monkeypatch.syspath_prepend(str(DEMO.parent))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


@pytest.mark.usefixtures("triton_server")
class TestOnTheServer:
    def test_every_outcome_is_the_promised_one(self, tmp_path: Path, modules: dict[str, Any]) -> None:
        """Exit status 0, both accuracies, each hostile request refused amid served neighbours."""
        done = subprocess.run(
            command("--format", "json", "--keep-log"),
            env=environment(tmp_path),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["ok"] is True
        assert [(row["protocol"], row["count"], row["accuracy"] >= 0.95) for row in report["digits"]] == [
            ("gRPC", 360, True),
            ("HTTP", 360, True),
        ]
        rows = report["requests"]
        assert {row["protocol"] for row in rows} == {"gRPC", "HTTP", "gRPC stream"}
        assert {row["refused_by"] for row in rows} == {"safe_triton", "Triton", "author"}
        assert all(row["ok"] and row["neighbours_served"] == row["neighbours"] >= 5 for row in rows)
        in_one_execute = [row for row in rows if row["executions"] is not None]
        assert [row["executions"] for row in in_one_execute] == [1] * 4
        assert [row["ok"] for row in report["healing"]] == [True, True]
        assert all(row["neighbours_served"] == row["neighbours"] >= 5 for row in report["healing"])
        if modules["gateway"].is_there():
            assert {row["protocol"] for row in report["gateway"]} == {"HTTP", "gRPC"}
            assert {row["answer"] for row in report["gateway"]} >= {"200", "401", "403", "413", "429", "OK"}
            assert all(row["ok"] for row in report["gateway"])
        # Positive control: the secret was raised, and the operator can read it.
        assert "correct-horse" in (tmp_path / "demo-server.log").read_text(encoding="utf-8")
        assert "correct-horse" not in done.stdout + done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["demo-server.log"]

    @pytest.mark.parametrize("when", ["tritonserver ", "ready after"])
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupt_leaves_nothing_behind(self, tmp_path: Path, when: str, number: int) -> None:
        """Ctrl-C, and SIGTERM, while the server starts or serves: no process, no shared memory, no file is left."""
        process = subprocess.Popen(
            command("--format", "json"),
            env=environment(tmp_path),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(when):
                break
        wait_until(lambda: bool(descendants(process.pid, "tritonserver")))
        started = descendants(process.pid)
        os.killpg(process.pid, number)  # what a terminal does with Ctrl-C
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        wait_until(lambda: all(map(has_ended, started)))
        assert list(Path("/dev/shm").glob(f"safe_triton-{process.pid}-*")) == []
        assert list(tmp_path.iterdir()) == []


class TestWithoutServer:
    def test_no_server(self, tmp_path: Path) -> None:
        """Exit status 2 and the command that installs a server."""
        done = subprocess.run(
            command(),
            env=environment(tmp_path, TRITONSERVER=str(tmp_path / "nowhere")),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 2
        assert "pip install" in done.stdout
        assert "Traceback" not in done.stdout + done.stderr

    def test_help(self) -> None:
        """The options and the exit statuses are explained."""
        done = subprocess.run(command("--help"), capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        for word in ("--format", "--no-color", "--keep-log", "Exit status"):
            assert word in done.stdout


GOOD = {"Y": np.array([[2.0]], np.float32)}


class TestJudging:
    """A promise that is not kept is found and named."""

    def row(self, modules: dict[str, Any], **changes: Any) -> Any:
        cases, report, wire = modules["cases"], modules["report"], modules["wire"]
        request = cases.number("failing", 4.0)
        case = cases.Case("sent", request, request, "safe_triton", "INTERNAL", cases.FAILED, 2, one_execute=True)
        answer = wire.Answer(changes.get("code", "INTERNAL"), changes.get("message", "model failed (id 0a)"), 1.0)
        served = wire.Answer("OK", "", 1.0, GOOD)
        neighbours: Sequence[Any] = (served, changes.get("neighbour", served))
        return report.judge(case, "gRPC", answer, neighbours, GOOD, changes.get("executions", 1))

    def test_as_promised(self, modules: dict[str, Any]) -> None:
        """A kept promise has no problems."""
        row = self.row(modules)
        assert row.problems == []
        assert row.neighbours_served == 2

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"code": "OK"}, "code OK, promised INTERNAL"),
            ({"message": "model failed"}, "message is not"),
            ({"message": "model failed (id 0a) at /opt/model.py"}, "the message holds '/'"),
            ({"message": "Traceback"}, "the message holds 'Traceback'"),
            ({"message": "correct-horse"}, "the message holds 'correct-horse'"),
            ({"executions": 2}, "ran in 2 executes, promised 1"),
        ],
    )
    def test_a_broken_promise(self, modules: dict[str, Any], changes: dict[str, Any], problem: str) -> None:
        """Each part of a promise is compared."""
        assert any(found.startswith(problem) for found in self.row(modules, **changes).problems)

    @pytest.mark.parametrize(
        ("code", "outputs"),
        [
            ("INTERNAL", {}),
            ("OK", {}),
            ("OK", {"Y": np.array([[3.0]], np.float32)}),
            ("OK", {"Y": np.array([2.0], np.float32)}),
            ("OK", {"Y": np.array([[2.0]], np.float64)}),
        ],
    )
    def test_a_neighbour_that_was_not_served(self, modules: dict[str, Any], code: str, outputs: Any) -> None:
        """An error, a missing output and a wrong value, shape or dtype count as not served."""
        row = self.row(modules, neighbour=modules["wire"].Answer(code, "why", 1.0, outputs))
        assert row.neighbours_served == 1
        assert row.problems == [f"a neighbour saw {code} why"]

    def test_the_exit_status_and_the_table(self, modules: dict[str, Any]) -> None:
        """One broken promise makes the status 1, and the row is named below the table."""
        printed = io.StringIO()
        console = Console(file=printed, width=160)
        rows = [self.row(modules), self.row(modules, code="OK")]
        modules["report"].print_rows(console, rows)
        assert modules["demo"].finish(console, [], rows, [], {"total_s": 1.0}) == 1
        assert "not as promised: sent, gRPC: code OK, promised INTERNAL" in printed.getvalue()
        assert modules["demo"].finish(console, [], rows[:1], [], {"total_s": 1.0}) == 0

    def test_a_low_accuracy(self, modules: dict[str, Any]) -> None:
        """An accuracy below 0.95 makes the status 1."""
        rows = [modules["report"].DigitsRow("gRPC", 360, accuracy, 1.0, 1) for accuracy in (0.95, 0.949)]
        console = Console(file=io.StringIO())
        assert [modules["demo"].finish(console, [row], [], [], {"total_s": 1.0}) for row in rows] == [0, 1]

    def test_a_fault_that_did_not_heal(self, modules: dict[str, Any]) -> None:
        """It makes the status 1, and the row is named."""
        printed = io.StringIO()
        console = Console(file=printed, width=160)
        row = modules["healing"].HealingRow(
            "sent", "INTERNAL", "gone", 1.0, 60.0, 5, 5, ["the model did not come back"]
        )
        modules["report"].print_healing(console, [row])
        assert modules["demo"].finish(console, [], [], [row], {"total_s": 1.0}) == 1
        assert "not as promised: sent: the model did not come back" in printed.getvalue()

    def test_an_id_that_is_not_in_the_log(self, modules: dict[str, Any]) -> None:
        """A failure that the operator could not look up is a problem."""
        row = self.row(modules)
        modules["demo"].check_log([row], "id 0b")
        assert row.problems == ["id 0a is not in the server's log"]
