"""What the kernel may answer, played by a stand-in: every answer has its words, and none is taken for another."""

from __future__ import annotations

import errno
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safe_triton import _libc
from safe_triton.confinement import bpf, landlock, probe, rlimits, seccomp, threads, verify
from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.enforcement import Enforcement, Gap
from safe_triton.confinement.grants import Grant
from safe_triton.confinement.scratch import scratch_gaps, scratch_variables
from safe_triton.confinement.syscall_numbers import NUMBERS, number_of
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.unsafe import Unlimited

Arguments = tuple[Any, ...]

pytestmark = pytest.mark.skipif(os.uname().machine not in bpf.AUDIT_ARCH, reason="lacks x86-64 or aarch64")


class Kernel:
    """Answers system calls as it is told, and remembers them by name."""

    def __init__(self, *answers: int) -> None:
        self._answers = list(answers)
        self.calls: list[tuple[str, Arguments]] = []

    def syscall(self, number: int, *arguments: Any) -> int:
        column = 0 if os.uname().machine == "x86_64" else 1
        name = next(name for name, numbers in NUMBERS.items() if numbers[column] == number)
        self.calls.append((name, arguments))
        answer = self._answers.pop(0) if self._answers else 0
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return answer


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kernel]:
    def answering(*answers: int) -> Kernel:
        found = Kernel(*answers)
        monkeypatch.setattr(_libc, "syscall", found.syscall)
        return found

    return answering


class TestLandlock:
    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (7, (7, "")),
            (-errno.ENOSYS, (0, "the kernel is built without Landlock")),
            (-errno.EOPNOTSUPP, (0, "Landlock is not among the security modules started at boot (lsm=landlock,…)")),
            (-errno.EPERM, (0, "a seccomp filter, probably the container's, refuses Landlock")),
            (-errno.EIO, (0, "the kernel answers EIO")),
        ],
    )
    def test_probe(self, kernel: Callable[..., Kernel], answer: int, expected: tuple[int, str]) -> None:
        """An ABI, or why there is none, with what to change."""
        kernel(answer)
        assert landlock.probe() == expected

    @pytest.mark.parametrize(("answer", "expected"), [(5, 5), (-errno.EINVAL, 0)])
    def test_errata(self, kernel: Callable[..., Kernel], answer: int, expected: int) -> None:
        """An older kernel cannot tell, which counts as nothing repaired."""
        kernel(answer)
        assert landlock.probe_errata() == expected

    def test_restrict_is_one_call(self, kernel: Callable[..., Kernel]) -> None:
        """With the ruleset and the flag for all threads."""
        found = kernel()
        landlock.restrict(5, rights.RESTRICT_ALL_THREADS)
        assert found.calls == [("landlock_restrict_self", (5, rights.RESTRICT_ALL_THREADS))]

    def test_rights_of_folders_are_not_asked_for_on_files(self, kernel: Callable[..., Kernel], tmp_path: Path) -> None:
        """The kernel refuses a rule with them; without a right left there is no rule."""
        (tmp_path / "file").touch()
        found = kernel(os.open(tmp_path, os.O_RDONLY))
        grants = (Grant(str(tmp_path / "file"), rights.READ_DIR), Grant(str(tmp_path / "file"), rights.READ))
        os.close(landlock.open_ruleset(landlock.plan(1, grants, ())))
        rules = [arguments[2] for name, arguments in found.calls if name == "landlock_add_rule"]
        assert [struct.unpack("=Qi", rule)[0] for rule in rules] == [rights.READ & rights.FILE_RIGHTS]


class TestSeccomp:
    @pytest.mark.parametrize(
        ("answers", "expected"),
        [
            ((0, -errno.EFAULT), ""),
            ((-errno.ENOSYS,), "the kernel is built without seccomp"),
            ((-errno.EINVAL,), "the kernel is built without seccomp filters"),
            ((-errno.EPERM,), "another filter, probably the container's, refuses seccomp"),
            ((-errno.EIO,), "the kernel answers EIO"),
            ((0, 0), "the kernel accepts a filter without a program"),
        ],
    )
    def test_probe(self, kernel: Callable[..., Kernel], answers: tuple[int, ...], expected: str) -> None:
        """Only a kernel that looks at the missing program has what is needed."""
        kernel(*answers)
        assert seccomp.probe() == expected

    def test_a_thread_with_a_filter_of_its_own(self, kernel: Callable[..., Kernel]) -> None:
        """The kernel answers with its id, and nothing holds: that is an error."""
        kernel(4711)
        with pytest.raises(OSError, match="thread 4711 has another filter"):
            seccomp.install(bytes(8))


class TestVerify:
    @pytest.mark.parametrize(
        ("policy", "without"),
        [
            (SandboxPolicy(), {"executable memory"}),
            (SandboxPolicy(executable_memory=False), set()),
        ],
    )
    def test_attempts(self, policy: SandboxPolicy, without: set[str]) -> None:
        """One of each kind that the policy has refused."""
        everything = {attempt.what for attempt in verify.attempts(SandboxPolicy(executable_memory=False), "x86_64")}
        assert {"a socket", "a process", "a program", "executable memory"} <= everything
        assert {attempt.what for attempt in verify.attempts(policy, "x86_64")} == everything - without

    @pytest.mark.parametrize(("answer", "expected"), [(0, ["it"]), (-errno.EINVAL, ["it"]), (-errno.EPERM, [])])
    def test_only_the_expected_refusal_counts(
        self, kernel: Callable[..., Kernel], answer: int, expected: list[str]
    ) -> None:
        """A call that went through, or that failed for another reason, was not stopped."""
        kernel(answer)
        assert (
            verify.check_attempts((verify.Attempt("it", number_of("bpf", "x86_64") or 0, (), errno.EPERM),)) == expected
        )

    def test_a_filter_that_does_not_tell(self, kernel: Callable[..., Kernel]) -> None:
        """A filter that refuses the question is one."""
        kernel(-errno.EPERM)
        assert verify.has_filter()

    def test_everything_is_granted(self) -> None:
        """Where the policy grants all of it, there is nothing to try."""
        everything = (Grant("/", rights.READ),)
        assert verify.ungranted_path(everything) is None
        assert verify.check_files(None) == []
        assert verify.root_call(everything) == ()
        assert verify.ungranted_path(()) == "/"

    def test_files(self, tmp_path: Path) -> None:
        """A path that opens was not stopped, and one that is missing proves nothing."""
        assert verify.check_files(str(tmp_path)) == [f"opening {tmp_path}"]
        assert verify.check_files(str(tmp_path / "a")) == [f"opening {tmp_path / 'a'} gave No such file or directory"]


class TestProbe:
    @pytest.mark.parametrize(
        ("cgroup", "limits", "expected"),
        [
            (None, {}, False),
            ("0::/a\n", {}, False),
            ("0::/a\n", {"/a": "max\n"}, False),
            ("0::/a\n", {"/a": "100\n"}, True),
            ("0::/a\n", {"": "100\n"}, True),
            ("3:cpu:/a\n2:pids:/b\n", {"/a": "100\n", "/b": "100\n"}, False),
            ("3:cpu:/a\n2:pids:/b\n", {"/pids/b": "100\n"}, True),
        ],
    )
    def test_who_bounds_threads(
        self, monkeypatch: pytest.MonkeyPatch, cgroup: str | None, limits: dict[str, str], expected: bool
    ) -> None:
        """The process's own group, or the container's as seen from inside; of version 1 only the one that counts them."""
        files = {f"/sys/fs/cgroup{folder}/pids.max": text for folder, text in limits.items()}
        if cgroup is not None:
            files["/proc/self/cgroup"] = cgroup
        monkeypatch.setattr(probe, "open", opening(files), raising=False)
        assert probe._has_pids_limit() is expected

    def test_an_unknown_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is never asked for what its numbers are not known of."""
        real = os.uname()
        monkeypatch.setattr(os, "uname", lambda: os.uname_result((*real[:4], "riscv64")))
        found = probe.probe(python=())
        assert (found.landlock_abi, found.landlock_missing, found.seccomp_missing) == (
            0, "not known on riscv64", "not known on riscv64",
        )  # fmt: skip


def opening(files: dict[str, str]) -> Callable[..., Any]:
    """Return an ``open`` that knows these files only."""
    import io

    def opened(path: str, *_: object, **__: object) -> Any:
        if path not in files:
            raise FileNotFoundError(path)
        return io.StringIO(files[path])

    return opened


def test_mapped_memory_that_a_confinement_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is known, and the limit that holds already is left to do its work."""

    def denied(*_: object, **__: object) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(rlimits, "open", denied, raising=False)
    assert rlimits.mapped_bytes() == 0


def test_limits_are_set_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hard one too, so that nobody can raise them again."""
    found = []
    monkeypatch.setattr(resource, "setrlimit", lambda number, values: found.append((number, values)))
    limits = rlimits.plan(SandboxPolicy().resources, rlimits.current(), has_gpus=False)
    rlimits.apply(limits)
    assert found == [(limit.resource, (limit.value, limit.value)) for limit in limits]


def test_every_machine_has_instructions_for_its_threads() -> None:
    """What is confined can have each of its threads restricted."""
    assert set(threads._HANDLERS) == set(threads._RESTORERS) == set(bpf.AUDIT_ARCH)


@pytest.mark.parametrize(("is_essential", "complete"), [(True, False), (False, True)])
def test_only_an_essential_gap_makes_it_incomplete(is_essential: bool, complete: bool) -> None:
    """Others are told, and hold nobody up."""
    gap = Gap("seccomp", "confinement.seccomp", "none here", "use another kernel", is_essential=is_essential)
    assert Enforcement(("seccomp",), (), (gap,)).is_complete is complete


class TestScratch:
    @pytest.mark.parametrize(
        ("folder", "size", "gaps"),
        [(None, 1 << 20, 0), ("/proc", 1 << 20, 0), ("{tmp}", 1 << 20, 1), ("{tmp}", Unlimited(reason="test"), 0)],
    )
    def test_who_holds_the_size(self, tmp_path: Path, folder: str | None, size: Any, gaps: int) -> None:
        """The kernel does where the folder is a file system of its own."""
        place = None if folder is None else folder.format(tmp=tmp_path)
        found = scratch_gaps(place, SandboxPolicy(scratch_bytes=size))
        assert [gap.reason for gap in found] == ["confinement.scratch"] * gaps
        assert not any(gap.is_essential for gap in found)

    def test_where_a_process_finds_it(self) -> None:
        """By its own name, and by those that libraries know."""
        assert set(scratch_variables("/s").values()) == {"/s"}
        assert {"TMPDIR", "HOME"} < set(scratch_variables("/s"))
