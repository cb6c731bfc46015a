"""Test a model in plain pytest: a stand-in for Triton in this process, and fixtures for the real server.

`load_model` needs neither Triton nor a network; the fixtures of ``safe_triton.testing.plugin`` start a real server.

The names are imported on first use: every pytest run in the environment imports this package for its plugin, and
should not pay for numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safe_triton.testing.ensembles import FakeEnsemble, load_ensemble
    from safe_triton.testing.fake_values import ServerAbort
    from safe_triton.testing.model import FakeModel, load_model
    from safe_triton.testing.outcomes import Outcome, Request

__all__ = ["FakeEnsemble", "FakeModel", "Outcome", "Request", "ServerAbort", "load_ensemble", "load_model"]

_HOMES = {
    "FakeEnsemble": "ensembles",
    "load_ensemble": "ensembles",
    "FakeModel": "model",
    "Outcome": "outcomes",
    "Request": "outcomes",
    "ServerAbort": "fake_values",
    "load_model": "model",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
