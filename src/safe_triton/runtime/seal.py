"""The seal: once ``load`` has returned, the process is narrowed to what the model declares, and the guard is on."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safe_triton._declared import is_triton_stub
from safe_triton._text import client_text
from safe_triton.confinement.devices import Gpu, resolved_gpus
from safe_triton.confinement.enforcement import Enforcement, Gap, refused
from safe_triton.confinement.launch import (
    GRANT_VARIABLE,
    RECORD_VARIABLE,
    SHARED_MEMORY,
    granted_from_json,
    policy_to_plain,
)
from safe_triton.confinement.scratch import SCRATCH_VARIABLE, scratch_gaps
from safe_triton.errors import ConfinementError, LoadError
from safe_triton.policy.sandbox import SCRATCH, SandboxPolicy
from safe_triton.policy.toml_text import toml_key, toml_value

if TYPE_CHECKING:
    from safe_triton.runtime.log import ModelLogger
    from safe_triton.runtime.stats import Stats

Execute = Callable[[list[Any]], Any]

LAUNCHER_FIX = 'start it with safe-triton serve, or write enforcement="best-effort"'
LATE = Gap(
    "launcher",
    "confinement.late",
    "module level and load() ran unconfined, with the server's environment and open files",
    "start it with safe-triton serve",
)
SCRATCH_MISSING = Gap(
    "scratch", "confinement.scratch", "there is no scratch folder without the launcher", LATE.fix, is_essential=False
)
CHILDREN = Gap("processes", "confinement.children", "load() left child processes, which are not confined", "end them")

ENGINE = "safe_triton.confinement.engine"

# What the first requests import: compiled modules, which a process without executable memory cannot load any more.
SERVING_MODULES = (
    "asyncio",
    "encodings.idna",
    "linecache",
    "traceback",
    "numpy.fft",
    "numpy.linalg",
    "numpy.ma",
    "numpy.polynomial",
    "numpy.random",
)


@dataclass(frozen=True, kw_only=True)
class Launched:
    """What the launcher says about this process.

    Args:
        granted: the policy that holds since before the model's first line.
        needs: the part of it without which no model runs.
        wrong: what the kernel did not refuse although it should; empty when the policy really holds.
        gpus: that it granted.
    """

    granted: SandboxPolicy
    needs: SandboxPolicy
    wrong: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SealPlan:
    """What the seal does.

    Args:
        confine: what this process is narrowed to; ``None`` when nothing is narrowed.
        guard: what the guard refuses everything beyond; ``None`` when it stays off.
        gaps: what will not hold.
    """

    confine: SandboxPolicy | None = None
    guard: SandboxPolicy | None = None
    gaps: tuple[Gap, ...] = ()


def plan_seal(
    declared: SandboxPolicy | None,
    launched: Launched | None,
    needs: SandboxPolicy,
    *,
    has_children: bool = False,
    model: str = "NAME",
) -> SealPlan:
    """Decide what the seal does; pure.

    Args:
        declared: the model's own policy, placeholders filled in.
        launched: what the launcher says; ``None`` without it.
        needs: what this process cannot serve without, found by itself; with a launcher only its GPUs count.
        has_children: whether ``load`` left processes behind.
        model: its name in the operator's policy.

    Raises:
        ConfinementError: the model asks for more than it was granted, or requires what cannot be had.
    """
    strictest = [policy.enforcement for policy in (declared, launched and launched.granted) if policy]
    is_required = "required" in strictest
    gaps = []
    if launched is not None and launched.wrong:
        detail = f"the launcher's confinement does not hold: {', '.join(launched.wrong)}"
        if is_required:
            raise refused("confinement.unverified", detail)
        gaps.append(Gap("launcher", "confinement.unverified", detail, LATE.fix))
        launched = None
    if declared is None:
        return SealPlan(guard=launched.granted if launched else None, gaps=tuple(gaps))
    if has_children and not declared.processes:
        if is_required:
            raise refused(CHILDREN.reason, f"{CHILDREN.detail}; {CHILDREN.fix}")
        gaps.append(CHILDREN)
    if launched is None:
        if is_required:
            raise refused("confinement.launcher", f"this process was not started by the launcher; {LAUNCHER_FIX}")
        if declared.has_scratch:
            gaps.append(SCRATCH_MISSING)
            kept = tuple(path for path in declared.write if path.split("/", 1)[0] != SCRATCH)
            declared = dataclasses.replace(declared, write=kept)
        policy = joined(declared, needs)
        return SealPlan(confine=policy, guard=policy, gaps=(LATE, *gaps))
    asked = dataclasses.replace(declared, gpu_ids=resolved_gpus(declared.gpu_ids, launched.gpus))
    beyond = asked.widens(launched.granted)
    if beyond:
        line = grant_line(model, declared, beyond)
        raise refused("confinement.not_granted", f"it asks for {', '.join(beyond)}; add to safe-triton.toml: {line}")
    own = dataclasses.replace(launched.needs, gpu_ids=needs.gpu_ids)
    policy = joined(asked, own).tighten(launched.granted)
    return SealPlan(confine=policy, guard=policy, gaps=tuple(gaps))


def joined(policy: SandboxPolicy, needs: SandboxPolicy) -> SandboxPolicy:
    """Return a policy with the files and GPUs that the process itself needs."""
    return dataclasses.replace(
        policy,
        read=(*policy.read, *needs.read),
        write=(*policy.write, *needs.write),
        gpu_ids=(*policy.gpu_ids, *needs.gpu_ids),
    )


def grant_line(model: str, asked: SandboxPolicy, beyond: Iterable[str]) -> str:
    """Return the table of the operator's policy, and the lines in it, that grant what ``asked`` has beyond its grant.

    A list stands there as a whole, since it replaces the one that is there.
    """
    fields = {phrase.split(" ", 1)[0].replace("GPU", "gpu_ids") for phrase in beyond}
    values = {item.name: getattr(asked, item.name) for item in dataclasses.fields(asked) if item.name in fields}
    lines = ", ".join(f"{name} = {toml_value(value)}" for name, value in values.items())
    return f"[models.{toml_key(model)}.sandbox] {lines}"


def seal(
    declared: SandboxPolicy | None,
    args: Mapping[str, str],
    logger: ModelLogger,
    stats: Stats,
    *,
    device_id: int = 0,
    known: tuple[Gap, ...] = (),
) -> Callable[[Execute], Execute]:
    """Narrow this process to what the model declares, for good, and switch the guard on.

    Args:
        declared: the class's ``sandbox``; ``None`` narrows nothing.
        args: what Triton passed to ``initialize``.
        logger: is told what holds.
        stats: gets the gaps, and later the violations.
        device_id: the instance's GPU, as CUDA counts in this process.
        known: gaps that were found before ``load``.

    Returns:
        What to put around ``execute``: nothing inside Triton; in a test's fake, the guard while ``execute`` runs.

    Raises:
        LoadError: what was required cannot be had; the text holds no host path.

    Does not cover:
        In a process that the launcher did not start, what ran before. In a test's fake, the kernel: nothing is confined
        there.
    """
    if declared is not None and not isinstance(declared, SandboxPolicy):
        raise LoadError("policy.type: sandbox must be a SandboxPolicy or None", reason="policy.type")
    if declared is not None and declared.problem is not None:
        raise declared.problem
    if not is_triton_stub():
        return _seal_fake(declared, args, logger, stats)
    if RECORD_VARIABLE in os.environ and _is_recorded():  # safe-triton learn reads this line
        plain = policy_to_plain(declared) if declared else None
        logger.warning("model is recorded, not confined", extra={"fields": {"declared": plain}})
        return lambda execute: execute
    if declared is None and GRANT_VARIABLE not in os.environ:
        logger.info(
            "model is not confined", extra={"fields": {"detail": "no launcher, and the model declares no sandbox"}}
        )
        return lambda execute: execute
    try:
        _seal_stub(declared, args, logger, stats, device_id=device_id, known=known)
    except ConfinementError as error:
        # The paths are for the operator's log only: the load API shows this text to its clients.
        fields = {"reason": error.reason, "detail": error.message}
        logger.error("model refused", extra={"fields": fields})  # noqa: TRY400 - no traceback is needed
        raise ConfinementError(client_text(error.message), reason=error.reason) from None
    return lambda execute: execute


def _is_recorded() -> bool:
    """Whether this process was started so: by its first environment, which a confined process cannot read."""
    try:
        with open("/proc/self/environ", "rb") as file:
            return f"{RECORD_VARIABLE}=1".encode() in file.read().split(b"\0")
    except OSError:
        return False


def _seal_stub(
    declared: SandboxPolicy | None,
    args: Mapping[str, str],
    logger: ModelLogger,
    stats: Stats,
    *,
    device_id: int,
    known: tuple[Gap, ...],
) -> None:
    from safe_triton.confinement import privileges
    from safe_triton.runtime import gpu, guard, surroundings

    if declared is not None:
        surroundings.load_now((ENGINE, *(() if declared.executable_memory else SERVING_MODULES)))
    started = time.perf_counter()
    launched = None
    if GRANT_VARIABLE in os.environ:
        granted, given = granted_from_json(os.environ[GRANT_VARIABLE])
        wrong = tuple(surroundings.ungranted(granted))
        launched = Launched(granted=granted, needs=given, wrong=wrong, gpus=gpu.known_gpus())
    resolved = declared.resolve(surroundings.places(args)) if declared is not None else None
    planned = plan_seal(
        resolved,
        launched,
        surroundings.needs(args),
        has_children=surroundings.has_children(),
        model=args.get("model_name", "NAME"),
    )
    held = launched is not None and not launched.wrong
    bounded, gaps = _bound_gpu(planned.guard, args, device_id)
    report = Enforcement(requested=(), effective=(), gaps=())
    if planned.confine is not None:
        from safe_triton.confinement import engine

        kept = surroundings.region_descriptors(SHARED_MEMORY)
        if launched is not None and held:
            report = engine.narrow(planned.confine, launched.granted, keep_descriptors=kept)
        else:
            report = engine.confine(planned.confine, keep_descriptors=kept)
    elif planned.guard is not None:
        privileges.set_undumpable()
    if planned.guard is not None:
        refuse = guard.compile_refusal(stats.violations, _identity(logger))
        guard.install(surroundings.rules(planned.guard, names_python=held), refuse)
        gaps += scratch_gaps(os.environ.get(SCRATCH_VARIABLE), planned.guard)
    gaps = (*planned.gaps, *report.gaps, *known, *gaps)
    for gap in gaps:
        stats.gaps[gap.mechanism] = stats.gaps.get(gap.mechanism, 0) + 1
    fields = {
        "effective": [
            *(("launcher",) if held else ()),
            *report.effective,
            *bounded,
            *(("guard",) if planned.guard else ()),
        ],
        "gaps": [str(gap) for gap in gaps],
        "threads": report.threads,
        "closed_descriptors": report.closed_descriptors,
        "elapsed_ms": round((time.perf_counter() - started) * 1e3, 2),
    }
    level = logger.warning if any(gap.is_essential for gap in gaps) else logger.info
    level("model is sealed" if planned.guard else "model is not confined", extra={"fields": fields})


def _bound_gpu(
    policy: SandboxPolicy | None, args: Mapping[str, str], device_id: int
) -> tuple[tuple[str, ...], tuple[Gap, ...]]:
    """Bound what libraries take of the instance's GPU, while its driver can still be reached as ``load`` could."""
    if policy is None or args["model_instance_kind"] != "GPU":
        return (), ()
    from safe_triton.runtime import gpu

    return gpu.limit_memory(gpu.memory_bound(policy.resources, gpu.total_bytes(args)), device_id)


def _seal_fake(
    declared: SandboxPolicy | None, args: Mapping[str, str], logger: ModelLogger, stats: Stats
) -> Callable[[Execute], Execute]:
    """The guard alone, on the thread that runs the model's code, and only while it does."""
    if declared is None:
        return lambda execute: execute
    from safe_triton.runtime import guard, surroundings

    without_gpus = dataclasses.replace(declared, gpu_ids=())  # their identities are the server's
    policy = joined(without_gpus.resolve(surroundings.places(args)), surroundings.needs(args))
    refuse = guard.compile_refusal(stats.violations, _identity(logger))
    hook = guard.compile_hook(surroundings.rules(policy, names_python=False), refuse)

    def around(execute: Execute) -> Execute:
        async def finish(pending: Any) -> Any:
            with guard.on_this_thread(hook):
                return await pending

        @functools.wraps(execute)
        def guarded(requests: list[Any]) -> Any:
            with guard.on_this_thread(hook):
                result = execute(requests)
            return finish(result) if inspect.iscoroutine(result) else result

        return guarded

    return around


def _identity(logger: ModelLogger) -> dict[str, str]:
    return {name: str(value) for name, value in (logger.extra or {}).items()}
