"""What one model is granted: the operator's policy with this server's places and the model's own devices filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_triton.confinement.devices import GPU_VARIABLE, VISIBLE_VARIABLE, Gpu, gpus_to_text
from safe_triton.confinement.scratch import scratch_variables
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server.gpus import is_on_cpus, named_gpus

if TYPE_CHECKING:
    from safe_triton.server.scratch import ScratchFolders


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the grants of all models of one server have in common.

    Args:
        python: prefix of the models' Python environment.
        scratch: makes the scratch folders.
        gpus: the devices that the server sees.
    """

    python: Path
    scratch: ScratchFolders
    gpus: tuple[Gpu, ...] = ()


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
        PolicyError: ``{scratch}`` is read and not written, and so does not exist.
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
    minors = granted_minors(policy, config, host.gpus)
    gpus = [gpu for gpu in host.gpus if gpu.minor in minors]
    if gpus or not minors:
        # By identity: what the kernel refuses is not counted by CUDA, so that numbers would mean other devices.
        variables[VISIBLE_VARIABLE] = ",".join(gpu.uuid for gpu in gpus)
        variables[GPU_VARIABLE] = gpus_to_text(gpus)
    return replace(policy.resolve(places), gpu_ids=minors), variables


def granted_minors(policy: SandboxPolicy, config: Mapping[str, Any], visible: tuple[Gpu, ...]) -> tuple[int, ...]:
    """Return the device files that a model's processes may open; pure.

    None for a model whose instances are all on CPUs. Otherwise those on which Triton puts its instances, and those that
    the operator's policy names.
    """
    if is_on_cpus(config):
        return ()
    return tuple(sorted({*policy.gpu_ids, *(gpu.minor for gpu in named_gpus(config, visible))}))
