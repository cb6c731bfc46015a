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
from safe_triton.confinement.scratch import SCRATCH_VARIABLE
from safe_triton.policy.sandbox import SCRATCH, SandboxPolicy
from safe_triton.runtime import _pb
from safe_triton.runtime.gpu import files_of
from safe_triton.runtime.guard_rules import GuardRules, compile_rules

_REGION_ARGUMENT = 2


def places(args: Mapping[str, str]) -> dict[str, str]:
    """Return the folders that a policy's placeholders stand for."""
    model = args["model_repository"]
    return {
        "model": model,
        "version": os.path.join(model, args["model_version"]),
        "repository": os.path.dirname(model),
        "python": sys.prefix,
        # Left as it is where nothing was granted: then it is refused by its name, or reported.
        "scratch": os.environ.get(SCRATCH_VARIABLE) or SCRATCH,
    }


def needs(args: Mapping[str, str]) -> SandboxPolicy:
    """Return what this process cannot serve without: its model's folder, the backend, libraries, region and GPU."""
    folders = [args["model_repository"], *_pb.folders(), *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
    region = _region()
    return SandboxPolicy(
        read=tuple(folder for folder in folders if folder.startswith("/") and os.path.isdir(folder)),
        write=(region,) if region else (),
        gpu_ids=files_of(args) if args["model_instance_kind"] == "GPU" else (),
    )


def ungranted(granted: SandboxPolicy) -> list[str]:
    """Ask the kernel whether this process is held to a policy that names its Python environment too.

    Returns:
        What it did not refuse, empty when it is.
    """
    wrong = [
        call.what
        for call in privileges.check_calls(has_filter=True)
        if _libc.syscall(*call.arguments) != call.expected or not call.is_right()
    ]
    wrong += verify.check_attempts(verify.attempts(granted, os.uname().machine, is_first_filter=False))
    return wrong + verify.check_files(verify.ungranted_path(compile_grants(granted, ())))


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


def rules(policy: SandboxPolicy, *, names_python: bool) -> GuardRules:
    """Return the guard's rules in this process.

    Args:
        policy: with what the process itself needs.
        names_python: whether the Python environment is among its paths.
    """
    return compile_rules(policy, () if names_python else python_paths(), sys.path, _own_classes())


def _own_classes() -> frozenset[tuple[str, str]]:
    """Module and name of every class that is defined by now outside the Python environment: the author's."""
    python = tuple(f"{path}/" for path in python_paths())
    found: set[tuple[str, str]] = set()
    for name, module in tuple(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not os.path.realpath(file).startswith(python):
            classes = {key: value for key, value in vars(module).items() if isinstance(value, type)}
            found |= {(name, key) for key, value in classes.items() if value.__module__ == name}
    return frozenset(found)


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
