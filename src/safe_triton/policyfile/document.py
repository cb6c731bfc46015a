"""The whole of ``safe-triton.toml`` as one pydantic model, and its JSON schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.json_schema import GenerateJsonSchema

from safe_triton.policy.bls import BlsGrants
from safe_triton.policy.limits import Limits
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.policy.sequences import SequenceLimits
from safe_triton.policyfile.deploy_tables import DeployPolicy
from safe_triton.policyfile.gateway_tables import GatewayPolicy
from safe_triton.policyfile.mirror import MIRRORED, Mirrored, Table
from safe_triton.policyfile.tables import AuditPolicy, ServerPolicy, SupervisionPolicy
from safe_triton.unsafe import AllowAutoComplete

SCHEMA_ID = "urn:safe-triton:policy:1"

AutoComplete = AllowAutoComplete | Literal[False]


class ModelTable(Table):
    """What holds for one model; every key that is left out is that of ``[defaults]``."""

    limits: Annotated[Limits, MIRRORED] = Field(
        default_factory=Limits, description="what its requests may hold and how long it may take"
    )
    sandbox: Annotated[SandboxPolicy, MIRRORED] = Field(
        default_factory=SandboxPolicy, description="what its processes may touch"
    )
    protect: bool = Field(False, description="serve an unmodified model under the SDK's checks")
    outputs: Literal["warn", "refuse"] = Field(
        "warn", description="of a protected model: what becomes of outputs that break config.pbtxt"
    )
    bls: Annotated[BlsGrants, MIRRORED] = Field(default_factory=BlsGrants, description="which models it may call")
    sequences: Annotated[SequenceLimits, MIRRORED] = Field(
        default_factory=SequenceLimits, description="of a model that keeps the state of sequences: upper bounds"
    )
    auto_complete: Annotated[AutoComplete, MIRRORED] = Field(
        False, description="let the model complete its own configuration; by default none may"
    )


class DefaultsTable(ModelTable):
    """What holds for every model whose own table does not say otherwise."""

    limits: Annotated[Limits, Mirrored(without=frozenset({"inputs", "outputs"}))] = Field(
        default_factory=Limits, description="as of one model, without inputs and outputs: these are a model's own"
    )


class Document(Table):
    """The operator's policy for every ring of safe_triton."""

    schema_: Literal[1] = Field(1, alias="schema", description="version of this file's form")
    server: ServerPolicy = Field(default_factory=ServerPolicy)
    supervision: SupervisionPolicy = Field(default_factory=SupervisionPolicy)
    audit: AuditPolicy = Field(default_factory=AuditPolicy)
    deploy: DeployPolicy = Field(default_factory=DeployPolicy)
    gateway: GatewayPolicy | None = Field(None, description="Envoy in front of Triton; none without it")
    defaults: DefaultsTable = Field(default_factory=lambda: DefaultsTable.model_validate({}))
    models: dict[Annotated[str, Field(min_length=1)], ModelTable] = Field(
        default_factory=dict, description="tables by model name"
    )


class _Schema(GenerateJsonSchema):
    """Texts and structure, without the titles that pydantic makes up from names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        """What may be left out: TOML has no null."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> dict[str, Any]:
        """A default that can be written down."""
        can_be_written = schema.get("default", 0) is not None
        return super().default_schema(schema) if can_be_written else self.generate_inner(schema["schema"])


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of ``safe-triton.toml``, for editors and other programs.

    Does not cover:
        What depends on two keys together, such as a range whose minimum is above its maximum; dates are texts there.
    """
    schema = Document.model_json_schema(by_alias=True, schema_generator=_Schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **schema}
