"""Compose projects: hardened, closed, and accepted by Docker where it is present."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from safe_triton.audit.deployment import check_compose
from safe_triton.deploy import render_compose
from safe_triton.policyfile import load_policy
from tests.unit.deploy.deployments import GATEWAY, PLAIN, PUBLIC, deployment, findings, with_gpus

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

POLICIES = {
    "a gateway": GATEWAY,
    "plain text": PLAIN,
    "public": GATEWAY.replace("[gateway]", '[gateway]\naddress = "0.0.0.0"'),
    "no gateway": PUBLIC,
    "a profile": GATEWAY + '[deploy]\nseccomp = "localhost"\nmodels = "image"\n',
}


def project(tmp_path: Path, policy: str = GATEWAY, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        render_compose(deployment(tmp_path, policy, **more), "../models")["compose.yaml"]
    )
    return found


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
class TestEveryPolicy:
    def test_the_audit_has_nothing_to_say(self, tmp_path: Path, policy: str) -> None:
        """``safe-triton check`` finds no error and no warning."""
        assert findings(render_compose(deployment(tmp_path, policy), "../models")) == []

    def test_every_service_is_hardened(self, tmp_path: Path, policy: str) -> None:
        """No root, no capabilities, no new privileges, nothing to write to, and limits of everything."""
        for service in project(tmp_path, policy)["services"].values():
            assert service["user"] == "10001:10001"
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
            assert "no-new-privileges:true" in service["security_opt"]
            assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
            assert all(volume["read_only"] for volume in service["volumes"])
            assert all("size=" in place for place in service["tmpfs"])

    def test_docker_accepts_it(self, tmp_path: Path, policy: str) -> None:
        """``docker compose config`` accepts the project, where it is present."""
        docker = shutil.which("docker")
        if (
            docker is None
            or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode
        ):
            pytest.skip("needs docker compose")
        files = render_compose(deployment(tmp_path, policy), "../models")
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        done = subprocess.run([docker, "compose", "config", "--quiet"], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


class TestNetwork:
    def test_triton_has_no_way_out(self, tmp_path: Path) -> None:
        """Triton is on the internal network alone and publishes nothing; only the gateway does, on loopback."""
        found = project(tmp_path)
        triton, gateway = found["services"]["triton"], found["services"]["gateway"]
        assert found["networks"]["inside"] == {"internal": True}
        assert triton["networks"] == ["inside"]
        assert "ports" not in triton
        assert gateway["ports"] == ["127.0.0.1:8443:8443", "127.0.0.1:8444:8444"]

    def test_a_granted_model_gets_out(self, tmp_path: Path) -> None:
        """A model that may connect needs a network that leads somewhere."""
        policy = GATEWAY + '[models.digits.sandbox]\nnetwork = { reason = "asks", to = [5432] }\n'
        assert project(tmp_path, policy)["services"]["triton"]["networks"] == ["inside", "outside"]

    def test_each_container_has_the_policy_that_its_network_needs(self, tmp_path: Path) -> None:
        """Both policies load, each with the tokens that say why; the gateway leads to Triton by its name."""
        files = render_compose(
            deployment(tmp_path, GATEWAY + "[models.digits.limits]\nmax_batch_size = 4\n"), "../models"
        )
        for name in ("safe-triton.toml", "gateway.toml"):
            (tmp_path / name).write_text(files[name])
        server, gateway = load_policy(tmp_path / "safe-triton.toml"), load_policy(tmp_path / "gateway.toml").gateway
        assert (server.server.address, server.gateway) == ("0.0.0.0", None)
        assert server.model("digits").limits.max_batch_size == 4
        assert gateway is not None
        assert [(row.address, row.http_port) for row in gateway.upstreams] == [("triton", 8000)]
        assert gateway.identities["alice"].api_key_file == "/run/secrets/gateway/api-key-alice"

    def test_the_access_log_goes_to_the_containers(self, tmp_path: Path) -> None:
        """A file of the machine does not exist in the container."""
        policy = GATEWAY.replace("[gateway]", '[gateway]\naccess_log = "/var/log/gateway.log"')
        values = tomllib.loads(render_compose(deployment(tmp_path, policy), "../models")["gateway.toml"])
        assert values["gateway"]["access_log"] == "stdout"


def test_secrets_are_files_beside(tmp_path: Path) -> None:
    """Only the gateway gets them, by reference; the page says which file is which."""
    files = render_compose(deployment(tmp_path), "../models")
    found = yaml.safe_load(files["compose.yaml"])
    assert found["secrets"]["tls.key"] == {"file": "./secrets/tls.key"}
    assert {row["target"] for row in found["services"]["gateway"]["secrets"]} >= {"/run/secrets/gateway/api-key-alice"}
    assert "secrets" not in found["services"]["triton"]
    assert "`/etc/safe-triton/alice.key`" in files["README.md"]


def test_a_path_is_no_variable(tmp_path: Path) -> None:
    """A dollar sign in the repository's path is one for compose too."""
    found = yaml.safe_load(render_compose(deployment(tmp_path), "../a$b")["compose.yaml"])
    assert [row["source"] for row in found["services"]["triton"]["volumes"]] == ["./safe-triton.toml", "../a$$b"]


def test_gpus_are_named(tmp_path: Path) -> None:
    """Triton is given single devices, the gateway none."""
    policy = GATEWAY + '[deploy]\ngpu_devices = ["2", "3"]\n'
    services = project(tmp_path, policy, configs=with_gpus({"kind": "KIND_GPU", "gpus": [1]}))["services"]
    assert services["triton"]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["2", "3"]
    assert services["gateway"]["environment"]["NVIDIA_VISIBLE_DEVICES"] == "none"


class TestAudit:
    """The audit tells this package's gateway from a Triton that is published."""

    SERVICE = (
        "services:\n  a:\n    image: triton:1@sha256:" + "0" * 64 + "\n    mem_limit: 1g\n    ports: ['8443:8443']\n"
    )

    def test_the_gateway_may_be_published(self) -> None:
        """Its policy demands TLS, or a token with a reason."""
        found = check_compose(self.SERVICE + "    entrypoint: [safe-triton, gateway, --policy, x]\n", "compose.yaml")
        assert "ports-public" not in {finding.rule for finding in found}

    @pytest.mark.parametrize("words", ["[safe-triton, serve, /models]", "[sh, gateway]", "[safe-triton]"])
    def test_nothing_else_may(self, words: str) -> None:
        """Any other program on the same port is found."""
        found = check_compose(f"{self.SERVICE}    entrypoint: {words}\n", "compose.yaml")
        assert "ports-public" in {finding.rule for finding in found}
