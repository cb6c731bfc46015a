"""What the seal has to know about the process it runs in: asked from the kernel and Triton's arguments."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Mapping

from safe_triton import _libc
from safe_triton.confinement import privileges, verify
from safe_triton.confinement.grants import compile_grants, python_paths
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.runtime import _pb
from safe_triton.runtime.guard_rules import GuardRules, compile_rules

_REGION_ARGUMENT = 2


def places(args: Mapping[str, str]) -> dict[str, str]:
    """Return the folders that a policy's placeholders stand for."""
    model = args["model_repository"]
    return {
        "model": model,
        "version": os.path.join(model, args["model_version"]),
        "repository": os.path.dirname(model),
    }


def needs(args: Mapping[str, str]) -> SandboxPolicy:
    """Return what this process cannot serve without: its model's folder, the backend, libraries, region and GPU."""
    folders = [args["model_repository"], *_pb.folders(), *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
    region = _region()
    return SandboxPolicy(
        read=tuple(folder for folder in folders if folder.startswith("/") and os.path.isdir(folder)),
        write=(region,) if region else (),
        gpu_ids=(int(args["model_instance_device_id"]),) if args["model_instance_kind"] == "GPU" else (),
    )


def ungranted(granted: SandboxPolicy) -> list[str]:
    """Ask the kernel whether this process is held to a policy; return what it did not refuse, empty when it is."""
    wrong = [
        call.what
        for call in privileges.check_calls(has_filter=True)
        if _libc.syscall(*call.arguments) != call.expected or not call.is_right()
    ]
    wrong += verify.check_attempts(verify.attempts(granted, os.uname().machine))
    return wrong + verify.check_files(verify.ungranted_path(compile_grants(granted, python_paths())))


def has_children() -> bool:
    """Whether this process has started others that still exist."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def region_descriptors(folder: str) -> tuple[int, ...]:
    """Return the open descriptors of shared-memory regions: Triton's stub grows its own through one."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            if os.readlink(f"/proc/self/fd/{name}").startswith(folder + "/"):
                found.append(int(name))
    return tuple(found)


def load_now(modules: Iterable[str]) -> None:
    """Import what is imported later anyway; what is not installed is left out."""
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def rules(policy: SandboxPolicy) -> GuardRules:
    """Return the guard's rules in this process."""
    return compile_rules(policy, python_paths(), sys.path)


def _region() -> str | None:
    """The path of the stub's shared-memory region, from its arguments; ``None`` outside a stub, or when confined."""
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return None
    if len(words) <= _REGION_ARGUMENT or b"/" in words[_REGION_ARGUMENT]:
        return None
    path = os.path.join("/dev/shm", os.fsdecode(words[_REGION_ARGUMENT]))  # noqa: S108 - the kernel's
    return path if os.path.isfile(path) else None
