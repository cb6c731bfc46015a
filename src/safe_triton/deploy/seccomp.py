"""The container's seccomp profile: what the server, its supervisor, the gateway and the models may call together."""

from __future__ import annotations

import errno
import json

from safe_triton.confinement.seccomp_profile import ProcessFacts, compile_rules
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.unsafe import AllowNetwork, AllowProcesses

_WHY = "the widest of what a policy can grant"
WIDEST = SandboxPolicy(network=AllowNetwork(reason=_WHY, to="any"), processes=AllowProcesses(reason=_WHY), gpu_ids=(0,))

SERVER: frozenset[str] = frozenset(
    """
    accept accept4 bind listen chmod fchmod fchmodat fchmodat2 utime utimes utimensat
    futimesat mknod mknodat tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal
    setpgid setsid sched_setaffinity sched_setparam sched_setscheduler sched_getattr ioprio_get ioprio_set
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch getxattr lgetxattr fgetxattr listxattr
    mlockall munlockall pkey_alloc pkey_mprotect pkey_free splice
    mincore semget semop semctl semtimedop shmget shmat shmdt shmctl
    """.split()  # noqa: SIM905 - a table of words
)
"""Beyond what a model may call: listening, watching files, ending other processes of the container."""

CLONE_NAMESPACES = 0x7E02_0000
"""NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET, source: include/uapi/linux/sched.h."""

PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFF_FFFF)
"""LINUX, LINUX32, UNAME26, both, and the question which one it is."""

ARCHITECTURES = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
"""A call of any other, such as of 32 bits, ends the process."""


def seccomp_text() -> str:
    """Return the profile as container runtimes read it: everything else is answered as not implemented.

    Does not cover:
        What each model may call: its own filter, installed before any of its code, is far tighter.

    Source:
        Open Container Initiative, runtime specification, ``linux.seccomp``.
    """
    facts = ProcessFacts(pid=0, parent_pid=0, has_truncate_right=True, exec_addresses=(0, 0, 0))
    names = sorted((set(compile_rules(WIDEST, facts)) | SERVER) - {"clone", "personality"})
    conditions = {
        "clone": [{"index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        "personality": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in PERSONALITIES],
    }
    rules: list[dict[str, object]] = [{"names": names, "action": "SCMP_ACT_ALLOW"}]
    for name, checks in conditions.items():
        rules += [{"names": [name], "action": "SCMP_ACT_ALLOW", "args": [check]} for check in checks]
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.ENOSYS,
        "architectures": list(ARCHITECTURES),
        "syscalls": rules,
    }
    return json.dumps(profile, indent=2) + "\n"
