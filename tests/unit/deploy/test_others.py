"""KServe, Envoy, the image and the seccomp profile."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from safe_triton.audit.deployment import check_dockerfile
from safe_triton.deploy import render_envoy, render_image, render_kserve
from safe_triton.deploy.seccomp import seccomp_text
from safe_triton.errors import DeployError
from safe_triton.server import envoy_binary
from tests.unit.deploy.deployments import GATEWAY, IMAGE, PLAIN, PUBLIC, deployment, findings, one
from tests.unit.deploy.pod_security import violations

BASE = f"nvcr.io/nvidia/tritonserver:26.07-py3@sha256:{'1' * 64}"
MESHED = PLAIN + '[deploy]\nclient_namespaces = ["istio-system"]\n'

NAMED = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
RUNTIME: dict[str, Any] = {
    "type": "object",
    "required": ["supportedModelFormats", "containers"],
    "additionalProperties": False,
    "properties": {
        "supportedModelFormats": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "version": {"type": "string"},
                    "autoSelect": {"type": "boolean"},
                    "priority": {"type": "integer"},
                },
            },
        },
        "protocolVersions": {"type": "array", "items": {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}},
        "multiModel": {"type": "boolean"},
        "containers": {"type": "array", "minItems": 1, "items": NAMED},
        "volumes": {"type": "array", "items": NAMED},
    },
}
"""Of KServe's ServingRuntime v1alpha1, the fields that are used."""

PREDICTOR: dict[str, Any] = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "minReplicas": {"type": "integer", "minimum": 0},
        "maxReplicas": {"type": "integer", "minimum": 1},
        "scaleMetric": {"enum": ["cpu", "memory", "concurrency", "rps"]},
        "scaleTarget": {"type": "integer"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "model": {
            "type": "object",
            "required": ["modelFormat", "runtime"],
            "properties": {
                "modelFormat": NAMED,
                "storageUri": {"type": "string", "pattern": "^pvc://"},
                "protocolVersion": {"enum": ["v2"]},
                "runtime": {"type": "string"},
            },
        },
    },
}
"""Of KServe's InferenceService v1beta1, the fields that are used."""


class TestKServe:
    @pytest.mark.parametrize("policy", [MESHED, PUBLIC, MESHED + 'models = "image"\nseccomp = "localhost"\n'])
    def test_structure(self, tmp_path: Path, policy: str) -> None:
        """Runtime and service have the fields of KServe's own definitions, and name each other."""
        files = render_kserve(deployment(tmp_path, policy))
        runtime, service = one(files, "ServingRuntime"), one(files, "InferenceService")
        jsonschema.validate(runtime["spec"], RUNTIME)
        jsonschema.validate(service["spec"]["predictor"], PREDICTOR)
        assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
        assert runtime["spec"]["containers"][0]["name"] == "kserve-container"

    def test_what_is_hardened(self, tmp_path: Path) -> None:
        """The runtime's containers say by themselves what a pod would: none breaks the restricted standard."""
        spec = one(render_kserve(deployment(tmp_path, MESHED)), "ServingRuntime")["spec"]
        assert violations({"containers": spec["containers"], "volumes": spec["volumes"]}) == []

    def test_the_audit_has_nothing_to_say(self, tmp_path: Path) -> None:
        """``safe-triton check`` finds no error and no warning."""
        assert findings(render_kserve(deployment(tmp_path, MESHED))) == []

    def test_the_service_leads_to_the_gateway(self, tmp_path: Path) -> None:
        """KServe's service goes to the port of its container: that of the gateway, or without one Triton's."""
        for policy, port in ((MESHED, 8443), (PUBLIC, 8000)):
            (server, *_) = one(render_kserve(deployment(tmp_path, policy)), "ServingRuntime")["spec"]["containers"]
            assert [row["containerPort"] for row in server["ports"]] == [port]

    def test_tls_is_refused(self, tmp_path: Path) -> None:
        """KServe's ingress speaks no TLS to its pods: nothing would get through."""
        with pytest.raises(DeployError, match="plaintext") as caught:
            render_kserve(deployment(tmp_path, GATEWAY))
        assert caught.value.reason == "deploy.reach"


class TestEnvoy:
    def test_envoy_accepts_it(self, tmp_path: Path) -> None:
        """The configuration passes Envoy's own validation, where there is an Envoy."""
        try:
            binary = envoy_binary.locate_envoy().binary
        except Exception as error:
            pytest.skip(f"needs Envoy: {error}")
        files = render_envoy(
            deployment(tmp_path, PLAIN), folder=str(tmp_path), keys={"alice": "{SHA}" + "0" * 27 + "="}
        )
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        command = [str(binary), "--mode", "validate", "-c", str(tmp_path / "validate.json")]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env={"PATH": os.defpath}
        )
        assert done.returncode == 0, done.stderr[-500:]

    def test_no_gateway(self, tmp_path: Path) -> None:
        """Without a table there is nothing to write."""
        with pytest.raises(DeployError) as caught:
            render_envoy(deployment(tmp_path, ""), folder="/x", keys={})
        assert caught.value.reason == "deploy.gateway"

    @pytest.mark.parametrize("folder", ["x", "/" + "x" * 100])
    def test_a_folder_that_does_not_do(self, tmp_path: Path, folder: str) -> None:
        """Envoy's working directory is unknown, and the path of its socket has to be short."""
        with pytest.raises(DeployError) as caught:
            render_envoy(deployment(tmp_path, PLAIN), folder=folder, keys={})
        assert caught.value.reason == "deploy.path"


class TestImage:
    @pytest.mark.parametrize("policy", ["", '[deploy]\nmodels = "image"\n'])
    @pytest.mark.parametrize("requirements", ["", "safe-triton==1 --hash=sha256:0\n"])
    def test_the_audit_has_nothing_to_say(self, tmp_path: Path, policy: str, requirements: str) -> None:
        """``safe-triton check`` finds nothing at all in the Dockerfile."""
        files = render_image(deployment(tmp_path, policy), BASE, requirements)
        assert check_dockerfile(files["Dockerfile"], "Dockerfile") == []
        assert ("--require-hashes" in files["Dockerfile"]) is bool(requirements)
        assert ("COPY --chown=0:0 --chmod=0555 models /models" in files["Dockerfile"]) is bool(policy)

    def test_the_base_is_pinned(self, tmp_path: Path) -> None:
        """What may be another image tomorrow is refused."""
        with pytest.raises(DeployError) as caught:
            render_image(deployment(tmp_path, image=IMAGE), "nvcr.io/nvidia/tritonserver:latest", "")
        assert caught.value.reason == "deploy.image"


class TestSeccomp:
    PROFILE: dict[str, Any] = json.loads(seccomp_text())

    def allowed(self) -> set[str]:
        return {name for rule in self.PROFILE["syscalls"] if "args" not in rule for name in rule["names"]}

    def test_everything_else_is_refused(self) -> None:
        """An allow-list: what is not named is answered as not implemented."""
        assert self.PROFILE["defaultAction"] == "SCMP_ACT_ERRNO"
        assert {rule["action"] for rule in self.PROFILE["syscalls"]} == {"SCMP_ACT_ALLOW"}

    def test_the_launcher_can_confine(self) -> None:
        """Landlock, seccomp and giving up capabilities work under it."""
        assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} <= self.allowed()
        assert {"seccomp", "prctl", "capset", "pidfd_open", "execve"} <= self.allowed()

    def test_no_second_table_of_calls(self) -> None:
        """Calls of 32 bits and of x32, which have other numbers, are not even refused."""
        assert self.PROFILE["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]

    @pytest.mark.parametrize(
        "name",
        [
            "mount",
            "umount2",
            "pivot_root",
            "unshare",
            "setns",
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "bpf",
            "perf_event_open",
            "keyctl",
            "add_key",
            "request_key",
            "io_uring_setup",
            "userfaultfd",
            "kexec_load",
            "init_module",
            "finit_module",
            "open_by_handle_at",
            "memfd_create",
            "setuid",
            "setgid",
            "chown",
            "reboot",
            "swapon",
            "quotactl",
            "syslog",
            "clone",
            "clone3",
            "personality",
        ],
    )
    def test_what_leads_out(self, name: str) -> None:
        """Calls by which containers are left are not in it; clone and personality only with conditions."""
        assert name not in self.allowed()

    def test_no_namespaces(self) -> None:
        """``clone`` makes threads and processes, never a namespace."""
        (rule,) = [rule for rule in self.PROFILE["syscalls"] if rule["names"] == ["clone"]]
        assert rule["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
