"""Keras models: layers that carry code, and configurations that name anything importable."""

from __future__ import annotations

import re
import sys
from typing import Any

from safe_triton.audit.finding import Level
from safe_triton.audit.modelfiles.look import Look
from safe_triton.audit.modelfiles.source import Source, chunks

HDF5 = b"\x89HDF\r\n\x1a\n"
MAX_DEPTH = 100
_OWN_MODULES = ("keras", "tensorflow", "tf_keras", "keras_nlp", "keras_hub", "keras_cv", "keras_core")
_PLAIN_BUILTINS = frozenset(
    {"function", "str", "int", "float", "bool", "list", "dict", "tuple", "set", "NoneType", "bytes"}
)
_RUNNING_BUILTINS = frozenset(
    {"exec", "eval", "compile", "open", "__import__", "getattr", "setattr", "delattr", "breakpoint", "input", "globals",
     "locals", "vars", "exit", "quit"}
)  # fmt: skip
_LAMBDA = re.compile(rb'\\?"class_name\\?"\s*:\s*\\?"(?:[\w.]+>)?(Lambda|__lambda__|__typespec_code__)\\?"')
_MODULE = re.compile(rb'\\?"module\\?"\s*:\s*\\?"([A-Za-z_][\w.]{0,100})\\?"')
# Functions of Keras itself that download, write or load.
_ACTING = frozenset(
    {"get_file", "load_model", "load_img", "save_img", "save_model", "load_weights", "enable_unsafe_deserialization",
     "deserialize_keras_object", "plot_model", "load_data", "from_config", "model_from_json"}
)  # fmt: skip


def is_config(value: Any) -> bool:
    """Tell a Keras model's configuration from other JSON."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("class_name"), str)
        and (isinstance(value.get("config"), dict | list) or "module" in value)
    )


def check_config(value: Any, look: Look, depth: int = 0) -> None:
    """Walk a configuration: each object of it names a class that loading constructs."""
    if depth > MAX_DEPTH:
        look.unexamined("the Keras configuration is nested too deep and")
        return
    if isinstance(value, list):
        for inner in value:
            check_config(inner, look, depth + 1)
    elif isinstance(value, dict):
        if isinstance(value.get("class_name"), str):
            check_object(value, look)
        for key, inner in value.items():
            if isinstance(inner, dict | list):
                check_config(inner, look, depth + 1)
            elif key in {"vocabulary", "filename", "vocabulary_file"} and isinstance(inner, str) and outside(inner):
                look.find(
                    "keras-lambda", f"{key} {inner[:100]!r}{look.where} is read when the model is", level=Level.WARNING
                )


def outside(path: str) -> bool:
    """Tell a path or an address outside the model's own folder."""
    return path.startswith(("/", "~", "\\")) or "://" in path or ".." in path.replace("\\", "/").split("/")


def check_object(value: dict[str, Any], look: Look) -> None:
    """Report one object that is code, or that names something to import."""
    name = value["class_name"]
    module = str(value.get("module") or "")
    plain = name.rpartition(">")[2]
    config = value.get("config")
    if plain in {"Lambda", "__lambda__"}:
        look.find("keras-lambda", f"a {plain} layer or function{look.where} carries Python code", once=True)
        return
    root = module.partition(".")[0]
    named = config if isinstance(config, str) else name
    if root == "builtins" and (plain not in _PLAIN_BUILTINS or named in _RUNNING_BUILTINS):
        look.find(
            "keras-lambda",
            f"the configuration{look.where} names builtins.{(named if plain == 'function' else plain)[:80]}",
        )
    elif root in _OWN_MODULES:
        if named in _ACTING or name in _ACTING:
            look.find("keras-lambda", f"the configuration{look.where} calls {module}.{named[:80]}")
    elif root and root != "builtins":
        level = None if root in sys.stdlib_module_names or name == "function" else Level.WARNING
        look.find("keras-lambda", f"the configuration{look.where} imports {module[:80]}.{named[:80]}", level=level)


def check_bytes(source: Source, look: Look) -> None:
    """Search a file, HDF5 or other, for the configuration's text, which such files hold unpacked."""
    end = min(source.size, look.budget.scanned_bytes)
    if end < source.size:
        look.unexamined(f"{source.size} bytes are more than are searched")
    look.budget.scanned_bytes -= end
    for _, data in chunks(source, 0, end, overlap=512):
        found = _LAMBDA.search(data) if b"ambda" in data or b"__typespec" in data else None
        if found:
            what = found.group(1).decode("ascii")
            look.find("keras-lambda", f"a {what} layer or function{look.where} carries Python code", once=True)
        if b"module" in data:
            for match in _MODULE.finditer(data):
                root = match.group(1).split(b".")[0].decode("ascii")
                if root in sys.stdlib_module_names and root != "builtins":
                    look.find("keras-lambda", f"the configuration{look.where} imports {match.group(1).decode('ascii')}")
