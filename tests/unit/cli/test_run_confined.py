"""``run-confined``: the command runs under the policy, sees a clean environment and can execute nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safe_triton.confinement import landlock

pytestmark = pytest.mark.skipif(not landlock.probe()[0], reason=landlock.probe()[1] or "Landlock is here")

PROGRAM = """
import typer
from safe_triton.cli.run_confined import register
app = typer.Typer()
app.callback()(lambda: None)
register(app)
app()
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in an application of its own."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "run-confined", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_exit_status() -> None:
    """The command's own status comes back."""
    assert run("--", "/bin/sh", "-c", "exit 7").returncode == 7


def test_read(tmp_path: Path) -> None:
    """A file is read with its grant and only with it."""
    (tmp_path / "file").write_text("content")
    command = ("--", "cat", str(tmp_path / "file"))
    assert run(*command).returncode == 1
    done = run("--read", str(tmp_path), *command)
    assert (done.returncode, done.stdout) == (0, "content")


def test_write(tmp_path: Path) -> None:
    """A folder is written to with its grant and only with it."""
    command = ("--", "/bin/sh", "-c", f"echo x > {tmp_path}/new")
    assert run("--read", str(tmp_path), *command).returncode != 0
    assert not (tmp_path / "new").exists()
    assert run("--write", str(tmp_path), *command).returncode == 0
    assert (tmp_path / "new").read_text() == "x\n"


def test_environment() -> None:
    """A variable is passed on when it is named; what the process was started with holds no other."""
    code = "import os; print(os.environ.get('TOKEN'))"
    assert run("--", sys.executable, "-c", code, TOKEN="secret").stdout == "None\n"
    assert run("--env", "TOKEN", "--", sys.executable, "-c", code, TOKEN="secret").stdout == "secret\n"


def test_one_program() -> None:
    """The command cannot execute its own program again, neither by path nor by its loader."""
    code = """
import ctypes, os, sys
for run in (lambda: os.execv(sys.executable, [sys.executable, '-c', 'print("again")']), lambda: os.fork()):
    try:
        run()
    except PermissionError:
        print("refused")
libc = ctypes.CDLL(None, use_errno=True)
print(libc.execve(b"/bin/sh", (ctypes.c_char_p * 4)(b"sh", b"-c", b"echo again", None), None), ctypes.get_errno())
"""
    assert run("--", sys.executable, "-c", code).stdout.split() == ["refused", "refused", "-1", "1"]


def test_processes() -> None:
    """Children need a reason."""
    command = ("--", "/bin/sh", "-c", "/bin/echo x | cat")
    assert run(*command).stdout == ""
    assert run("--allow-processes-reason", "test", *command).stdout == "x\n"


def test_memory() -> None:
    """A limit that is given holds."""
    command = ("--", sys.executable, "-c", "bytearray(1 << 30)")
    assert run(*command).returncode == 0
    assert "MemoryError" in run("--memory-bytes", str(512 << 20), *command).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--read", "/not/here", "--", "true"), "confinement.path"),
        (("--", "not-a-program"), "confinement.program"),
        (("--port", "443", "--", "true"), "--allow-network-reason"),
        (("--allow-network-reason", " ", "--", "true"), "policy.token"),
        (("--open-files", "1", "--", "true"), "policy.range"),
    ],
)
def test_refusals(arguments: tuple[str, ...], said: str) -> None:
    """A confinement that cannot be had ends with 125 and one line; nothing runs."""
    done = run(*arguments)
    assert done.returncode == 125
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_verbose() -> None:
    """What is enforced is said on standard error."""
    done = run("--verbose", "--", "true")
    assert done.returncode == 0
    assert "seccomp" in done.stderr


class TestPolicyFile:
    def test_of_a_model(self, tmp_path: Path) -> None:
        """--policy with --model: what the operator's file grants to that model; options add to it."""
        (tmp_path / "granted").write_text("seen")
        policy = tmp_path / "safe-triton.toml"
        policy.write_text(f'[models.m.sandbox]\nread = ["{tmp_path / "granted"}"]\n')
        read = f"print(open({str(tmp_path / 'granted')!r}).read())"
        options = ["--policy", str(policy)]
        allowed = run(*options, "--model", "m", "--", sys.executable, "-c", read)
        assert (allowed.returncode, allowed.stdout) == (0, "seen\n")
        assert "PermissionError" in run(*options, "--", sys.executable, "-c", read).stderr

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--policy", "/srv/none.toml"], "/srv/none.toml"),
            (["--model", "m"], "--model needs --policy"),
        ],
    )
    def test_mistakes(self, options: list[str], message: str) -> None:
        """One line, and nothing runs."""
        done = run(*options, "--", "true")
        assert done.returncode == 125
        assert message in done.stderr
        assert "Traceback" not in done.stderr
