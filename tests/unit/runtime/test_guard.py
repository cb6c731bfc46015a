"""The guard refuses, counts, logs and names the missing grant; what models ordinarily do passes."""

from __future__ import annotations

import dis
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest

from safe_triton import unsafe
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.runtime import guard, guard_rules
from safe_triton.runtime.guard_deciders import compile_deciders

INET, STREAM = socket.AF_INET, socket.SOCK_STREAM
READ, WRITE = os.O_RDONLY, os.O_WRONLY | os.O_CREAT
NOWHERE = os.path.abspath(os.sep)


class RefusedError(Exception):
    """What the tests' refusal raises: kind, what, grant."""


def refuse(kind: str, what: str, grant: str) -> NoReturn:
    raise RefusedError(kind, what, grant)


@pytest.fixture
def places(tmp_path: Path) -> Path:
    for name in ("data", "data-evil", "scratch", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / "scratch" / "out").symlink_to(tmp_path / "other")
    (tmp_path / "alias").symlink_to(tmp_path / "data")
    return tmp_path


def rules(places: Path, **options: Any) -> guard_rules.GuardRules:
    policy = SandboxPolicy(read=(str(places / "data"),), write=(str(places / "scratch"),), **options)
    return guard_rules.compile_rules(policy, ("/python",), [str(places / "ignored"), ""])


def kind_of(hook: guard.Hook, event: str, *args: Any) -> str:
    """The kind of violation that an event is; empty when it passes."""
    try:
        hook(event, args)
    except RefusedError as error:
        return str(error.args[0])
    return ""


def hook_for(places: Path, **options: Any) -> guard.Hook:
    return guard.compile_hook(rules(places, **options), refuse)


class TestFiles:
    @pytest.mark.parametrize(
        ("path", "mode", "flags", "kind"),
        [
            ("data/file", "r", READ, ""),
            ("data", None, READ, ""),
            ("data/../data/file", "r", READ, ""),
            ("alias/file", "r", READ, ""),
            ("scratch/new", "w", WRITE, ""),
            ("scratch/file", "r", READ, ""),
            ("data-evil/file", "r", READ, "file"),
            ("data/../other/file", "r", READ, "file"),
            ("other/file", None, READ, "file"),
            ("data/file", "w", WRITE, "write"),
            ("data/file", None, os.O_RDWR, "write"),
            ("data/file", "r+", 0, "write"),
            ("other/new", "x", WRITE, "write"),
        ],
    )
    def test_opening(self, places: Path, path: str, mode: str | None, flags: int, kind: str) -> None:
        """By component, with links followed; as text, bytes and path object alike."""
        hook = hook_for(places)
        for form in (str(places / path), os.fsencode(places / path), places / path):
            assert kind_of(hook, "open", form, mode, flags) == kind

    def test_a_subclass_does_not_fool_it(self, places: Path) -> None:
        """The text that counts is the real one, not what an overridden method says."""

        class Sly(str):
            __slots__ = ()

            def __getitem__(self, _: Any) -> str:
                return "/python"

            def __str__(self) -> str:
                return "/python"

            def startswith(self, *_: Any) -> bool:
                return True

        assert kind_of(hook_for(places), "open", Sly(places / "other/file"), "r", READ) == "file"

    @pytest.mark.parametrize("path", [3, None, object()])
    def test_descriptors_and_what_is_no_path_pass(self, places: Path, path: object) -> None:
        """They are already open, or the call fails by itself."""
        assert kind_of(hook_for(places), "open", path, "r", READ) == ""

    def test_a_name_relative_to_a_descriptor_passes(self, places: Path) -> None:
        """The event does not tell the folder of ``os.open``; the kernel looks."""
        assert kind_of(hook_for(places), "open", "file", None, READ) == ""
        assert kind_of(hook_for(places), "open", b"file", None, READ) == ""

    def test_a_relative_name_is_looked_at_from_the_current_folder(
        self, places: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``open("file")``."""
        hook = hook_for(places)
        monkeypatch.chdir(places / "other")
        assert kind_of(hook, "open", "file", "r", READ) == "file"
        monkeypatch.chdir(places / "data")
        assert kind_of(hook, "open", "file", "r", READ) == ""

    @pytest.mark.parametrize("event", guard_rules.CHANGE_EVENTS)
    def test_every_change_needs_a_writable_place(self, places: Path, event: str) -> None:
        """At every position that is changed; relative to a descriptor it is left to the kernel."""
        hook, spots = hook_for(places), guard_rules.CHANGE_EVENTS[event]

        def args(path: Path, folder: int) -> list[Any]:
            found: list[Any] = [None] * 5
            for position, descriptor in spots:
                found[position] = str(path)
                if descriptor is not None:
                    found[descriptor] = folder
            return found

        assert kind_of(hook, event, *args(places / "scratch/x", -1)) == ""
        assert kind_of(hook, event, *args(places / "data/x", -1)) == "write"
        if spots[0][1] is not None:
            assert kind_of(hook, event, *args(Path("x"), 7)) == ""

    def test_listing(self, places: Path) -> None:
        """Folders that are granted, and those of the search path, which importing lists."""
        hook = hook_for(places)
        assert [kind_of(hook, "os.listdir", str(places / name)) for name in ("data", "other", "ignored")] == [
            "",
            "file",
            "",
        ]
        assert kind_of(hook, "os.scandir", 5) == ""

    @pytest.mark.parametrize(
        ("name", "kind"), [(":memory:", ""), ("", ""), ("/other/base", "file"), (b"/other", "file")]
    )
    def test_databases(self, places: Path, name: Any, kind: str) -> None:
        """In memory, yes."""
        assert kind_of(hook_for(places), "sqlite3.connect", name) == kind


class TestEverythingElse:
    @pytest.mark.parametrize(
        ("event", "args", "kind"),
        [
            ("socket.__new__", (None, socket.AF_UNIX, STREAM | socket.SOCK_NONBLOCK, 0), ""),
            ("socket.__new__", (None, socket.AF_UNIX, socket.SOCK_DGRAM, 0), "network"),
            ("socket.__new__", (None, INET, STREAM, 0), "network"),
            ("socket.connect", (None, "/run/docker.sock"), "network"),
            ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0), "network"),
            ("socket.gethostname", (), ""),
            *((event, ("x",), "process") for event in guard_rules.PROCESS_EVENTS),
            ("pickle.find_class", ("os", "system"), "pickle"),
            ("pickle.find_class", ("numpy.core.multiarray", "_reconstruct"), ""),
            ("ctypes.dlopen", (None,), ""),
            ("ctypes.dlopen", ("libm.so.6",), ""),
            ("ctypes.dlopen", ("/python/lib.so",), ""),
            ("ctypes.dlopen", ("/other/lib.so",), "ctypes"),
            ("import", ("module", None, [], [], []), ""),
            ("import", ("module", "/python/module.so", None, None, None), ""),
            ("import", ("module", "/other/module.so", None, None, None), "import"),
            ("compile", (None, "x"), ""),
        ],
    )
    def test_the_default_policy(self, places: Path, event: str, args: tuple[Any, ...], kind: str) -> None:
        """What is refused and what passes where nothing is granted."""
        assert kind_of(hook_for(places), event, *args) == kind

    def test_code_that_the_model_can_write_is_foreign(self, places: Path) -> None:
        """A granted folder that is writable may hold data, no code."""
        path = str(places / "scratch" / "planted.so")
        assert kind_of(hook_for(places), "ctypes.dlopen", path) == "ctypes"
        assert kind_of(hook_for(places), "import", "planted", path, None, None, None) == "import"

    def test_without_executable_memory_no_library_is_loaded(self, places: Path) -> None:
        """Not even the process's own symbols."""
        hook = hook_for(places, executable_memory=False)
        assert [kind_of(hook, "ctypes.dlopen", name) for name in (None, "libm.so.6", "/python/x.so")] == ["ctypes"] * 3

    def test_tokens_open_what_they_name(self, places: Path) -> None:
        """A granted network or process is not refused; pickles carry work to processes."""
        hook = hook_for(places, processes=unsafe.AllowProcesses(reason="x"), network=unsafe.AllowNetwork(reason="x"))
        assert kind_of(hook, "subprocess.Popen", "x") == ""
        assert kind_of(hook, "pickle.find_class", "model", "Work") == ""
        assert kind_of(hook, "socket.connect", None, ("host", 1)) == ""

    def test_ports(self, places: Path) -> None:
        """With ports granted, a connection elsewhere is refused."""
        hook = hook_for(places, network=unsafe.AllowNetwork(reason="x", to=(5432,)))
        found = [kind_of(hook, "socket.connect", None, address) for address in (("h", 5432), ("h", 80), "/path")]
        assert found == ["", "network", "network"]
        assert kind_of(hook, "socket.__new__", None, INET, STREAM, 0) == ""


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
        refusal = guard.compile_refusal(violations, {})
        for _ in range(2):
            with pytest.raises(PermissionError):
                refusal("network", "socket.bind", "…")
        with pytest.raises(PermissionError) as raised:
            refusal("network", "socket.connect", guard_rules.NETWORK_GRANT)
        assert raised.value.strerror == (
            "guard.network: refused socket.connect; grant it with SandboxPolicy(network=unsafe.AllowNetwork(reason=…))"
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
        timeout=60,
        cwd=places,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["lazily"], found["quiet"]) == ("'done'", {})
    assert found["foreign"].startswith("PermissionError: [Errno 13] guard.import: refused import of planted")
    assert found["poisoned"].startswith("PermissionError: [Errno 13] guard.file: refused open of /etc/passwd")
    assert found["bytecode"] == []
