"""``safe-triton doctor``: what it prints in both formats, and how it exits."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from safe_triton.audit.cves import cve_table
from safe_triton.cli.app import app
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import doctor
from safe_triton.server.doctor import SCHEMA, Diagnosis
from safe_triton.server.findings import Finding, State

Run = Callable[..., Result]


def diagnosis(policy: SandboxPolicy, state: State = "ok") -> Diagnosis:
    """Return three findings, of which the confinement is in a state."""
    fix = "" if state == "ok" else "do [this]"
    return Diagnosis(
        policy=policy,
        findings=(
            Finding(name="kernel", state="ok", found="6.18 [bold] on x86_64", why="a reason"),
            Finding(name="cgroup_pids", state="warning", found="no limit", why="a reason", fix="set one"),
            Finding(name="confinement", state=state, found="found", why="a reason", fix=fix),
        ),
        exposure=cve_table().exposure("2.51.0"),
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a runner of the command, with findings instead of this host's."""

    def call(*arguments: str, state: State = "ok") -> Result:
        monkeypatch.setattr(doctor, "diagnose", lambda policy: diagnosis(policy, state))
        return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "100"})

    return call


class TestText:
    def test_every_row_has_everything(self, run: Run) -> None:
        """Name, state, what was found, why it matters and the way to it; brackets are text, not markup."""
        result = run(state="missing")
        for part in ("kernel", "6.18 [bold] on x86_64", "why: a reason", "warning", "fix: set one", "fix: do [this]"):
            assert part in result.output
        assert "cannot be enforced here" in result.output

    def test_no_colours_without_a_terminal(self, run: Run) -> None:
        """What goes into a file holds no escape sequences."""
        assert "\x1b" not in run("--cves").output

    def test_cves_are_listed_on_request(self, run: Run) -> None:
        """Each one is a row with ``--cves`` only."""
        names = [row.cve for row in cve_table().exposure("2.51.0").cves]
        short, long = run().output, run("--cves").output
        assert [name for name in names if name in short] == []
        assert [name for name in names if name not in long] == []


class TestJson:
    def test_schema(self, run: Run) -> None:
        """The document has its number, the verdict, the policy, the findings and every CVE."""
        found = json.loads(run("--format", "json").output)
        assert found.keys() == {"schema", "is_enforceable", "policy", "findings", "cves"}
        assert (found["schema"], found["is_enforceable"]) == (SCHEMA, True)
        assert [row["name"] for row in found["findings"]] == ["kernel", "cgroup_pids", "confinement"]
        assert found["findings"][0].keys() == {"name", "state", "found", "why", "fix"}
        assert len(found["cves"]["rows"]) == sum(found["cves"]["by_severity"].values())
        assert found["cves"]["container"] == "24.10"


class TestExit:
    @pytest.mark.parametrize(("state", "status"), [("ok", 0), ("warning", 0), ("missing", 1)])
    @pytest.mark.parametrize("output", ["text", "json"])
    def test_status(self, run: Run, state: State, status: int, output: str) -> None:
        """1 when the policy cannot be enforced; a warning is no failure."""
        assert run("--format", output, state=state).exit_code == status

    @pytest.mark.parametrize(
        "arguments", [["--nonsense"], ["--port", "0"], ["--memory-bytes", "1"], ["--format", "yaml"], ["--gpu", "-1"]]
    )
    def test_usage(self, run: Run, arguments: list[str]) -> None:
        """2 when what is asked makes no sense."""
        assert run(*arguments).exit_code == 2


def test_the_policy_that_is_tried(run: Run) -> None:
    """Each option becomes a grant of the policy."""
    found = json.loads(
        run("--format", "json", "--read", "/data", "--write", "/out", "--port", "443", "--gpu", "0").output
    )["policy"]
    assert (found["read"], found["write"], found["gpu_ids"]) == (["/data"], ["/out"], [0])
    assert found["network"]["to"] == [443]
    limited = json.loads(run("--format", "json", "--memory-bytes", str(1 << 30)).output)["policy"]
    assert limited["resources"]["memory_bytes"] == 1 << 30
