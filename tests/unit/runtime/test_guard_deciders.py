"""What the guard refuses and what passes, event by event."""

from __future__ import annotations

import os
import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from safe_triton import SandboxPolicy, unsafe
from safe_triton.runtime import guard_rules, surroundings
from safe_triton.runtime.guard import compile_hook
from tests.unit.runtime.guards import hook_for, kind_of, make_places, refuse

INET, STREAM = socket.AF_INET, socket.SOCK_STREAM
READ, WRITE = os.O_RDONLY, os.O_WRONLY | os.O_CREAT


@pytest.fixture
def places(tmp_path: Path) -> Path:
    return make_places(tmp_path)


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

    def test_its_own_threads_and_descriptors_are_listed(self, places: Path) -> None:
        """Under either name of the process, as the kernel grants them; their content stays closed."""
        hook = hook_for(places)
        for process in ("self", str(os.getpid())):
            assert kind_of(hook, "open", f"/proc/{process}/task", None, os.O_RDONLY | os.O_DIRECTORY) == ""
            assert kind_of(hook, "os.listdir", f"/proc/{process}/fd") == ""
            assert kind_of(hook, "open", "/proc/uptime", "r", READ) == "file"

    @pytest.mark.parametrize(
        ("name", "kind"), [(":memory:", ""), (b":memory:", ""), ("", ""), ("/other/base", "file"), (b"/other", "file")]
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

    def test_pickles_of_own_classes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A class that a file of the model's defines may be named; what it only imported, and functions, may not."""
        module: Any = types.ModuleType("own_words")
        module.__file__ = str(tmp_path / "own_words.py")
        exec("from subprocess import Popen\nclass Word: ...\ndef function(): ...", module.__dict__)
        monkeypatch.setitem(sys.modules, "own_words", module)
        hook = compile_hook(surroundings.rules(SandboxPolicy(), names_python=False), refuse)
        named = ("Word", "Popen", "function", "Word.__init__")
        kinds = [kind_of(hook, "pickle.find_class", "own_words", name) for name in named]
        assert kinds == ["", "pickle", "pickle", "pickle"]

    def test_ports(self, places: Path) -> None:
        """With ports granted, a connection elsewhere is refused."""
        hook = hook_for(places, network=unsafe.AllowNetwork(reason="x", to=(5432,)))
        found = [kind_of(hook, "socket.connect", None, address) for address in (("h", 5432), ("h", 80), "/path")]
        assert found == ["", "network", "network"]
        assert kind_of(hook, "socket.__new__", None, INET, STREAM, 0) == ""
