"""The attempts and benign cases of ``tests/attacks/confined``, made inside a model of a real server under the launcher."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.attacks.confined.benign import BENIGN
from tests.attacks.confined.table import ATTEMPTS
from tests.attacks.model.page import PAGE, write_page
from tests.attacks.model.runner import SENTINELS
from tests.attacks.model.schedule import IS_ALL, MOMENTS, NAMES, ROOT, USERS, Case, cases, every_case
from tests.attacks.model.users import command_as, folder_of, missing_for

CASES = cases()
NO_THREADS_OF_ROOT = "confinement.user_threads: the kernel exempts root"


@dataclass(frozen=True)
class Run:
    """What the servers of one user gave."""

    controls: Mapping[str, Mapping[str, Any]]
    rows: Mapping[Case, Mapping[str, Any]]
    launches: list[Mapping[str, Any]]
    uid: int
    release: str


def start(user: str, folder: str) -> subprocess.Popen[str]:
    """Start the runner as a user and hand it its plan."""
    mine = [case for case in CASES if case.user == user]
    plan = {
        "folder": folder,
        "controls": sorted({case.name for case in mine if case.name in ATTEMPTS}),
        "confined": {moment: [case.name for case in mine if case.moment == moment] for moment in MOMENTS},
    }
    command = command_as(user, [sys.executable, "-m", "tests.attacks.model.runner"])
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(plan))
    process.stdin.close()
    process.stdin = None
    return process


def collect(user: str, process: subprocess.Popen[str]) -> Run:
    """Wait for a runner and sort its rows."""
    output, errors = process.communicate(timeout=290)
    assert process.returncode == 0, errors[-8000:]
    answer = json.loads(output)
    return Run(
        controls={row["name"]: row for row in answer["controls"]},
        rows={Case(row["name"], row["moment"], user): row for row in answer["confined"]},
        launches=[json.loads(line) for line in answer["log"]],
        uid=answer["uid"],
        release=answer["release"],
    )


@pytest.fixture(scope="module")
def runs(triton_server: Any) -> Iterator[dict[str, Run]]:
    """One runner for each user, at the same time."""
    assert triton_server
    with contextlib.ExitStack() as stack:
        started = {}
        for user in USERS:
            if not missing_for(user):
                started[user] = start(user, str(stack.enter_context(folder_of(user))))
                stack.callback(started[user].terminate)
        yield {user: collect(user, process) for user, process in started.items()}


def run_of(runs: dict[str, Run], user: str) -> Run:
    """The run of a user; skip where this machine cannot switch to it."""
    if user not in runs:
        pytest.skip(f"running as {user} needs {missing_for(user)}")
    return runs[user]


@pytest.mark.parametrize("case", [case for case in CASES if case.name in ATTEMPTS], ids=lambda case: case.key)
def test_attempt(case: Case, runs: dict[str, Run]) -> None:
    """Alive in a child of the bare model; without effect in the confined one, which survives it."""
    run = run_of(runs, case.user)
    assert run.controls[case.name]["effect"], f"the positive control had no effect: {run.controls[case.name]}"
    row = run.rows[case]
    assert not row["effect"], row
    assert "ended" not in row["outcome"], row


@pytest.mark.parametrize("case", [case for case in CASES if case.name in BENIGN], ids=lambda case: case.key)
def test_benign(case: Case, runs: dict[str, Run]) -> None:
    """Works inside the confined model."""
    row = run_of(runs, case.user).rows[case]
    assert row["effect"], row


@pytest.mark.parametrize("user", USERS)
def test_the_model_is_not_worn_out(user: str, runs: dict[str, Run]) -> None:
    """After all attempts of a moment the same process still reads, writes and makes threads."""
    rows = run_of(runs, user).rows
    for moment in MOMENTS:
        for name in SENTINELS:
            assert rows[Case(name, moment, user)]["effect"], rows[Case(name, moment, user)]


@pytest.mark.parametrize("user", USERS)
def test_the_launcher_held_every_process(user: str, runs: dict[str, Run]) -> None:
    """Each model process was reported as confined, without a gap but the one that the kernel has for root."""
    run = run_of(runs, user)
    assert (run.uid == 0) == (user == "root")
    assert run.launches
    for launch in run.launches:
        assert launch["message"] == "model process is confined"
        assert [gap for gap in launch["gaps"] if run.uid or not gap.startswith(NO_THREADS_OF_ROOT)] == []


def test_every_attempt_is_made() -> None:
    """Each attempt and benign case is in this run, unless this user could not make it at all."""
    names = [*NAMES, *BENIGN]
    assert {case.name for case in CASES} == {case.name for case in every_case(names)}
    assert {case.moment for case in CASES} == set(MOMENTS)
    assert {case.user for case in CASES} == set(USERS)


def test_the_page_names_everything(runs: dict[str, Run]) -> None:
    """Every attempt is a row of the page, refused; every benign case is named. A full run as both users writes it anew."""
    if IS_ALL and set(runs) == {"root", "nobody"}:
        found = {case: row for run in runs.values() for case, row in run.rows.items()}
        write_page({case: found[case] for case in CASES}, runs["root"].release)
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for name in ATTEMPTS:
        rows = [line for line in lines if line.startswith(f"| `{name}` |")]
        assert len(rows) == 1 and "refused 3" in rows[0] and "with effect" not in rows[0], (name, rows)
    assert all(f"`{name}`" in lines[-1] for name in BENIGN)
