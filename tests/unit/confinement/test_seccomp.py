"""The profile: what a confined process may call, with which arguments, on both machines."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest

from safe_triton import unsafe
from safe_triton.confinement import bpf
from safe_triton.confinement.seccomp_profile import ABSENT, FREE, ProcessFacts, compile_rules, decisive
from safe_triton.confinement.syscall_numbers import MACHINES, NUMBERS, number_of
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy
from tests.unit.confinement.bpf_interpreter import verdict

PID, PARENT, OTHER = 4242, 1717, 99
FACTS = ProcessFacts(PID, PARENT, has_truncate_right=True)
HIGH = 1 << 40

THREAD = 0x3D0F00  # what glibc passes for pthread_create
NETWORK = unsafe.AllowNetwork(reason="test")
PORTS = unsafe.AllowNetwork(reason="test", to=(443,))
PROCESSES = unsafe.AllowProcesses(reason="test")

# Policy, call, arguments, whether it is allowed.
VERDICTS: list[tuple[SandboxPolicy, str, tuple[int, ...], bool]] = [
    *[
        (SandboxPolicy(), name, arguments, allowed)
        for name, arguments, allowed in [
            ("clone", (THREAD,), True),
            ("clone", (THREAD | HIGH,), True),
            ("clone", (17,), False),
            ("clone", (17 | HIGH,), False),
            ("clone", (THREAD | 0x1000_0000,), False),  # a user namespace
            ("kill", (PARENT, 0), True),
            ("kill", (PARENT, 9), False),
            ("kill", (PARENT, 0 | HIGH), True),  # the kernel reads an int
            ("kill", (OTHER, 0), False),
            ("kill", (OTHER, 15), False),
            ("kill", (PID, 10), True),
            ("kill", (-1, 9), False),
            ("kill", (-PID, 9), False),
            ("kill", (0, 9), False),
            ("tgkill", (PID, 5000, 43), True),
            ("tgkill", (OTHER, OTHER, 9), False),
            ("tgkill", (-1, OTHER, 9), False),
            ("tkill", (PID, 9), False),
            ("socket", (1, 1, 0), False),
            ("socket", (2, 1, 0), False),
            ("socket", (16, 3, 0), False),
            ("socketpair", (1, 1), True),
            ("socketpair", (1, 1 | 0o2000000 | 0o4000), True),
            ("socketpair", (1, 2), False),
            ("socketpair", (1, 2 | HIGH), False),
            ("socketpair", (1, 5), False),
            ("socketpair", (2, 1), False),
            ("connect", (3, 1, 16), False),
            ("sendto", (3, 1, 1, 0, 0, 0), True),
            ("sendto", (3, 1, 1, 0, 0x7F00_0000_0000, 16), False),
            ("sendto", (3, 1, 1, 0, 1 << 32, 16), False),
            ("sendmsg", (3, 1, 0), False),
            ("ioctl", (0, 0x5401), True),
            ("ioctl", (0, 0x5412), False),  # TIOCSTI
            ("ioctl", (0, 0x5412 | HIGH), False),
            ("ioctl", (0, 0x541C), False),  # TIOCLINUX
            ("ioctl", (0, 0x8901), False),  # FIOSETOWN
            ("fcntl", (3, 4, 0o4000), True),
            ("fcntl", (3, 4, 0o20000), False),  # O_ASYNC
            ("fcntl", (3, 8, OTHER), False),  # F_SETOWN
            ("fcntl", (3, 10, 9), False),  # F_SETSIG
            ("fcntl", (3, 15, 0), False),  # F_SETOWN_EX
            ("prctl", (15,), True),
            ("prctl", (4, 0), True),
            ("prctl", (4, 1), False),
            ("prctl", (22, 2), False),
            ("prctl", (0x59616D61, -1), False),  # PR_SET_PTRACER
            ("seccomp", (1, 1), True),
            ("seccomp", (1, 8), False),  # a listener
            ("seccomp", (3, 0), False),
            ("prlimit64", (0, 7, 0, 1), True),
            ("prlimit64", (PID, 7, 0, 1), True),
            ("prlimit64", (PARENT, 7, 1, 0), False),
            ("sched_setaffinity", (0,), True),
            ("sched_setaffinity", (PARENT,), False),
            ("setpriority", (0, 0, 5), True),
            ("setpriority", (0, PARENT, 5), False),
            ("setpriority", (2, 0, 5), False),
            ("umask", (0o077,), True),
            ("umask", (0o177,), True),
            ("umask", (0,), False),
            ("umask", (0o022,), False),
            ("openat", (3, 1, 0, 0xFFFF_FFFF), True),  # no file is made: the mode is not read
            ("openat", (3, 1, 0o101, 0o600), True),
            ("openat", (3, 1, 0o101, 0o4755), False),
            ("openat", (3, 1, 0o20200002, 0o2755), False),
            ("mkdirat", (3, 1, 0o700), True),
            ("mkdirat", (3, 1, 0o2700), False),
            ("mmap", (0, 1, 5), True),
            ("mprotect", (0, 1, 4), True),
            ("execve", (0, 0, 0), False),
            ("truncate", (1, 1), True),
        ]
    ],
    *[
        (SandboxPolicy(network=NETWORK), name, arguments, allowed)
        for name, arguments, allowed in [
            ("socket", (2, 1, 0), True),
            ("socket", (10, 1 | 0o2000000, 6), True),
            ("socket", (2, 2, 17), True),
            ("socket", (1, 1, 0), False),
            ("socket", (16, 3, 0), False),
            ("socket", (17, 3, 0), False),
            ("socket", (2, 3, 1), False),
            ("socket", (2, 1, 262), False),  # MPTCP
            ("socket", (2, 1, 132), False),  # SCTP
            ("socketpair", (1, 2), False),
            ("connect", (3, 1, 16), True),
            ("sendto", (3, 1, 1, 0, 1, 16), True),
            ("sendto", (3, 1, 1, 0x2000_0000, 1, 16), False),  # MSG_FASTOPEN
            ("sendmsg", (3, 1, 0x2000_0000), False),
            ("bind", (3, 1, 16), False),
            ("listen", (3, 1), False),
            ("setsockopt", (3, 6, 1), True),
            ("setsockopt", (3, 6, 31), False),  # TCP_ULP
            ("setsockopt", (3, 1, 26), False),  # SO_ATTACH_FILTER
            ("clone", (17,), False),
        ]
    ],
    *[
        (SandboxPolicy(network=PORTS), name, arguments, allowed)
        for name, arguments, allowed in [
            ("socket", (2, 1, 0), True),
            ("socket", (2, 2, 0), False),
            ("sendto", (3, 1, 1, 0, 0, 0), True),
            ("sendto", (3, 1, 1, 0, 1, 16), False),
        ]
    ],
    *[
        (SandboxPolicy(processes=PROCESSES), name, arguments, allowed)
        for name, arguments, allowed in [
            ("clone", (17,), True),
            ("clone", (17 | 0x1000_0000,), False),
            ("execve", (1, 1, 1), True),
            ("kill", (OTHER, 9), False),
            ("ptrace", (0,), False),
            ("unshare", (0x1000_0000,), False),
        ]
    ],
    *[
        (SandboxPolicy(executable_memory=False), name, arguments, allowed)
        for name, arguments, allowed in [
            ("mmap", (0, 1, 3), True),
            ("mmap", (0, 1, 5), False),
            ("mmap", (0, 1, 5 | HIGH), False),
            ("mprotect", (0, 1, 1), True),
            ("mprotect", (0, 1, 7), False),
            ("pkey_mprotect", (0, 1, 1, -1), False),
        ]
    ],
    *[
        (SandboxPolicy(gpu_ids=(0,)), name, arguments, allowed)
        for name, arguments, allowed in [
            ("ioctl", (3, 0xC020462B), True),
            ("ioctl", (3, 75), True),
            ("ioctl", (3, 0x3000_0001), True),
            ("ioctl", (0, 0x5412), False),
            ("socket", (1, 5, 0), True),
            ("socket", (1, 5 | 0o2000000, 0), True),
            ("socket", (1, 1, 0), False),
            ("socket", (1, 2, 0), False),
            ("socket", (2, 5, 0), False),
            ("bind", (3, 0, 0), True),
            ("listen", (3, 1), True),
            ("accept", (3, 0, 0), False),
            ("accept4", (3, 0, 0, 0), False),
            ("connect", (3, 0, 0), False),
        ]
    ],
]

FORBIDDEN = [
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kcmp",
    "pidfd_send_signal",
    "pidfd_getfd",
    "tkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "unshare",
    "setns",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsmount",
    "mount_setattr",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_enter",
    "io_uring_register",
    "keyctl",
    "add_key",
    "request_key",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "quotactl",
    "sethostname",
    "setdomainname",
    "settimeofday",
    "clock_settime",
    "adjtimex",
    "clock_adjtime",
    "syslog",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setgroups",
    "setfsuid",
    "setfsgid",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "utime",
    "utimes",
    "utimensat",
    "futimesat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "mknod",
    "mknodat",
    "inotify_init",
    "inotify_init1",
    "inotify_add_watch",
    "fanotify_init",
    "fanotify_mark",
    "name_to_handle_at",
    "open_by_handle_at",
    "shmget",
    "shmat",
    "msgget",
    "semget",
    "mq_open",
    "sched_setscheduler",
    "sched_setparam",
    "sched_setattr",
    "ioprio_set",
    "fork",
    "vfork",
    "execveat",
    "bind",
    "listen",
    "accept",
    "accept4",
    "connect",
    "sendmsg",
    "sendmmsg",
    "personality",
    "modify_ldt",
    "iopl",
    "ioperm",
    "splice",
    "tee",
    "vmsplice",
    "io_setup",
    "migrate_pages",
    "move_pages",
    "vhangup",
    "ustat",
    "sync",
    "syncfs",
]


@pytest.mark.parametrize("machine", MACHINES)
class TestProfile:
    @pytest.mark.parametrize(("policy", "name", "arguments", "allowed"), VERDICTS)
    def test_verdict(
        self, machine: str, policy: SandboxPolicy, name: str, arguments: tuple[int, ...], allowed: bool
    ) -> None:
        """Each condition from both sides."""
        if number_of(name, machine) is None:
            assert machine == "aarch64"
            return
        program = bpf.compile_filter(compile_rules(policy, FACTS), ABSENT, machine)
        assert verdict(program, machine, name, *arguments) == (None if allowed else errno.EPERM)

    def test_forbidden(self, machine: str) -> None:
        """What would reach other processes, the kernel or file metadata is refused with any arguments."""
        program = bpf.compile_filter(compile_rules(SandboxPolicy(), FACTS), ABSENT, machine)
        for name in FORBIDDEN:
            if number_of(name, machine) is not None:
                for arguments in ((), (-1,) * 6, (PID, 0)):
                    assert verdict(program, machine, name, *arguments) == errno.EPERM, name

    def test_absent(self, machine: str) -> None:
        """clone3 and the like look unsupported, so that libraries use what can be checked; no policy changes that."""
        for policy in (SandboxPolicy(), SandboxPolicy(network=NETWORK, processes=PROCESSES, gpu_ids=(0,))):
            program = bpf.compile_filter(compile_rules(policy, FACTS), ABSENT, machine)
            for name in ABSENT:
                assert verdict(program, machine, name) == errno.ENOSYS, name

    def test_what_decides_is_all_that_decides(self, machine: str) -> None:
        """Two policies have the same filter exactly when what decides is the same: then the second is not installed."""
        unlike: list[dict[str, Any]] = [
            {}, {"network": NETWORK}, {"network": unsafe.AllowNetwork(reason="x", to=(443,))}, {"processes": PROCESSES},
            {"executable_memory": False}, {"gpu_ids": (0,)},
        ]  # fmt: skip
        alike: list[dict[str, Any]] = [
            {"read": ("/srv",)},
            {"scratch_bytes": 1 << 20},
            {"resources": ResourceLimits(open_files=64)},
        ]
        policies = [SandboxPolicy(**fields) for fields in (*unlike, *alike)]
        policies += [SandboxPolicy(gpu_ids=(1,)), SandboxPolicy(network=unsafe.AllowNetwork(reason="y", to=(80,)))]
        for one in policies:
            for other in policies:
                rules = [compile_rules(policy, FACTS) for policy in (one, other)]
                same = bpf.compile_filter(rules[0], ABSENT, machine) == bpf.compile_filter(rules[1], ABSENT, machine)
                assert (decisive(one) == decisive(other)) is same

    def test_one_program(self, machine: str) -> None:
        """Execve is allowed with three secret addresses, and with no other argument in any place."""
        addresses = (0x12_3456_7890, 0x23_4567_8900, 0x34_5678_9010)
        facts = ProcessFacts(PID, PARENT, has_truncate_right=True, exec_addresses=addresses)
        program = bpf.compile_filter(compile_rules(SandboxPolicy(), facts), ABSENT, machine)
        assert verdict(program, machine, "execve", *addresses) is None
        for index in range(3):
            for change in (1, 1 << 33, -addresses[index]):
                wrong = [value + change * (place == index) for place, value in enumerate(addresses)]
                assert verdict(program, machine, "execve", *wrong) == errno.EPERM

    def test_truncate_before_its_right(self, machine: str) -> None:
        """Where Landlock does not know truncate, the call is refused altogether."""
        facts = ProcessFacts(PID, PARENT, has_truncate_right=False)
        program = bpf.compile_filter(compile_rules(SandboxPolicy(), facts), ABSENT, machine)
        assert verdict(program, machine, "truncate", 1, 1) == errno.EPERM


def test_names_are_known() -> None:
    """A misspelt name would silently allow nothing."""
    assert NUMBERS.keys() >= FREE
    assert NUMBERS.keys() >= ABSENT
    assert not FREE & ABSENT
    assert not FREE & set(FORBIDDEN)


GENERIC = Path("/usr/include/asm-generic/unistd.h")
X86_64 = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


def header(path: Path) -> dict[str, int]:
    """The numbers in a header of the kernel; the generic one, which is aarch64's, names some by their 64-bit form."""
    text = path.read_text()
    wide = {name: int(number) for name, number in re.findall(r"#define __NR3264_(\w+)\s+(\d+)\b", text)}
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)\b", text)}
    return numbers | {
        name: wide[of] for name, of in re.findall(r"#define __NR_(\w+) __NR3264_(\w+)", text) if of in wide
    }


@pytest.mark.parametrize(("column", "path"), [(0, X86_64), (1, GENERIC)], ids=["x86_64", "aarch64"])
def test_numbers_are_the_kernels(column: int, path: Path) -> None:
    """Each number of both machines, and that the others are none there."""
    if not path.is_file():
        pytest.skip(f"lacks {path}")
    known = header(path)
    assert {name: known.get(name, -1) for name in NUMBERS} == {name: both[column] for name, both in NUMBERS.items()}


def test_numbers_of_this_machine() -> None:
    """The table agrees with the numbers of a few calls that are the same since ever."""
    assert (number_of("read", "x86_64"), number_of("read", "aarch64")) == (0, 63)
    assert (number_of("execve", "x86_64"), number_of("execve", "aarch64")) == (59, 221)
    assert (number_of("seccomp", "x86_64"), number_of("seccomp", "aarch64")) == (317, 277)
    assert number_of("fork", "aarch64") is None
    assert len({numbers[0] for numbers in NUMBERS.values()}) == len(NUMBERS)
