"""The page beside rendered files: what has to be there first, how it is started, what it does not do."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from safe_triton.deploy.containers import MODELS, secrets_of

if TYPE_CHECKING:
    from safe_triton.deploy.deployment import Deployment

METRIC_RULE = """rules:
  custom:
    - seriesQuery: 'nv_inference_pending_request_count{namespace!="",pod!=""}'
      resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
      metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
"""
"""For prometheus-adapter: requests that wait, of all models of a pod together."""


def kubernetes_page(deployment: Deployment) -> str:
    """The page of ``render kubernetes``."""
    settings = deployment.settings
    name, namespace = settings.name, settings.namespace
    before = [
        "The namespace: `kubectl apply --filename namespace.yaml`. Another name: `deploy.namespace`.",
        *_cluster_needs(deployment),
        *_claim(deployment),
    ]
    if settings.seccomp == "localhost":
        before.append(f"`seccomp.json` on every node, as `profiles/{name}.json` below the kubelet's folder `seccomp`.")
    after = []
    if deployment.policy.gateway is not None:
        metrics = deployment.policy.gateway.metrics_port
        after.append(
            f"Prometheus reaches port {metrics} of each pod from the namespace {settings.monitoring_namespace}: "
            "`/metrics` (Envoy), `/metrics/triton`, `/metrics/supervisor`."
        )
        if settings.max_replicas > settings.replicas:
            after.append(
                "The autoscaler asks for `nv_inference_pending_request_count` of the pods: without an adapter that "
                "serves Prometheus' values as custom metrics it does nothing. For prometheus-adapter:\n\n```yaml\n"
                f"{METRIC_RULE}```"
            )
    if settings.client_namespaces:
        after.append(f"Pods of the namespaces {', '.join(settings.client_namespaces)} may call; nobody else may.")
    else:
        after.append(f"Pods of this namespace with the label `safe-triton/client: {name}` may call; nobody else may.")
    return _page(
        f"{name} on Kubernetes",
        before,
        f"kubectl apply --kustomize .\nkubectl --namespace {namespace} rollout status deployment/{name}",
        after,
        [
            "Network policies hold only where the cluster's network plugin enforces them.",
            "The pods' user is the same on every node, and the kernel counts its threads over all of a node's pods.",
        ],
        deployment.container_notes,
    )


def kserve_page(deployment: Deployment) -> str:
    """The page of ``render kserve``."""
    settings = deployment.settings
    before = [
        (
            f"The namespace {settings.namespace}, with `pod-security.kubernetes.io/enforce: restricted` where "
            "KServe's own containers allow it."
        ),
        *_cluster_needs(deployment),
        *_claim(deployment),
    ]
    return _page(
        f"{settings.name} on KServe",
        before,
        f"kubectl apply --kustomize .\nkubectl --namespace {settings.namespace} get inferenceservice {settings.name}",
        ["`deploy.client_namespaces` must name the namespace of KServe's ingress, or nothing gets through."],
        [
            "Deployment mode `RawDeployment` (`Standard` in newer releases). Knative is not covered.",
            "KServe's autoscaler goes by CPU here; it does not know Triton's queue.",
            "The gateway beside Triton takes plain text: a mesh has to encrypt what KServe's ingress sends.",
        ],
        deployment.container_notes,
    )


def compose_page(deployment: Deployment) -> str:
    """The page of ``render compose``."""
    gateway = deployment.policy.gateway
    user = deployment.settings.user_id
    before = [f"The image {deployment.image}, here or in a registry; `safe-triton render image` writes its Dockerfile."]
    if gateway is not None and secrets_of(gateway):
        listed = "\n".join(
            f"  - `secrets/{secret.key}`: what the policy calls `{secret.original}`" for secret in secrets_of(gateway)
        )
        before.append(
            f"Beside `compose.yaml` a folder `secrets`, whose files only user {user} reads (mode 0400):\n{listed}"
        )
    after = []
    if gateway is not None:
        after.append(
            f"Clients call `{gateway.address}:{gateway.port}`; metrics: `127.0.0.1:{gateway.metrics_port}/metrics`."
        )
        after.append("Triton's and the supervisor's own metrics stay on the loopback of Triton's container.")
    return _page(
        f"{deployment.settings.name} under Docker Compose",
        before,
        "docker compose config --quiet\ndocker compose up --detach --wait",
        after,
        [
            "`restart` starts again what ended; a container that answers and is unhealthy stays until somebody looks.",
            "Another container of this machine that joins the network `inside` reaches Triton without a credential.",
        ],
        deployment.container_notes,
    )


def systemd_page(deployment: Deployment, *, program: str, models: str, policy: str) -> str:
    """The page of ``render systemd``."""
    name = deployment.settings.name
    folder = program.rpartition("/bin/")[0] or "/opt/safe-triton"
    before = [
        f"`safe-triton` in `{folder}`, which the service's user may read and not write.",
        f"The models in `{models}` and the policy as `{policy}`, owned by root, readable for the user `{name}`.",
    ]
    if deployment.policy.gateway is not None:
        before.append(f"The keys that `[gateway]` names, owned by the user `{name}`, mode 0400.")
    return _page(
        f"{name} as a systemd service",
        before,
        f"install -m 0644 {name}.sysusers /etc/sysusers.d/{name}.conf && systemd-sysusers\n"
        f"install -m 0644 {name}.service /etc/systemd/system/{name}.service\n"
        f"systemctl daemon-reload && systemctl enable --now {name}\n"
        f"systemd-analyze security {name}",
        [
            "`systemctl reload` reads the policy again. Readiness and the watchdog are told to systemd.",
            f"`sudo --user {name} XDG_RUNTIME_DIR=/run/{name} {program} status` shows the models.",
        ],
        [
            (
                "A model's memory is counted with the server's: the kernel ends the process that takes too much, the "
                "supervisor loads its model again (`OOMPolicy=continue`)."
            ),
            "The size of `/dev/shm` is the machine's: half of its memory, for all programs together.",
        ],
        deployment.notes,
    )


def envoy_page(deployment: Deployment, *, folder: str, static: str) -> str:
    """The page of ``render envoy``."""
    gateway = deployment.policy.gateway
    secrets = () if gateway is None else secrets_of(gateway)
    before = [f"These files in `{folder}`, readable for Envoy's user alone: digests of the API keys are in them."]
    listed = [f"  - `{secret.original}`" for secret in secrets if secret.place[-1] != "api_key_file"]
    if listed:
        before.append("Files that Envoy reads by itself:\n" + "\n".join(listed))
    return _page(
        "The gateway for an Envoy of your own",
        before,
        f"envoy --mode validate -c {folder}/{static}\n"
        f"envoy -c {folder}/bootstrap.json --disable-hot-restart --drain-strategy immediate",
        [
            (
                "After a change of the policy render again, into a folder beside, and replace the files by renaming "
                "each: `cds.json`, the `sds-` files, `rds.json`, `lds.json`. `bootstrap.json` stays while Envoy lives."
            ),
        ],
        [
            (
                "Nothing confines this Envoy, starts it again or watches its files: `safe-triton serve --gateway` and "
                "`safe-triton gateway` do."
            ),
            "Triton's administrative APIs: their secret is made anew at each start.",
        ],
        (),
    )


def image_page(deployment: Deployment) -> str:
    """The page of ``render image``."""
    before = ["What the models import, if it is more than numpy: add it to the lock file or to the `Dockerfile`."]
    if deployment.settings.models == "image":
        before.append(f"The model repository in a folder `models` beside the `Dockerfile`; it becomes `{MODELS}`.")
    return _page(
        "The image",
        before,
        "docker build --tag NAME:TAG .\n"
        "docker push NAME:TAG\n"
        "docker inspect --format '{{index .RepoDigests 0}}' NAME:TAG",
        ["The last line prints the reference with its digest, for `--image` of the other forms."],
        ["Without a lock file (`--requirements`) the packages below this one are whatever is newest when it is built."],
        (),
    )


def _cluster_needs(deployment: Deployment) -> list[str]:
    """Secrets, by reference: nothing here holds any."""
    gateway, settings = deployment.policy.gateway, deployment.settings
    found = []
    if gateway is not None:
        secrets = secrets_of(gateway)
        if any(secret.is_tls for secret in secrets):
            found.append(
                f"The Secret `{settings.name}-tls` of type `kubernetes.io/tls` (`tls.crt`, `tls.key`), as cert-manager "
                "writes it; a renewed one is taken over without a restart."
            )
        keys = [secret for secret in secrets if not secret.is_tls]
        if keys:
            name = f"{settings.name}-gateway-keys"
            words = " \\\n    ".join(f"--from-file={secret.key}={shlex.quote(secret.original)}" for secret in keys)
            found.append(
                f"The Secret `{name}`:\n\n  ```bash\n  kubectl --namespace {settings.namespace} create secret generic "
                f"{name} \\\n    {words}\n  ```"
            )
    if deployment.gpu_count:
        found.append(f"Nodes with {deployment.gpu_count} of `{settings.gpu_resource}` and NVIDIA's device plugin.")
    return found


def _claim(deployment: Deployment) -> list[str]:
    settings = deployment.settings
    if settings.models == "image":
        return []
    return [
        (
            f"The PersistentVolumeClaim `{settings.name}-models` with the model repository, `ReadOnlyMany`, readable "
            f"for group {settings.user_id}; with a lock file (`safe-triton lock`) in it every start verifies each file."
        )
    ]


def _page(
    title: str, before: Sequence[str], commands: str, after: Sequence[str], limits: Sequence[str], notes: Sequence[str]
) -> str:
    parts = [f"# {title}\n\nWritten by `safe-triton render` from the policy; change that and render again.\n"]
    parts.append("## Before\n\n" + "".join(f"- {line}\n" for line in before))
    parts.append(f"## Start\n\n```bash\n{commands}\n```\n")
    if after:
        parts.append("".join(f"- {line}\n" for line in after))
    parts.append("## What it does not do\n\n" + "".join(f"- {line}\n" for line in limits))
    if notes:
        parts.append("## Of this policy\n\n" + "".join(f"- {line}\n" for line in notes))
    return "\n".join(parts)
