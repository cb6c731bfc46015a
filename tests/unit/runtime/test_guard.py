"""The guard refuses, counts, logs and names the missing grant; what models ordinarily do passes."""

from __future__ import annotations

import dis
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from safe_triton.runtime import guard, guard_rules
from safe_triton.runtime.guard_deciders import compile_deciders
from tests.unit.runtime.guards import hook_for, kind_of, make_places, rules


@pytest.fixture
def places(tmp_path: Path) -> Path:
    return make_places(tmp_path)


class TestConstruction:
    def test_nothing_is_looked_up_at_call_time(self, places: Path) -> None:
        """No closure of the guard reads a global or a builtin by name."""
        the_rules = rules(places)
        refusal = guard.compile_refusal({}, {})
        starts = [guard.compile_hook(the_rules, refusal), guard.compile_finder(the_rules, refusal).find_spec]
        starts += compile_deciders(the_rules, refusal).values()
        functions = {part for start in starts for part in guard.functions_of(start)}
        assert len(functions) >= 15
        found = [
            (function.__qualname__, step.argval)
            for function in functions
            for step in dis.get_instructions(function)
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME")
        ]
        assert found == []

    def test_its_own_code_cannot_be_swapped(self, places: Path) -> None:
        """Its functions are reachable through the traceback of a refusal; other functions stay free."""
        hook = hook_for(places)
        own = next(part for part in guard.functions_of(hook))
        assert kind_of(hook, "object.__setattr__", own, "__code__", None) == "guard"
        assert kind_of(hook, "object.__setattr__", lambda: None, "__code__", None) == ""

    def test_every_kind_is_known(self, places: Path) -> None:
        """A refusal of an unknown kind would be a KeyError."""
        text = Path(guard_rules.__file__).with_name("guard_deciders.py").read_text()
        used = {kind for kind in guard_rules.KINDS if f'"{kind}"' in text + Path(guard.__file__).read_text()}
        assert used == set(guard_rules.KINDS)


class TestRefusal:
    def test_it_names_the_grant_and_counts(self) -> None:
        """One PermissionError with the line of the policy, one count by kind."""
        violations: dict[str, int] = {}
        refusal = guard.compile_refusal(violations, {"model": "text digits"})
        for _ in range(2):
            with pytest.raises(PermissionError):
                refusal("network", "socket.bind", "…")
        with pytest.raises(PermissionError) as raised:
            refusal("network", "socket.connect", guard_rules.NETWORK_GRANT)
        assert raised.value.strerror == (
            "guard.network: refused socket.connect; grant it in safe-triton.toml: "
            '[models."text digits".sandbox] network = { reason = "…" }'
        )
        assert violations == {"network": 3}

    def test_one_line_a_minute_for_each_kind(self, capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
        """A model in a loop does not flood the log; after a minute the next line holds the count."""
        now = [1000.0]
        monkeypatch.setattr("time.monotonic", lambda: now[0])
        refusal = guard.compile_refusal({}, {"model": "digits"})
        for kind in ("file", "file", "write", "file"):
            with pytest.raises(PermissionError):
                refusal(kind, 'open of "\udcff\n', "…")
        now[0] += guard.LOG_INTERVAL_S
        with pytest.raises(PermissionError):
            refusal("file", "open", "…")
        lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
        assert [(line["reason"], line["violations"]) for line in lines] == [
            ("guard.file", 1), ("guard.write", 1), ("guard.file", 4),
        ]  # fmt: skip
        assert {(line["level"], line["model"]) for line in lines} == {("warning", "digits")}

    def test_a_closed_standard_error_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is still that refusal."""

        def write(*_: object) -> int:
            raise OSError(9, "Bad file descriptor")

        monkeypatch.setattr("os.write", write)
        with pytest.raises(PermissionError, match=r"guard\.file"):
            guard.compile_refusal({}, {})("file", "open", "…")


class TestOnOneThread:
    """In a process with other code, such as a test run."""

    def test_only_inside_the_block_and_on_its_thread(self, places: Path) -> None:
        """Other threads and later code are left alone."""
        hook = guard.compile_hook(rules(places), guard.compile_refusal({}, {}))
        other = str(places / "other" / "file")
        found: list[str] = []
        with guard.on_this_thread(hook):
            with pytest.raises(PermissionError, match=r"guard\.file"):
                Path(other).read_text()
            with guard.on_this_thread(hook):
                pass
            with pytest.raises(PermissionError):
                os.remove(other)
            thread = threading.Thread(target=lambda: found.append(Path(other).read_text()))
            thread.start()
            thread.join()
        assert found == ["x"]
        assert Path(other).read_text() == "x"

    def test_there_is_one_hook_however_many_models(self, places: Path) -> None:
        """A hook cannot be removed, so they must not add up."""
        before = guard._hooks_by_thread()
        for _ in range(3):
            with guard.on_this_thread(hook_for(places)):
                pass
        assert guard._hooks_by_thread() is before
        assert before == {}


PROGRAM = """
import importlib, json, os, sys, threading
from pathlib import Path
folder = Path(sys.argv[1])
from safe_triton.confinement.grants import python_paths
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.runtime import guard, guard_rules
violations = {}
policy = SandboxPolicy(read=[str(folder / "data")], write=[str(folder / "scratch")])
guard.install(guard_rules.compile_rules(policy, python_paths(), sys.path), guard.compile_refusal(violations, {}))

def outcome(function):
    try:
        return repr(function())
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

def lazily():
    import asyncio, sqlite3, ssl, tempfile, zoneinfo, numpy.fft, numpy.ma, logging.handlers, http.client
    asyncio.run(asyncio.to_thread(lambda: 1))
    sqlite3.connect(":memory:").execute("select 1")
    ssl.create_default_context()
    zoneinfo.ZoneInfo("Europe/Rome")
    with tempfile.TemporaryDirectory(dir=folder / "scratch") as made:
        Path(made, "sub").mkdir()
        Path(made, "sub", "file").write_text("x")
    return "done"

def foreign():
    (folder / "scratch" / "planted.py").write_text("x = 1")
    sys.path.insert(0, str(folder / "scratch"))
    importlib.invalidate_caches()
    import planted

def poisoned():
    import builtins
    granted, before = str(folder / "data"), (os.path.realpath, os.fspath, builtins.isinstance)
    os.path.realpath = os.fspath = lambda path: granted
    builtins.isinstance = lambda *_: False
    try:
        return open("/etc/passwd").read(4)
    finally:
        os.path.realpath, os.fspath, builtins.isinstance = before

print(json.dumps({
    "lazily": outcome(lazily), "quiet": dict(violations), "foreign": outcome(foreign), "poisoned": outcome(poisoned),
    "bytecode": list(map(str, (folder / "scratch").rglob("*.pyc"))),
}))
"""


def test_in_a_process_of_its_own(places: Path) -> None:
    """Installed for good: ordinary work makes no violation, code from a writable folder and poisoned names do not pass."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(places)],
        check=False,
        capture_output=True,
        text=True,
        timeout=150,
        cwd=places,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["lazily"], found["quiet"]) == ("'done'", {})
    assert found["foreign"].startswith("PermissionError: [Errno 13] guard.import: refused import of planted")
    assert found["poisoned"].startswith("PermissionError: [Errno 13] guard.file: refused open of /etc/passwd")
    assert found["bytecode"] == []
