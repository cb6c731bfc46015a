"""The operator's ``[deploy]`` table: what containers and units are called, run from, and may use."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from safe_triton.policyfile.mirror import Table
from safe_triton.policyfile.tables import Words, setting

MIB, GIB = 1 << 20, 1 << 30

LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
GPU_RESOURCE = r"^nvidia\.com/(gpu|gpu\.shared|mig-[1-7]g\.\d{1,3}gb(\.me|\.all)?)$"
_GPU_DEVICE = re.compile(r"\d{1,2}|(GPU|MIG)-[0-9a-zA-Z/-]{4,80}")


class DeployPolicy(Table):
    """What ``safe-triton render`` writes: names, images, sizes and neighbours of what runs elsewhere."""

    name: str = setting(
        "triton", "DNS label", "names every object, container, user and label", pattern=LABEL, max_length=40
    )
    namespace: str = setting(
        "triton", "DNS label", "one of its own: its rules hold for everything in it", pattern=LABEL, max_length=63
    )
    image: str = setting(
        "",
        "image reference",
        "with safe_triton, the server and the gateway; pinned, or given with --image",
        max_length=512,
    )
    pull_secret: str = setting("", "name of a Secret", "a private registry's login; empty for none", max_length=253)
    user_id: int = setting(
        10001,
        "uid and gid",
        "never root, and no user of a usual image; the kernel counts its threads",
        ge=1000,
        le=65_533,
    )
    replicas: int = setting(2, "pods", "one may be drained or healed while the other serves", ge=1, le=1000)
    max_replicas: int = setting(
        4, "pods", "where a queue stops adding pods; as replicas: no autoscaling", ge=1, le=1000
    )
    queue_target: int = setting(
        8, "requests that wait, per pod", "more than a batch waits: another pod is worth its start", ge=1, le=100_000
    )
    cpus: int = setting(4, "processors", "limit and request: what is promised is what is there", ge=1, le=1024)
    memory_bytes: int = setting(
        16 * GIB, "bytes", "limit and request of server and models, shared memory included", ge=512 * MIB, le=1 << 44
    )
    shared_memory_bytes: int | Literal["models"] = setting(
        "models", "bytes of /dev/shm, or the word", "computed from what the models' tensors may take"
    )
    temporary_bytes: int = setting(
        2 * GIB, "bytes of /tmp", "the server's log, its private folder and the models' scratch folders", ge=64 * MIB
    )
    processes: int = setting(
        4096,
        "processes and threads",
        "a few hundred are usual with many models; a fork bomb ends here",
        ge=256,
        le=4_194_304,
    )
    gateway_cpus: int = setting(1, "processors", "TLS of thousands of requests a second", ge=1, le=256)
    gateway_memory_bytes: int = setting(
        GIB, "bytes", "buffers of large requests, as many as may be open", ge=128 * MIB, le=1 << 40
    )
    gpu_resource: Annotated[str, Field(pattern=GPU_RESOURCE)] = setting(
        "nvidia.com/gpu", "resource of Kubernetes", "whole GPUs; a part of one: nvidia.com/mig-1g.10gb"
    )
    gpu_devices: Words = setting(
        (), "devices of the host, by number or identity", "which ones are GPU 0, 1, … here; empty: 0, 1, …"
    )
    models: Literal["volume", "image"] = setting(
        "volume", "word", "a read-only volume changes without a new image; in the image they are pinned with it"
    )
    readiness: Literal["server", "models"] = setting(
        "server",
        "word",
        "one quarantined model takes no other one with it; models: a pod that lacks one gets no requests",
    )
    seccomp: Literal["runtime-default", "localhost"] = setting(
        "runtime-default", "word", "every node has it; localhost: the profile that is written beside, on each node"
    )
    client_namespaces: Words = setting(
        (), "namespaces", "empty: pods of its own namespace that carry the label of a client"
    )
    monitoring_namespace: str = setting(
        "monitoring",
        "DNS label",
        "where Prometheus runs: nothing else reaches the metrics",
        pattern=LABEL,
        max_length=63,
    )

    @field_validator("gpu_devices")
    @classmethod
    def _check_devices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            if not _GPU_DEVICE.fullmatch(word):
                raise PydanticCustomError("value", 'must hold numbers as texts or identities, such as "0" or "GPU-…"')
        if len(set(value)) != len(value):
            raise PydanticCustomError("value", "must not hold a device twice")
        return value

    @field_validator("client_namespaces")
    @classmethod
    def _check_namespaces(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            if not re.fullmatch(LABEL, word) or len(word) > 63:
                raise PydanticCustomError("value", "must hold names of namespaces, such as ingress-nginx")
        return value

    @model_validator(mode="after")
    def _check_sizes(self) -> DeployPolicy:
        if self.max_replicas < self.replicas:
            text = f"{self.max_replicas} is below replicas = {self.replicas}"
            raise PydanticCustomError("declaration", "{text}", {"text": text, "field": "max_replicas"})
        size = self.shared_memory_bytes
        if size != "models" and not 64 * MIB <= size <= self.memory_bytes:
            text = f"{size} must be between {64 * MIB} and memory_bytes = {self.memory_bytes}"
            raise PydanticCustomError("declaration", "{text}", {"text": text, "field": "shared_memory_bytes"})
        return self
