"""A stand-in for the module ``triton_python_backend_utils``.

One module object serves the whole process, so that a model module which is imported once keeps working in every test.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from safe_triton.testing import fake_metrics, fake_requests, fake_utils, fake_values

NAME = "triton_python_backend_utils"

# There while model.py is imported.
_PYTHON: dict[str, Any] = {
    name: value
    for name, value in vars(fake_utils).items()
    if name.isidentifier() and not name.startswith("_") and name not in ("annotations", "Any")  # pytest adds "@…" names
}


def _is_model_ready(model_name: str, model_version: str = "") -> bool:  # noqa: ARG001  # the real one's arguments
    """Whether the server serves that model: here the one that is running."""
    return model_name == fake_metrics.current_host().model_name


def _refused_load(*_: object, **__: object) -> None:
    """Fail as a server without explicit model control does."""
    raise fake_values.ServerAbort(
        "load_model() and unload_model() are refused, which ends tritonserver itself in most runs"
    )


# Added by the stub after model.py was imported.
_NATIVE: dict[str, Any] = {
    "get_model_dir": lambda: fake_metrics.current_host().model_directory,
    "is_model_ready": _is_model_ready,
    "load_model": _refused_load,
    "unload_model": _refused_load,
    "InferenceRequest": fake_requests.InferenceRequest,
    "InferenceResponse": fake_values.InferenceResponse,
    "Logger": fake_metrics.Logger,
    "MetricFamily": fake_metrics.MetricFamily,
    "PreferredMemory": fake_values.PreferredMemory,
    "TRITONSERVER_MEMORY_CPU": fake_values.MemoryType.TRITONSERVER_MEMORY_CPU,
    "TRITONSERVER_MEMORY_GPU": fake_values.MemoryType.TRITONSERVER_MEMORY_GPU,
    "Tensor": fake_values.Tensor,
    "TritonError": fake_values.TritonError,
    "TritonModelException": fake_values.TritonModelException,
}

PB_UTILS = ModuleType(NAME, "A stand-in for Triton's module, made by safe_triton.testing.")
vars(PB_UTILS).update(_PYTHON | _NATIVE)


_changing = threading.Lock()  # a model may call others from threads


@contextmanager
def hosted(host: fake_metrics.Host) -> Iterator[None]:
    """Metric families, log lines and the request class are this host's while this lasts."""
    with _changing:
        fake_metrics.hosts.append(host)
        _show_current_host()
    try:
        yield
    finally:
        with _changing:
            newest = len(fake_metrics.hosts) - 1 - fake_metrics.hosts[::-1].index(host)
            del fake_metrics.hosts[newest]
            _show_current_host()


def _show_current_host() -> None:
    """Let the module show the request class of the current host."""
    vars(PB_UTILS)["InferenceRequest"] = fake_metrics.current_host().request_class


@contextmanager
def registered() -> Iterator[ModuleType]:
    """``import triton_python_backend_utils`` gives the stand-in while this lasts; what was there before comes back."""
    before = sys.modules.get(NAME)
    sys.modules[NAME] = PB_UTILS
    try:
        yield PB_UTILS
    finally:
        if before is None:
            sys.modules.pop(NAME, None)
        else:
            sys.modules[NAME] = before


@contextmanager
def without_native() -> Iterator[None]:
    """The module as ``model.py`` finds it while it is imported: without ``Tensor`` and its neighbours."""
    hidden = {name: vars(PB_UTILS).pop(name) for name in _NATIVE if name in vars(PB_UTILS)}
    try:
        yield
    finally:
        vars(PB_UTILS).update(hidden)
