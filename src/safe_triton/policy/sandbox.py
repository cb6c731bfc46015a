"""``SandboxPolicy`` and ``ResourceLimits``: what a model's process may touch, enforced by the kernel."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from safe_triton._declared import Declaration, combining, wrong
from safe_triton.policy import _checks as rules
from safe_triton.policy.defaults import MIB, DefaultLimit
from safe_triton.unsafe import AllowNetwork, AllowProcesses, Token, Unlimited

GIB = 1 << 30
ENFORCEMENTS = ("required", "best-effort")
PLACEHOLDERS = ("model", "version", "repository", "python", "scratch")
"""Names that a path may start with, as ``{model}/labels.txt``; :meth:`SandboxPolicy.resolve` fills them in."""
SCRATCH = "{scratch}"

WHOLE_PERCENT = 100
"""Of one GPU's memory, what all processes on it can have together."""

RESOURCE_DEFAULTS: tuple[DefaultLimit, ...] = (
    DefaultLimit(
        "memory_bytes",
        16 * GIB,
        "bytes of address space; of private data with GPUs, since CUDA reserves huge address ranges",
        1 * MIB,
        "counts what is reserved: thread stacks and arenas of a large machine fit, a memory bomb does not",
    ),
    DefaultLimit("open_files", 1024, "descriptors", 8, "select() ends there; weights in shards fit"),
    DefaultLimit(
        "file_bytes",
        2 * GIB,
        "bytes per file",
        1,
        "also bounds the growth of the shared-memory region: inputs and outputs of one execution in it, doubled twice",
    ),
    DefaultLimit("stack_bytes", 8 * MIB, "bytes of stack of each thread", 256 << 10, "the usual default of Linux"),
    DefaultLimit(
        "user_threads",
        8192,
        "threads of the whole user",
        1,
        "the kernel counts a user's threads on all of the machine, so one model cannot have a small number",
    ),
    DefaultLimit(
        "gpu_memory_bytes",
        16 * GIB,
        "bytes of each GPU",
        16 * MIB,
        "as memory_bytes: one model does not take a whole large device; PyTorch, CuPy and JAX keep to it",
    ),
)

GPU_PERCENT_DEFAULT = DefaultLimit(
    "gpu_memory_percent",
    100,
    "percent of each GPU's memory",
    1,
    "one process may have it all; where several share a GPU, what they have together is at most 100",
)

SCRATCH_DEFAULT = DefaultLimit(
    "scratch_bytes",
    256 * MIB,
    "bytes of the scratch folder, all of a model's instances together",
    64 << 10,
    "temporary files fit; where the folder is a file system of its own, it is memory",
)

_RESOURCES = {row.name: row for row in RESOURCE_DEFAULTS}

_GPU_WORD = re.compile(r"GPU-[\w-]+|MIG-[\w/-]+|nvidia-cap\d+")
"""A GPU's identity, a slice's, and the device file of a capability below ``/dev/nvidia-caps``."""


@dataclass(frozen=True, kw_only=True)
class ResourceLimits(Declaration):
    """Limits on resources of one process; the kernel counts all but the GPU's.

    Args:
        memory_bytes: address space (private data for a process with GPUs).
        open_files: descriptors at a time.
        file_bytes: size that any file may be written to.
        stack_bytes: stack of each thread.
        user_threads: threads that the user may have on the machine when this process makes one more.
        gpu_memory_bytes: memory of each GPU that PyTorch, CuPy, JAX and TensorFlow allocate; no kernel counts it.
        gpu_memory_percent: the same as a share of the GPU, or of the MIG slice; the smaller of both holds.

    Raises:
        PolicyError: not a whole number, below the least useful value, above 100 percent, or ``None``.

    Does not cover:
        CPU time: deadlines bound it per request, the kernel's own limit counts a process's whole life. The number of
        files and so the space of a writable folder: write to ``{scratch}``, which has a size. ``user_threads`` for
        root, whom the kernel exempts. GPU memory that other libraries, or native code, allocate.
    """

    memory_bytes: int | Unlimited = _RESOURCES["memory_bytes"].value  # type: ignore[assignment]
    open_files: int | Unlimited = _RESOURCES["open_files"].value  # type: ignore[assignment]
    file_bytes: int | Unlimited = _RESOURCES["file_bytes"].value  # type: ignore[assignment]
    stack_bytes: int | Unlimited = _RESOURCES["stack_bytes"].value  # type: ignore[assignment]
    user_threads: int | Unlimited = _RESOURCES["user_threads"].value  # type: ignore[assignment]
    gpu_memory_bytes: int | Unlimited = _RESOURCES["gpu_memory_bytes"].value  # type: ignore[assignment]
    gpu_memory_percent: int = GPU_PERCENT_DEFAULT.value  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for row in RESOURCE_DEFAULTS:
            rules.check_limit(f"ResourceLimits.{row.name}", getattr(self, row.name), row.minimum)
        rules.check_whole("ResourceLimits.gpu_memory_percent", self.gpu_memory_percent, GPU_PERCENT_DEFAULT.minimum)
        if self.gpu_memory_percent > WHOLE_PERCENT:
            raise wrong("policy.range", f"ResourceLimits.gpu_memory_percent must be at most {WHOLE_PERCENT}")

    @combining
    def tighten(self, other: ResourceLimits) -> ResourceLimits:
        """Return the smaller of each limit; a number is smaller than :class:`unsafe.Unlimited`."""
        return ResourceLimits(
            **{row.name: _smaller(getattr(self, row.name), getattr(other, row.name)) for row in RESOURCE_DEFAULTS},
            gpu_memory_percent=min(self.gpu_memory_percent, other.gpu_memory_percent),
        )


@dataclass(frozen=True, kw_only=True)
class SandboxPolicy(Declaration):
    """What a process may touch beyond what every Python process needs; nothing is granted by absence.

    Args:
        read: absolute paths of files and folders to read; a path may start with one of :data:`PLACEHOLDERS`.
        write: absolute paths to read, write, create and remove in.
        network: ``False``, or :class:`unsafe.AllowNetwork`.
        processes: ``False``, or :class:`unsafe.AllowProcesses`.
        executable_memory: whether libraries may still be loaded and code generated. The seal turns it off where a model
            declares so; a Python process that imports compiled modules needs it.
        gpu_ids: the only GPUs that may be used: Triton's numbers, as in an instance group's ``gpus``, or identities,
            ``GPU-…`` and ``MIG-…`` for a slice. Where it is left out, a model has the GPUs of its instance groups.
            Without a server a number is that of the device file, 1 for ``/dev/nvidia1``, and a slice is named by the
            files of its capabilities, ``nvidia-cap12``, beside its GPU.
        scratch_bytes: size of the folder that ``{scratch}`` stands for, which exists where ``write`` names it.
        resources: limits that the kernel counts.
        enforcement: ``"required"`` raises when a part cannot be enforced; ``"best-effort"`` reports it and goes on.

    Raises:
        PolicyError: a relative path, ``..`` in a path, an unknown placeholder, ``True`` where a token is needed.

    Does not cover:
        Names, sizes and times of files elsewhere: no mechanism that is used here hides them from ``stat``.
    """

    read: Sequence[str] = ()
    write: Sequence[str] = ()
    network: AllowNetwork | Literal[False] = False
    processes: AllowProcesses | Literal[False] = False
    executable_memory: bool = True
    gpu_ids: Sequence[int | str] = ()
    scratch_bytes: int | Unlimited = SCRATCH_DEFAULT.value  # type: ignore[assignment]
    resources: ResourceLimits = field(default_factory=ResourceLimits)
    enforcement: Literal["required", "best-effort"] = "required"

    def __post_init__(self) -> None:
        for name in ("read", "write"):
            object.__setattr__(self, name, _checked_paths(f"SandboxPolicy.{name}", getattr(self, name)))
        _check_token("SandboxPolicy.network", self.network, AllowNetwork)
        _check_token("SandboxPolicy.processes", self.processes, AllowProcesses)
        rules.check_flag("SandboxPolicy.executable_memory", self.executable_memory)
        if not isinstance(self.gpu_ids, (tuple, list)):
            raise wrong("policy.type", "SandboxPolicy.gpu_ids must be a tuple")
        for gpu in self.gpu_ids:
            if not isinstance(gpu, str):
                rules.check_whole("SandboxPolicy.gpu_ids", gpu, 0)
            elif not _GPU_WORD.fullmatch(gpu):
                raise wrong("policy.gpu", f"SandboxPolicy.gpu_ids: {gpu!r} is no number, GPU-…, MIG-… or nvidia-cap…")
        object.__setattr__(self, "gpu_ids", tuple(sorted(set(self.gpu_ids), key=lambda gpu: (str(type(gpu)), gpu))))
        rules.check_limit("SandboxPolicy.scratch_bytes", self.scratch_bytes, SCRATCH_DEFAULT.minimum)
        if not isinstance(self.resources, ResourceLimits):
            raise wrong("policy.type", "SandboxPolicy.resources must be ResourceLimits")
        rules.check_sound(self.resources)
        if self.enforcement not in ENFORCEMENTS:
            known = " or ".join(repr(word) for word in ENFORCEMENTS)
            raise wrong("policy.range", f"SandboxPolicy.enforcement must be {known}")

    @combining
    def tighten(self, other: SandboxPolicy) -> SandboxPolicy:
        """Return what both grant: paths that lie in both, tokens that both have, the smaller resources.

        Paths are compared by component and as text: resolve placeholders and links first.
        """
        write = _intersection(self.write, other.write)
        read = _intersection((*self.read, *self.write), (*other.read, *other.write))
        return SandboxPolicy(
            read=tuple(path for path in read if not _is_within(path, write)),
            write=write,
            network=_tighter_network(self.network, other.network),
            processes=self.processes if other.processes else False,
            executable_memory=self.executable_memory and other.executable_memory,
            gpu_ids=tuple(index for index in self.gpu_ids if index in other.gpu_ids),
            scratch_bytes=_smaller(self.scratch_bytes, other.scratch_bytes),
            resources=self.resources.tighten(other.resources),
            enforcement="required" if "required" in (self.enforcement, other.enforcement) else "best-effort",
        )

    def resolve(self, places: Mapping[str, str]) -> SandboxPolicy:
        """Return a copy with placeholders filled in.

        Args:
            places: absolute paths by placeholder name.

        Raises:
            PolicyError: reason ``policy.placeholder``; a path starts with a placeholder that has no place here.
        """
        return dataclasses.replace(
            self,
            read=tuple(_placed(path, places) for path in self.read),
            write=tuple(_placed(path, places) for path in self.write),
        )

    @property
    def has_scratch(self) -> bool:
        """Whether it writes to ``{scratch}``, which is not filled in yet."""
        return any(path.split("/", 1)[0] == SCRATCH for path in self.write)

    def widens(self, granted: SandboxPolicy) -> tuple[str, ...]:
        """Return what this policy asks for beyond ``granted``, one phrase per item; empty when it only narrows."""
        allowed = (*granted.read, *granted.write)
        asked = [f"read {path}" for path in self.read if not _is_within(path, allowed)]
        asked += [f"write {path}" for path in self.write if not _is_within(path, granted.write)]
        if self.network and _tighter_network(self.network, granted.network) != self.network:
            asked.append(f"network to {self.network.to}")
        if self.processes and not granted.processes:
            asked.append("processes")
        return (*asked, *(f"GPU {index}" for index in self.gpu_ids if index not in granted.gpu_ids))

    def tokens(self) -> dict[str, Token]:
        """Return every danger token by the dotted name of its field, for the log and the audit."""
        found = {"network": self.network, "processes": self.processes, "scratch_bytes": self.scratch_bytes}
        found |= {f"resources.{row.name}": getattr(self.resources, row.name) for row in RESOURCE_DEFAULTS}
        return {name: value for name, value in found.items() if isinstance(value, Token)}


def _smaller(mine: int | Unlimited, theirs: int | Unlimited) -> int | Unlimited:
    numbers = [value for value in (mine, theirs) if not isinstance(value, Unlimited)]
    return min(numbers) if numbers else mine


def _check_token(where: str, value: object, kind: type[Token]) -> None:
    """Reject anything but ``False`` and a token of one kind."""
    if value is not False and not isinstance(value, kind):
        raise wrong("policy.type", f"{where} must be False or unsafe.{kind.__name__}(reason=…)")
    rules.check_sound(value)


def _checked_paths(where: str, value: object) -> tuple[str, ...]:
    """Normalised paths, absolute or starting with a placeholder, without ``..``."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise wrong("policy.type", f"{where} must be a list of paths")
    paths = []
    for item in value:
        try:
            path = os.fspath(item)
        except TypeError:
            path = None
        if not isinstance(path, str) or "\0" in path:
            raise wrong("policy.type", f"{where} holds something that is no path")
        start = path.split("/", 1)[0]
        if not path.startswith("/") and not (start.startswith("{") and start.endswith("}")):
            raise wrong("policy.path", f"{where} must hold absolute paths, not {path!r}")
        if start and start[1:-1] not in PLACEHOLDERS:
            known = ", ".join("{" + name + "}" for name in PLACEHOLDERS)
            raise wrong("policy.placeholder", f"{where}: unknown placeholder {start}; known: {known}")
        if ".." in path.split("/"):
            raise wrong("policy.path", f"{where} must not hold '..': {path!r}")
        paths.append(os.path.normpath(path).replace("//", "/"))
    return tuple(dict.fromkeys(paths))


def _placed(path: str, places: Mapping[str, str]) -> str:
    if path.startswith("/"):
        return path
    name, _, rest = path.partition("/")
    try:
        place = places[name[1:-1]]
    except KeyError:
        raise wrong("policy.placeholder", f"SandboxPolicy: {name} has no place here") from None
    return f"{place}/{rest}" if rest else place


def _is_within(path: str, roots: Iterable[str]) -> bool:
    """Tell whether ``path`` is one of ``roots`` or lies below one, by component."""
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def _intersection(mine: Sequence[str], theirs: Sequence[str]) -> tuple[str, ...]:
    both = [path for path in mine if _is_within(path, theirs)] + [path for path in theirs if _is_within(path, mine)]
    return tuple(dict.fromkeys(both))


def _tighter_network(
    mine: AllowNetwork | Literal[False], theirs: AllowNetwork | Literal[False]
) -> AllowNetwork | Literal[False]:
    if not mine or not theirs:
        return False
    if mine.to == "any" or theirs.to == "any":
        return mine if theirs.to == "any" else AllowNetwork(reason=mine.reason, to=theirs.to)
    ports = tuple(port for port in mine.to if port in theirs.to)
    return AllowNetwork(reason=mine.reason, to=ports) if ports else False
