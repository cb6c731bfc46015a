"""What every form of deployment is written from: the policy, the models, and what follows from both."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from safe_triton.deploy.sizes import shared_memory_bytes
from safe_triton.errors import DeployError
from safe_triton.policy.gpus import compile_gpu_use, gpu_groups, wanted_gpus

if TYPE_CHECKING:
    from safe_triton.policyfile import DeployPolicy, ModelPolicy, OperatorPolicy

HTTPS_PORT = 443
MOST_SHARED_PERCENT = 50
"""Of the memory limit, what /dev/shm may have: what the models compute with is counted in the same limit."""

LEAVING_S = 5
"""From the end of a pod until no balancer sends it anything."""

AROUND_ENVOY_BYTES = 512 << 20
"""Its supervisor, its start, and what it takes beyond its own count."""

_PORT_FLAG = re.compile(r"--(http|grpc|metrics)-p")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REFERENCE = re.compile(r"[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9_][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?")
_SLICE = "/mig-"
"""In the name of a resource that is a part of a GPU."""

_FLOATING = frozenset({"", "latest", "main", "master", "stable", "dev", "nightly", "edge"})


@dataclass(frozen=True, kw_only=True)
class DeployedModel:
    """One model of the repository.

    Args:
        name: the model's.
        config: the fields of its ``config.pbtxt``.
        policy: what holds for it.
        is_python: whether its instances are processes of their own, with shared memory.
    """

    name: str
    config: Mapping[str, Any]
    policy: ModelPolicy
    is_python: bool = True


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What is deployed.

    Args:
        policy: the operator's.
        models: of the repository.
        image: pinned reference; ``Deployment`` rejects any other, an empty one only where none is needed.
        policy_text: of the policy's file, as it is passed on.
        policy_values: the same, read.

    Raises:
        DeployError: ``deploy.ports``, ``deploy.reach``, ``deploy.gpus``, ``deploy.image``; what the policy says cannot
            hold in a deployment.
    """

    policy: OperatorPolicy
    models: tuple[DeployedModel, ...]
    image: str = ""
    policy_text: str = ""
    policy_values: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image:
            check_image(self.image)
        for place, number in self.ports.items():
            if not number:
                raise DeployError(f"{place} = 0 is any port: a deployment needs a fixed one", reason="deploy.ports")
        for word in self.policy.server.flags:
            if _PORT_FLAG.match(word):
                raise DeployError(f"server.flags: {word}: write the port into [server]", reason="deploy.ports")
        if len(set(self.ports.values())) != len(self.ports):
            places = ", ".join(f"{place} = {number}" for place, number in self.ports.items())
            raise DeployError(f"two listeners share a port: {places}", reason="deploy.ports")
        if self.policy.gateway is not None and self.policy.server.public_address:
            raise DeployError(
                f"server.address = {self.policy.server.address!r} would let clients pass the gateway by: leave it out",
                reason="deploy.reach",
            )
        self._check_gpus()

    @property
    def settings(self) -> DeployPolicy:
        """The policy's ``[deploy]``."""
        return self.policy.deploy

    @property
    def ports(self) -> dict[str, int]:
        """Every port that is listened on, by its place in the policy."""
        server, gateway = self.policy.server, self.policy.gateway
        found = {
            f"server.{name}": getattr(server, name)
            for name in ("http_port", "grpc_port", "metrics_port", "health_port")
        }
        if gateway is not None:
            found |= {"gateway.port": gateway.port, "gateway.metrics_port": gateway.metrics_port}
        return found

    @property
    def gateway_memory_bytes(self) -> int:
        """Memory limit of the gateway: where Envoy sheds load, and what stands around it."""
        return 0 if self.policy.gateway is None else self.policy.gateway.max_memory_bytes + AROUND_ENVOY_BYTES

    @property
    def health_page(self) -> str:
        """The supervisor's page that decides whether requests are sent."""
        return "readyz" if self.settings.readiness == "models" else "serverz"

    @property
    def drain_s(self) -> int:
        """Seconds that the gateway gives requests in progress; Triton stays for as long."""
        return 0 if self.policy.gateway is None else max(1, round(self.policy.gateway.drain_s))

    @property
    def stop_s(self) -> int:
        """Seconds from the wish to stop until nothing is left."""
        return LEAVING_S + self.drain_s + round(self.policy.server.stop_timeout_s) + 10

    @property
    def gpu_count(self) -> int:
        """How many GPUs, or slices of one, the server sees."""
        count, _ = self._gpus
        return count

    @property
    def gpu_devices(self) -> tuple[str, ...]:
        """Devices of one host, in the order in which Triton counts them."""
        count, identities = self._gpus
        named = self.settings.gpu_devices or identities or tuple(str(number) for number in range(count))
        return tuple(named[:count])

    @property
    def shared_bytes(self) -> int:
        """Size of ``/dev/shm``."""
        size = self.settings.shared_memory_bytes
        return min(self._wanted_bytes, self._most_shared_bytes) if isinstance(size, str) else size

    @property
    def egress_ports(self) -> tuple[int, ...] | None:
        """TCP ports that models, or the gateway for its issuers' keys, connect to; None for every port."""
        ports: set[int] = set()
        for model in self.models:
            network = model.policy.sandbox.network
            if not network:
                continue
            if network.to == "any":
                return None
            ports.update(network.to)
        return tuple(sorted(ports | set(self.issuer_ports)))

    @property
    def has_network(self) -> bool:
        """Whether a model may connect to anything."""
        return any(model.policy.sandbox.network for model in self.models)

    @property
    def issuer_ports(self) -> tuple[int, ...]:
        """Ports from which the gateway fetches keys of tokens."""
        issuers = self.policy.gateway.jwt.values() if self.policy.gateway is not None else ()
        return tuple(sorted({urlsplit(row.jwks_url).port or HTTPS_PORT for row in issuers if row.jwks_url}))

    @property
    def named_paths(self) -> tuple[str, ...]:
        """Absolute paths that models are granted, or that a start reads: they are not the gateway's."""
        found = {path for model in self.models for path in (*model.policy.sandbox.read, *model.policy.sandbox.write)}
        signature = self.policy.audit.signature
        if signature is not None:
            found |= {signature.public_key, *signature.trust}
        return tuple(sorted(path for path in found if path.startswith("/")))

    @property
    def notes(self) -> tuple[str, ...]:
        """What holds wherever it runs, and could surprise; one line each."""
        found = []
        for model in self.models:
            network = model.policy.sandbox.network
            if network:
                ports = "every port" if network.to == "any" else f"ports {', '.join(map(str, network.to))}"
                found.append(f"{model.name} connects to {ports}: {network.reason}")
        if self.policy.gateway is None:
            found.append("no [gateway]: nothing here encrypts, or asks a caller who it is")
        return tuple(found)

    @property
    def container_notes(self) -> tuple[str, ...]:
        """The same, with what holds in containers."""
        found = list(self.notes)
        if isinstance(self.settings.shared_memory_bytes, str) and self._wanted_bytes > self._most_shared_bytes:
            found.append(
                f"tensors of all models at once may take {self._wanted_bytes} bytes of /dev/shm; half of "
                f"deploy.memory_bytes is given, {self._most_shared_bytes}: raise it, or lower max_request_bytes"
            )
        if self.named_paths:
            listed = ", ".join(self.named_paths)
            found.append(f"the policy names {listed}: these must be in the image, or mounted there")
        gateway = self.policy.gateway
        if gateway is not None and gateway.upstreams:
            found.append("gateway.upstreams is not taken over: this gateway has the Triton beside it")
        if gateway is not None and any("admin" in role.verbs for role in gateway.roles.values()):
            found.append("the verb admin reaches nothing here: Triton's secret is made anew at each start, beside it")
        return tuple(found)

    def check_reach(self) -> None:
        """Reject a deployment that nobody could call, or anybody by mistake.

        Raises:
            DeployError: ``deploy.reach``.
        """
        if self.policy.gateway is None and not self.policy.server.public_address:
            raise DeployError(
                "nothing could be reached: write a [gateway], or where something else encrypts and asks who calls: "
                '[server] address = "0.0.0.0", public_address = { reason = "…" }',
                reason="deploy.reach",
            )

    def check_has_image(self) -> None:
        """Reject a deployment without an image.

        Raises:
            DeployError: ``deploy.image``.
        """
        if not self.image:
            raise DeployError(
                "no image: give --image NAME:TAG@sha256:DIGEST, or write deploy.image in the policy",
                reason="deploy.image",
            )

    @property
    def _gpus(self) -> tuple[int, tuple[str, ...]]:
        uses = [compile_gpu_use(gpu_groups(model.config), model.policy.sandbox) for model in self.models]
        return wanted_gpus(uses)

    @property
    def _wanted_bytes(self) -> int:
        return shared_memory_bytes((model.config, model.policy) for model in self.models if model.is_python)

    @property
    def _most_shared_bytes(self) -> int:
        return self.settings.memory_bytes * MOST_SHARED_PERCENT // 100

    def check_cluster_gpus(self) -> None:
        """Reject GPUs that a cluster, which chooses a pod's devices itself, could not give every pod.

        Raises:
            DeployError: ``deploy.gpus``.
        """
        count, identities = self._gpus
        resource = self.settings.gpu_resource
        if identities:
            raise DeployError(
                f"the policy grants {identities[0]}, and a cluster chooses itself what a pod gets: write its number "
                'there, gpu_ids = [0]; for a slice also deploy.gpu_resource = "nvidia.com/mig-1g.10gb" or the like',
                reason="deploy.gpus",
            )
        if count > 1 and _SLICE in resource:
            raise DeployError(
                f"the models need {count} of {resource}, and CUDA shows a process one slice: GPU 0",
                reason="deploy.gpus",
            )

    def _check_gpus(self) -> None:
        count, identities = self._gpus
        named = self.settings.gpu_devices
        if identities and not named and len(identities) < count:
            raise DeployError(
                f"the policy names {identities[0]}, and GPUs by number beside it: which is which stands in "
                "deploy.gpu_devices, in Triton's order",
                reason="deploy.gpus",
            )
        if named and len(named) < count:
            raise DeployError(
                f"deploy.gpu_devices names {len(named)} devices, and the models need {count}",
                reason="deploy.gpus",
            )


def check_image(reference: str) -> None:
    """Reject an image that may be another one at the next start.

    Raises:
        DeployError: ``deploy.image``.
    """
    rest, _, digest = reference.partition("@")
    tag = rest.rpartition(":")[2] if ":" in rest.rpartition("/")[2] else ""
    if not _REFERENCE.fullmatch(reference) or (digest and not _DIGEST.fullmatch(digest)):
        raise DeployError(f"{reference!r} is no image reference: NAME:TAG@sha256:DIGEST", reason="deploy.image")
    if not digest and tag.lower() in _FLOATING:
        raise DeployError(
            f"{reference} is whatever is newest at the next start: name a release, and its digest: "
            "NAME:TAG@sha256:DIGEST",
            reason="deploy.image",
        )
