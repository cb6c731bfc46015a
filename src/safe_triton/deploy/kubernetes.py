"""``safe-triton render kubernetes``: a namespace of its own, the pods, who reaches them, how many there are."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from safe_triton.deploy.containers import GATEWAY_POLICY, SERVER_POLICY, gateway_values
from safe_triton.deploy.pages import kubernetes_page
from safe_triton.deploy.pod import (
    CLIENT_LABEL,
    GATEWAY,
    MIB,
    all_labels,
    gateway_container,
    gpu_resources,
    labels_of,
    pod_security,
    quantity,
    server_container,
    volumes,
)
from safe_triton.deploy.seccomp import seccomp_text
from safe_triton.deploy.text import header, toml_text, yaml_text

if TYPE_CHECKING:
    from safe_triton.deploy.deployment import Deployment

FORM = "kubernetes"
POLICY_HASH = "safe-triton/policy-sha256"
DNS = "kube-system"


def render_kubernetes(deployment: Deployment) -> dict[str, str]:
    """Return the files of a deployment in a cluster, by name; pure.

    Raises:
        DeployError: ``deploy.reach``, ``deploy.image``, ``deploy.gpus``.
        EnvironmentMissingError: there is no PyYAML.
    """
    deployment.check_reach()
    deployment.check_has_image()
    deployment.check_cluster_gpus()
    policies = policy_files(deployment)
    files = {
        "namespace.yaml": yaml_text(
            FORM, "A namespace that refuses other pods.", [_namespace(deployment), _quota(deployment)]
        ),
        "policy.yaml": yaml_text(FORM, "What safe-triton reads in the pods.", [config_map(deployment, policies)]),
        "workload.yaml": yaml_text(
            FORM,
            "The pods, and who they talk to.",
            [service_account(deployment), _deployment(deployment, policies), *network_policies(deployment)],
        ),
        "service.yaml": yaml_text(FORM, "Where clients call.", [_service(deployment)]),
        "availability.yaml": yaml_text(FORM, "How many pods there are.", _availability(deployment)),
        "README.md": kubernetes_page(deployment),
    }
    if deployment.settings.seccomp == "localhost":
        files["seccomp.json"] = seccomp_text()
    return {"kustomization.yaml": _kustomization(files), **files}


def policy_files(deployment: Deployment, form: str = FORM) -> dict[str, str]:
    """The policies of the containers, by file name; their first line names the form."""
    files = {SERVER_POLICY: deployment.policy_text}
    if deployment.policy.gateway is not None:
        server = deployment.policy.server
        upstream = {
            "address": "127.0.0.1",
            "http_port": server.http_port,
            "grpc_port": server.grpc_port,
            "health_port": server.health_port,
            "metrics_port": server.metrics_port,
        }
        files[GATEWAY_POLICY] = header(form, "Of the gateway beside Triton.") + toml_text(
            gateway_values(deployment, upstream)
        )
    return files


def config_map(deployment: Deployment, policies: dict[str, str]) -> dict[str, Any]:
    """The policies as an object; they hold no secret."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(deployment, f"{deployment.settings.name}-policy"),
        "data": policies,
    }


def service_account(deployment: Deployment) -> dict[str, Any]:
    """An account of its own that can do nothing."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(deployment, deployment.settings.name),
        "automountServiceAccountToken": False,
        **(
            {"imagePullSecrets": [{"name": deployment.settings.pull_secret}]} if deployment.settings.pull_secret else {}
        ),
    }


def network_policies(deployment: Deployment) -> list[dict[str, Any]]:
    """Nothing for the whole namespace; then what the pods need."""
    settings, gateway = deployment.settings, deployment.policy.gateway
    clients = [{"podSelector": {"matchLabels": {CLIENT_LABEL: settings.name}}}]
    if settings.client_namespaces:
        clients = [{"namespaceSelector": _named(name)} for name in settings.client_namespaces]
    if gateway is None:
        server = deployment.policy.server
        ingress = [{"from": clients, "ports": _tcp(server.http_port, server.grpc_port)}]
    else:
        monitoring = [{"namespaceSelector": _named(settings.monitoring_namespace)}]
        ingress = [
            {"from": clients, "ports": _tcp(gateway.port)},
            {"from": monitoring, "ports": _tcp(gateway.metrics_port)},
        ]
    egress: list[dict[str, Any]] = []
    ports = deployment.egress_ports
    if ports is None:
        egress = [{}]
    elif ports:
        names = {
            "to": [{"namespaceSelector": _named(DNS)}],
            "ports": [{"protocol": word, "port": 53} for word in ("UDP", "TCP")],
        }
        egress = [names, {"ports": _tcp(*ports)}]
    kinds = ["Ingress", "Egress"]
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata(deployment, name),
            "spec": {"podSelector": selector, "policyTypes": kinds, **rules},
        }
        for name, selector, rules in (
            ("default-deny", {}, {}),
            (settings.name, {"matchLabels": labels_of(deployment)}, {"ingress": ingress, "egress": egress}),
        )
    ]


def _namespace(deployment: Deployment) -> dict[str, Any]:
    modes = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": deployment.settings.namespace,
            "labels": {**all_labels(deployment), **modes, "pod-security.kubernetes.io/enforce-version": "latest"},
        },
    }


def _quota(deployment: Deployment) -> dict[str, Any]:
    """What all pods may have together: one more than the most, for the change of a version."""
    settings = deployment.settings
    pods = max(settings.max_replicas, settings.replicas) + 1
    has_gateway = deployment.policy.gateway is not None
    cpus = settings.cpus + (settings.gateway_cpus if has_gateway else 0)
    memory = settings.memory_bytes + deployment.gateway_memory_bytes
    hard = {"pods": str(pods), "services.nodeports": "0", "services.loadbalancers": "0"}
    hard |= {f"{which}.cpu": str(pods * cpus) for which in ("requests", "limits")}
    hard |= {f"{which}.memory": quantity(pods * -(-memory // MIB) * MIB) for which in ("requests", "limits")}
    hard |= {f"requests.{name}": str(pods * int(count)) for name, count in gpu_resources(deployment).items()}
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": metadata(deployment, settings.name),
        "spec": {"hard": hard},
    }


def _deployment(deployment: Deployment, policies: dict[str, str]) -> dict[str, Any]:
    settings, gateway = deployment.settings, deployment.policy.gateway
    containers = [server_container(deployment), *([] if gateway is None else [gateway_container(deployment, gateway)])]
    digest = hashlib.sha256("\0".join((*policies, *policies.values())).encode()).hexdigest()
    # A GPU for a pod too many is seldom there: with GPUs one pod goes before the next one comes.
    surge = {"maxSurge": 0, "maxUnavailable": 1} if deployment.gpu_count else {"maxSurge": 1, "maxUnavailable": 0}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, settings.name),
        "spec": {
            **({} if is_scaled(deployment) else {"replicas": settings.replicas}),
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": round(deployment.policy.server.ready_timeout_s) + 300,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": surge},
            "selector": {"matchLabels": labels_of(deployment)},
            "template": {
                "metadata": {
                    "labels": all_labels(deployment),
                    "annotations": {"kubectl.kubernetes.io/default-container": "triton", POLICY_HASH: digest},
                },
                "spec": {
                    "serviceAccountName": settings.name,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "hostNetwork": False,
                    "hostPID": False,
                    "hostIPC": False,
                    "shareProcessNamespace": False,
                    "terminationGracePeriodSeconds": deployment.stop_s,
                    "securityContext": pod_security(deployment),
                    "topologySpreadConstraints": [_spread(deployment, key) for key in ("hostname", "zone")],
                    "containers": containers,
                    "volumes": volumes(deployment),
                },
            },
        },
    }


def _spread(deployment: Deployment, key: str) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname" if key == "hostname" else "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels_of(deployment)},
    }


def _service(deployment: Deployment) -> dict[str, Any]:
    gateway, server = deployment.policy.gateway, deployment.policy.server
    ports = {"http": server.http_port, "grpc": server.grpc_port} if gateway is None else {GATEWAY: gateway.port}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(deployment, deployment.settings.name),
        "spec": {
            "type": "ClusterIP",
            "selector": labels_of(deployment),
            "ports": [
                {"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in ports.items()
            ],
        },
    }


def is_scaled(deployment: Deployment) -> bool:
    """Whether a queue adds pods: the gateway shows Triton's metrics, which otherwise stay on loopback."""
    settings = deployment.settings
    return settings.max_replicas > settings.replicas and deployment.policy.gateway is not None


def _availability(deployment: Deployment) -> list[dict[str, Any]]:
    """A node may be drained pod by pod; a queue adds pods."""
    settings = deployment.settings
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(deployment, settings.name),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels_of(deployment)}},
        }
    ]
    if is_scaled(deployment):
        metric = {
            "type": "Pods",
            "pods": {
                "metric": {"name": "nv_inference_pending_request_count"},
                "target": {"type": "AverageValue", "averageValue": str(settings.queue_target)},
            },
        }
        slowly = {"stabilizationWindowSeconds": 300, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
        found.append(
            {
                "apiVersion": "autoscaling/v2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": metadata(deployment, settings.name),
                "spec": {
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": settings.name},
                    "minReplicas": settings.replicas,
                    "maxReplicas": settings.max_replicas,
                    "metrics": [metric],
                    "behavior": {"scaleDown": slowly},
                },
            }
        )
    return found


def _kustomization(files: dict[str, str]) -> str:
    resources = [name for name in files if name.endswith(".yaml")]
    document = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources}
    return yaml_text(FORM, "kubectl apply --kustomize .", [document])


def metadata(deployment: Deployment, name: str) -> dict[str, Any]:
    """Name, namespace and labels of an object."""
    return {"name": name, "namespace": deployment.settings.namespace, "labels": all_labels(deployment)}


def _named(namespace: str) -> dict[str, Any]:
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace}}


def _tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in ports]
