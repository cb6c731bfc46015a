"""Finding the program that really runs, and executing it exactly once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from safe_triton.confinement.entry import OneExec, find_program, loader
from safe_triton.errors import ConfinementError

ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath)}


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

    @pytest.mark.parametrize("line", ["#!", "#!/not/here", "no program"])
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


class TestOneExec:
    def test_addresses_are_secret(self) -> None:
        """Each is elsewhere each time: nobody knows them after the execution."""
        found = [address for _ in range(20) for address in OneExec().addresses]
        assert len(set(found)) == 60
        assert len({address >> 24 for address in found}) > 50
