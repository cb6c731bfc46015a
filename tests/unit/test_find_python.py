"""The environment is built with an interpreter that can run the real server, or with a one-line reason why not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIND_PYTHON = ROOT / "scripts" / "find-python.sh"
MAKE_VENV = ROOT / "scripts" / "make-venv.sh"


class Machine:
    """A search path on which only what a test puts there exists; every call of a fake interpreter is recorded."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.calls = folder / "calls"
        self.bin.mkdir()
        self.home.mkdir()
        for tool in ("sed", "cat", "cmp", "dirname", "rm"):
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)

    def add_python(self, name: str, version: str, missing: str = "nothing", folder: Path | None = None) -> Path:
        """Put an interpreter there which answers the probe with this version and this list of missing parts."""
        file = (folder or self.bin) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'#!/bin/sh\necho "$0 $1" >>"{self.calls}"\necho "{version} {missing} {file}"\n')
        file.chmod(0o755)
        return file

    def add_shim(self, name: str) -> None:
        """Put a version manager's shim there, whose version is not selected."""
        file = self.bin / name
        file.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
        file.chmod(0o755)

    def run(self, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(script), *arguments],
            env={"PATH": str(self.bin), "HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class TestChoice:
    def test_311_comes_before_312_and_310(self, machine: Machine) -> None:
        """3.11 is taken when all three would do."""
        for version in ("3.10", "3.12", "3.11"):
            machine.add_python(f"python{version}", version)
        assert machine.run(FIND_PYTHON).stdout == f"{machine.bin}/python3.11\n"

    def test_312_comes_before_310(self, machine: Machine) -> None:
        """3.12 is taken when there is no 3.11."""
        for version in ("3.10", "3.12"):
            machine.add_python(f"python{version}", version)
        assert machine.run(FIND_PYTHON).stdout == f"{machine.bin}/python3.12\n"

    @pytest.mark.parametrize("missing", ["venv", "ensurepip", "libpython3.11.so.1.0"])
    def test_an_incomplete_interpreter_is_passed_over(self, machine: Machine, missing: str) -> None:
        """A 3.11 that lacks one of the three is not taken while a complete 3.10 is there."""
        machine.add_python("python3.11", "3.11", missing)
        expected = machine.add_python("python3.10", "3.10")
        assert machine.run(FIND_PYTHON).stdout == f"{expected}\n"

    def test_plain_python3_counts_by_its_version(self, machine: Machine) -> None:
        """An interpreter which is only called python3 is found."""
        expected = machine.add_python("python3", "3.12")
        assert machine.run(FIND_PYTHON).stdout == f"{expected}\n"

    def test_pyenv_versions_are_found_behind_shims(self, machine: Machine) -> None:
        """A shim that refuses does not hide the interpreter that pyenv has built."""
        machine.add_shim("python3.11")
        folder = machine.home / ".pyenv" / "versions" / "3.11.7" / "bin"
        expected = machine.add_python("python3.11", "3.11", folder=folder)
        assert machine.run(FIND_PYTHON).stdout == f"{expected}\n"

    def test_a_wrong_name_is_passed_over(self, machine: Machine) -> None:
        """A file named python3.11 that is another version is not taken for 3.11."""
        machine.add_python("python3.11", "3.9")
        assert machine.run(FIND_PYTHON).returncode == 2

    def test_all_lists_each_supported_version_once(self, machine: Machine) -> None:
        """``--all`` names 3.13 too and leaves out what cannot make an environment; libpython is not asked for."""
        machine.add_python("python3.10", "3.10", "ensurepip")
        machine.add_python("python3.11", "3.11", "libpython3.11.so.1.0")
        machine.add_python("python3", "3.11")
        machine.add_python("python3.13", "3.13")
        assert machine.run(FIND_PYTHON, "--all").stdout.splitlines() == [
            f"3.11 {machine.bin}/python3.11",
            f"3.13 {machine.bin}/python3.13",
        ]


class TestNone:
    @pytest.mark.parametrize(
        ("missing", "packages"),
        [
            ("ensurepip", "python3.11-venv"),
            ("libpython3.11.so.1.0", "libpython3.11"),
            ("venv,ensurepip,libpython3.11.so.1.0", "python3.11-venv libpython3.11"),
        ],
    )
    def test_the_line_names_the_packages(self, machine: Machine, missing: str, packages: str) -> None:
        """One line on standard error names exactly the packages that are missing; the exit status is 2."""
        machine.add_python("python3.11", "3.11", missing)
        result = machine.run(FIND_PYTHON)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.count("\n") == 1
        assert result.stderr.endswith(f"apt-get install {packages}\n")

    def test_no_interpreter_at_all(self, machine: Machine) -> None:
        """Without any Python the one line names the packages that bring one."""
        result = machine.run(FIND_PYTHON)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert "apt-get install python3 python3-venv" in result.stderr

    def test_nothing_is_built_or_downloaded(self, machine: Machine, tmp_path: Path) -> None:
        """The environment's script stops there too, before it runs anything but the probe."""
        machine.add_python("python3.11", "3.11", "ensurepip")
        result = machine.run(MAKE_VENV, str(tmp_path / "environment"))
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert not (tmp_path / "environment").exists()
        assert {line.split()[1] for line in machine.calls.read_text().splitlines()} == {"-c"}


class TestOverride:
    @pytest.mark.skipif(find_spec("ensurepip") is None, reason="this interpreter has no ensurepip")
    def test_this_interpreter_is_accepted(self, machine: Machine) -> None:
        """The probe works on a real interpreter: the one that runs this test can make an environment."""
        result = machine.run(FIND_PYTHON, sys.executable)
        assert result.stdout == f"{sys.executable}\n", result.stderr

    def test_313_is_accepted_without_libpython(self, machine: Machine) -> None:
        """A named interpreter needs no libpython; what then cannot run is noted."""
        python = machine.add_python("python3.13", "3.13", "libpython3.13.so.1.0")
        result = machine.run(FIND_PYTHON, str(python))
        assert (result.returncode, result.stdout) == (0, f"{python}\n")
        assert "real tritonserver" in result.stderr

    @pytest.mark.parametrize(
        ("version", "missing", "word"),
        [("3.9", "nothing", "3.10 to 3.13"), ("3.14", "nothing", "3.10 to 3.13"), ("3.12", "venv", "python3.12-venv")],
    )
    def test_what_cannot_work_is_refused(self, machine: Machine, version: str, missing: str, word: str) -> None:
        """A named interpreter that is too old, too new or incomplete is one line and exit status 2."""
        python = machine.add_python("chosen", version, missing)
        result = machine.run(FIND_PYTHON, str(python))
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert word in result.stderr

    def test_what_is_no_python_is_refused(self, machine: Machine) -> None:
        """A named file that does not run is one line and exit status 2."""
        result = machine.run(FIND_PYTHON, os.devnull)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
