"""The GPUs that tritonserver sees, with its own numbers, and which of them a model's configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safe_triton.confinement.devices import VISIBLE_VARIABLE, Gpu

ROOT = Path("/")
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Environment that makes Triton count devices as :func:`visible_gpus` does; CUDA's default puts the fastest first."""


def visible_gpus(environment: Mapping[str, str], *, root: Path = ROOT) -> tuple[Gpu, ...]:
    """Return the devices that a server with this environment sees, by its numbers.

    Args:
        environment: the server's; ``CUDA_VISIBLE_DEVICES`` in it chooses and orders.
        root: of the file system.

    Does not cover:
        Parts of a GPU (MIG), which have other device files.
    """
    found: list[tuple[str, int, str]] = []
    for folder in (root / "proc/driver/nvidia/gpus").glob("*"):
        lines = dict(line.split(":", 1) for line in _lines(folder / "information") if ":" in line)
        minor, uuid = lines.get("Device Minor", "").strip(), lines.get("GPU UUID", "").strip()
        if minor.isdecimal() and (root / f"dev/nvidia{minor}").exists():
            found.append((folder.name, int(minor), uuid))
    ordered = [(minor, uuid) for _, minor, uuid in sorted(found)]
    chosen = environment.get(VISIBLE_VARIABLE)
    if chosen is not None:
        ordered = _chosen(chosen, ordered)
    return tuple(Gpu(number, minor, uuid) for number, (minor, uuid) in enumerate(ordered))


def named_gpus(config: Mapping[str, Any], visible: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """Return the devices on which Triton puts a model's instances; pure.

    Args:
        config: of the model; without instance groups Triton uses every GPU, where there is one.
        visible: the server's devices.

    Source:
        Triton core, ``model_config_utils.cc``: ``KIND_AUTO`` becomes ``KIND_GPU`` where GPUs can be used, and a group
        of that kind without numbers is put on each of them.
    """
    numbers: set[int] = set()
    groups: Any = config.get("instance_group") or ({"kind": "KIND_AUTO"},)
    for group in groups:
        if group.get("kind", "KIND_AUTO") in {"KIND_AUTO", "KIND_GPU"}:
            numbers.update(group.get("gpus") or [gpu.number for gpu in visible])
    return tuple(gpu for gpu in visible if gpu.number in numbers)


def is_on_cpus(config: Mapping[str, Any]) -> bool:
    """Whether every instance is put on a CPU, whatever the machine has; pure."""
    groups: Any = config.get("instance_group") or ()
    return bool(groups) and all(group.get("kind") == "KIND_CPU" for group in groups)


def _chosen(text: str, ordered: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """What ``CUDA_VISIBLE_DEVICES`` leaves: positions or beginnings of identities; the first wrong word ends it."""
    left: list[tuple[int, str]] = []
    for word in (part.strip() for part in text.split(",")):
        if word.isdecimal():
            matching = ordered[int(word) : int(word) + 1]
        else:
            matching = [device for device in ordered if word.startswith("GPU-") and device[1].startswith(word)]
        if len(matching) != 1 or matching[0] in left:
            break
        left += matching
    return left


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
