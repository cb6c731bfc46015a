"""Deployments from the text of a policy, without files of models; and what the tests ask of what is rendered."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from safe_triton.audit.deployment import check_text, detect
from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.rules.table import level_of
from safe_triton.deploy import DeployedModel, Deployment
from safe_triton.policyfile import load_policy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IMAGE = f"registry.example.com/serving/safe-triton:26.07@sha256:{'0' * 64}"
GATEWAY = """
[gateway]
certificate = "/etc/safe-triton/tls.crt"
private_key = "/etc/safe-triton/tls.key"
[gateway.roles.reader]
models = ["digits"]
verbs = ["infer", "metadata", "health"]
[gateway.identities.alice]
roles = ["reader"]
api_key_file = "/etc/safe-triton/alice.key"
"""
PLAIN = GATEWAY.replace(
    'certificate = "/etc/safe-triton/tls.crt"\nprivate_key = "/etc/safe-triton/tls.key"',
    'plaintext = { reason = "the mesh encrypts" }',
)
PUBLIC = '[server]\naddress = "0.0.0.0"\npublic_address = { reason = "behind the mesh" }\n'
DIGITS: Mapping[str, Any] = {
    "backend": "python",
    "max_batch_size": 32,
    "dynamic_batching": {},
    "input": [{"name": "PIXELS", "data_type": "TYPE_FP32", "dims": [64]}],
    "output": [{"name": "SCORES", "data_type": "TYPE_FP32", "dims": [10]}],
    "instance_group": [{"kind": "KIND_CPU", "count": 1}],
}


def deployment(
    tmp_path: Path, policy: str = GATEWAY, *, image: str = IMAGE, configs: Mapping[str, Mapping[str, Any]] | None = None
) -> Deployment:
    """Return what a policy's text and some configurations make."""
    file = tmp_path / "safe-triton.toml"
    file.write_text(policy, encoding="utf-8")
    operator = load_policy(file)
    models = {"digits": DIGITS} if configs is None else configs
    return Deployment(
        policy=operator,
        models=tuple(
            DeployedModel(name=name, config=config, policy=operator.model(name)) for name, config in models.items()
        ),
        image=image,
        policy_text=policy,
        policy_values=tomllib.loads(policy),
    )


def with_gpus(*groups: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the configuration of one model with other instance groups."""
    return {"digits": {**DIGITS, "instance_group": list(groups)}}


def documents(files: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield every object of every YAML file."""
    for name, text in files.items():
        if name.endswith(".yaml"):
            yield from yaml.safe_load_all(text)


def one(files: Mapping[str, str], kind: str, name: str = "") -> dict[str, Any]:
    """Return the only object of a kind, or of a kind and a name."""
    found = [row for row in documents(files) if row["kind"] == kind and (not name or row["metadata"]["name"] == name)]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def findings(files: Mapping[str, str]) -> list[Finding]:
    """Return what this package's own audit finds that is a warning or worse."""
    found: list[Finding] = []
    for name, text in files.items():
        kind = detect(name, text)
        found += check_text(kind, text, name) if kind is not None else []
    return [finding for finding in found if level_of(finding) >= Level.WARNING]
