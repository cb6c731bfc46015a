"""Rules for containers: compose, Kubernetes, Dockerfiles, ``docker run``."""

from __future__ import annotations

from functools import partial

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule, numbered_rule

COMPOSE_PAGE = "https://docs.docker.com/reference/compose-file/services/"
DOCKER_PAGE = "https://docs.docker.com/engine/security/"
PODS_PAGE = "https://kubernetes.io/docs/concepts/security/pod-security-standards/"
IMAGE = "nvcr.io/nvidia/tritonserver:26.07-py3"


def _compose(*lines: str) -> Example:
    """One service with these lines."""
    body = "".join(f"    {line}\n" for line in lines)
    return Example(files={"compose.yaml": f"services:\n  triton:\n    image: {IMAGE}\n{body}"})


def _pod(*, pod: str = "", container: str = "", after: str = "") -> Example:
    """One pod with lines of its own and of its container."""
    head = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: triton\n  labels: {app: triton}\nspec:\n"
    spec = "".join(f"  {line}\n" for line in pod.splitlines())
    box = "".join(f"    {line}\n" for line in container.splitlines())
    return Example(files={"pod.yaml": f"{head}{spec}  containers:\n  - name: triton\n    image: {IMAGE}\n{box}{after}"})


def _dockerfile(*lines: str) -> Example:
    return Example(files={"Dockerfile": "".join(f"{line}\n" for line in lines)})


_rule = partial(numbered_rule, 8, cwe="CWE-250", owasp="A05:2021", reference=PODS_PAGE)


RULES: tuple[Rule, ...] = (
    _rule(
        1,
        "privileged",
        Level.ERROR,
        "The container is privileged.",
        "Nothing separates it from the host: code in a model is root on the machine.",
        "remove privileged; give GPUs by device or by a nvidia.com/gpu limit",
        bad=_compose("privileged: true"),
        good=_compose("privileged: false"),
    ),
    _rule(
        2,
        "docker-socket",
        Level.ERROR,
        "The container reaches the socket of the container runtime.",
        "Whoever reaches it starts a privileged container: it is root on the host.",
        "remove the mount",
        reference=DOCKER_PAGE,
        bad=_compose("volumes:", "  - /var/run/docker.sock:/var/run/docker.sock"),
        good=_compose("volumes:", "  - ./models:/models:ro"),
    ),
    _rule(
        3,
        "host-path",
        Level.WARNING,
        "A folder or device of the host is in the container; an error for the whole file system.",
        "Models read, and where it is writable change, what belongs to the host.",
        "a named volume or a PersistentVolumeClaim, mounted read-only",
        cwe="CWE-668",
        bad=_pod(
            pod="volumes:\n- name: logs\n  hostPath: {path: /var/log}",
            container="volumeMounts:\n- {name: logs, mountPath: /logs}",
        ),
        good=_pod(
            pod="volumes:\n- name: models\n  persistentVolumeClaim: {claimName: models, readOnly: true}",
            container="volumeMounts:\n- {name: models, mountPath: /models, readOnly: true}",
        ),
    ),
    _rule(
        4,
        "caps-added",
        Level.ERROR,
        "The container gets capabilities beyond the default ones; a warning for one of the default ones.",
        "SYS_ADMIN, SYS_PTRACE, NET_ADMIN and their like break the walls of a container.",
        "remove them; cap_drop: [ALL] or capabilities: {drop: [ALL]}",
        bad=_pod(container="securityContext:\n  capabilities: {add: [SYS_ADMIN]}"),
        good=_pod(container="securityContext:\n  capabilities: {drop: [ALL]}"),
    ),
    _rule(
        5,
        "run-as-root",
        Level.WARNING,
        "The container runs as root.",
        "A model that breaks out has root's rights; Triton's image runs as root unless told otherwise.",
        'user: "1000:1000" (compose), runAsNonRoot: true with runAsUser: 1000 (Kubernetes), USER 1000 (Dockerfile)',
        bad=_dockerfile(f"FROM {IMAGE}"),
        good=_dockerfile(f"FROM {IMAGE}", "USER 1000:1000"),
    ),
    _rule(
        6,
        "writable-model-mount",
        Level.WARNING,
        "The model repository is mounted writable.",
        "A model may replace its own code, and that of others, for the next start.",
        "./models:/models:ro, or readOnly: true in volumeMounts",
        cwe="CWE-732",
        owasp="A08:2021",
        bad=_compose("volumes:", "  - ./models:/models"),
        good=_compose("volumes:", "  - ./models:/models:ro"),
    ),
    _rule(
        7,
        "no-memory-limit",
        Level.WARNING,
        "The container has no memory limit.",
        "One request or model takes the host's memory, and the kernel ends other programs.",
        "mem_limit: 16g, or resources: {limits: {memory: 16Gi}}",
        cwe="CWE-770",
        bad=_compose("command: tritonserver --model-repository=/models"),
        good=_compose("mem_limit: 16g"),
    ),
    _rule(
        8,
        "no-cpu-limit",
        Level.INFO,
        "The container has no CPU limit.",
        "A looping model slows down everything beside it.",
        'cpus: 4, or resources: {limits: {cpu: "4"}}',
        cwe="CWE-770",
        bad=_compose("mem_limit: 16g"),
        good=_compose("cpus: 4"),
    ),
    _rule(
        9,
        "no-gpu-limit",
        Level.WARNING,
        "A pod of Triton asks for no GPU.",
        "The image asks the NVIDIA runtime for all GPUs: without a limit it sees those of other pods.",
        "resources: {limits: {nvidia.com/gpu: 1}}; without GPUs: NVIDIA_VISIBLE_DEVICES=none",
        cwe="CWE-770",
        bad=_pod(container="resources:\n  limits: {memory: 8Gi}"),
        good=_pod(container="resources:\n  limits: {memory: 8Gi, nvidia.com/gpu: 1}"),
    ),
    _rule(
        10,
        "all-gpus",
        Level.WARNING,
        "The container gets every GPU of the host.",
        "It takes memory from, and may watch, what runs on the others.",
        "device_ids: ['0'], or docker run --gpus device=0",
        cwe="CWE-770",
        bad=Example(files={"run.sh": f"docker run --gpus all {IMAGE} tritonserver --model-repository=/models\n"}),
        good=Example(files={"run.sh": f"docker run --gpus device=0 {IMAGE} tritonserver --model-repository=/models\n"}),
    ),
    _rule(
        11,
        "privilege-escalation",
        Level.WARNING,
        "Programs in the container may gain privileges that it was not started with.",
        "A setuid program makes a model's process root inside the container.",
        'security_opt: ["no-new-privileges:true"], or allowPrivilegeEscalation: false',
        cwe="CWE-269",
        bad=_pod(container="securityContext:\n  allowPrivilegeEscalation: true"),
        good=_pod(container="securityContext:\n  allowPrivilegeEscalation: false"),
    ),
    _rule(
        12,
        "caps-not-dropped",
        Level.INFO,
        "The default capabilities are kept.",
        "Triton needs none of them.",
        "cap_drop: [ALL], or capabilities: {drop: [ALL]}",
        bad=_compose("cap_drop: [NET_RAW]"),
        good=_compose("cap_drop: [ALL]"),
    ),
    _rule(
        13,
        "writable-rootfs",
        Level.INFO,
        "The root file system of the container is writable.",
        "What a model writes there stays, and may be run by what starts next.",
        "read_only: true with a tmpfs for /tmp, or readOnlyRootFilesystem: true",
        cwe="CWE-732",
        bad=_compose("read_only: false"),
        good=_compose("read_only: true"),
    ),
    _rule(
        14,
        "host-network",
        Level.WARNING,
        "The container shares the host's network.",
        "It reaches what listens on the host's loopback, and no network policy covers it.",
        "remove hostNetwork or network_mode: host, and publish the ports that are needed",
        cwe="CWE-668",
        bad=_compose("network_mode: host"),
        good=_compose("networks: [inside]"),
    ),
    _rule(
        15,
        "host-pid",
        Level.WARNING,
        "The container sees the host's processes.",
        "It may read their command lines and, as root, signal and trace them.",
        "remove hostPID or pid: host",
        cwe="CWE-668",
        bad=_pod(pod="hostPID: true"),
        good=_pod(pod="hostPID: false"),
    ),
    _rule(
        16,
        "host-ipc",
        Level.WARNING,
        "The container shares the host's shared memory.",
        "Triton's tensors lie there: other containers read and write them.",
        "remove hostIPC or ipc: host; shm_size: 1g gives Triton its own",
        cwe="CWE-668",
        bad=_compose("ipc: host"),
        good=_compose("shm_size: 1g"),
    ),
    _rule(
        17,
        "image-unpinned",
        Level.INFO,
        "The image is not named by its digest.",
        "What stands under a tag can be replaced; latest is another server at every start.",
        "IMAGE:TAG@sha256:DIGEST, as docker inspect shows it",
        cwe="CWE-494",
        owasp="A08:2021",
        bad=_dockerfile("FROM nvcr.io/nvidia/tritonserver:latest", "USER 1000"),
        good=_dockerfile(f"FROM {IMAGE}@sha256:{'0' * 64}", "USER 1000"),
    ),
    _rule(
        18,
        "image-outdated",
        Level.WARNING,
        "The image's Triton has published vulnerabilities.",
        "Several of them let a client run code in the server, or end it.",
        "a release in which all of them are fixed; the message names the first",
        cwe="CWE-1395",
        owasp="A06:2021",
        reference="https://www.nvidia.com/en-us/security/",
        bad=_dockerfile("FROM nvcr.io/nvidia/tritonserver:23.10-py3", "USER 1000"),
        good=_dockerfile(f"FROM {IMAGE}", "USER 1000"),
    ),
    _rule(
        19,
        "ports-public",
        Level.WARNING,
        "A port is published on every address of the host, or outside the cluster.",
        "Docker's published ports pass the host's firewall: anyone on the network may call every model.",
        '"127.0.0.1:8000:8000", or a proxy with TLS and a login in front; type: ClusterIP',
        cwe="CWE-668",
        owasp="A01:2021",
        reference=COMPOSE_PAGE,
        bad=_compose('ports: ["8000:8000"]'),
        good=_compose('ports: ["127.0.0.1:8000:8000"]'),
    ),
    _rule(
        20,
        "secrets-in-env",
        Level.WARNING,
        "A secret's value stands in a variable of a deployment file.",
        "The file is copied around, the variable is inherited by every model, and an image keeps it for ever.",
        "valueFrom: {secretKeyRef: …}, compose secrets, or docker run --env-file outside the repository",
        cwe="CWE-798",
        owasp="A07:2021",
        bad=_pod(container="env:\n- {name: API_TOKEN, value: s3cr3t-value}"),
        good=_pod(container="env:\n- name: API_TOKEN\n  valueFrom: {secretKeyRef: {name: triton, key: token}}"),
    ),
    _rule(
        21,
        "seccomp-unconfined",
        Level.WARNING,
        "No seccomp filter, or no AppArmor profile; an info where Kubernetes is told nothing.",
        "System calls that break out of containers are allowed.",
        "seccompProfile: {type: RuntimeDefault}; remove seccomp:unconfined",
        cwe="CWE-693",
        bad=_compose('security_opt: ["seccomp:unconfined"]'),
        good=_compose('security_opt: ["no-new-privileges:true"]'),
    ),
    _rule(
        22,
        "service-account-token",
        Level.INFO,
        "A token of the Kubernetes API is mounted into the pod.",
        "A model may read it and act in the cluster as the pod's account.",
        "automountServiceAccountToken: false",
        cwe="CWE-522",
        owasp="A07:2021",
        bad=_pod(container="ports: [{containerPort: 8001}]"),
        good=_pod(pod="automountServiceAccountToken: false"),
    ),
    _rule(
        23,
        "no-pids-limit",
        Level.INFO,
        "The number of processes is not limited.",
        "A model that forks without end stops the host.",
        "pids_limit: 512, or docker run --pids-limit 512",
        cwe="CWE-770",
        reference=COMPOSE_PAGE,
        bad=_compose("pids_limit: -1"),
        good=_compose("pids_limit: 512"),
    ),
    _rule(
        24,
        "network-not-isolated",
        Level.INFO,
        "Nothing restricts what the container may talk to.",
        "A model may send data out, and call what listens inside.",
        "networks: {inside: {internal: true}}, or a NetworkPolicy that selects the pod",
        cwe="CWE-923",
        owasp="A10:2021",
        bad=_compose("networks: [internal]"),
        good=Example(
            files={
                "compose.yaml": f"services:\n  triton:\n    image: {IMAGE}\n    networks: [inside]\n"
                "networks:\n  inside: {internal: true}\n"
            }
        ),
    ),
)
"""The family, in the order of the codes."""
