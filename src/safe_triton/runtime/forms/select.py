"""Choosing a model's form: decided once, at ``initialize``, from what the class overrides."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from safe_triton.config import ModelConfig
from safe_triton.errors import PolicyError
from safe_triton.runtime.forms.engine import Engine, Execute

if TYPE_CHECKING:
    from safe_triton.runtime.bls import BlsClient
    from safe_triton.runtime.sequences import SequenceStore

FORMS = ("infer", "infer_batch", "stream")


def select_form(model: object, base: type, config: ModelConfig) -> str:
    """Return the one form that the model's class overrides.

    Raises:
        PolicyError: reason ``policy.form``; none or several are overridden, or the form does not fit config.pbtxt.
    """
    overridden = [name for name in FORMS if getattr(type(model), name) is not getattr(base, name)]
    if len(overridden) != 1:
        what = " and ".join(overridden) or "none of them"
        raise _wrong(f"override exactly one of {', '.join(FORMS)}; this class overrides {what}")
    form = overridden[0]
    function = getattr(model, form)
    if config.is_decoupled != (form == "stream"):
        kind = "decoupled" if config.is_decoupled else "not decoupled"
        raise _wrong(f"{form} is overridden and config.pbtxt is {kind}; stream is the form of decoupled models")
    if form == "infer_batch" and config.max_batch_size < 1:
        raise _wrong("infer_batch needs a batch axis: set max_batch_size in config.pbtxt, or override infer")
    if form != "infer" and (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
        raise _wrong(f"{form} must not be async; only infer can be")
    if form != "stream" and (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)):
        raise _wrong(f"{form} must return its outputs, not yield them; stream is the form for that")
    if not _accepts(function, 1) and (form == "infer_batch" or not _accepts(function, 2)):
        extra = "" if form == "infer_batch" else ", or the inputs and the request"
        raise _wrong(f"{form} must take the inputs{extra}, by position")
    return form


def compile_execute(
    engine: Engine, model: object, form: str, bls: BlsClient | None, sequences: SequenceStore | None
) -> Execute:
    """Compile ``execute`` for the model's form.

    Args:
        engine: the parts of the request path.
        model: the author's object.
        form: the form that it overrides.
        bls: its calls to other models, which belong to each request.
        sequences: the state of its sequences.

    Raises:
        PolicyError: reason ``policy.form``; the form cannot tell which sequence it answers.
    """
    function = getattr(model, form)
    takes_request = form != "infer_batch" and _takes_request(function)
    if sequences is not None:
        from safe_triton.runtime.sequences import in_sequence

        if not takes_request:
            raise _wrong(f"sequences are declared, and {form} does not take the request, which has the state")
        function = in_sequence(sequences, "async" if is_async(model, form) else form, function)
    kind = "async" if is_async(model, form) else form
    if bls is None:
        return _compile(engine, kind, function, takes_request=takes_request)
    from safe_triton.runtime.bls.around import by_callers, framed

    if form != "infer_batch" and not takes_request:
        function = _without_request(function)
    function = framed(bls, kind, function, engine.plan.deadline_s)
    execute = _compile(engine, kind, function, takes_request=True)
    if kind == "infer":
        return bls.around_infer(execute, engine)
    return by_callers(bls, execute) if kind == "infer_batch" else execute


def _compile(engine: Engine, kind: str, function: Callable[..., Any], *, takes_request: bool) -> Execute:
    """Compile one form, whose module only the models that need it import: each costs memory and time to start."""
    if kind == "infer_batch":
        from safe_triton.runtime.forms.batch import compile_infer_batch

        return compile_infer_batch(engine, function)
    if kind == "stream":
        from safe_triton.runtime.forms.stream import compile_stream

        return compile_stream(engine, function, takes_request=takes_request)
    if kind == "async":
        from safe_triton.runtime.forms.concurrent import compile_async_infer

        return compile_async_infer(engine, function, takes_request=takes_request)
    if engine.plan.plain is not None:
        from safe_triton.runtime.forms.plain import compile_plain_infer

        return compile_plain_infer(engine, function, engine.plan.plain, takes_request=takes_request)
    from safe_triton.runtime.forms.single import compile_infer

    return compile_infer(engine, function, takes_request=takes_request)


def is_async(model: object, form: str) -> bool:
    """Tell whether the model's form is a coroutine."""
    return inspect.iscoroutinefunction(getattr(model, form))


def _takes_request(function: Callable[..., Any]) -> bool:
    return _accepts(function, 2)


def _without_request(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda inputs, _request: function(inputs)


def _accepts(function: Callable[..., Any], count: int) -> bool:
    """Tell whether a function can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


def _wrong(message: str) -> PolicyError:
    return PolicyError(f"policy.form: {message}", reason="policy.form")
