"""The only module that starts processes: short probes, tritonserver and Envoy, each in a session of its own.

A server gets its limits from ``/bin/sh``'s ``ulimit`` before ``exec``, not from a hook between fork and exec, which
is unsafe in a program with threads. If the starting program dies without stopping its server (SIGKILL, a closed
terminal), a shell that waits on a pipe to it notices the end of file and cleans up: see ``_JANITOR``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess  # the reason this module exists; tests/unit/test_architecture.py allows it here only
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from safe_triton.server.stubs import find_stubs, read_stub

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

STACK_BYTES = 64 << 20
"""Stack of the server's threads: with the usual 8 MiB, a JSON body of 4.5 MB overflows it in release 2.51.0."""

_KILLED_S = 2.0
"""Longest wait for killed processes to be gone."""

_LIMITED = (
    f"ulimit -S -s {STACK_BYTES >> 10} 2>/dev/null || ulimit -S -s \"$(ulimit -H -s)\"; "
    'ulimit -S -c 0; exec "$@"'
)  # fmt: skip

# $1 pid and group of the server, $2 its temporary folder, $3 the prefix of its shared-memory regions. A line on the
# pipe means that the server was stopped properly. A process is ours if it is in the server's group or works in the
# server's folder: a bare pid may belong to somebody else by now.
_JANITOR = """
trap '' INT TERM HUP
read -r word && exit 0
ours() {
    for entry in /proc/[0-9]*; do
        case "$(readlink "$entry/cwd" 2>/dev/null)" in "$1"/*) echo "${entry#/proc/}" ;; esac
    done
}
pids=$(ours "$2")
for pid in $pids; do [ "$pid" = "$1" ] && kill -TERM "$pid" 2>/dev/null && sleep 3; done
for pid in $pids $(ours "$2"); do kill -KILL "$pid" 2>/dev/null; done
rm -f -- /dev/shm/"$3"*
for folder in "$2"/scratch/*/; do umount -l -- "${folder%/}" 2>/dev/null; done
rm -rf -- "$2"
"""


@dataclass(frozen=True)
class Completed:
    """What a short process left behind."""

    status: int
    output: str


def run_briefly(command: Sequence[str | Path], *, environment: Mapping[str, str], timeout_s: float = 20.0) -> Completed:
    """Run a probe to its end and return its output, standard error included.

    Raises:
        OSError: the program cannot be started.
        TimeoutError: it did not end within ``timeout_s`` and was killed.
    """
    try:
        done = subprocess.run(  # noqa: S603 - what locate() found, no shell
            [str(part) for part in command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{command[0]} did not end within {timeout_s:g} s") from None
    return Completed(done.returncode, done.stdout.decode("utf-8", "replace"))


class ServerProcess:
    """One running tritonserver with its model processes, in a session of its own.

    Args:
        command: the server's command line.
        environment: its whole environment; nothing is inherited.
        directory: an existing folder inside ``workspace``; working directory and mark of the server's processes.
        output: descriptor that receives what it prints.
        workspace: folder to remove if this program dies without stopping the server.
        region_prefix: start of the names of its shared-memory regions.

    Raises:
        OSError: the program cannot be started.

    Does not cover:
        Processes that a model starts outside its group, directory and parentage after the last look at them.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        directory: Path,
        output: int,
        workspace: Path,
        region_prefix: str,
    ) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - the shell sees arguments as "$@" only
            ["/bin/sh", "-c", _LIMITED, "tritonserver", *(str(part) for part in command)],
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C at the terminal must not reach it: stop() ends it in order
        )
        self.pid = self._process.pid
        self._region_prefix = region_prefix
        self._beats = workspace / "beats"
        self._seen: dict[int, psutil.Process] = {}
        self._models: dict[int, str] = {}
        try:
            self._janitor = subprocess.Popen(  # noqa: S603 - a constant script
                ["/bin/sh", "-c", _JANITOR, "janitor", str(self.pid), str(workspace), region_prefix],
                env={"PATH": os.defpath},
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            self._kill_group()
            self._process.wait()
            raise

    def status(self) -> int | None:
        """The exit status (negative: the signal that ended it), or None while it runs."""
        return self._process.poll()

    def children(self) -> list[psutil.Process]:
        """The server's model processes, dead ones included while nobody has collected them."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            found = []
        for child in found:
            self._seen.setdefault(child.pid, child)
        return found

    def dead_models(self) -> set[str]:
        """Models of which a process has ended without the server having noticed.

        Does not cover:
            A process that ended before anybody looked at it; calls have to come every few dozen milliseconds.
        """
        dead = set()
        for child in self.children():
            with contextlib.suppress(psutil.Error):
                if child.status() == psutil.STATUS_ZOMBIE:
                    dead.add(self._models.get(child.pid, ""))
                elif child.pid not in self._models and (stub := read_stub(child.pid, self._region_prefix)):
                    self._models[child.pid] = stub.model
        return dead - {""}

    def end_model(self, name: str) -> None:
        """Kill the processes of one model; the server goes on without them."""
        for stub in find_stubs(self.pid, self._region_prefix, self._beats):
            if stub.model == name:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(stub.pid, signal.SIGKILL)

    def stop(self, timeout_s: float) -> None:
        """End the server and everything it started: SIGTERM, ``timeout_s`` to finish, then SIGKILL. May be repeated.

        Does not cover:
            The empty folder ``/tmp/python_env_…`` of a server that is killed: its place is compiled into the Python
            backend, which removes it at its own end only.
        """
        self.children()
        try:
            if self.status() is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(signal.SIGTERM)
                deadline_s = time.monotonic() + timeout_s
                while self.status() is None and time.monotonic() < deadline_s:
                    time.sleep(0.02)
        finally:
            self._look_for_orphans()
            self._kill_group()
            self._kill(self._seen.values())
            self._process.wait()
            self._dismiss_janitor()

    def _look_for_orphans(self) -> None:
        """Note model processes whose server has died: one that waits for a lock in its shared memory never notices."""
        for pid in psutil.pids():
            if pid != self._janitor.pid and read_stub(pid, self._region_prefix) is not None:
                with contextlib.suppress(psutil.Error):
                    self._seen[pid] = psutil.Process(pid)

    def _kill_group(self) -> None:
        # The group's number cannot have gone to somebody else while the server is not collected or a member lives.
        if self._process.returncode is None or any(self._is_member(child) for child in self._seen.values()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _is_member(self, child: psutil.Process) -> bool:
        with contextlib.suppress(OSError):
            return child.is_running() and os.getpgid(child.pid) == self.pid  # is_running compares start times
        return False

    @staticmethod
    def _kill(processes: Iterable[psutil.Process]) -> None:
        left = []
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if _is_running(process):
                    process.kill()
                    left.append(process)
        deadline_s = time.monotonic() + _KILLED_S
        while any(map(_is_running, left)) and time.monotonic() < deadline_s:
            time.sleep(0.01)  # not until they are collected: that may be up to a first process which does not

    def _dismiss_janitor(self) -> None:
        if self._janitor.poll() is None and self._janitor.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self._janitor.stdin.write(b"stopped\n")
                self._janitor.stdin.close()
        self._janitor.wait()


class ChildProcess:
    """One program beside a server, in a session of its own.

    It works in a folder of the server's workspace: the server's janitor, which looks for such processes, ends it too
    when this program dies without stopping it.

    Args:
        command: its command line.
        environment: its whole environment; nothing is inherited.
        directory: working directory, inside the server's workspace.
        output: descriptor that receives what it prints.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(
        self, command: Sequence[str | Path], *, environment: Mapping[str, str], directory: Path, output: int
    ) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - what locate_envoy() found, no shell
            [str(part) for part in command],
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def status(self) -> int | None:
        """The exit status (negative: the signal that ended it), or None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def stop(self, timeout_s: float) -> None:
        """End it: SIGTERM, ``timeout_s`` to finish, then SIGKILL. May be repeated."""
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
