"""What the rules that this project began with warn of is found, and what they advise, where it is right, is clean.

The advice is written as it works on the real server: image and options that exist, no comment inside a continued
command, a network that is internal, a user, and an address that only the proxy beside it reaches.
"""

from __future__ import annotations

import pytest

from safe_triton.audit.deployment import check_text, detect
from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.rules import cli, container

LEVELS = {rule.name: rule.level for rule in (*cli.RULES, *container.RULES)}


def check(name: str, text: str) -> list[Finding]:
    """Check a text as what it looks like."""
    kind = detect(name, text)
    assert kind is not None
    return check_text(kind, text, name)


def serious(found: list[Finding]) -> list[str]:
    """Return the rules of findings above info."""
    return [one.rule for one in found if (one.level or LEVELS[one.rule]) > Level.INFO]


class TestWarnings:
    @pytest.mark.parametrize(
        ("name", "text", "rules"),
        [
            ("-", "docker run --gpus all tritonserver", {"all-gpus", "no-memory-limit"}),
            ("-", "docker run --privileged tritonserver", {"privileged", "no-memory-limit"}),
            (
                "k.yaml",
                "# nothing is limited\ncontainers:\n- name: triton\n",
                {"no-memory-limit", "no-cpu-limit", "no-gpu-limit"},
            ),
            ("-", "tritonserver --model-repository=/models\n# plain text\n", {"no-tls", "http-plaintext-exposed"}),
            (
                "-",
                "tritonserver \\\n    --metrics-port=8002 \\\n    --allow-gpu-metrics=true \\\n    --allow-metrics=true\n",
                {"metrics-exposed"},
            ),
        ],
    )
    def test_is_found(self, name: str, text: str, rules: set[str]) -> None:
        """Each deployment that is shown as vulnerable is."""
        assert rules <= {one.rule for one in check(name, text)}


class TestAdviceThatDoesNotWork:
    def test_the_command_with_tls(self) -> None:
        """The advised command ends at its comment: it serves plain text; its options alone are wrong as well."""
        text = (
            "tritonserver \\\n  --model-repository=/models \\\n  # encryption\n  --grpc-use-ssl=true \\\n"
            "  --grpc-server-cert=/certs/server.crt --grpc-server-key=/certs/server.key\n"
        )
        assert {"broken-continuation", "no-tls"} <= {one.rule for one in check("run.sh", text)}
        text = "tritonserver --grpc-use-ssl --grpc-root-cert=/certs/ca.crt --rate-limit=execution_count:10\n"
        assert {"tls-ineffective", "invalid-flag-value"} <= {one.rule for one in check("run.sh", text)}

    def test_the_compose_file(self) -> None:
        """A network named internal is not, and the image is older than the fixes."""
        text = (
            "services:\n  triton:\n    image: nvcr.io/nvidia/tritonserver:23.10-py3\n    networks: [internal]\n"
            "networks:\n  internal: {}\n"
        )
        assert {"network-not-isolated", "image-outdated"} <= {one.rule for one in check("c.yaml", text)}


class TestAdviceThatWorks:
    def test_command(self) -> None:
        """Mutual TLS for gRPC, HTTP for the proxy beside it only, no metrics for others."""
        text = (
            "#!/bin/sh\n# encryption, with certificates of clients\nexec tritonserver \\\n"
            "  --model-repository=/models \\\n  --http-address=127.0.0.1 --http-port=8000 \\\n  --grpc-port=8001 \\\n"
            "  --grpc-use-ssl-mutual=true \\\n  --grpc-server-cert=/certs/server.crt \\\n"
            "  --grpc-server-key=/certs/server.key \\\n  --grpc-root-cert=/certs/ca.crt \\\n"
            "  --rate-limit=execution_count \\\n  --allow-gpu-metrics=false \\\n  --allow-cpu-metrics=false\n"
        )
        assert serious(check("run.sh", text)) == []

    def test_compose(self) -> None:
        """One GPU by its id, limits, a read-only repository, no new privileges, a network that is internal."""
        text = (
            "services:\n  triton:\n    image: nvcr.io/nvidia/tritonserver:26.07-py3\n    user: '1000:1000'\n"
            "    command: tritonserver --model-repository=/models --http-address=127.0.0.1 --grpc-address=127.0.0.1\n"
            "    deploy:\n      resources:\n        limits: {memory: 16G, cpus: '4', pids: 512}\n        reservations:\n"
            "          devices:\n          - {driver: nvidia, device_ids: ['0'], capabilities: [gpu]}\n"
            "    volumes:\n    - ./models:/models:ro\n    networks: [inside]\n"
            "    security_opt:\n    - no-new-privileges:true\nnetworks:\n  inside:\n    internal: true\n"
        )
        assert serious(check("compose.yaml", text)) == []

    def test_kubernetes(self) -> None:
        """One GPU, limits, no root, no writable root file system, no escalation."""
        text = (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: triton}\nspec:\n  template:\n    spec:\n"
            "      containers:\n      - name: triton\n        image: nvcr.io/nvidia/tritonserver:26.07-py3\n"
            "        resources:\n          limits: {nvidia.com/gpu: 1, memory: 16Gi, cpu: '4'}\n"
            "          requests: {nvidia.com/gpu: 1, memory: 8Gi}\n        securityContext:\n"
            "          runAsNonRoot: true\n          readOnlyRootFilesystem: true\n          allowPrivilegeEscalation: false\n"
        )
        assert serious(check("deployment.yaml", text)) == []
