"""``SafeTritonPythonModel``: the base class of guarded models."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from safe_triton._declared import is_triton_stub
from safe_triton.errors import LoadError, PolicyError
from safe_triton.policy import Limits, LoadConditions

if TYPE_CHECKING:
    from safe_triton.policy.bls import BlsPolicy
    from safe_triton.policy.sandbox import SandboxPolicy
    from safe_triton.policy.sequences import SequenceLimits
    from safe_triton.runtime.bls import BlsClient
    from safe_triton.runtime.context import ModelContext
    from safe_triton.runtime.instance import Instance

F = TypeVar("F", bound=Callable[..., Any])

FINAL = ("initialize", "execute", "finalize")


def without_path(function: F) -> F:
    """Give a function's frames the file name ``safe_triton``: Triton shows those of a failed load to clients."""
    function.__code__ = function.__code__.replace(co_filename="safe_triton")
    return function


def _deferring(init: Callable[..., None]) -> Callable[..., None]:
    """Keep what a constructor raises inside Triton's stub for ``initialize``, whose error carries no paths."""

    @functools.wraps(init)
    def deferred(self: SafeTritonPythonModel, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except BaseException as error:
            if not is_triton_stub():
                raise
            self._failure = error

    return deferred


class SafeTritonPythonModel:
    """Base class of a Triton Python model whose requests, responses, errors and time are checked.

    Override exactly one of :meth:`infer` (also as ``async def``), :meth:`infer_batch` and :meth:`stream`, and
    :meth:`load` and :meth:`unload` as needed. ``initialize``, ``execute`` and ``finalize`` are this class's own.

    Attributes:
        limits: what the model accepts and how long it may take.
        conditions: what has to hold before it loads.
        sandbox: what the model's process may still touch once ``load`` has returned; ``None`` narrows nothing. It can
            only tighten what the operator granted.
        bls_policy: which models :attr:`bls` may call; ``None`` for a model that calls nobody.
        sequences: keeps a state for each sequence as ``request.sequence``; ``None`` for a model that keeps none.
        isolate_failures: whether each request of a batch runs once alone when ``infer_batch`` raises, so that only
            the offender fails. Never in sequence models, whose state a second run would count twice.

    Does not cover:
        Hostile code in the model itself: these checks are Python and run beside it.
    """

    limits: ClassVar[Limits] = Limits()
    conditions: ClassVar[LoadConditions] = LoadConditions()
    sandbox: ClassVar[SandboxPolicy | None] = None
    bls_policy: ClassVar[BlsPolicy | None] = None
    sequences: ClassVar[SequenceLimits | None] = None
    isolate_failures: ClassVar[bool] = True

    _problem: ClassVar[PolicyError | None] = None
    _failure: BaseException | None = None
    _instance: Instance | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            setattr(cls, "__init__", _deferring(cls.__dict__["__init__"]))  # noqa: B010 - mypy: access on a class
        for name in FINAL:
            own = SafeTritonPythonModel.__dict__[name]
            if getattr(cls, name) is not own:
                # Reported by initialize, which therefore has to be this class's.
                cls._problem = PolicyError(
                    f"policy.final: {name} must not be overridden; use load, infer and unload", reason="policy.final"
                )
                setattr(cls, name, own)

    @functools.cached_property
    def bls(self) -> BlsClient:
        """Calls to other models, as ``bls_policy`` allows; only while a request is answered.

        Raises:
            PolicyError: the class declares no ``bls_policy``, or the model is not loaded.
        """
        if self._instance is None:
            raise PolicyError("policy.bls: a model that is not loaded calls no other", reason="policy.bls")
        return self._instance.context.bls

    def load(self, context: ModelContext) -> None:
        """Load weights and tables; called once, before the first request.

        Args:
            context: identity, configuration, confined files and logger of this instance.
        """

    def infer(self, inputs: dict[str, Any]) -> Any:
        """Answer one request.

        Args:
            inputs: validated arrays by input name, the batch axis included. A second positional parameter, if
                the override has one, receives the :class:`RequestInfo`.

        Returns:
            Arrays by output name.
        """
        raise NotImplementedError

    def infer_batch(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Answer several requests of equal shape at once.

        Args:
            inputs: the requests' arrays by input name, concatenated on axis 0.

        Returns:
            Arrays by output name with as many rows as came in, in the same order.
        """
        raise NotImplementedError

    def stream(self, inputs: dict[str, Any]) -> Any:
        """Yield the responses of one request, each a dict of arrays by output name (decoupled models).

        Args:
            inputs: as in :meth:`infer`, the second parameter too.
        """
        raise NotImplementedError

    def unload(self) -> None:
        """Release what ``load`` acquired; called once, after the last request."""

    @without_path
    def initialize(self, args: dict[str, str]) -> None:
        """Compile the declaration, load the model, and make it ready. Called by Triton.

        Args:
            args: Triton's description of the instance.

        Raises:
            LoadError: one line without host paths.
        """
        error = self._start(args)
        if error is not None:
            raise error.with_traceback(None) from None

    def _start(self, args: dict[str, str]) -> LoadError | None:
        # Imported here: these need numpy, and importing the package must stay cheap.
        from safe_triton.runtime.forms import compile_execute
        from safe_triton.runtime.forms.engine import Engine
        from safe_triton.runtime.forms.select import is_async, select_form
        from safe_triton.runtime.instance import Instance, as_load_error

        try:
            for kept in (self._problem, self._failure):
                if kept is not None:
                    raise kept
            self._instance = instance = Instance.create(args, self.limits, self.conditions, renumbers=True)
            if self.bls_policy is not None:
                self._instance = instance = instance.with_bls(self.bls_policy)
            if self.sequences is not None:
                self._instance = instance = instance.with_sequences(self.sequences)
            form = select_form(self, SafeTritonPythonModel, instance.plan.config)
            instance.run_load(lambda: self.load(instance.context))
            isolates = self.isolate_failures and not instance.plan.config.has_sequences
            engine = Engine.of(instance, isolates=isolates)
            # On the instance: Triton finds it there, and no look-up is left for the request path.
            execute = compile_execute(engine, self, form, instance.context.bls_client, instance.sequences)
            self.__dict__["execute"] = instance.seal(self.sandbox, args)(execute)
            instance.serve(interrupts=not is_async(self, form))
        except BaseException as error:
            if self._instance is not None:
                self._take_back(self._instance).close(lambda: None)
            return as_load_error(error)
        return None

    def execute(self, requests: list[Any]) -> Any:
        """Answer each request exactly once. Called by Triton; replaced by the compiled form in ``initialize``."""
        from safe_triton.runtime import _pb

        backend = _pb.bind()
        return [backend.InferenceResponse(error=backend.TritonError("model failed: not initialized")) for _ in requests]

    def finalize(self) -> None:
        """Unload the model. Called by Triton; never raises."""
        if self._instance is not None:
            self._take_back(self._instance).close(self.unload)

    def _take_back(self, instance: Instance) -> Instance:
        """Return what served this model; without it, it calls no other."""
        self._instance = None
        self.__dict__.pop("bls", None)
        return instance
