"""Several processes at once: the same report, in the same order, and a task that ends its process is a finding."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from safe_triton.audit import check_paths, parallel
from safe_triton.audit.work import Result, Task, run
from tests.unit.audit.cases import CONFIG, MODEL, found, write


def repository(folder: Path, models: int) -> Path:
    for number in range(models):
        name = f"m{number:03}"
        config = CONFIG.replace('"m"', f'"{name}"').replace("count: 1", f"count: {number % 2}")
        write(folder, {f"{name}/config.pbtxt": config, f"{name}/1/model.py": MODEL})
    return folder


def fatal(task: Task) -> Result:
    """A parser in C that takes its process with it."""
    if task.model is not None and task.model.name == "m011":
        os._exit(9)
    return run(task)


def test_the_same_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes find what one finds."""
    monkeypatch.setattr(parallel, "WORTH_IT", 2)
    folder = repository(tmp_path, 40)
    assert check_paths([folder], jobs=2) == check_paths([folder], jobs=1)


def test_a_process_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task that ended it is named by an error; every other one is done."""
    monkeypatch.setattr(parallel, "WORTH_IT", 2)
    monkeypatch.setattr(parallel, "run", fatal)
    # A process that is not forked would not have the line above.
    monkeypatch.setattr(parallel, "_context", lambda: multiprocessing.get_context("fork"))
    report = check_paths([repository(tmp_path, 20)], jobs=2)
    assert [Path(each.path).name for each in report.findings if each.rule == "audit-crash"] == ["m011"]
    assert found(report)["audit-crash"] == "error"
    assert len([each for each in report.findings if each.rule == "instance-count-invalid"]) == 10


def test_few_tasks_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small repository is checked here: starting processes would take longer."""
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", None)
    assert check_paths([repository(tmp_path, 3)], jobs=2).models == 3


def test_only_processors_that_may_be_used() -> None:
    """As many as this process may run on, not as many as the host has."""
    assert parallel.processors() == len(os.sched_getaffinity(0))
