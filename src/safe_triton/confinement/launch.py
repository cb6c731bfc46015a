"""What the launcher is told beforehand: plain data, compiled by the server command, so that nothing can fail late."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from safe_triton.confinement.enforcement import refused
from safe_triton.errors import PolicyError
from safe_triton.policy.sandbox import RESOURCE_DEFAULTS, ResourceLimits, SandboxPolicy
from safe_triton.unsafe import AllowNetwork, AllowProcesses, Unlimited

REFUSAL_VARIABLE = "SAFE_TRITON_REFUSAL"
"""Environment variable that carries the reason to the model that refuses; see :attr:`LaunchTable.refusal`."""

GRANT_VARIABLE = "SAFE_TRITON_GRANT"
"""Environment variable that tells the model's process what it was granted; see :func:`granted_to_json`."""

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
    """

    policy: SandboxPolicy
    command: tuple[str, ...]
    environment: Mapping[str, str]
    instance: str
    refusal: str = ""


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
    """

    stub: str
    refusal: str
    region_prefix: str
    environment: Mapping[str, str]
    read: tuple[str, ...]
    models: Mapping[str, SandboxPolicy]

    def decide(self, arguments: Sequence[str]) -> Launch:
        """Decide what Triton's call starts; pure.

        Args:
            arguments: Triton's arguments of the stub, the program's own name first.

        Raises:
            ConfinementError: reason ``confinement.launch``; this is no call of Triton's.
        """
        if len(arguments) < LEAST_ARGUMENTS:
            raise refused("confinement.launch", f"{len(arguments)} arguments, expected at least {LEAST_ARGUMENTS}")
        entry, region, instance = arguments[1], arguments[2], arguments[8]
        if "/" in region or not region.startswith(self.region_prefix):
            raise refused("confinement.launch", "the shared-memory region is not one of this server's")
        needs = SandboxPolicy(read=(*self.read, self.refusal), write=(f"{SHARED_MEMORY}/{region}",))
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
        own = SandboxPolicy(read=(os.path.dirname(os.path.dirname(entry)),))
        return Launch(
            policy=granted,
            command=(self.stub, *arguments[1:]),
            environment={**self.environment, GRANT_VARIABLE: granted_to_json(granted, joined(needs, own))},
            instance=instance,
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
        "resources": {
            name: {"unlimited": value.reason} if isinstance(value, Unlimited) else value
            for name, value in resources.items()
        },
        "enforcement": policy.enforcement,
    }


def policy_from_plain(plain: Mapping[str, Any]) -> SandboxPolicy:
    """Read what :func:`policy_to_plain` returned."""
    network, processes = plain["network"], plain["processes"]
    resources = {
        name: Unlimited(reason=value["unlimited"]) if isinstance(value, dict) else value
        for name, value in plain["resources"].items()
    }
    return SandboxPolicy(
        read=plain["read"],
        write=plain["write"],
        network=AllowNetwork(reason=network["reason"], to=network["to"]) if network else False,
        processes=AllowProcesses(reason=processes["reason"]) if processes else False,
        executable_memory=plain["executable_memory"],
        gpu_ids=plain["gpu_ids"],
        resources=ResourceLimits(**resources),
        enforcement=plain["enforcement"],
    )


def joined(policy: SandboxPolicy, needs: SandboxPolicy) -> SandboxPolicy:
    """Return a model's policy with what its process cannot live without."""
    return replace(policy, read=(*policy.read, *needs.read), write=(*policy.write, *needs.write))
