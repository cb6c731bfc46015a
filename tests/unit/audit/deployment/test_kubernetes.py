"""Kubernetes manifests: each rule in every spelling and kind, templates, and what is right."""

from __future__ import annotations

import textwrap

import pytest

from safe_triton.audit.deployment import check_kubernetes
from safe_triton.audit.finding import Finding, Level

IMAGE = "nvcr.io/nvidia/tritonserver:26.07-py3"


def names(found: list[Finding]) -> set[str]:
    """Return the names of the rules."""
    return {one.rule for one in found}


def pod(container: str = "", spec: str = "", top: str = "", image: str = IMAGE) -> list[Finding]:
    """Check one pod with some lines of its own."""
    text = (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{app: t}}}}\nspec:\n{textwrap.indent(spec, '  ')}\n"
        f"  containers:\n  - name: triton\n    image: {image}\n{textwrap.indent(container, '    ')}\n{top}"
    )
    found = check_kubernetes(text, "pod.yaml")
    assert "yaml-parse-error" not in names(found), found
    return found


HARDENED_POD = """\
command: [tritonserver, --model-repository=/models, --http-address=127.0.0.1, --grpc-address=127.0.0.1]
resources: {limits: {memory: 8Gi, cpu: "4", nvidia.com/gpu: 1}}
volumeMounts: [{name: models, mountPath: /models, readOnly: true}]
securityContext:
  runAsNonRoot: true
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
"""
HARDENED_SPEC = """\
automountServiceAccountToken: false
volumes: [{name: models, persistentVolumeClaim: {claimName: m}}]
"""
POLICY = (
    "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: n}\n"
    "spec: {podSelector: {matchLabels: {app: t}}, policyTypes: [Ingress, Egress]}\n"
)


class TestKubernetes:
    @pytest.mark.parametrize(
        ("container", "rule"),
        [
            ("securityContext: {privileged: true}", "privileged"),
            ("securityContext:\n  capabilities:\n    add: [SYS_ADMIN]", "caps-added"),
            ("securityContext: {capabilities: {add: ['CAP_SYS_PTRACE']}}", "caps-added"),
            ("securityContext: {capabilities: {add: SYS_ADMIN}}", "caps-added"),
            ("securityContext: {runAsUser: 0}", "run-as-root"),
            ("securityContext: {runAsNonRoot: false}", "run-as-root"),
            ("", "run-as-root"),
            ("", "no-memory-limit"),
            ("resources: {requests: {memory: 8Gi}}", "no-memory-limit"),
            ("resources: {limits: {memory: 8Gi}}", "no-cpu-limit"),
            ("resources: {limits: {memory: 8Gi}}", "no-gpu-limit"),
            ("env: [{name: NVIDIA_VISIBLE_DEVICES, value: all}]", "all-gpus"),
            ("", "privilege-escalation"),
            ("securityContext: {allowPrivilegeEscalation: true}", "privilege-escalation"),
            ("securityContext: {capabilities: {drop: [NET_RAW]}}", "caps-not-dropped"),
            ("securityContext: {readOnlyRootFilesystem: false}", "writable-rootfs"),
            ("ports: [{containerPort: 8000, hostPort: 8000}]", "ports-public"),
            ("env: [{name: API_KEY, value: hunter2}]", "secrets-in-env"),
            ("securityContext: {seccompProfile: {type: Unconfined}}", "seccomp-unconfined"),
            ("securityContext: {procMount: Unmasked}", "seccomp-unconfined"),
            ("", "service-account-token"),
            ("", "network-not-isolated"),
            ("args: [tritonserver, --model-control-mode=explicit]", "restricted-api-missing"),
            ("command: [tritonserver]\nargs: ['--model-control-mode', 'explicit']", "restricted-api-missing"),
            ("args: ['--model-repository=/m', '--model-control-mode=explicit']", "restricted-api-missing"),
            (
                "command: [/bin/sh, -c]\nargs:\n- |\n  tritonserver --model-repository=/m \\\n    --model-control-mode=explicit",
                "restricted-api-missing",
            ),
            ("command: [sh, -c, 'tritonserver --model-control-mode=explicit']", "restricted-api-missing"),
            (
                "command: [sh, -c, 'tritonserver --model-control-mode=$MODE']\nenv: [{name: MODE, value: explicit}]",
                "restricted-api-missing",
            ),
            (
                "args: [tritonserver, '--model-control-mode=$(MODE)']\nenv: [{name: MODE, value: explicit}]",
                "restricted-api-missing",
            ),
            (
                "command: [sh, -c]\nargs:\n- |\n  tritonserver --log-info=1 \\\n  # TLS\n  --grpc-use-ssl=true",
                "broken-continuation",
            ),
        ],
    )
    def test_container(self, container: str, rule: str) -> None:
        """What a container declares, or does not."""
        assert rule in names(pod(container))

    @pytest.mark.parametrize(
        ("spec", "container", "rule"),
        [
            ("hostNetwork: true", "", "host-network"),
            ("hostPID: true", "", "host-pid"),
            ("hostIPC: true", "", "host-ipc"),
            ("securityContext: {runAsUser: 0}", "", "run-as-root"),
            ("securityContext: {seccompProfile: {type: Unconfined}}", "", "seccomp-unconfined"),
            ("securityContext: {runAsNonRoot: true}", "securityContext: {runAsUser: 0}", "run-as-root"),
            (
                "volumes: [{name: d, hostPath: {path: /var/run/docker.sock}}]",
                "volumeMounts: [{name: d, mountPath: /d}]",
                "docker-socket",
            ),
            ("volumes: [{name: d, hostPath: {path: /}}]", "volumeMounts: [{name: d, mountPath: /d}]", "host-path"),
            ("volumes: [{name: d, hostPath: {path: /data}}]", "", "host-path"),
            (
                "volumes: [{name: d, persistentVolumeClaim: {claimName: c}}]",
                "volumeMounts: [{name: d, mountPath: /models}]",
                "writable-model-mount",
            ),
            (
                "volumes: [{name: d, emptyDir: {}}]",
                "args: [tritonserver, --model-store=/x]\nvolumeMounts: [{name: d, mountPath: /x}]",
                "writable-model-mount",
            ),
            (
                "volumes: [{name: s, emptyDir: {medium: Memory}}]",
                "volumeMounts: [{name: s, mountPath: /dev/shm}]",
                "shm-excessive",
            ),
            ("initContainers: [{name: i, image: a, securityContext: {privileged: true}}]", "", "privileged"),
            ("initContainers: [{name: i, image: a, env: [{name: TOKEN, value: abcdef}]}]", "", "secrets-in-env"),
            ("automountServiceAccountToken: true", "", "service-account-token"),
        ],
    )
    def test_pod(self, spec: str, container: str, rule: str) -> None:
        """What a pod declares holds for its containers, unless they say otherwise."""
        assert rule in names(pod(container, spec))

    @pytest.mark.parametrize(
        ("spec", "container", "rule"),
        [
            ("securityContext: {runAsNonRoot: true}", "", "run-as-root"),
            ("securityContext: {runAsUser: 0}", "securityContext: {runAsUser: 1000}", "run-as-root"),
            ("securityContext: {seccompProfile: {type: RuntimeDefault}}", "", "seccomp-unconfined"),
            (
                "volumes: [{name: d, persistentVolumeClaim: {claimName: c, readOnly: true}}]",
                "volumeMounts: [{name: d, mountPath: /models}]",
                "writable-model-mount",
            ),
            (
                "volumes: [{name: d, configMap: {name: c}}]",
                "volumeMounts: [{name: d, mountPath: /models}]",
                "writable-model-mount",
            ),
            ("", "resources: {limits: {nvidia.com/mig-1g.5gb: 1}}", "no-gpu-limit"),
            ("", "env: [{name: NVIDIA_VISIBLE_DEVICES, value: none}]", "no-gpu-limit"),
            ("", "env: [{name: API_KEY, valueFrom: {secretKeyRef: {name: a, key: b}}}]", "secrets-in-env"),
            ("automountServiceAccountToken: false", "", "service-account-token"),
            ("", "securityContext: {capabilities: {add: [NET_BIND_SERVICE], drop: [ALL]}}", "caps-added"),
        ],
    )
    def test_is_clean(self, spec: str, container: str, rule: str) -> None:
        """What is right is no finding."""
        assert rule not in names(pod(container, spec))

    def test_hardened_has_no_findings_but_its_tag(self) -> None:
        """A pod that does everything has nothing left but to add a digest."""
        assert names(pod(HARDENED_POD, HARDENED_SPEC, POLICY)) <= {"image-unpinned"}

    @pytest.mark.parametrize(
        "text",
        [
            f"apiVersion: apps/v1\nkind: {kind}\nspec: {{template: {{spec: {{hostPID: true, containers: [{{name: t, image: x}}]}}}}}}"
            for kind in (
                "Deployment",
                "StatefulSet",
                "DaemonSet",
                "ReplicaSet",
                "Job",
                "Rollout",
                "ReplicationController",
            )
        ]
        + [
            "apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {hostPID: true, containers: [{name: t}]}}}}}",
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  spec: {hostPID: true, containers: [{name: t}]}",
            "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nspec: {predictor: {hostPID: true, triton: {storageUri: s}}}",
            "apiVersion: serving.kserve.io/v1alpha1\nkind: ServingRuntime\nspec: {hostPID: true, containers: [{name: kserve-container}]}",
            "apiVersion: serving.knative.dev/v1\nkind: Service\nspec: {template: {spec: {hostPID: true, containers: [{image: t}]}}}",
            "apiVersion: v1\nkind: ConfigMap\n---\napiVersion: v1\nkind: PodTemplate\ntemplate: {spec: {hostPID: true, containers: [{name: t}]}}",
            '{"apiVersion": "v1", "kind": "Pod", "spec": {"hostPID": true, "containers": [{"name": "t"}]}}',
            "hostPID: true\ncontainers:\n- name: triton\n",
            "---\n---\napiVersion: v1\nkind: Pod\nspec:\n  hostPID: true\n  containers:\n  - name: a\n...\n",
        ],
    )
    def test_kinds(self, text: str) -> None:
        """A pod is found wherever it stands."""
        assert "host-pid" in names(check_kubernetes(text, "k.yaml"))

    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            ("kind: Service\nspec: {type: LoadBalancer, ports: [{port: 8000}]}", "ports-public"),
            ("kind: Service\nspec: {type: NodePort, ports: [{port: 8000, nodePort: 30000}]}", "ports-public"),
            ("kind: Service\nspec: {externalIPs: [1.2.3.4]}", "ports-public"),
            ("kind: Ingress\nspec: {rules: [{host: x}]}", "ports-public"),
            ("kind: PersistentVolume\nspec: {hostPath: {path: /data}}", "host-path"),
            ("kind: ConfigMap\ndata: {DB_PASSWORD: hunter2}", "secrets-in-env"),
            (
                "kind: ConfigMap\ndata:\n  run.sh: |\n    tritonserver --model-control-mode=explicit",
                "restricted-api-missing",
            ),
            ("kind: InferenceService\nspec: {predictor: {triton: {runtimeVersion: 23.10-py3}}}", "image-outdated"),
            (
                "kind: InferenceService\nspec: {predictor: {triton: {args: [--model-control-mode=explicit]}}}",
                "restricted-api-missing",
            ),
        ],
    )
    def test_objects(self, text: str, rule: str) -> None:
        """Services, volumes, configuration and KServe's own fields."""
        assert rule in names(check_kubernetes("apiVersion: v1\n" + text, "k.yaml"))

    @pytest.mark.parametrize(
        "text",
        [
            "kind: Service\nspec: {type: ClusterIP, ports: [{port: 8000}]}",
            "kind: Service\nspec: {type: LoadBalancer, ports: [{port: 443}]}",
            "kind: Service\nspec: {type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/8], ports: [{port: 8000}]}",
            "kind: Ingress\nspec: {tls: [{hosts: [x]}]}",
            "kind: CustomResourceDefinition\nspec: {containers: [{name: x}]}",
            "kind: ConfigMap\ndata:\n  MAX_TOKENS: '5'\n  password.txt: |\n    two\n    lines\n",
        ],
    )
    def test_objects_that_are_right(self, text: str) -> None:
        """These have no findings at all."""
        assert names(check_kubernetes("apiVersion: v1\n" + text, "k.yaml")) == set()

    def test_lines(self) -> None:
        """A finding stands on the line of what causes it."""
        text = "apiVersion: v1\nkind: Pod\nspec:\n  hostPID: true\n  containers:\n  - name: t\n    image: triton\n    securityContext:\n      privileged: true\n"
        lines = {one.rule: one.line for one in check_kubernetes(text, "k")}
        assert (lines["host-pid"], lines["privileged"], lines["writable-rootfs"]) == (4, 9, 8)

    def test_host_path_of_the_root_is_an_error(self) -> None:
        """The whole host is more than a part of it."""
        spec = "volumes: [{name: d, hostPath: {path: /}}, {name: e, hostPath: {path: /srv}}]"
        found = pod("volumeMounts: [{name: d, mountPath: /d}, {name: e, mountPath: /e}]", spec)
        levels = {one.message.split("host's ")[1].split()[0]: one.level for one in found if one.rule == "host-path"}
        assert levels == {"whole": Level.ERROR, "/srv": None}


class TestTemplates:
    TEXT = textwrap.dedent("""\
        apiVersion: apps/v1
        kind: Deployment
        metadata:
          name: {{ .Release.Name }}
          labels:
            {{- include "x.labels" . | nindent 4 }}
        spec:
          template:
            spec:
              hostNetwork: true
              {{- if .Values.x }}
              hostPID: true
              {{- end }}
              containers:
              - name: triton
                image: "{{ .Values.image }}:{{ .Values.tag }}"
                resources: {{ toYaml .Values.resources | nindent 10 }}
        """)

    def test_is_no_crash_and_no_error(self) -> None:
        """A chart's template is a placeholder, and what stands in it counts."""
        assert names(check_kubernetes(self.TEXT, "t.yaml")) == {"config-placeholder", "host-network", "host-pid"}

    def test_a_command_with_more_to_come(self) -> None:
        """Options that stand in a template count; what its values may add makes an error a warning."""
        text = (
            self.TEXT
            + "        args:\n        - tritonserver\n        - --model-control-mode=explicit\n        - {{ .Values.args }}\n"
        )
        found = [one for one in check_kubernetes(text, "t.yaml") if one.rule == "restricted-api-missing"]
        assert [one.level for one in found] == [Level.WARNING]

    def test_jinja(self) -> None:
        """Statements on lines of their own are a template's too."""
        text = "apiVersion: v1\nkind: Pod\nspec:\n  {% if x %}\n  hostPID: true\n  {% endif %}\n  containers: [{name: a}]\n"
        found = check_kubernetes(text, "t.yaml")
        assert names(found) == {"config-placeholder", "host-pid"}
        assert [one.line for one in found] == [4, 5]

    def test_braces_inside_texts_are_none(self) -> None:
        """Go templates inside a script are no template of the file."""
        text = "apiVersion: v1\nkind: ConfigMap\ndata:\n  run.sh: |\n    docker ps --format '{{.ID}}'\n"
        assert names(check_kubernetes(text, "c.yaml")) == set()
