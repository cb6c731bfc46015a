"""``safe-triton render kserve``: a runtime and a service of KServe, with what the pods may do and reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safe_triton.deploy.containers import serve_command
from safe_triton.deploy.kubernetes import config_map, metadata, network_policies, policy_files, service_account
from safe_triton.deploy.pages import kserve_page
from safe_triton.deploy.pod import GATEWAY, all_labels, gateway_container, pod_security, server_container, volumes
from safe_triton.deploy.seccomp import seccomp_text
from safe_triton.deploy.text import yaml_text
from safe_triton.errors import DeployError

if TYPE_CHECKING:
    from safe_triton.deploy.deployment import Deployment

FORM = "kserve"
SERVING = "kserve-container"
FORMAT = "safe-triton"
KSERVE_MODELS = "/mnt/models"
"""Where KServe puts what ``storageUri`` names."""


def render_kserve(deployment: Deployment) -> dict[str, str]:
    """Return the files of a service of KServe, by name; pure.

    Raises:
        DeployError: ``deploy.reach``: KServe's ingress calls its pods without TLS; ``deploy.image``; ``deploy.gpus``.
        EnvironmentMissingError: there is no PyYAML.

    Does not cover:
        Knative: it accepts neither a second container with ports of its own nor these probes.

    Source:
        KServe's API: ``ServingRuntime`` v1alpha1, ``InferenceService`` v1beta1, deployment mode ``RawDeployment``.
    """
    deployment.check_reach()
    deployment.check_has_image()
    deployment.check_cluster_gpus()
    gateway = deployment.policy.gateway
    if gateway is not None and not gateway.plaintext:
        raise DeployError(
            "KServe's ingress calls its pods without TLS, and this gateway takes nothing else: write "
            '[gateway] plaintext = { reason = "the mesh encrypts" }, or render kubernetes',
            reason="deploy.reach",
        )
    policies = policy_files(deployment, FORM)
    files = {
        "policy.yaml": yaml_text(FORM, "What safe-triton reads in the pods.", [config_map(deployment, policies)]),
        "service.yaml": yaml_text(
            FORM,
            "How the models are served, and who talks to them.",
            [service_account(deployment), _runtime(deployment), _service(deployment), *network_policies(deployment)],
        ),
        "README.md": kserve_page(deployment),
    }
    if deployment.settings.seccomp == "localhost":
        files["seccomp.json"] = seccomp_text()
    names = [name for name in files if name.endswith(".yaml")]
    document = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": names}
    return {"kustomization.yaml": yaml_text(FORM, "kubectl apply --kustomize .", [document]), **files}


def _runtime(deployment: Deployment) -> dict[str, Any]:
    """The containers. A runtime has no security of its pod: each container says all of it."""
    gateway = deployment.policy.gateway
    server = server_container(deployment)
    mounts = [mount for mount in server["volumeMounts"] if mount["name"] != "models"]
    port = deployment.policy.server.http_port if gateway is None else gateway.port
    # KServe's service leads to the port of this container; the gateway beside it listens there.
    server |= {
        "name": SERVING,
        "command": serve_command(KSERVE_MODELS) if deployment.settings.models == "volume" else server["command"],
        "ports": [{"name": "http1", "containerPort": port, "protocol": "TCP"}],
        "volumeMounts": mounts,
    }
    containers = [server]
    if gateway is not None:
        beside = gateway_container(deployment, gateway)
        beside["ports"] = [port for port in beside["ports"] if port["name"] != GATEWAY]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            beside[probe] = {**beside[probe], "tcpSocket": {"port": gateway.port}}
        containers.append(beside)
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": metadata(deployment, deployment.settings.name),
        "spec": {
            "supportedModelFormats": [{"name": FORMAT, "version": "1", "autoSelect": False}],
            "protocolVersions": ["v2"],
            "multiModel": False,
            "containers": [_secured(deployment, container) for container in containers],
            "volumes": [volume for volume in volumes(deployment) if volume["name"] != "models"],
        },
    }


def _secured(deployment: Deployment, container: dict[str, Any]) -> dict[str, Any]:
    """A container that says by itself what its pod would say."""
    pod = pod_security(deployment)
    own = {key: pod[key] for key in ("runAsUser", "runAsGroup", "seccompProfile")}
    return {**container, "securityContext": {**container["securityContext"], **own}}


def _service(deployment: Deployment) -> dict[str, Any]:
    settings = deployment.settings
    server = _secured(deployment, server_container(deployment))
    model: dict[str, Any] = {
        "modelFormat": {"name": FORMAT, "version": "1"},
        "runtime": settings.name,
        "protocolVersion": "v2",
        # KServe lays these over the runtime's container, with defaults of its own where they are left out.
        **{name: server[name] for name in ("env", "resources", "securityContext")},
    }
    if settings.models == "volume":
        model["storageUri"] = f"pvc://{settings.name}-models/"
    described = metadata(deployment, settings.name)
    annotations = {"serving.kserve.io/deploymentMode": "RawDeployment", "serving.kserve.io/autoscalerClass": "hpa"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {**described, "annotations": annotations},
        "spec": {
            "predictor": {
                "labels": all_labels(deployment),
                "minReplicas": settings.replicas,
                "maxReplicas": max(settings.max_replicas, settings.replicas),
                "scaleMetric": "cpu",
                "scaleTarget": 70,
                "serviceAccountName": settings.name,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": deployment.stop_s,
                "securityContext": pod_security(deployment),
                "model": model,
            }
        },
    }
