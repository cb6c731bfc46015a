"""Envoy in front of Triton: from the policy's ``[gateway]`` to the files that Envoy reads. Starts nothing."""

from __future__ import annotations

from safe_triton.gateway.compile import BOOTSTRAP, REPLACED, VALIDATED, GatewayFiles, compile_gateway
from safe_triton.gateway.keys import check_private_key, read_keys

__all__ = ["BOOTSTRAP", "REPLACED", "VALIDATED", "GatewayFiles", "check_private_key", "compile_gateway", "read_keys"]
