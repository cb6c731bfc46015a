"""Finding the program that really runs, and executing it exactly once."""

from __future__ import annotations

import os
import struct
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from safe_triton import _libc
from safe_triton.confinement.entry import OneExec, Program, find_program, loader
from safe_triton.confinement.syscall_numbers import number_of
from safe_triton.errors import ConfinementError

ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath)}


def memory(address: int, size: int) -> bytes:
    with open("/proc/self/mem", "rb", buffering=0) as file:
        file.seek(address)
        return file.read(size)


def text_at(address: int) -> str:
    return memory(address, 256).split(b"\0")[0].decode()


def list_at(address: int) -> list[str]:
    pointers = struct.unpack("=16Q", memory(address, 128))
    return [text_at(pointer) for pointer in pointers[: pointers.index(0)]]


def script(path: Path, first_line: str) -> str:
    path.write_text(f"{first_line}\nx\n")
    path.chmod(0o755)
    return str(path)


class TestFindProgram:
    def test_by_name(self) -> None:
        """A name is found on PATH, with its dynamic loader."""
        found = find_program(["sh", "-c", "x"], ENVIRONMENT)
        assert found.path.endswith("/sh")
        assert found.arguments == ("sh", "-c", "x")
        assert found.files[0] == os.path.realpath(found.path)
        assert len(found.files) == 2

    @pytest.mark.parametrize("line", ["#!/bin/sh", "#! /bin/sh ", "#!/usr/bin/env sh", "#!/usr/bin/env -S sh"])
    def test_scripts(self, tmp_path: Path, line: str) -> None:
        """A script becomes its interpreter, so that one execution is enough."""
        path = script(tmp_path / "run", line)
        found = find_program([path, "a"], ENVIRONMENT)
        assert found.arguments[1:] == (path, "a")
        assert os.path.realpath(found.path) == os.path.realpath("/bin/sh")
        assert os.path.realpath(path) in found.files

    def test_script_argument(self, tmp_path: Path) -> None:
        """The one argument of a '#!' line is kept."""
        path = script(tmp_path / "run", "#!/bin/sh -e x")
        assert find_program([path], ENVIRONMENT).arguments == ("/bin/sh", "-e x", path)

    @pytest.mark.parametrize("line", ["#!", "#!/not/here", "no program", "\x7fELF\x01 of 32 bits" + 64 * "."])
    def test_no_program(self, tmp_path: Path, line: str) -> None:
        """What cannot be executed is an error before anything is restricted."""
        with pytest.raises(ConfinementError) as caught:
            find_program([script(tmp_path / "run", line)], ENVIRONMENT)
        assert caught.value.reason == "confinement.program"

    def test_circle(self, tmp_path: Path) -> None:
        """Scripts that run each other end with an error."""
        path = script(tmp_path / "run", f"#!{tmp_path}/run")
        with pytest.raises(ConfinementError, match="scripts"):
            find_program([path], ENVIRONMENT)

    @pytest.mark.parametrize("command", [[], ["not-a-program"], ["/not/here"], [""]])
    def test_unknown(self, command: list[str]) -> None:
        """A command that does not exist is named without its folder."""
        with pytest.raises(ConfinementError) as caught:
            find_program(command, ENVIRONMENT)
        assert "/not" not in str(caught.value)

    def test_loader_of_python(self) -> None:
        """The loader is a real file."""
        assert all(os.path.isfile(path) for path in loader(os.path.realpath(sys.executable)))


class TestLoader:
    @pytest.mark.parametrize(
        ("segments", "names"), [((), ()), ((1, 2), ()), ((1, 3), ("/lib/ld.so",))], ids=["none", "static", "dynamic"]
    )
    def test_segments(self, tmp_path: Path, segments: tuple[int, ...], names: tuple[str, ...]) -> None:
        """The segment of the interpreter names it; a static program has none."""
        start, size = 64, 56
        header = b"\x7fELF\x02".ljust(32, b"\0") + struct.pack("<Q14x2H", start, size, len(segments)).ljust(32, b"\0")
        name = b"/lib/ld.so\0"
        table = b"".join(
            struct.pack("<I4xQ16xQ16x", kind, start + size * len(segments), len(name)) for kind in segments
        )
        (tmp_path / "program").write_bytes(header + table + name)
        assert loader(str(tmp_path / "program")) == tuple(map(os.path.realpath, names))


class TestOneExec:
    def test_its_arguments_lie_at_its_addresses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A path, and two lists of pointers to strings that end with a null pointer."""
        found: dict[str, object] = {}

        def look(number: int, path: int, arguments: int, variables: int) -> int:
            assert number == number_of("execve", os.uname().machine)
            found.update(path=text_at(path), arguments=list_at(arguments), variables=list_at(variables))
            return 0

        once = OneExec()
        monkeypatch.setattr(_libc, "syscall", look)
        with pytest.raises(OSError, match="execve returned"):
            once.run(Program("/bin/true", ("true", "ä", ""), ()), {"A": "1", "B": ""})
        assert found == {"path": "/bin/true", "arguments": ["true", "ä", ""], "variables": ["A=1", "B="]}

    @pytest.mark.parametrize(
        ("arguments", "message"), [(("a\0b",), "embedded null byte"), (("a",) * 8_000, "8000 arguments, more than fit")]
    )
    def test_what_does_not_fit(self, arguments: tuple[str, ...], message: str) -> None:
        """Nothing is executed with other arguments than those that were asked for."""
        with pytest.raises(ValueError, match=message):
            OneExec().run(Program("/bin/true", arguments, ()), {})

    @pytest.mark.parametrize(("taken", "finds"), [(7, True), (8, False)])
    def test_places_that_are_taken(self, monkeypatch: pytest.MonkeyPatch, taken: int, finds: bool) -> None:
        """It never maps over memory that is in use: it tries elsewhere, eight times."""
        answers = iter([FileExistsError] * taken)

        def syscall(number: int, page: int, *rest: int) -> int:
            error = next(answers, None)
            if error is not None:
                raise error
            return page

        monkeypatch.setattr(_libc, "syscall", syscall)
        with nullcontext() if finds else pytest.raises(ConfinementError, match="no free address"):
            assert len(OneExec().addresses) == 3

    def test_addresses_are_secret(self) -> None:
        """Each is elsewhere each time: nobody knows them after the execution."""
        found = [address for _ in range(20) for address in OneExec().addresses]
        assert len(set(found)) == 60
        assert len({address >> 24 for address in found}) > 50
