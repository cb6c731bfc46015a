"""``safe-triton.toml``: what the operator decides about the server and about each model, for every ring."""

from __future__ import annotations

from safe_triton.policyfile.deploy_tables import DeployPolicy
from safe_triton.policyfile.document import json_schema
from safe_triton.policyfile.effective import OperatorPolicy
from safe_triton.policyfile.gateway_tables import GatewayPolicy
from safe_triton.policyfile.load import load_policy
from safe_triton.policyfile.model_policy import ModelPolicy
from safe_triton.policyfile.tables import AuditPolicy, ServerPolicy, SignaturePolicy, SupervisionPolicy, Suppression

__all__ = [
    "AuditPolicy",
    "DeployPolicy",
    "GatewayPolicy",
    "ModelPolicy",
    "OperatorPolicy",
    "ServerPolicy",
    "SignaturePolicy",
    "SupervisionPolicy",
    "Suppression",
    "json_schema",
    "load_policy",
]
