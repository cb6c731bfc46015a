"""Triton's model configuration as frozen values."""

from __future__ import annotations

from safe_triton.config.dtypes import DTYPES, DType
from safe_triton.config.model_config import ModelConfig, TensorSpec

__all__ = ["DTYPES", "DType", "ModelConfig", "TensorSpec"]
