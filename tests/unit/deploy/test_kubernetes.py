"""Manifests: accepted by Kubernetes' schemas, by the Pod Security standard, by this package's own audit."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from safe_triton.deploy import render_kubernetes
from safe_triton.errors import DeployError
from tests.unit.deploy.deployments import GATEWAY, PUBLIC, deployment, documents, findings, one, with_gpus
from tests.unit.deploy.pod_security import RESTRICTED, violations

RELEASES = ("1.25", "1.31", "1.37")
POLICIES = {
    "a gateway": GATEWAY,
    "no gateway": PUBLIC,
    "every word": GATEWAY
    + """
[gateway.jwt.corp]
issuer = "https://id.example.com"
audiences = ["triton"]
jwks_url = "https://id.example.com:8444/keys"
jwks_ca = "/etc/safe-triton/id.crt"
[deploy]
name = "vision"
namespace = "team-a"
pull_secret = "registry"
replicas = 1
max_replicas = 1
models = "image"
seccomp = "localhost"
client_namespaces = ["ingress-nginx"]
[models.digits.sandbox]
network = { reason = "asks the feature store", to = [5432] }
""",
}


def pod_of(files: dict[str, str]) -> dict[str, Any]:
    pod: dict[str, Any] = one(files, "Deployment")["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
class TestEveryPolicy:
    @pytest.mark.parametrize("release", RELEASES)
    def test_the_schemas_accept_every_object(self, tmp_path: Path, policy: str, release: str) -> None:
        """Each object is valid, unknown fields refused, for old and new releases of Kubernetes."""
        for found in documents(render_kubernetes(deployment(tmp_path, policy))):
            if found["kind"] != "Kustomization":
                kubernetes_validate.validate(found, release, strict=True)

    def test_the_pod_is_restricted(self, tmp_path: Path, policy: str) -> None:
        """The pod breaks no control of the Pod Security standard "restricted"."""
        assert violations(pod_of(render_kubernetes(deployment(tmp_path, policy)))) == []

    def test_the_audit_has_nothing_to_say(self, tmp_path: Path, policy: str) -> None:
        """``safe-triton check`` finds no error and no warning."""
        assert findings(render_kubernetes(deployment(tmp_path, policy))) == []

    def test_the_same_policy_gives_the_same_files(self, tmp_path: Path, policy: str) -> None:
        """Rendering is deterministic."""
        assert render_kubernetes(deployment(tmp_path, policy)) == render_kubernetes(deployment(tmp_path, policy))

    def test_kustomize_takes_all_of_it(self, tmp_path: Path, policy: str) -> None:
        """``kubectl kustomize`` builds every object, where kubectl is present."""
        if shutil.which("kubectl") is None:
            pytest.skip("needs kubectl")
        files = render_kubernetes(deployment(tmp_path, policy))
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        done = subprocess.run(
            ["kubectl", "kustomize", tmp_path], capture_output=True, text=True, check=False, timeout=150
        )
        kinds = sorted(found["kind"] for found in documents(files) if found["kind"] != "Kustomization")
        assert done.returncode == 0, done.stderr
        assert sorted(found["kind"] for found in documents({"all.yaml": done.stdout})) == kinds


BREAKING: dict[str, Any] = {
    "host namespaces": lambda pod: pod.update(hostPID=True),
    "privileged": lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
    "capabilities are dropped": lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(
        drop=["NET_RAW"]
    ),
    "none is added": lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
    "host paths": lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "host ports": lambda pod: pod["containers"][1]["ports"][0].update(hostPort=80),
    "host probes": lambda pod: pod["containers"][1]["livenessProbe"]["tcpSocket"].update(host="10.0.0.1"),
    "AppArmor": lambda pod: pod["securityContext"].update(appArmorProfile={"type": "Unconfined"}),
    "SELinux": lambda pod: pod["securityContext"].update(seLinuxOptions={"user": "x"}),
    "proc mount": lambda pod: pod["containers"][0]["securityContext"].update(procMount="Unmasked"),
    "sysctls": lambda pod: pod["securityContext"].update(sysctls=[{"name": "kernel.shm_rmid_forced", "value": "1"}]),
    "volume types": lambda pod: pod["volumes"].append({"name": "x", "nfs": {"path": "/", "server": "x"}}),
    "escalation": lambda pod: pod["containers"][0]["securityContext"].update(allowPrivilegeEscalation=True),
    "non-root": lambda pod: pod["containers"][0]["securityContext"].update(runAsNonRoot=False),
    "non-root user": lambda pod: pod["securityContext"].update(runAsUser=0),
    "seccomp": lambda pod: pod["securityContext"].update(seccompProfile={"type": "Unconfined"}),
}


@pytest.mark.parametrize("control", [name for name, _ in RESTRICTED])
def test_each_control_can_fail(tmp_path: Path, control: str) -> None:
    """A pod that breaks one control of the standard is told by exactly that one."""
    pod = copy.deepcopy(pod_of(render_kubernetes(deployment(tmp_path))))
    BREAKING[control](pod)
    assert violations(pod) in ([control], ["host paths", "volume types"])


class TestBeyondTheStandard:
    def test_nothing_is_written_but_sized_folders(self, tmp_path: Path) -> None:
        """Root file systems are read-only, the models and secrets too; every folder that is not has a size."""
        pod = pod_of(render_kubernetes(deployment(tmp_path)))
        assert all(box["securityContext"]["readOnlyRootFilesystem"] for box in pod["containers"])
        writable = {m["name"] for box in pod["containers"] for m in box["volumeMounts"] if not m.get("readOnly")}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert all("sizeLimit" in volumes[name]["emptyDir"] for name in writable)
        assert volumes["models"]["persistentVolumeClaim"]["readOnly"] is True

    def test_keys_are_in_the_gateway_alone(self, tmp_path: Path) -> None:
        """The server's container mounts no secret, the gateway's no models; no manifest holds a secret's content."""
        files = render_kubernetes(deployment(tmp_path))
        server, gateway = pod_of(files)["containers"]
        assert {"tls", "gateway-keys"} & {mount["name"] for mount in server["volumeMounts"]} == set()
        assert "models" not in {mount["name"] for mount in gateway["volumeMounts"]}
        assert [row["kind"] for row in documents(files) if row["kind"] == "Secret"] == []
        assert 'api_key_file = "/run/secrets/gateway/api-key-alice"' in files["policy.yaml"]

    def test_requests_are_limits(self, tmp_path: Path) -> None:
        """Each container asks for what it may take: processors, memory, temporary space."""
        for box in pod_of(render_kubernetes(deployment(tmp_path)))["containers"]:
            assert box["resources"]["requests"] == box["resources"]["limits"]
            assert set(box["resources"]["limits"]) >= {"cpu", "memory", "ephemeral-storage"}

    def test_a_changed_policy_starts_new_pods(self, tmp_path: Path) -> None:
        """The pods carry the policy's digest."""
        first, second = (
            one(render_kubernetes(deployment(tmp_path, text)), "Deployment")["spec"]["template"]["metadata"][
                "annotations"
            ]
            for text in (GATEWAY, GATEWAY + "# changed\n")
        )
        assert first != second

    @pytest.mark.parametrize(("word", "page"), [("server", "serverz"), ("models", "readyz")])
    def test_what_ready_means(self, tmp_path: Path, word: str, page: str) -> None:
        """The supervisor is asked, by a program in the container: whether Triton answers, or whether every model serves."""
        policy = GATEWAY + f'[deploy]\nreadiness = "{word}"\n'
        server = pod_of(render_kubernetes(deployment(tmp_path, policy)))["containers"][0]
        asked = {name: server[f"{name}Probe"]["exec"]["command"][2] for name in ("startup", "readiness", "liveness")}
        assert [f"GET /{page} " in asked[name] for name in ("startup", "readiness")] == [True, True]
        assert "GET /livez " in asked["liveness"]

    def test_pods_end_in_order(self, tmp_path: Path) -> None:
        """Clients leave, then the gateway ends with its requests, then Triton, with time to stop."""
        pod = pod_of(render_kubernetes(deployment(tmp_path)))
        server, gateway = (int(box["lifecycle"]["preStop"]["exec"]["command"][1]) for box in pod["containers"])
        assert server - gateway == 10
        assert pod["terminationGracePeriodSeconds"] > server + 3


class TestGpus:
    def test_none_are_shown_to_models_on_processors(self, tmp_path: Path) -> None:
        """Without a model on GPUs the container is shown none of the node's."""
        (server, _) = pod_of(render_kubernetes(deployment(tmp_path)))["containers"]
        assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "none"} in server["env"]
        assert not any("nvidia" in name for name in server["resources"]["limits"])

    def test_as_many_as_triton_counts(self, tmp_path: Path) -> None:
        """A model on GPU 1 needs two devices; the server gets them, the gateway none, and no pod more takes one."""
        files = render_kubernetes(deployment(tmp_path, configs=with_gpus({"kind": "KIND_GPU", "gpus": [1]})))
        server, gateway = pod_of(files)["containers"]
        assert server["resources"]["limits"]["nvidia.com/gpu"] == "2"
        assert "nvidia.com/gpu" not in gateway["resources"]["limits"]
        assert one(files, "Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        assert one(files, "ResourceQuota")["spec"]["hard"]["requests.nvidia.com/gpu"] == "10"

    def test_a_slice(self, tmp_path: Path) -> None:
        """A MIG resource of the policy stands in the place of whole GPUs."""
        policy = GATEWAY + '[deploy]\ngpu_resource = "nvidia.com/mig-1g.10gb"\n'
        files = render_kubernetes(deployment(tmp_path, policy, configs=with_gpus({"kind": "KIND_GPU", "gpus": [0]})))
        assert pod_of(files)["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "1"


class TestNetwork:
    def test_nothing_by_default(self, tmp_path: Path) -> None:
        """The namespace is closed, the pods open nothing, and only labelled pods and the monitoring get in."""
        files = render_kubernetes(deployment(tmp_path))
        closed = one(files, "NetworkPolicy", "default-deny")["spec"]
        assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        spec = one(files, "NetworkPolicy", "triton")["spec"]
        assert spec["egress"] == []
        assert [[port["port"] for port in rule["ports"]] for rule in spec["ingress"]] == [[8443], [8444]]
        assert all(rule["from"] for rule in spec["ingress"])

    def test_what_a_model_was_granted(self, tmp_path: Path) -> None:
        """A model's ports, those of token issuers and names may be asked for; nothing else."""
        spec = one(render_kubernetes(deployment(tmp_path, POLICIES["every word"])), "NetworkPolicy", "vision")["spec"]
        assert [[port["port"] for port in rule["ports"]] for rule in spec["egress"]] == [[53, 53], [5432, 8444]]

    def test_every_port(self, tmp_path: Path) -> None:
        """A model that may connect anywhere opens the pod's egress, since a port cannot be told."""
        policy = GATEWAY + '[models.digits.sandbox]\nnetwork = { reason = "crawls", to = "any" }\n'
        assert one(render_kubernetes(deployment(tmp_path, policy)), "NetworkPolicy", "triton")["spec"]["egress"] == [{}]


class TestScale:
    def test_the_autoscaler_decides(self, tmp_path: Path) -> None:
        """With an autoscaler the deployment has no number of its own, which would be set back at each apply."""
        files = render_kubernetes(deployment(tmp_path))
        assert "replicas" not in one(files, "Deployment")["spec"]
        metric = one(files, "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]["name"]
        assert metric == "nv_inference_pending_request_count"
        assert "prometheus-adapter" in files["README.md"]

    @pytest.mark.parametrize("policy", [GATEWAY + "[deploy]\nmax_replicas = 2\n", PUBLIC])
    def test_no_autoscaler(self, tmp_path: Path, policy: str) -> None:
        """Where there is nothing to scale, or no metrics beyond loopback, the number is fixed."""
        files = render_kubernetes(deployment(tmp_path, policy))
        assert one(files, "Deployment")["spec"]["replicas"] == 2
        assert all(row["kind"] != "HorizontalPodAutoscaler" for row in documents(files))


class TestRefusals:
    def test_nobody_could_call(self, tmp_path: Path) -> None:
        """Without a gateway, and on loopback, nothing reaches the pods: the message has both ways out."""
        with pytest.raises(DeployError, match=r"\[gateway\].*public_address") as caught:
            render_kubernetes(deployment(tmp_path, ""))
        assert caught.value.reason == "deploy.reach"

    def test_no_image(self, tmp_path: Path) -> None:
        """An image has to be named."""
        with pytest.raises(DeployError, match="--image") as caught:
            render_kubernetes(deployment(tmp_path, image=""))
        assert caught.value.reason == "deploy.image"
