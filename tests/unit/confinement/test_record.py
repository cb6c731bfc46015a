"""The recording filter: reported is what a policy decides about, on both machines, judged by an interpreter."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from safe_triton import _libc
from safe_triton.confinement import bpf
from safe_triton.confinement import record as recording
from safe_triton.confinement.launch import LaunchTable
from safe_triton.confinement.record import FILE_CALLS, RET_USER_NOTIF, compile_recording, record
from safe_triton.confinement.seccomp_profile import ABSENT, ProcessFacts
from safe_triton.confinement.syscall_numbers import MACHINES, NUMBERS, number_of
from safe_triton.errors import ConfinementError
from tests.unit.confinement.bpf_interpreter import run

HANDOVER = 700
FACTS = ProcessFacts(pid=100, parent_pid=99, has_truncate_right=True)
CLONE_THREAD = 0x10000


def answer(machine: str, name: str, *arguments: int) -> str:
    """What the filter says to one call."""
    number = number_of(name, machine)
    assert number is not None
    verdict = run(compile_recording(FACTS, machine, HANDOVER), number, arguments, bpf.AUDIT_ARCH[machine])
    return {bpf.RET_ALLOW: "unseen", RET_USER_NOTIF: "reported", bpf.refusal(errno.ENOSYS): "absent"}[verdict]


@pytest.mark.parametrize("machine", MACHINES)
class TestFilter:
    @pytest.mark.parametrize(
        ("name", "arguments", "expected"),
        [
            ("openat", (), "reported"),
            ("openat2", (), "reported"),
            ("unlinkat", (), "reported"),
            ("renameat2", (), "reported"),
            ("mkdirat", (), "reported"),
            ("execve", (), "reported"),
            ("clone", (17,), "reported"),
            ("clone", (CLONE_THREAD,), "unseen"),
            ("connect", (), "reported"),
            ("bind", (), "reported"),
            ("sendto", (3, 1, 1, 0, 0), "unseen"),
            ("sendto", (3, 1, 1, 0, 4096), "reported"),
            ("sendmsg", (3,), "reported"),
            ("sendmsg", (HANDOVER,), "unseen"),
            ("socket", (2, 1, 0), "unseen"),
            ("socket", (1, 1, 0), "reported"),
            ("socket", (17, 3, 0), "reported"),
            ("mmap", (0, 4096, 3), "unseen"),
            ("mmap", (0, 4096, 5), "reported"),
            ("mprotect", (0, 4096, 5), "reported"),
            ("ptrace", (), "reported"),
            ("fchmod", (), "reported"),
            ("read", (), "unseen"),
            ("futex", (), "unseen"),
            ("ioctl", (0, 0x5401), "unseen"),
            ("ioctl", (0, 0x5412), "reported"),
        ],
    )
    def test_call(self, machine: str, name: str, arguments: tuple[int, ...], expected: str) -> None:
        """Files, processes, the network, executable memory and what no policy allows are reported, the rest is not."""
        assert answer(machine, name, *arguments) == expected

    def test_absent_calls_stay_absent(self, machine: str) -> None:
        """What looks unsupported under the confinement does so here: io_uring would go unseen."""
        assert {answer(machine, name) for name in ABSENT} == {"absent"}

    def test_nothing_is_refused(self, machine: str) -> None:
        """Apart from those, every call of the table is let through or reported."""
        names = [name for name in NUMBERS if number_of(name, machine) is not None and name not in ABSENT]
        assert {answer(machine, name) for name in names} == {"unseen", "reported"}

    def test_every_file_call(self, machine: str) -> None:
        """All calls whose paths Landlock decides about are reported."""
        assert {answer(machine, name) for name in FILE_CALLS if number_of(name, machine) is not None} == {"reported"}

    def test_other_architectures(self, machine: str) -> None:
        """A call through another architecture's entry is refused: it could not be told what it is."""
        other = next(arch for name, arch in bpf.AUDIT_ARCH.items() if name != machine)
        assert run(compile_recording(FACTS, machine, HANDOVER), 0, (), other) == bpf.refusal(errno.EPERM)


class TestHandover:
    """How the kernel's reports come to whoever listens."""

    def test_what_arrives(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The model's entry, the instance, and the descriptor that the reports are read from, which is kept by nobody here."""
        reader, writer = os.pipe()
        monkeypatch.setattr(recording, "_install", lambda program, machine: writer)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "listener"))
            listening.listen()
            record(str(tmp_path / "listener"), "/models/m/1/model.py", "m_0_0")
            connection, _ = listening.accept()
            with connection:
                data, descriptors, *_ = socket.recv_fds(connection, 1024, 1)
        assert data == b"/models/m/1/model.py\0m_0_0"
        os.write(descriptors[0], b"x")
        assert os.read(reader, 1) == b"x"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(writer)
        os.close(descriptors[0])
        os.close(reader)

    @pytest.mark.parametrize("answer", [errno.EBUSY, errno.EPERM])
    def test_nobody_records_a_process_twice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
        """What the kernel refuses is one line; the process does not go on unrecorded."""
        calls = []

        def syscall(number: int, *arguments: object) -> int:
            calls.append((number, arguments[0]))
            if number == number_of("seccomp", os.uname().machine):
                raise OSError(answer, os.strerror(answer))
            return 0

        monkeypatch.setattr(_libc, "syscall", syscall)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "listener"))
            listening.listen()
            with pytest.raises(ConfinementError, match=f"^confinement.record: {os.strerror(answer)}"):
                record(str(tmp_path / "listener"), "/models/m/1/model.py", "m_0_0")
        assert [number for number, _ in calls] == [number_of(name, os.uname().machine) for name in ("prctl", "seccomp")]

    def test_nobody_listens(self, tmp_path: Path) -> None:
        """Before any filter is installed."""
        with pytest.raises(ConfinementError, match=r"^confinement\.record: No such file or directory"):
            record(str(tmp_path / "listener"), "/models/m/1/model.py", "m_0_0")


def test_a_table_confines_unless_told() -> None:
    """Recording is off in a launch table by default, and survives its JSON form."""
    table = LaunchTable(stub="/s", refusal="/r", region_prefix="p", environment={}, read=(), models={})
    assert table.record == ""
    assert LaunchTable.from_json(table.to_json()).record == ""
