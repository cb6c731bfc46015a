"""The classes that Triton calls: which parameters carry request data, and whether anything looks at it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, TypeGuard

from safe_triton.audit.pycode.value import UNKNOWN, Value, named

if TYPE_CHECKING:
    from safe_triton.audit.pycode.analysis import Analysis
    from safe_triton.audit.pycode.interpret import Interpreter
    from safe_triton.audit.pycode.modules import Module

SDK_CLASS = "SafeTritonPythonModel"
_SDK_FORMS = frozenset({"infer", "infer_batch", "stream"})
_REQUEST_NAMES = frozenset({"request", "requests", "infer_request", "inference_request", "inference_requests"})


def parameter(function: str, name: str, *, sdk: bool, in_class: bool) -> Value:
    """Return what the server passes as a parameter."""
    if name in _REQUEST_NAMES or (function == "execute" and in_class):
        return Value(is_request=True, names=frozenset({"<requests>"}))
    if sdk and function in _SDK_FORMS:
        return Value(is_request=True)
    if name == "args" and function in {"initialize", "__init__"}:
        return named("<args>")
    if name == "context" or (sdk and function == "load"):
        return named("<context>")
    return UNKNOWN


def is_sdk_class(run: Interpreter, place: int) -> bool:
    """Tell a class that is derived from the SDK's base class."""
    return any(name.rpartition(".")[2] == SDK_CLASS for info in run.lineage(place) for name in info.bases.names)


def note_validation(analysis: Analysis, place: int) -> None:
    """Remember that a function looks at request data before it uses them."""
    info = analysis.run.functions[place]
    if not isinstance(info.node, ast.Lambda):
        analysis.validating.add(id(info.node))


def check_models(analysis: Analysis, entry: Module) -> None:
    """Report a model class whose ``execute`` looks at nothing that a request says about itself."""
    if analysis.has_protect:
        return
    for place, info in enumerate(analysis.run.classes):
        if place == 0 or is_sdk_class(analysis.run, place):
            continue
        given = [analysis.run.functions[number].node for number in sorted(info.names.get("execute", UNKNOWN).functions)]
        execute = next((node for node in given if _is_execute(node)), None)
        if execute is None or id(execute) in analysis.validating:
            continue
        if info.module is entry or info.node.name == "TritonPythonModel":
            analysis.find(
                "py-no-input-validation",
                info.module.shown,
                execute.lineno,
                f"execute of {info.node.name} compares no size, shape or value of a request with a bound",
            )


def _is_execute(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Tell a function that can be Triton's entry point."""
    return (
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len([*node.args.posonlyargs, *node.args.args]) >= 2
    )
