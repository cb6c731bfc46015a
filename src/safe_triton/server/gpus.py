"""The GPUs and MIG slices of this machine, and which of them tritonserver sees, with its own numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from safe_triton.confinement.devices import CAPABILITIES, CAPABILITY, VISIBLE_VARIABLE, Gpu, resolved_gpus
from safe_triton.server.nvml import Details, read_details

ROOT = Path("/")
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Environment that makes Triton count devices as :func:`visible_gpus` does; CUDA's default puts the fastest first."""

NOT_NUMBERED = -1


def machine_gpus(*, root: Path = ROOT) -> tuple[Gpu, ...]:
    """Return every GPU and every slice whose device files are here, in the order of the bus, without numbers.

    Args:
        root: of the file system.

    Does not cover:
        The identity of a slice and the memory of a GPU where NVIDIA's management library (package ``nvidia-ml-py``) is
        missing: a slice then has the name that drivers before release 470 gave it, ``MIG-GPU-…/1/0``.

    Source:
        NVIDIA's MIG user guide, "Device Nodes and Capabilities": a process uses a slice when it can open the files of
        its GPU instance and of its compute instance, whose numbers stand in ``/proc/driver/nvidia/capabilities``.
    """
    found: list[tuple[str, int, str]] = []
    for folder in (root / "proc/driver/nvidia/gpus").glob("*"):
        lines = _fields(folder / "information")
        minor = lines.get("Device Minor", "")
        if minor.isdecimal() and (root / f"dev/nvidia{minor}").exists():
            found.append((folder.name, int(minor), lines.get("GPU UUID", "")))
    details = read_details() if found and root == ROOT else {}
    gpus: list[Gpu] = []
    for _, number, uuid in sorted(found):
        _, memory_bytes = details.get((number,), ("", 0))
        gpus.append(Gpu(NOT_NUMBERED, number, uuid, memory_bytes=memory_bytes))
        gpus += _slices(number, uuid, details, root)
    return tuple(gpus)


def visible_gpus(environment: Mapping[str, str], *, root: Path = ROOT) -> tuple[Gpu, ...]:
    """Return the devices that a server with this environment sees, by its numbers.

    Args:
        environment: the server's; ``CUDA_VISIBLE_DEVICES`` in it chooses and orders.
        root: of the file system.

    Does not cover:
        Which slice CUDA shows where there are several and the environment names none: taken to be the first of the bus.

    Source:
        NVIDIA's MIG user guide, "CUDA Device Enumeration": a process sees one slice, and no whole GPU beside it.
    """
    every = machine_gpus(root=root)
    slices = [gpu for gpu in every if gpu.capabilities]
    ordered = slices[:1] or list(every)
    chosen = environment.get(VISIBLE_VARIABLE)
    if chosen is not None:
        named = [gpu for gpu in slices if gpu.uuid == chosen.split(",", 1)[0].strip()]
        ordered = named or _chosen(chosen, ordered)
    return tuple(replace(gpu, number=number) for number, gpu in enumerate(ordered))


def device_files(gpu_ids: Iterable[int | str], *, root: Path = ROOT) -> tuple[int | str, ...]:
    """Return ``gpu_ids`` as device files, where no server counts: a number is that of the file.

    Raises:
        PolicyError: reason ``policy.gpu``; no GPU or slice here has that identity.
    """
    words = tuple(gpu_ids)
    return resolved_gpus(words, machine_gpus(root=root) if any(isinstance(word, str) for word in words) else ())


def _slices(minor: int, uuid: str, details: Details, root: Path) -> Iterator[Gpu]:
    """The slices of one GPU whose capability files are here."""
    capabilities = root / f"proc/driver/nvidia/capabilities/gpu{minor}/mig"
    places = [
        (int(compute.parent.name[2:]), int(compute.name[2:]), compute)
        for compute in capabilities.glob("gi*/ci*")
        if compute.parent.name[2:].isdecimal() and compute.name[2:].isdecimal()
    ]
    for gpu_instance, compute_instance, compute in sorted(places):
        numbers = [_fields(folder / "access").get("DeviceFileMinor", "") for folder in (compute.parent, compute)]
        if all((root / f"{CAPABILITIES[1:]}/{CAPABILITY}{number}").exists() for number in numbers if number) and all(
            number.isdecimal() for number in numbers
        ):
            older = f"MIG-{uuid}/{gpu_instance}/{compute_instance}"
            identity, memory_bytes = details.get((minor, gpu_instance, compute_instance), (older, 0))
            yield Gpu(NOT_NUMBERED, minor, identity, tuple(int(number) for number in numbers), memory_bytes)


def _chosen(text: str, ordered: list[Gpu]) -> list[Gpu]:
    """What ``CUDA_VISIBLE_DEVICES`` leaves: positions or beginnings of identities; the first wrong word ends it."""
    left: list[Gpu] = []
    for word in (part.strip() for part in text.split(",")):
        if word.isdecimal():
            matching = ordered[int(word) : int(word) + 1]
        else:
            matching = [gpu for gpu in ordered if word.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(word)]
        if len(matching) != 1 or matching[0] in left:
            break
        left += matching
    return left


def _fields(path: Path) -> dict[str, str]:
    """The lines ``Name: value`` of one of the driver's files; none where it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}
