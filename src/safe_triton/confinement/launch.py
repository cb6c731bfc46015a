"""What the launcher is told beforehand: plain data, compiled by the server command, so that nothing can fail late."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from safe_triton.confinement.enforcement import refused
from safe_triton.errors import PolicyError
from safe_triton.policy.sandbox import RESOURCE_DEFAULTS, ResourceLimits, SandboxPolicy
from safe_triton.unsafe import AllowNetwork, AllowProcesses, Unlimited

REFUSAL_VARIABLE = "SAFE_TRITON_REFUSAL"
"""Environment variable that carries the reason to the model that refuses; see :attr:`LaunchTable.refusal`."""

GRANT_VARIABLE = "SAFE_TRITON_GRANT"
"""Environment variable that tells the model's process what it was granted; see :func:`granted_to_json`."""

BEAT_VARIABLE = "SAFE_TRITON_BEAT"
"""Environment variable with the path of the process's heartbeat file; see :mod:`safe_triton.server.in_stub`."""

BEAT_BYTES = 4096
"""Size of a heartbeat file, which never changes."""

INSTANCE_VARIABLE = "SAFE_TRITON_INSTANCE"
"""Environment variable with Triton's name of the instance; the model's bare name while it completes configurations."""

RECORD_VARIABLE = "SAFE_TRITON_RECORD"
"""Set to 1 in a recorded process: its model is neither sealed nor guarded, since a refused call would not be seen."""

LEAST_ARGUMENTS = 9
"""Program, entry file, region, two sizes, server's pid, backend folder, handle, instance name; releases add more."""

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the kernel's, where Triton makes its regions


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What one model process is started with.

    Args:
        policy: its confinement.
        command: the real stub and its arguments.
        environment: its whole environment.
        instance: Triton's name of the instance, for the log.
        refusal: why the model is not started; empty when it is.
        beat: heartbeat file that the launcher makes; empty: none.
    """

    policy: SandboxPolicy
    command: tuple[str, ...]
    environment: Mapping[str, str]
    instance: str
    refusal: str = ""
    beat: str = ""


@dataclass(frozen=True, kw_only=True)
class LaunchTable:
    """Everything the launcher may start, and how.

    Args:
        stub: the real stub.
        refusal: entry file of a model that fails to load with the text in :data:`REFUSAL_VARIABLE`: a launcher that
            just ended would leave the server waiting for ever on releases to 25.07.
        region_prefix: how the names of this server's shared-memory regions begin.
        environment: environment of every model process.
        read: what every model process reads: the backend's folder, the Python environment, libraries.
        models: the confinement by the exact path of the entry file that Triton passes.
        variables: further environment by the same path.
        folders: the model's folder in its repository by the same path, where Triton knows a repository view instead.
        beats: folder of the heartbeat files; empty: none.
        record: socket of a listener to whom every model process is reported instead of being confined; empty: confine.
    """

    stub: str
    refusal: str
    region_prefix: str
    environment: Mapping[str, str]
    read: tuple[str, ...]
    models: Mapping[str, SandboxPolicy]
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    beats: str = ""
    record: str = ""

    def decide(self, arguments: Sequence[str], pid: int = 0) -> Launch:
        """Decide what Triton's call starts; pure.

        Args:
            arguments: Triton's arguments of the stub, the program's own name first.
            pid: of the calling process, which its heartbeat file is named after.

        Raises:
            ConfinementError: reason ``confinement.launch``; this is no call of Triton's.
        """
        if len(arguments) < LEAST_ARGUMENTS:
            raise refused("confinement.launch", f"{len(arguments)} arguments, expected at least {LEAST_ARGUMENTS}")
        entry, region, instance = arguments[1], arguments[2], arguments[8]
        if "/" in region or not region.startswith(self.region_prefix):
            raise refused("confinement.launch", "the shared-memory region is not one of this server's")
        own = os.path.dirname(os.path.dirname(entry))
        version, model = os.path.basename(os.path.dirname(entry)), os.path.basename(own)
        beat = f"{self.beats}/{pid}|{model}|{version}|{instance}" if self.beats and entry in self.models else ""
        needs = SandboxPolicy(
            read=(*self.read, self.refusal), write=(f"{SHARED_MEMORY}/{region}", *((beat,) if beat else ()))
        )
        policy = self.models.get(entry)
        if policy is None:
            reason = f"confinement.unlisted: {instance} is not in the policy that this server was started with"
            return Launch(
                policy=needs,
                command=(self.stub, self.refusal, *arguments[2:]),
                environment={**self.environment, REFUSAL_VARIABLE: reason},
                instance=instance,
                refusal=reason,
            )
        granted = joined(policy, needs)
        folders = SandboxPolicy(read=(own, self.folders.get(entry, own)))
        return Launch(
            policy=granted,
            command=(self.stub, *arguments[1:]),
            environment={
                **self.environment,
                **self.variables.get(entry, {}),
                **({BEAT_VARIABLE: beat} if beat else {}),
                INSTANCE_VARIABLE: instance,
                GRANT_VARIABLE: granted_to_json(granted, joined(needs, folders)),
            },
            instance=instance,
            beat=beat,
        )

    def to_json(self) -> str:
        """Return the table as JSON; :meth:`from_json` reads it."""
        return json.dumps(
            {
                "stub": self.stub,
                "refusal": self.refusal,
                "region_prefix": self.region_prefix,
                "environment": dict(self.environment),
                "read": self.read,
                "models": {entry: policy_to_plain(policy) for entry, policy in self.models.items()},
                "variables": {entry: dict(values) for entry, values in self.variables.items()},
                "folders": dict(self.folders),
                "beats": self.beats,
                "record": self.record,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> LaunchTable:
        """Read what :meth:`to_json` wrote.

        Raises:
            ConfinementError: reason ``confinement.launch``; it is something else.
        """
        try:
            plain = json.loads(text)
            return cls(
                stub=plain["stub"],
                refusal=plain["refusal"],
                region_prefix=plain["region_prefix"],
                environment=plain["environment"],
                read=tuple(plain["read"]),
                models={entry: policy_from_plain(policy) for entry, policy in plain["models"].items()},
                variables=plain["variables"],
                folders=plain["folders"],
                beats=plain["beats"],
                record=plain["record"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise refused("confinement.launch", f"the launch table cannot be read: {type(error).__name__}") from None


def granted_to_json(granted: SandboxPolicy, needs: SandboxPolicy) -> str:
    """Return what a process was granted, and the part of it without which no model runs, for :data:`GRANT_VARIABLE`."""
    return json.dumps({"granted": policy_to_plain(granted), "needs": policy_to_plain(needs)})


def granted_from_json(text: str) -> tuple[SandboxPolicy, SandboxPolicy]:
    """Read what :func:`granted_to_json` returned: granted, needs.

    Raises:
        ConfinementError: reason ``confinement.grant``; it is something else.
    """
    try:
        plain = json.loads(text)
        return policy_from_plain(plain["granted"]), policy_from_plain(plain["needs"])
    except (ValueError, KeyError, TypeError, AttributeError, PolicyError) as error:
        raise refused("confinement.grant", f"{GRANT_VARIABLE} cannot be read: {type(error).__name__}") from None


def policy_to_plain(policy: SandboxPolicy) -> dict[str, Any]:
    """Return a policy as JSON values; danger tokens keep their reason."""
    network, processes = policy.network, policy.processes
    resources = {row.name: getattr(policy.resources, row.name) for row in RESOURCE_DEFAULTS}
    return {
        "read": policy.read,
        "write": policy.write,
        "network": {"reason": network.reason, "to": network.to} if network else False,
        "processes": {"reason": processes.reason} if processes else False,
        "executable_memory": policy.executable_memory,
        "gpu_ids": policy.gpu_ids,
        "scratch_bytes": _limit_to_plain(policy.scratch_bytes),
        "resources": {name: _limit_to_plain(value) for name, value in resources.items()},
        "gpu_memory_percent": policy.resources.gpu_memory_percent,
        "enforcement": policy.enforcement,
    }


def policy_from_plain(plain: Mapping[str, Any]) -> SandboxPolicy:
    """Read what :func:`policy_to_plain` returned."""
    network, processes = plain["network"], plain["processes"]
    resources = {name: _limit_from_plain(value) for name, value in plain["resources"].items()}
    return SandboxPolicy(
        read=plain["read"],
        write=plain["write"],
        network=AllowNetwork(reason=network["reason"], to=network["to"]) if network else False,
        processes=AllowProcesses(reason=processes["reason"]) if processes else False,
        executable_memory=plain["executable_memory"],
        gpu_ids=plain["gpu_ids"],
        scratch_bytes=_limit_from_plain(plain["scratch_bytes"]),
        resources=ResourceLimits(**resources, gpu_memory_percent=plain["gpu_memory_percent"]),
        enforcement=plain["enforcement"],
    )


def _limit_to_plain(limit: int | Unlimited) -> int | dict[str, str]:
    return {"unlimited": limit.reason} if isinstance(limit, Unlimited) else limit


def _limit_from_plain(plain: Any) -> Any:
    return Unlimited(reason=plain["unlimited"]) if isinstance(plain, dict) else plain


def joined(policy: SandboxPolicy, needs: SandboxPolicy) -> SandboxPolicy:
    """Return a model's policy with what its process cannot live without."""
    return replace(policy, read=(*policy.read, *needs.read), write=(*policy.write, *needs.write))
