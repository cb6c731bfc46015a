"""``protect(cls)``: the same checks around an existing ``TritonPythonModel`` class that stays as it is."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal

from safe_triton.errors import LoadError, PolicyError
from safe_triton.policy import Limits, LoadConditions
from safe_triton.runtime.model import without_path

if TYPE_CHECKING:
    from safe_triton.policy.bls import BlsPolicy
    from safe_triton.policy.sandbox import SandboxPolicy
    from safe_triton.runtime.instance import Instance

FORWARDED = ("auto_complete_config", "is_ready")
"""Hooks that Triton finds with ``hasattr``: defined only if the original has them."""


def protect(
    model_class: type,
    *,
    limits: Limits | None = None,
    conditions: LoadConditions | None = None,
    sandbox: SandboxPolicy | None = None,
    isolate_failures: bool = True,
    outputs: Literal["warn", "refuse"] = "warn",
    bls: BlsPolicy | None = None,
) -> type:
    """Wrap an unmodified model class.

    Usage, in ``model.py`` beside the original as ``vendor_model.py``::

        from .vendor_model import TritonPythonModel as Vendor
        TritonPythonModel = protect(Vendor, limits=Limits(max_batch_size=8))

    Requests are checked before the original sees them; one bad request no longer fails its neighbours. Exceptions
    reach a client only as ``model failed (id …)``; a ``TritonModelException`` and an error response keep their text
    and code, without host paths. A forgotten response is answered with an error instead of never.

    Args:
        model_class: the original class; ``execute`` in any form that Triton knows.
        limits: what the model accepts; the defaults where left out.
        conditions: what has to hold before it loads.
        sandbox: what the process may still touch once ``initialize`` has returned; ``None`` narrows nothing. It can
            only tighten what the operator granted.
        isolate_failures: whether each request of a batch runs once alone when ``execute`` raises. Never for sequence
            models, and never after a response sender was taken.
        outputs: ``"warn"`` passes outputs that break config.pbtxt and counts them; ``"refuse"`` makes them a failure
            of the model. Outputs above ``max_output_bytes`` are refused either way. The operator's policy can say
            ``"refuse"`` too.
        bls: which models it may call, with which tensors, how often and for how long; ``None``: whatever the
            operator's policy lets it call. A call that is refused is answered with an error response, as Triton
            answers one that failed. Python's means hold it to that: see below.

    Returns:
        A class for Triton with the original's name.

    Does not cover:
        Values of inputs on a GPU or of BF16, of which shapes and bytes are checked; a declared rule on the values of
        an input that may come so is refused at load. The time of the original's own threads, and of tasks that outlive
        ``execute``: their responses are checked, without a deadline. An ``async def execute`` that swallows its
        cancellation, until the hard deadline. A function that only returns a coroutine has no hard deadline.
        Code that looks for Triton's own ``InferenceRequest`` behind the one that ``bls`` guards; bounds of one
        request for calls that the original's own threads make after ``execute``.
    """
    problem = _problem_of(model_class, outputs)
    declared = limits if limits is not None else Limits()
    required = conditions if conditions is not None else LoadConditions()

    class Protected:
        __doc__ = model_class.__doc__
        original: Any = None
        sandbox: Any = None
        _instance: Any = None

        @without_path
        def initialize(self, args: dict[str, str]) -> None:
            error = self._start(args)
            if error is not None:
                raise error.with_traceback(None) from None

        def _start(self, args: dict[str, str]) -> LoadError | None:
            from safe_triton.runtime.instance import Instance, as_load_error
            from safe_triton.runtime.operator import refuses_outputs
            from safe_triton.runtime.protected import ProtectedExecution

            try:
                if problem is not None:
                    raise problem
                # Tensors may come and go on the GPU here, with Triton's number of the device.
                self._instance = instance = Instance.create(
                    args, declared, required, renumbers=False, allows_unseen=True
                )
                if bls is not None:
                    self._instance = instance = instance.with_bls(bls)
                refuses = outputs == "refuse" or refuses_outputs()
                execution = ProtectedExecution(instance, isolates=isolate_failures, refuses=refuses)
                self._gate = gate = _gate(instance)
                execution.watch()
                gate.install()
                self._execution = execution

                def load() -> Any:
                    original = model_class()
                    if hasattr(original, "initialize"):
                        original.initialize(instance.args)
                    return original

                self.original = instance.run_load(load)
                is_async = inspect.iscoroutinefunction(self.original.execute)
                execute = execution.compile(self.original.execute, is_async=is_async)
                self.__dict__["execute"] = instance.seal(sandbox, args)(gate.around(execute))
                instance.serve(interrupts=not is_async)
            except BaseException as error:
                if self._instance is not None:
                    self._instance.close(lambda: None)
                    self._instance = None
                return as_load_error(error)
            return None

        def execute(self, requests: list[Any]) -> Any:
            raise RuntimeError(f"not initialized: {len(requests)} requests unanswered")

        def finalize(self) -> None:
            instance, self._instance = self._instance, None
            if instance is not None:
                instance.close(getattr(self.original, "finalize", lambda: None))
                self._execution.unwatch()
                self._gate.remove()

    for name in FORWARDED:
        if hasattr(model_class, name):
            setattr(Protected, name, _forward(model_class, name))
    Protected.sandbox = sandbox
    Protected.__name__ = Protected.__qualname__ = getattr(model_class, "__name__", "TritonPythonModel")
    Protected.__module__ = getattr(model_class, "__module__", __name__)
    return Protected


def _gate(instance: Instance) -> Any:
    """Return what stands before the class's calls to other models; nothing does where nobody said which."""
    from safe_triton.runtime.operator import granted_calls

    grants, client = granted_calls(), instance.context.bls_client
    if grants is None and client is None:
        return _NO_GATE
    from safe_triton.runtime.bls.gate import CallGate

    return CallGate(
        instance.backend, instance.logger, grants=grants, client=client, deadline_s=instance.plan.deadline_s
    )


class _NoGate:
    """Every call is Triton's own."""

    def install(self) -> None: ...

    def remove(self) -> None: ...

    def around(self, execute: Any) -> Any:
        return execute


_NO_GATE = _NoGate()


def _forward(model_class: type, name: str) -> Any:
    if isinstance(inspect.getattr_static(model_class, name), staticmethod):
        return staticmethod(getattr(model_class, name))

    def forward(self: Any, *args: Any) -> Any:
        return getattr(self.original, name)(*args)

    return forward


def _problem_of(model_class: Any, outputs: str) -> PolicyError | None:
    """Return why this class cannot be wrapped; reported by ``initialize``, whose error carries no paths."""
    if not inspect.isclass(model_class):
        return PolicyError("policy.type: protect needs the model's class", reason="policy.type")
    if outputs not in ("warn", "refuse"):
        return PolicyError('policy.type: outputs must be "warn" or "refuse"', reason="policy.type")
    execute = getattr(model_class, "execute", None)
    if not callable(execute):
        return PolicyError(f"policy.form: {model_class.__name__} has no execute", reason="policy.form")
    return None
