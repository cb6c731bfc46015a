"""One loaded instance of a model: from Triton's ``args`` to everything its request path needs, and back."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safe_triton._declared import is_triton_stub
from safe_triton._text import client_text
from safe_triton.config import ModelConfig
from safe_triton.confinement import ConfinedRoot
from safe_triton.confinement.launch import BEAT_VARIABLE
from safe_triton.confinement.scratch import SCRATCH_VARIABLE
from safe_triton.errors import ConfigError, DeadlineExceeded, LoadError, ModelError, PathError, SafeTritonError
from safe_triton.policy import Limits, LoadConditions
from safe_triton.runtime import _pb, gpu
from safe_triton.runtime.conditions import check_conditions
from safe_triton.runtime.context import ModelContext
from safe_triton.runtime.deadline import LONGEST_S, Watchdog
from safe_triton.runtime.log import ModelLogger, model_logger
from safe_triton.runtime.metrics import MetricsFlusher
from safe_triton.runtime.operator import check_granted, tightened, tightened_sequences
from safe_triton.runtime.outcome import Outcomes, log_failure, new_error_id
from safe_triton.runtime.stats import Stats
from safe_triton.runtime.withheld import MetricChecks
from safe_triton.validation import Plan, compile_plan

if TYPE_CHECKING:
    from safe_triton.confinement.enforcement import Gap
    from safe_triton.policy.bls import BlsPolicy
    from safe_triton.policy.sandbox import SandboxPolicy
    from safe_triton.policy.sequences import SequenceLimits
    from safe_triton.runtime.sequences import SequenceStore
    from safe_triton.unsafe import Unlimited

T = TypeVar("T")

IMPLICIT_STATE = (
    "config.pbtxt has sequence_batching { state }, which Triton's Python backend does not keep: every request gets the "
    "initial state again; keep it in the model, by correlation id"
)
WATCHDOG_CELL = 3
"""Which 64 bits of the heartbeat hold the hard deadline: ``WATCHES_ITSELF`` of :mod:`safe_triton.server.in_stub`."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """The parts of one model instance.

    Args:
        plan: the compiled checks.
        backend: Triton's Python backend.
        logger: log lines with the model's identity.
        stats: the counters.
        outcomes: turns errors into responses.
        watchdog: deadlines of the author's code.
        metrics: carries the counters to Triton.
        context: what ``load`` is given.
        args: Triton's arguments as the model's code sees them; the device's number is CUDA's in this process.
        gaps: what could not be arranged before the model's code runs.
        sequences: the state of its sequences, where it keeps any.
    """

    plan: Plan
    backend: _pb.Backend
    logger: ModelLogger
    stats: Stats
    outcomes: Outcomes
    watchdog: Watchdog
    metrics: MetricsFlusher
    context: ModelContext
    args: dict[str, str]
    gaps: tuple[Gap, ...] = ()
    sequences: SequenceStore | None = None

    @classmethod
    def create(
        cls,
        args: Mapping[str, str],
        limits: Limits,
        conditions: LoadConditions,
        *,
        renumbers: bool,
        allows_unseen: bool = False,
    ) -> Instance:
        """Compile the plan and check the load conditions; nothing of the author's runs yet.

        Args:
            args: what Triton passes to ``initialize``.
            limits: the model's declaration; the operator's policy tightens it.
            conditions: what has to hold for it to load.
            renumbers: whether the instance's GPU may get another number, see :func:`gpu.show_own`.
            allows_unseen: whether the request path can do with tensors that numpy cannot have.

        Raises:
            LoadError: the declaration, the configuration or a condition refuses.
        """
        if not isinstance(limits, Limits) or not isinstance(conditions, LoadConditions):
            raise LoadError(
                "policy.type: limits must be a Limits and conditions a LoadConditions", reason="policy.type"
            )
        config = ModelConfig.from_json(args["model_config"])
        limits = tightened(limits, config)
        plan = compile_plan(limits, config, allows_unseen=allows_unseen)
        if not allows_unseen:
            _check_supported(config)
        check_conditions(conditions, {**args, gpu.DEVICE_ID: str(gpu.triton_number(args))})
        shown, gaps = gpu.show_own(args, renumbers=renumbers)
        backend = _pb.bind()
        if is_triton_stub() and backend.Metric is not None:
            MetricChecks(backend).install(backend.MetricFamily, backend.Metric)
        version = args["model_version"]
        logger = model_logger(model=config.name, version=version, instance=args["model_instance_name"])
        stats = Stats()
        watchdog = Watchdog(logger, ends_process=is_triton_stub())
        for place, token in limits.tokens().items():
            _warn_taken_away(logger, place, token)
        if config.server_outputs:
            logger.warning("the state is not kept", extra={"fields": {"detail": IMPLICIT_STATE}})
        try:
            model_files = ConfinedRoot(args["model_repository"])
            files = ConfinedRoot(os.path.join(args["model_repository"], version))
        except PathError as error:
            raise LoadError(f"{error.reason}: the model's folder cannot be opened", reason=error.reason) from None
        metrics = MetricsFlusher(
            backend,
            stats,
            {"model": config.name, "version": version, "instance": args["model_instance_name"]},
            logger,
        )
        watchdog.before_end = metrics.hold
        return cls(
            plan=plan,
            backend=backend,
            logger=logger,
            stats=stats,
            outcomes=Outcomes(backend, logger, stats, plan.deadline_s, watchdog),
            watchdog=watchdog,
            metrics=metrics,
            context=ModelContext(
                config=config,
                name=config.name,
                version=version,
                instance_name=args["model_instance_name"],
                instance_kind=args["model_instance_kind"],
                device_id=int(shown[gpu.DEVICE_ID]),
                files=files,
                model_files=model_files,
                scratch=Path(scratch) if (scratch := os.environ.get(SCRATCH_VARIABLE)) else None,
                logger=logger,
                gpu_memory_bytes=gpu.granted_bytes(args),
            ),
            args=shown,
            gaps=gaps,
        )

    def with_bls(self, policy: BlsPolicy) -> Instance:
        """Return the same instance with a client for calls to other models.

        Raises:
            LoadError: the policy is wrong, or a target's signature cannot be read.
        """
        from safe_triton.policy.bls import BlsPolicy
        from safe_triton.runtime.bls.client import BlsClient

        if not isinstance(policy, BlsPolicy):
            raise LoadError("policy.type: bls_policy must be a BlsPolicy", reason="policy.type")
        check_granted(policy, self.context.name)
        for place, token in policy.tokens().items():
            _warn_taken_away(self.logger, place, token)
        client = BlsClient(
            policy,
            backend=self.backend,
            stats=self.stats,
            logger=self.logger,
            name=self.context.name,
            version=self.context.version,
            repository=Path(self.args["model_repository"]).parent,
        )
        return replace(self, context=replace(self.context, bls_client=client))

    def with_sequences(self, limits: SequenceLimits) -> Instance:
        """Return the same instance with a store for the state of its sequences.

        Raises:
            PolicyError: the declaration is wrong, or config.pbtxt has no sequences.
        """
        from safe_triton.policy.sequences import SequenceLimits
        from safe_triton.runtime.sequences import SequenceStore

        if not isinstance(limits, SequenceLimits):
            raise LoadError("policy.type: sequences must be a SequenceLimits", reason="policy.type")
        limits = tightened_sequences(limits)
        store = SequenceStore(limits, self.plan.config, self.stats.sequences)
        store.start()
        return replace(self, sequences=store)

    def run_load(self, load: Callable[[], T]) -> T:
        """Run the author's loading code under the load deadline, then switch to the serving deadlines.

        Raises:
            LoadError: it raised; only what is meant for others to read is in the text.
        """
        load_s = self.plan.load_deadline_s
        self.watchdog.start(load_s, self._load_hard_s)
        gpu.limit_before_load(self.args, self.context.device_id)
        try:
            result = self.watchdog.run(load)
        except LoadError as error:
            raise LoadError(client_text(error.message), reason=error.reason) from None
        except (PathError, ModelError) as error:
            raise LoadError(f"{error.reason}: {client_text(error.message)}", reason=error.reason) from None
        except DeadlineExceeded:
            raise LoadError(
                f"load.deadline: load() did not return within {load_s * 1000:.0f} ms", reason="load.deadline"
            ) from None
        except BaseException as error:
            if isinstance(error, self.backend.TritonModelException):
                raise LoadError(f"load.failed: {client_text(str(error))}") from None
            error_id = new_error_id()
            log_failure(self.logger, "load failed", error, error_id, "load.failed")
            raise LoadError(f"load.failed: load() raised (id {error_id}); the server's log has the details") from None
        return result

    @property
    def _load_hard_s(self) -> float:
        return self.plan.load_deadline_s + (self.plan.hard_deadline_s - self.plan.deadline_s)

    def seal(
        self, sandbox: SandboxPolicy | None, args: Mapping[str, str]
    ) -> Callable[[Callable[[list[Any]], Any]], Callable[[list[Any]], Any]]:
        """Narrow this process to what serving needs; see :func:`safe_triton.runtime.seal.seal`."""
        from safe_triton.runtime.seal import seal

        return seal(sandbox, args, self.logger, self.stats, device_id=self.context.device_id, known=self.gaps)

    def serve(self, *, interrupts: bool) -> None:
        """Switch to the serving deadlines and begin to export the counters.

        Args:
            interrupts: whether the soft deadline interrupts the main thread (not for asynchronous forms, where the
                main thread only waits).
        """
        plan = self.plan
        self.watchdog.use(plan.deadline_s if interrupts else plan.hard_deadline_s * 2, plan.hard_deadline_s)
        self.metrics.start()
        tell_supervisor(plan.hard_deadline_s)
        self.logger.info(
            "model is guarded",
            extra={
                "fields": {
                    "deadline_ms": round(plan.deadline_s * 1000),
                    "hard_deadline_ms": round(plan.hard_deadline_s * 1000),
                    "max_batch_rows": plan.max_batch_rows,
                }
            },
        )

    def close(self, unload: Callable[[], Any]) -> None:
        """Run the author's unloading code, as long as loading may take, and release everything; never raises."""
        self.watchdog.use(self.plan.load_deadline_s, self._load_hard_s)
        try:
            self.watchdog.run(unload)
        except BaseException as error:
            log_failure(self.logger, "unload failed", error, new_error_id(), "unload.failed")
        client = self.context.bls_client
        for release in (
            client.close if client is not None else lambda: None,
            self.sequences.close if self.sequences is not None else lambda: None,
            self.metrics.stop,
            self.watchdog.stop,
            self.context.files.close,
            self.context.model_files.close,
        ):
            try:
                release()
            except Exception as error:
                log_failure(self.logger, "release failed", error, new_error_id(), "unload.failed")


def tell_supervisor(hard_deadline_s: float) -> None:
    """Write the hard deadline into this process's heartbeat: the watchdog cannot act in a process that is stopped."""
    path = os.environ.get(BEAT_VARIABLE)
    if path and hard_deadline_s < LONGEST_S:
        with contextlib.suppress(OSError), open(path, "r+b") as file:
            file.seek(WATCHDOG_CELL * 8)
            file.write(round(hard_deadline_s * 1000).to_bytes(8, sys.byteorder))


def as_load_error(error: BaseException) -> LoadError:
    """Return what may be shown of an error in ``initialize``: this package's own text, nothing of anything else's."""
    if isinstance(error, LoadError):
        return error
    if isinstance(error, SafeTritonError):
        return LoadError(client_text(error.message), reason=error.reason)
    error_id = new_error_id()
    log_failure(model_logger(), "initialize failed", error, error_id, "load.failed")
    return LoadError(f"load.failed: initialize failed (id {error_id}); the server's log has the details")


def _warn_taken_away(logger: ModelLogger, place: str, token: Unlimited) -> None:
    logger.warning(
        "a limit is taken away",
        extra={"fields": {"limit": place, "token": type(token).__name__, "reason_given": token.reason}},
    )


def _check_supported(config: ModelConfig) -> None:
    if config.parameters.get("FORCE_CPU_ONLY_INPUT_TENSORS", "yes").lower() == "no":
        raise ConfigError(
            'config.gpu_inputs: FORCE_CPU_ONLY_INPUT_TENSORS is "no"; inputs arrive as numpy arrays, on the CPU',
            reason="config.gpu_inputs",
        )
    if config.server_outputs:
        raise ConfigError(f"config.implicit_state: {IMPLICIT_STATE}", reason="config.implicit_state")
