"""What is rendered, for policies that nobody would write."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from safe_triton.deploy import render_compose, render_kserve, render_kubernetes, render_systemd
from safe_triton.deploy.text import toml_text
from safe_triton.policyfile.deploy_tables import LABEL
from tests.unit.deploy.deployments import DIGITS, GATEWAY, PLAIN, PUBLIC, deployment, findings, one
from tests.unit.deploy.pod_security import violations

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LABELS = st.from_regex(LABEL, fullmatch=True).filter(lambda text: len(text) <= 40)
MIB = 1 << 20
DEPLOY = st.fixed_dictionaries(
    {},
    optional={
        "name": LABELS,
        "namespace": LABELS,
        "user_id": st.integers(1000, 65_533),
        "replicas": st.integers(1, 4),
        "max_replicas": st.integers(4, 9),
        "cpus": st.integers(1, 64),
        "memory_bytes": st.integers(512 * MIB, 1 << 40),
        "temporary_bytes": st.integers(64 * MIB, 1 << 40),
        "processes": st.integers(256, 100_000),
        "gpu_resource": st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-2g.20gb"]),
        "gpu_devices": st.just([str(number) for number in range(8)]),
        "models": st.sampled_from(["volume", "image"]),
        "seccomp": st.sampled_from(["runtime-default", "localhost"]),
        "client_namespaces": st.lists(LABELS, max_size=2),
        "monitoring_namespace": LABELS,
    },
)
SANDBOX = st.fixed_dictionaries(
    {},
    optional={
        "read": st.just(["/srv/words", "{model}/labels.txt"]),
        "write": st.just(["/var/lib/digits"]),
        "network": st.sampled_from([{"reason": "asks", "to": [5432]}, {"reason": "asks", "to": "any"}]),
    },
)
GROUPS = st.lists(
    st.sampled_from(
        [{"kind": "KIND_CPU", "count": 2}, {"kind": "KIND_GPU", "gpus": [1]}, {"kind": "KIND_GPU", "count": 3}, {}]
    ),
    max_size=3,
)
SCALARS = st.one_of(st.booleans(), st.integers(-(2**60), 2**60), st.text(max_size=12), st.dates())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
)


class TestRendered:
    """Everything that is rendered passes the audit, and no pod breaks the restricted standard."""

    @settings(max_examples=40)
    @given(base=st.sampled_from([GATEWAY, PLAIN, PUBLIC]), deploy=DEPLOY, sandbox=SANDBOX, groups=GROUPS)
    def test_the_audit_has_nothing_to_say(
        self, base: str, deploy: Mapping[str, Any], sandbox: Mapping[str, Any], groups: list[Mapping[str, Any]]
    ) -> None:
        """For any policy and any instance groups, of each form."""
        policy = f"{base}\n{toml_text({'deploy': deploy, 'models': {'digits': {'sandbox': sandbox}}})}"
        with tempfile.TemporaryDirectory() as folder:
            found = deployment(Path(folder), policy, configs={"digits": {**DIGITS, "instance_group": groups}})
        assume(found.gpu_count < 2 or "mig" not in found.settings.gpu_resource)  # refused: a process sees one slice
        manifests = render_kubernetes(found)
        rendered = [manifests, render_compose(found, "../models")]
        rendered.append(render_systemd(found, program="/opt/x/bin/safe-triton", models="/m", policy="/p"))
        if base != GATEWAY:
            rendered.append(render_kserve(found))
        assert [finding for files in rendered for finding in findings(files)] == []
        assert violations(one(manifests, "Deployment")["spec"]["template"]["spec"]) == []


class TestToml:
    """A policy's values that are written come back the same."""

    @settings(max_examples=200)
    @given(st.dictionaries(st.text(max_size=6), VALUES, max_size=4))
    def test_round_trip(self, values: dict[str, Any]) -> None:
        """For any table that TOML can hold."""
        assert tomllib.loads(toml_text(values)) == values
