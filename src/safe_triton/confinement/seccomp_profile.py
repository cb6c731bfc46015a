"""Which system calls a confined process may make, as data: an allow-list, with conditions on arguments.

Everything that is not here is refused with EPERM; what a C library tries first and can do without is answered with
ENOSYS. Landlock decides about paths, ports and programs; this list covers what Landlock does not see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safe_triton.policy.sandbox import SandboxPolicy


@dataclass(frozen=True)
class Check:
    """One condition: ``argument & mask == value``.

    Args:
        argument: index of the argument, from 0.
        value: what the masked argument must be.
        mask: bits that are compared.
        wide: compare all 64 bits, without a mask; otherwise the low 32, which is all that the kernel reads of an
        ``int``.
    """

    argument: int
    value: int
    mask: int = 0xFFFF_FFFF
    wide: bool = False


Alternatives = tuple[tuple[Check, ...], ...]
Rules = Mapping[str, Alternatives]

ALWAYS: Alternatives = ((),)


@dataclass(frozen=True)
class ProcessFacts:
    """What a profile depends on besides the policy.

    Args:
        pid: this process.
        parent_pid: the only other process whose existence may be tested; Triton's stub does so all the time.
        has_truncate_right: whether Landlock covers ``truncate`` (ABI 3).
        exec_addresses: the only arguments that ``execve`` accepts, see ``entry``; ``None`` allows no ``execve``.
        listens: whether it may accept connections; Landlock decides on which ports.
    """

    pid: int
    parent_pid: int
    has_truncate_right: bool
    exec_addresses: tuple[int, int, int] | None = None
    listens: bool = False


FREE: frozenset[str] = frozenset(
    """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range lseek
    stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd
    statfs fstatfs chdir fchdir dup dup2 dup3 flock fsync fdatasync sync_file_range fadvise64 readahead
    ftruncate fallocate sendfile copy_file_range openat2
    rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat
    munmap mremap brk madvise msync mlock mlock2 munlock membarrier get_mempolicy
    futex futex_waitv set_robust_list rseq set_tid_address arch_prctl gettid getpid getppid exit exit_group
    getuid geteuid getgid getegid getgroups getresuid getresgid getpgid getpgrp getsid capget capset
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
    signalfd signalfd4 pause alarm getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun
    timer_delete clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage sysinfo
    uname getcpu getrandom restart_syscall sched_yield sched_getaffinity sched_getparam sched_getscheduler
    sched_get_priority_max sched_get_priority_min sched_rr_get_interval getpriority getrlimit setrlimit
    poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
    eventfd eventfd2 pipe pipe2 timerfd_create timerfd_settime timerfd_gettime
    recvfrom recvmsg shutdown getsockname getpeername getsockopt wait4 waitid
    landlock_create_ruleset landlock_add_rule landlock_restrict_self
    """.split()  # noqa: SIM905 - a table of words
)
"""Calls whose arguments do not matter: on own descriptors and memory, or decided by Landlock, or only restricting.

``capset`` cannot give anything back to a thread that has dropped everything.
"""

# glibc falls back to clone and to fork-free paths; io_uring, memfd and pidfd callers test for support.
ABSENT: frozenset[str] = frozenset({"clone3", "io_uring_setup", "memfd_create", "pidfd_open", "process_madvise"})

# include/uapi/linux/sched.h
_CLONE_THREAD = 0x10000
_CLONE_NAMESPACES = 0x7E020080  # NEWTIME NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_SEQPACKET = 1, 2, 5
_SOCK_TYPE_MASK = 0xF  # the rest are SOCK_CLOEXEC and SOCK_NONBLOCK
_IPPROTO_TCP, _IPPROTO_UDP = 6, 17
_MSG_FASTOPEN = 0x2000_0000  # connects without connect(), past Landlock's TCP rule

_O_CREAT, _O_TMPFILE_BIT = 0o100, 0o20000000
_SET_ID_BITS = 0o6000
_PROT_EXEC = 4
_O_ASYNC = 0o20000

# Descriptor flags, locks, pipe size and seals. Not F_SETOWN and F_SETSIG: they make the kernel send signals to others.
_FCNTL_COMMANDS = (0, 1, 2, 3, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032, 1033, 1034)
_F_SETFL = 4

# FIONREAD FIONBIO FIOCLEX FIONCLEX TCGETS TIOCGWINSZ TCGETS2. The kernel reads 32 bits, so no more are compared
# (CVE-2019-10063: TIOCSTI with a bit set above them).
_IOCTL_COMMANDS = (0x541B, 0x5421, 0x5451, 0x5450, 0x5401, 0x5413, 0x802C542A)

# PDEATHSIG (set, get), GET_DUMPABLE, SET_NAME, GET_NAME, GET_SECCOMP, CAPBSET_READ, TIMERSLACK (set, get), NO_NEW_PRIVS
# (set, get), THP_DISABLE, SET_VMA
_PRCTL_OPTIONS = (1, 2, 3, 15, 16, 21, 23, 29, 30, 38, 39, 41, 0x53564D41)
_PR_SET_DUMPABLE = 4

# SOL_SOCKET: REUSEADDR ERROR SNDBUF RCVBUF KEEPALIVE LINGER PASSCRED RCVTIMEO SNDTIMEO; no packet filters
_SOCKET_OPTIONS = (2, 4, 7, 8, 9, 13, 16, 20, 21)
# TCP: NODELAY KEEPIDLE KEEPINTVL KEEPCNT QUICKACK USER_TIMEOUT; no upper-layer protocols
_TCP_OPTIONS = (1, 4, 5, 6, 12, 18)
_IPV6_V6ONLY = 26
_SO_REUSEPORT = 15


def any_of(argument: int, values: tuple[int, ...]) -> Alternatives:
    """Alternatives that accept each of ``values`` in one argument."""
    return tuple((Check(argument, value),) for value in values)


def compile_rules(policy: SandboxPolicy, facts: ProcessFacts) -> Rules:
    """Return the calls that ``policy`` allows, each with its alternatives; pure.

    Does not cover:
        What a call's pointers point at: seccomp sees registers only. Paths are for Landlock.
    """
    rules: dict[str, Alternatives] = dict.fromkeys(FREE, ALWAYS)
    own = (0, facts.pid)
    rules |= _creation_rules()
    rules |= {
        # Landlock does not know threads from processes; namespaces would give capabilities back.
        "clone": ((Check(0, _CLONE_THREAD, _CLONE_THREAD | _CLONE_NAMESPACES),),),
        "kill": ((Check(0, facts.parent_pid), Check(1, 0)), (Check(0, facts.pid),)),
        "tgkill": any_of(0, (facts.pid,)),
        "prlimit64": any_of(0, own),
        "sched_setaffinity": any_of(0, own),
        "setpriority": ((Check(0, 0), Check(1, 0)),),
        "umask": ((Check(0, 0o077, 0o077),),),  # tighter than this or equal
        "fcntl": (*any_of(1, _FCNTL_COMMANDS), (Check(1, _F_SETFL), Check(2, 0, _O_ASYNC))),
        "ioctl": any_of(1, _IOCTL_COMMANDS),
        "prctl": (*any_of(0, _PRCTL_OPTIONS), (Check(0, _PR_SET_DUMPABLE), Check(1, 0))),
        # SECCOMP_SET_MODE_FILTER with TSYNC, LOG and SPEC_ALLOW only, SECCOMP_GET_ACTION_AVAIL: a tighter filter on
        # top.
        "seccomp": ((Check(0, 1), Check(1, 0, 0xFFFF_FFF8)), (Check(0, 2),)),
        # A datagram pair could send to any socket by name, a stream pair cannot.
        "socketpair": ((Check(0, _AF_UNIX), Check(1, _SOCK_STREAM, _SOCK_TYPE_MASK)),),
        "sendto": ((Check(4, 0, wide=True),),),
        "setsockopt": tuple((Check(1, 1), Check(2, option)) for option in _SOCKET_OPTIONS),
    }
    rules |= _memory_rules(policy.executable_memory)
    if facts.has_truncate_right:
        rules["truncate"] = ALWAYS
    if facts.exec_addresses is not None:
        rules["execve"] = (tuple(Check(index, value, wide=True) for index, value in enumerate(facts.exec_addresses)),)
    if policy.network:
        rules |= _network_rules(policy, rules["setsockopt"])
    if facts.listens:
        rules |= _listening_rules(rules)
    if policy.processes:
        rules |= {
            "clone": ((Check(0, 0, _CLONE_NAMESPACES),),),
            **dict.fromkeys(("fork", "vfork", "execve", "execveat", "setsid", "setpgid"), ALWAYS),
        }
    if policy.gpu_ids:
        rules |= _gpu_rules(rules)
    return rules


def decisive(policy: SandboxPolicy) -> tuple[object, ...]:
    """Return what of a policy the rules depend on: two policies with the same have the same rules; pure."""
    network = policy.network and policy.network.to == "any", bool(policy.network)
    return network, bool(policy.processes), policy.executable_memory, bool(policy.gpu_ids)


def _creation_rules() -> dict[str, Alternatives]:
    """Opening and making files without set-user-ID and set-group-ID bits: such a program would run as this user."""

    def opening(flags: int, mode: int) -> Alternatives:
        return (Check(flags, 0, _O_CREAT | _O_TMPFILE_BIT),), (Check(mode, 0, _SET_ID_BITS),)

    return {
        "open": opening(1, 2),
        "openat": opening(2, 3),
        "creat": ((Check(1, 0, _SET_ID_BITS),),),
        "mkdir": ((Check(1, 0, _SET_ID_BITS),),),
        "mkdirat": ((Check(2, 0, _SET_ID_BITS),),),
    }


def _memory_rules(is_executable_allowed: bool) -> dict[str, Alternatives]:
    """Mapping and protecting memory, with or without new executable pages."""
    if is_executable_allowed:
        return {"mmap": ALWAYS, "mprotect": ALWAYS}
    return {name: ((Check(2, 0, _PROT_EXEC),),) for name in ("mmap", "mprotect")}


def _listening_rules(rules: Rules) -> Rules:
    """What a gateway calls beside a client of the network: named UNIX sockets of its own, and watching its files."""
    return {
        **dict.fromkeys(
            ("bind", "listen", "accept4", "inotify_init1", "inotify_add_watch", "inotify_rm_watch", "mincore"), ALWAYS
        ),
        "socket": (
            *rules.get("socket", ()),
            (Check(0, _AF_UNIX), Check(1, _SOCK_STREAM, _SOCK_TYPE_MASK), Check(2, 0)),
        ),
        "setsockopt": (*rules["setsockopt"], (Check(1, 1), Check(2, _SO_REUSEPORT))),
    }


def _gpu_rules(rules: Rules) -> Rules:
    """What CUDA's libraries call when they start, measured with driver 580."""
    return {
        # NVIDIA's driver: type 'F', and the plain numbers of nvidia-uvm.
        "ioctl": (
            *rules["ioctl"],
            (Check(1, 0x4600, 0xFF00),),
            (Check(1, 0, 0xFFFF_FF00),),
            *any_of(1, (0x3000_0001, 0x3000_0002)),
        ),
        # An abstract UNIX socket on which processes would ask for memory handles. It has no name in the file system,
        # and accept stays refused, so that nobody gets through to it.
        "socket": (
            *rules.get("socket", ()),
            (Check(0, _AF_UNIX), Check(1, _SOCK_SEQPACKET, _SOCK_TYPE_MASK), Check(2, 0)),
        ),
        "bind": ALWAYS,
        "listen": ALWAYS,
    }


def _network_rules(policy: SandboxPolicy, setsockopt: Alternatives) -> dict[str, Alternatives]:
    """Outgoing connections: plain TCP, and UDP where every port is open; never listening."""
    assert policy.network  # noqa: S101 - the caller's condition, for the type checker
    families = (_AF_INET, _AF_INET6)
    kinds: list[tuple[int, int]] = [(_SOCK_STREAM, 0), (_SOCK_STREAM, _IPPROTO_TCP)]
    is_any = policy.network.to == "any"
    if is_any:
        kinds += [(_SOCK_DGRAM, 0), (_SOCK_DGRAM, _IPPROTO_UDP)]
    no_fastopen = ((Check(2, 0, _MSG_FASTOPEN),),)
    addressed: Alternatives = (
        ((Check(3, 0, _MSG_FASTOPEN),),) if is_any else ((Check(4, 0, wide=True), Check(3, 0, _MSG_FASTOPEN)),)
    )
    return {
        "socket": tuple(
            (Check(0, family), Check(1, kind, _SOCK_TYPE_MASK), Check(2, protocol))
            for family in families
            for kind, protocol in kinds
        ),
        "connect": ALWAYS,
        "sendto": addressed,
        "sendmsg": no_fastopen,
        "sendmmsg": ((Check(3, 0, _MSG_FASTOPEN),),),
        "recvmmsg": ALWAYS,
        "setsockopt": (
            *setsockopt,
            *((Check(1, _IPPROTO_TCP), Check(2, option)) for option in _TCP_OPTIONS),
            (Check(1, 41), Check(2, _IPV6_V6ONLY)),
        ),
    }
