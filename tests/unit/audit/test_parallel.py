"""Several processes at once: the same report, in the same order, and a task that ends its process is a finding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from safe_triton.audit import check_paths, parallel
from safe_triton.audit.work import Result, Task, run
from tests.unit.audit.cases import CONFIG, MODEL, write

ROOT = Path(__file__).parents[3]


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


# In a program of its own: a fork of this one would have the locks of its threads, and nobody to open them. A process that is
# not forked would not have what is set here.
FATAL = """
check_paths([sys.argv[1]], jobs=1)  # imports what the forked processes would import anew, each
parallel.WORTH_IT = 2
parallel.run = fatal
parallel._context = lambda: multiprocessing.get_context("fork")
report = check_paths([sys.argv[1]], jobs=2)
print(json.dumps([found(report), [[each.rule, each.path] for each in report.findings]]))
"""


def test_a_process_that_ends(tmp_path: Path) -> None:
    """The task that ended it is named by an error; every other one is done."""
    imports = (
        "import json, multiprocessing, sys\n"
        "from safe_triton.audit import check_paths, parallel\n"
        "from tests.unit.audit.cases import found\n"
        "from tests.unit.audit.test_parallel import fatal\n"
    )
    command = [sys.executable, "-c", imports + FATAL, str(repository(tmp_path, 20))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=150, cwd=ROOT)
    levels, findings = json.loads(done.stdout)
    assert [Path(path).name for rule, path in findings if rule == "audit-crash"] == ["m011"]
    assert levels["audit-crash"] == "error"
    assert len([rule for rule, _ in findings if rule == "instance-count-invalid"]) == 10


def test_few_tasks_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small repository is checked here: starting processes would take longer."""
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", None)
    assert check_paths([repository(tmp_path, 3)], jobs=2).models == 3


def test_only_processors_that_may_be_used() -> None:
    """As many as this process may run on, not as many as the host has."""
    assert parallel.processors() == len(os.sched_getaffinity(0))
