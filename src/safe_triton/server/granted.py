"""What one model is granted: the operator's policy with this server's places and the model's own devices filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_triton._declared import wrong
from safe_triton.confinement.devices import GPU_VARIABLE, VISIBLE_VARIABLE, Gpu, gpus_to_text
from safe_triton.confinement.scratch import scratch_variables
from safe_triton.errors import PolicyError
from safe_triton.policy.gpus import GPU, GpuUse, compile_gpu_use, gpu_groups
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy
from safe_triton.unsafe import Unlimited

if TYPE_CHECKING:
    from safe_triton.server.scratch import ScratchFolders


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the grants of all models of one server have in common.

    Args:
        python: prefix of the models' Python environment.
        scratch: makes the scratch folders.
        gpus: the devices that the server sees.
        others: GPUs and slices of the machine, without numbers.
    """

    python: Path
    scratch: ScratchFolders
    gpus: tuple[Gpu, ...] = ()
    others: tuple[Gpu, ...] = ()


def granted(
    policy: SandboxPolicy, config: Mapping[str, Any], folder: Path, host: Host
) -> tuple[SandboxPolicy, dict[str, str]]:
    """Return one model's policy, only ``{version}`` not yet filled in, and variables of its processes.

    Args:
        policy: the operator's.
        config: the model's configuration, as a dict.
        folder: the model's, in its repository.
        host: this server's.

    Raises:
        OSError: the scratch folder cannot be made.
        PolicyError: ``{scratch}`` is read and not written, and so does not exist; see :func:`granted_gpus`.
    """
    places = {
        "model": str(folder),
        "version": "{version}",
        "repository": str(folder.parent),
        "python": str(host.python),
    }
    variables = {"ORT_DISABLE_TELEMETRY": "1"}  # it would wait for the network when the process ends
    if not policy.processes:
        # Code that looks for a program takes another way where none is found; one that cannot be executed is an error.
        variables["PATH"] = str(host.python / "bin")
    if policy.has_scratch:
        scratch = str(host.scratch.create(folder.name, policy.scratch_bytes))
        places["scratch"] = scratch
        variables |= scratch_variables(scratch)
    use = compile_gpu_use(gpu_groups(config), policy)
    try:
        gpus = granted_gpus(use, host)
    except PolicyError as error:
        raise PolicyError(f"{error.message} (model {folder.name!r})", reason=error.reason) from None
    if host.gpus or not use.granted:
        # By identity: what the kernel refuses is not counted by CUDA, so that numbers would mean other devices.
        variables[VISIBLE_VARIABLE] = ",".join(gpu.uuid for gpu in gpus)
        variables[GPU_VARIABLE] = gpus_to_text(gpus)
        variables |= memory_variables(policy.resources, gpus)
        files = tuple(file for gpu in gpus for file in gpu.files)
    else:  # the driver does not say what there is: the numbers are those of the files
        files = () if use.is_on_cpus else use.granted
    return replace(policy.resolve(places), gpu_ids=files), variables


def granted_gpus(use: GpuUse, host: Host) -> tuple[Gpu, ...]:
    """Return the GPUs that a model's processes may use, in Triton's order; pure.

    None for a model whose instances are all on CPUs. Otherwise those that the policy names, as far as this machine has
    them; without a word of the policy those on which Triton puts its instances.

    Raises:
        PolicyError: reason ``policy.gpu``; an instance group is on a GPU that the policy does not grant, or the policy
            names an identity that is not here.
    """
    if problems := use.conflicts():
        raise wrong("policy.gpu", problems[0])
    if use.is_on_cpus:
        return ()
    placed = set(use.placed(gpu.number for gpu in host.gpus))
    if use.granted is None:
        return tuple(gpu for gpu in host.gpus if gpu.number in placed)
    allowed: list[Gpu] = []
    for word in use.granted:
        # Those that the server sees come first: a slice that it sees has a number there.
        found = next((gpu for gpu in (*host.gpus, *host.others) if word in (gpu.number, gpu.uuid)), None)
        if found is not None:
            allowed.append(found)
        elif isinstance(word, str):
            raise wrong("policy.gpu", f"the policy grants {word}, which is not here")
    numbers = {gpu.number for gpu in allowed}
    if beyond := sorted(number for number in placed if number not in numbers and _is_wanted(use, number)):
        words = ", ".join(str(word) for word in use.granted)
        raise wrong("policy.gpu", f"instances on GPU {beyond[0]}, and the policy grants {words}")
    return tuple(sorted(dict.fromkeys(allowed), key=lambda gpu: (gpu.number < 0, gpu.number)))


def _is_wanted(use: GpuUse, number: int) -> bool:
    """Whether a group of ``KIND_GPU`` is on that device, so that it cannot do without."""
    return any(group.kind == GPU and (not group.gpus or number in group.gpus) for group in use.groups)


def memory_variables(resources: ResourceLimits, gpus: Sequence[Gpu]) -> dict[str, str]:
    """Return the variables that keep libraries to a share of a GPU's memory which take it from nowhere else; pure.

    Args:
        resources: of the model.
        gpus: that it may use.

    Does not cover:
        A limit in bytes where nobody says how much memory the GPU has.
    """
    if not gpus:
        return {}
    share = resources.gpu_memory_percent / 100
    if not isinstance(resources.gpu_memory_bytes, Unlimited):
        totals = [gpu.memory_bytes for gpu in gpus if gpu.memory_bytes]
        share = min([share, *(resources.gpu_memory_bytes / total for total in totals)])
    variables = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # TensorFlow would take all of it before it can be bounded
    if share < 1:
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{share:.4f}"
    return variables
