"""Every attempt succeeds without the confinement and fails with it; what a process does every day works with it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attacks.confined.benign import BENIGN
from tests.attacks.confined.child import order
from tests.attacks.confined.table import ATTEMPTS
from tests.attacks.confined.world import MOMENT_S, PATIENCE_S, SECRET, Stage

Ask = Callable[[str], dict[str, object]]

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """A process that forks one child per order."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONWARNINGS": "ignore",
        "OPENBLAS_NUM_THREADS": "1",
        "TOKEN": SECRET.decode(),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.attacks.confined.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        written, answers = process.stdin, process.stdout

        def send(line: str) -> dict[str, object]:
            written.write(line)
            written.flush()
            answer = answers.readline()
            assert answer, "the helper process ended"
            return dict(json.loads(answer))

        yield send
        written.close()


def skip_without(needs: str) -> None:
    """Skip an attempt that could not succeed here even without protection."""
    held = {"": True, "root": os.getuid() == 0, "user": os.getuid() != 0, "x86_64": platform.machine() == "x86_64"}
    if not held[needs]:
        pytest.skip(f"could not succeed without {needs}")


def is_filtered() -> bool:
    """Tell whether a container engine has put its own seccomp filter around the tests."""
    return "\nSeccomp:\t2" in Path("/proc/self/status").read_text(encoding="utf-8")


def harm(name: str, folder: Path, ask: Ask, *, confined: bool, older_thread: bool) -> tuple[bool, dict[str, object]]:
    """Make one attempt in a world of its own and tell whether its effect shows."""
    with Stage(folder) as stage:
        answer = ask(order(name, stage.world, confined=confined, older_thread=older_thread))
        assert "broken" not in answer, answer
        effect = ATTEMPTS[name].effect
        if effect in {"secret", "true"}:
            return bool(answer.get(effect)), answer
        return stage.shows(effect, patience_s=MOMENT_S if confined or answer.get("error") else PATIENCE_S), answer


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt(name: str, tmp_path: Path, ask: Ask) -> None:
    """Alive without the confinement; without effect in it, on the thread that called confine and on an older one."""
    skip_without(ATTEMPTS[name].needs)
    alive, answer = harm(name, tmp_path / "control", ask, confined=False, older_thread=False)
    if not alive and "Errno" in str(answer.get("error")) and is_filtered():
        pytest.skip(f"this container's own filter refuses it already: {answer['error']}")
    assert alive, f"the positive control had no effect: {answer}"
    for older_thread in (False, True):
        where = tmp_path / f"confined-{older_thread}"
        harmed, answer = harm(name, where, ask, confined=True, older_thread=older_thread)
        assert not harmed, answer
        assert answer.get("complete", True), answer


@pytest.mark.parametrize("name", BENIGN)
def test_benign(name: str, tmp_path: Path, ask: Ask) -> None:
    """Works without and with the confinement, on both threads."""
    for number, (confined, older_thread) in enumerate(((False, False), (True, False), (True, True))):
        with Stage(tmp_path / str(number)) as stage:
            answer = ask(order(name, stage.world, confined=confined, older_thread=older_thread))
        assert answer.get("true") is True, answer


def test_the_table_is_large_enough() -> None:
    """At least 120 attempts, of all six categories, and 40 benign cases."""
    assert len(ATTEMPTS) >= 120
    assert {entry.category for entry in ATTEMPTS.values()} == {
        "files",
        "processes",
        "network",
        "code",
        "resources",
        "leaks",
    }
    assert len(BENIGN) >= 40
    assert not ATTEMPTS.keys() & BENIGN.keys()
