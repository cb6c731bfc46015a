"""The only importer of ``triton_python_backend_utils``.

Triton copies the C classes onto that module after ``model.py`` is imported, so it is bound in ``initialize``.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

from safe_triton.errors import TRITON_CODES, EnvironmentMissingError

MODULE = "triton_python_backend_utils"
C_MODULE = "c_python_backend_utils"


@dataclass(frozen=True)
class Backend:
    """What this package uses of Triton's Python backend.

    Args:
        Tensor: ``pb_utils.Tensor``.
        InferenceResponse: ``pb_utils.InferenceResponse``.
        InferenceRequest: ``pb_utils.InferenceRequest``.
        TritonError: ``pb_utils.TritonError``.
        TritonModelException: ``pb_utils.TritonModelException``.
        MetricFamily: ``pb_utils.MetricFamily``; ``None`` where this release has no metrics.
        Metric: class of what a family makes, which Triton keeps out of ``pb_utils``; ``None`` outside of its stub.
        final_flag: ``TRITONSERVER_RESPONSE_COMPLETE_FINAL``.
        codes: Triton's error codes by name.
    """

    Tensor: Any
    InferenceResponse: Any
    InferenceRequest: Any
    TritonError: Any
    TritonModelException: Any
    MetricFamily: Any
    Metric: Any
    final_flag: int
    codes: dict[str, Any]


def folders() -> tuple[str, ...]:
    """Return the folder that Triton's module was imported from."""
    file = getattr(importlib.import_module(MODULE), "__file__", None)
    return (os.path.dirname(os.path.abspath(file)),) if file else ()


def bind() -> Backend:
    """Bind Triton's module as it is now.

    Raises:
        EnvironmentMissingError: this process is neither a Triton stub nor a ``safe_triton.testing`` fake.
    """
    try:
        module = importlib.import_module(MODULE)
    except ImportError:
        module = None
    if not hasattr(module, "InferenceResponse"):
        raise EnvironmentMissingError(
            "environment.pb_utils: no Triton Python backend in this process; tests use safe_triton.testing.load_model",
            reason="environment.pb_utils",
        )
    pb: Any = module
    return Backend(
        Tensor=pb.Tensor,
        InferenceResponse=pb.InferenceResponse,
        InferenceRequest=pb.InferenceRequest,
        TritonError=pb.TritonError,
        TritonModelException=pb.TritonModelException,
        MetricFamily=getattr(pb, "MetricFamily", None),
        Metric=getattr(sys.modules.get(C_MODULE), "Metric", None),
        final_flag=int(pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL),
        codes={name: code for name in TRITON_CODES if (code := getattr(pb.TritonError, name, None)) is not None},
    )
