"""Rules of the family resources: what a configuration lets a model take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.repository.facts import is_ensemble

if TYPE_CHECKING:
    from safe_triton.audit.pbtxt.parse import Config
    from safe_triton.audit.pbtxt.tree import Field

MAX_INSTANCES = 16
"""Instances of one model over all groups and devices: each is a process of its own for a Python model."""

MAX_INSTANCES_PER_GPU = 8
MAX_BATCH = 1024
MAX_ELEMENTS = 1 << 31
"""Elements of one fixed-shape tensor: 8 GiB of FP32."""

MAX_QUEUE_DELAY_US = 100_000
"""From here on every request of a quiet model waits a tenth of a second."""

MAX_SEQUENCE_IDLE_US = 600_000_000
MAX_CANDIDATES = 1024
ONLY_ON_GPUS = {"tensorrt_plan", "tensorrt"}


def check_invalid(config: Config) -> Iterator[Finding]:
    """Yield values which the server refuses although the text is a model configuration.

    Args:
        config: the parsed file.
    Does not cover:
        What depends on the host, such as GPUs that it does not have, and on the model's own file.
    """
    message, tree = config.message, config.tree
    if message.max_batch_size < 0:
        yield _invalid(config, tree.at("max_batch_size"), f"max_batch_size {message.max_batch_size} is below 0")
    dynamic = tree.at("dynamic_batching")
    for size in message.dynamic_batching.preferred_batch_size:
        if size < 1:
            yield _invalid(config, dynamic.at("preferred_batch_size") or dynamic, f"preferred_batch_size {size}")
        elif size > message.max_batch_size and not config.has_placeholders and tree.at("max_batch_size"):
            yield _invalid(
                config,
                dynamic.at("preferred_batch_size") or dynamic,
                f"preferred_batch_size {size} is above max_batch_size {message.max_batch_size}",
            )
    levels, default = message.dynamic_batching.priority_levels, message.dynamic_batching.default_priority_level
    if levels and not 0 < default <= levels:
        yield _invalid(config, dynamic, f"default_priority_level {default} is not one of {levels} priority_levels")
    for kind in ("input", "output"):
        for index, each in enumerate(getattr(message, kind)):
            where = tree.at(kind, index, "dims") or tree.at(kind, index)
            said = _tensor_fault(each, is_final=message.backend == "python" or is_ensemble(message))
            if said and not tree.at(kind).is_template:
                yield _invalid(config, where, f"{kind} {each.name!r}: {said}")
    for index, group in enumerate(message.instance_group):
        if group.gpus and group.kind == group.KIND_CPU:
            yield _invalid(config, tree.at("instance_group", index), "an instance group of KIND_CPU has gpus")
    if (
        message.HasField("ensemble_scheduling")
        and message.platform != "ensemble"
        and not tree.at("platform").is_placeholder
    ):
        where = tree.at("ensemble_scheduling")
        yield _invalid(config, where, 'ensemble_scheduling without platform: "ensemble"')
    if is_ensemble(message):
        for name in ("backend", "instance_group", "optimization", "model_warmup"):
            if tree.at(name):
                yield _invalid(config, tree.at(name), f"an ensemble has no {name}")


def _tensor_fault(tensor: Any, *, is_final: bool) -> str:
    """What the server refuses of an input or output; empty when nothing."""
    if not tensor.name:
        return "it has no name"
    if is_final and not tensor.dims:
        return "it has no dims"
    if is_final and not tensor.data_type:
        return "it has no data_type"
    bad = next((dim for dim in tensor.dims if dim == 0 or dim < -1), None)
    if bad is not None:
        return f"dim {bad} is neither -1 nor above 0"
    if tensor.HasField("reshape") and -1 not in tensor.dims and -1 not in tensor.reshape.shape:
        sizes = math.prod(tensor.dims), math.prod(tensor.reshape.shape)
        if sizes[0] != sizes[1]:
            return f"dims hold {sizes[0]:,} elements, reshape {sizes[1]:,}"
    return ""


def _invalid(config: Config, where: Field, message: str) -> Finding:
    return config.find("config-invalid", where, f"{message}; the server refuses the model")


def check_resources(config: Config, *, is_guarded: bool, release: tuple[int, int] | None = None) -> Iterator[Finding]:
    """Yield what a configuration leaves unbounded.

    Args:
        config: the parsed file.
        is_guarded: whether every version's model.py is under safe_triton's limits, which bound shapes and streams.
        release: year and month of the Triton release that the deployment declares.
    """
    yield from _instances(config)
    yield from _batch(config)
    yield from _dims(config, is_guarded=is_guarded, release=release)
    yield from _queues(config)
    yield from _sequences(config)
    message, tree = config.message, config.tree
    if message.model_transaction_policy.decoupled and not is_guarded:
        yield config.find(
            "decoupled-unbounded",
            tree.at("model_transaction_policy"),
            "decoupled: one request may have any number of responses, for any time",
        )
    if message.response_cache.enable:
        yield config.find(
            "response-cache-shared",
            tree.at("response_cache"),
            "the response cache is shared: one caller's answer is given to another who sends the same input",
        )


def _instances(config: Config) -> Iterator[Finding]:
    message, tree = config.message, config.tree
    kinds = message.DESCRIPTOR.file.message_types_by_name["ModelInstanceGroup"].enum_types_by_name["Kind"]
    total, worst = 0, None
    for index, group in enumerate(message.instance_group):
        where = tree.at("instance_group", index)
        count = where.at("count")
        kind = kinds.values_by_number[group.kind].name if group.kind in kinds.values_by_number else str(group.kind)
        number = max(group.count, 1)
        instances = number * max(len(group.gpus), 1)
        total += instances
        if worst is None or instances > worst[0]:
            worst = (instances, count or where)
        if count and not count.is_placeholder and group.count < 1:
            yield config.find("instance-count-invalid", count, f"count {group.count}: the server takes it for 1")
        if kind == "KIND_GPU" and number > MAX_INSTANCES_PER_GPU and instances <= MAX_INSTANCES:
            yield config.find(
                "instance-count-excessive",
                count,
                f"{number} instances on each GPU, above {MAX_INSTANCES_PER_GPU}",
                fix=f"count: {MAX_INSTANCES_PER_GPU}",
            )
        if kind in {"KIND_GPU", "KIND_AUTO"} and not group.gpus and not where.at("gpus").is_placeholder:
            yield config.find(
                "gpu-not-pinned",
                where,
                f"{kind} without gpus: an instance on every GPU of the host",
                fix="gpus: [ 0 ]",
                level=Level.INFO if where.at("kind").is_placeholder else None,
            )
        if group.HasField("rate_limiter"):
            yield config.find(
                "rate-limiter-ineffective",
                where.at("rate_limiter"),
                "rate_limiter does nothing unless the server runs with --rate-limit=execution_count",
            )
    if total > MAX_INSTANCES and worst is not None:
        yield config.find(
            "instance-count-excessive",
            worst[1],
            f"{total} instances over all groups, above {MAX_INSTANCES}",
            fix=f"count: {MAX_INSTANCES // max(len(message.instance_group), 1) or 1}",
        )
    if not message.instance_group and not tree.at("instance_group") and not is_ensemble(message):
        needs_gpu = {message.platform, message.backend} & ONLY_ON_GPUS
        yield config.find(
            "gpu-not-pinned",
            0,
            "no instance_group: an instance on every GPU that the backend can use",
            fix="instance_group [ { kind: KIND_CPU count: 1 } ]",
            level=None if needs_gpu else Level.INFO,
        )


def _batch(config: Config) -> Iterator[Finding]:
    message, tree = config.message, config.tree
    if message.max_batch_size > MAX_BATCH:
        yield config.find(
            "unbounded-batch",
            tree.at("max_batch_size"),
            f"max_batch_size {message.max_batch_size:,}, above {MAX_BATCH:,}",
            fix="max_batch_size: 64",
        )


def _dims(config: Config, *, is_guarded: bool, release: tuple[int, int] | None) -> Iterator[Finding]:
    message, tree = config.message, config.tree
    aborts = release is not None and release < (25, 5) and message.backend == "python"
    for index, each in enumerate(message.input):
        where = tree.at("input", index, "dims") or tree.at("input", index)
        free = sum(dim < 0 for dim in each.dims)
        elements = math.prod(max(dim, 1) for dim in each.dims)
        if elements > MAX_ELEMENTS:
            yield config.find("unbounded-dims", where, f"input {each.name!r} may have {elements:,} elements")
        elif free and aborts and release is not None:
            yield config.find(
                "unbounded-dims",
                where,
                f"input {each.name!r} has variable dims, and release {release[0]}.{release[1]:02d} loses the model's "
                "process to a shape whose size overflows, before any check of the model",
                level=Level.ERROR,
            )
        elif free and not is_guarded and not is_ensemble(message):
            every = free == len(each.dims) or free > 1
            yield config.find(
                "unbounded-dims",
                where,
                f"input {each.name!r}: {'every dim is' if free == len(each.dims) else f'{free} dims are'} variable, "
                "so a request chooses the size",
                level=None if every else Level.INFO,
            )


def _queues(config: Config) -> Iterator[Finding]:
    message, tree = config.message, config.tree
    batching = message.dynamic_batching
    where = tree.at("dynamic_batching")
    if message.HasField("dynamic_batching"):
        if not batching.default_queue_policy.max_queue_size and not where.at("default_queue_policy").is_template:
            yield config.find(
                "unbounded-queue",
                where,
                "no max_queue_size: requests queue up until memory ends",
                fix="default_queue_policy { max_queue_size: 64 }",
            )
        else:
            for level, policy in sorted(batching.priority_queue_policy.items()):
                if not policy.max_queue_size:
                    yield config.find(
                        "unbounded-queue",
                        where.entry("priority_queue_policy", str(level)) or where,
                        f"priority {level} has no max_queue_size",
                        fix="max_queue_size: 64",
                    )
    oldest, direct = message.sequence_batching.oldest, message.sequence_batching.direct
    sequences = tree.at("sequence_batching")
    for each, place in (
        (batching, where),
        (oldest, sequences.at("oldest")),
        (direct, sequences.at("direct")),
    ):
        if each.max_queue_delay_microseconds >= MAX_QUEUE_DELAY_US:
            yield config.find(
                "queue-delay-excessive",
                place.at("max_queue_delay_microseconds") or place,
                f"requests wait up to {each.max_queue_delay_microseconds:,} µs for company; it limits no rate",
                fix="max_queue_delay_microseconds: 1000",
            )


def _sequences(config: Config) -> Iterator[Finding]:
    message, tree = config.message, config.tree
    if not message.HasField("sequence_batching"):
        return
    batching, where = message.sequence_batching, tree.at("sequence_batching")
    said = _sequence_fault(batching)
    if said:
        yield config.find("sequence-unbounded", where, said, fix="max_sequence_idle_microseconds: 5000000")
    if batching.state and message.backend == "python":
        yield config.find(
            "implicit-state-ineffective",
            where.at("state") or where,
            f"state {batching.state[0].input_name!r}: every request of a sequence gets the initial state again",
        )


def _sequence_fault(batching: Any) -> str:
    idle = batching.max_sequence_idle_microseconds
    if idle > MAX_SEQUENCE_IDLE_US:
        return f"an idle sequence keeps its slot for {idle // 1_000_000:,} s"
    if not idle:
        return "without max_sequence_idle_microseconds the release decides how long an idle sequence keeps its slot"
    if batching.HasField("oldest") and not 0 < batching.oldest.max_candidate_sequences <= MAX_CANDIDATES:
        return f"max_candidate_sequences is {batching.oldest.max_candidate_sequences:,}: any client can open more"
    return ""
