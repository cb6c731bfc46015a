"""Compose files: each rule in every spelling, and what is right."""

from __future__ import annotations

import textwrap

import pytest

from safe_triton.audit.deployment import check_compose
from safe_triton.audit.finding import Finding

IMAGE = "nvcr.io/nvidia/tritonserver:26.07-py3"


def names(found: list[Finding]) -> set[str]:
    """Return the names of the rules."""
    return {one.rule for one in found}


def compose(service: str, top: str = "") -> list[Finding]:
    """Check one service with some lines of its own."""
    text = f"services:\n  triton:\n    image: {IMAGE}\n{textwrap.indent(service, '    ')}\n{top}"
    return check_compose(text, "compose.yaml")


HARDENED = """\
user: "1000:1000"
read_only: true
cap_drop: [ALL]
security_opt: ["no-new-privileges:true"]
mem_limit: 16g
cpus: 4
pids_limit: 512
networks: [inside]
volumes: ["./models:/models:ro"]
command: [tritonserver, --model-repository=/models, --http-address=127.0.0.1, --grpc-address=127.0.0.1]
"""


class TestCompose:
    @pytest.mark.parametrize(
        ("service", "rule"),
        [
            ("privileged: true", "privileged"),
            ("privileged: yes", "privileged"),
            ("volumes: ['/var/run/docker.sock:/var/run/docker.sock:ro']", "docker-socket"),
            ("volumes: ['/run/containerd/containerd.sock:/c.sock']", "docker-socket"),
            ("volumes: [{type: bind, source: /var/run/docker.sock, target: /s}]", "docker-socket"),
            ("volumes: ['/var/run:/host/run']", "docker-socket"),
            ("volumes: ['/:/host:ro']", "host-path"),
            ("volumes: ['/etc:/host/etc:ro']", "host-path"),
            ("volumes: ['/var/../:/host']", "host-path"),
            ("volumes: ['~/.ssh:/root/.ssh:ro']", "host-path"),
            ("volumes: ['${HOME}/.aws:/root/.aws:ro']", "host-path"),
            ("volumes:\n- type: bind\n  source: /proc\n  target: /p", "host-path"),
            ("devices: ['/dev/mem:/dev/mem']", "host-path"),
            ("cap_add: [SYS_ADMIN]", "caps-added"),
            ("cap_add:\n- CAP_NET_ADMIN", "caps-added"),
            ("cap_add: [ALL]", "caps-added"),
            ("user: root", "run-as-root"),
            ("user: '0:0'", "run-as-root"),
            ("user: 0", "run-as-root"),
            ("", "run-as-root"),
            ("volumes: ['./models:/models']", "writable-model-mount"),
            ("volumes: ['./models:/models:rw']", "writable-model-mount"),
            ("volumes: ['models:/models:z']", "writable-model-mount"),
            ("volumes: [{type: bind, source: ./m, target: /models}]", "writable-model-mount"),
            ("volumes: [{type: volume, source: m, target: /models, read_only: false}]", "writable-model-mount"),
            ("command: tritonserver --model-repository=/srv/x\nvolumes: ['./m:/srv']", "writable-model-mount"),
            ("", "no-memory-limit"),
            ("mem_limit: 0", "no-memory-limit"),
            ("deploy: {resources: {reservations: {memory: 4G}}}", "no-memory-limit"),
            ("mem_limit: 4g", "no-cpu-limit"),
            ("gpus: all", "all-gpus"),
            ("runtime: nvidia", "all-gpus"),
            ("runtime: nvidia\nenvironment: [NVIDIA_VISIBLE_DEVICES=all]", "all-gpus"),
            ("environment: {NVIDIA_VISIBLE_DEVICES: all}", "all-gpus"),
            (
                "deploy: {resources: {reservations: {devices: [{driver: nvidia, count: all, capabilities: [gpu]}]}}}",
                "all-gpus",
            ),
            ("deploy: {resources: {reservations: {devices: [{driver: nvidia, capabilities: [gpu]}]}}}", "all-gpus"),
            ("deploy: {resources: {reservations: {devices: [{capabilities: [[gpu]]}]}}}", "all-gpus"),
            ("devices: ['nvidia.com/gpu=all']", "all-gpus"),
            ("", "privilege-escalation"),
            ("security_opt: ['no-new-privileges:false']", "privilege-escalation"),
            ("cap_drop: [NET_RAW]", "caps-not-dropped"),
            ("", "writable-rootfs"),
            ("network_mode: host", "host-network"),
            ("network_mode: 'host'", "host-network"),
            ("pid: host", "host-pid"),
            ("ipc: host", "host-ipc"),
            ("ports: ['8000:8000']", "ports-public"),
            ("ports: [8000]", "ports-public"),
            ("ports: ['0.0.0.0:8000:8000']", "ports-public"),
            ("ports: ['8000-8002:8000-8002']", "ports-public"),
            ("ports: ['[::]:8001:8001/tcp']", "ports-public"),
            ("ports: [{target: 8000, published: 8000}]", "ports-public"),
            ("ports: [{target: 8000, published: '8000', host_ip: 0.0.0.0}]", "ports-public"),
            ("ports: ['${PORT:-8000}:8000']", "ports-public"),
            ("environment: {DB_PASSWORD: hunter2}", "secrets-in-env"),
            ("environment:\n- HF_TOKEN=abcdefgh", "secrets-in-env"),
            ("environment: ['AWS_SECRET_ACCESS_KEY=wJalrXUtn']", "secrets-in-env"),
            ("environment: ['URL=redis://:hunter2@cache:6379', 'OTHER=postgres://u:hunter2@h/x']", "secrets-in-env"),
            ("environment: ['KEY=AKIAIOSFODNN7EXAMPLE']", "secrets-in-env"),
            ("environment: ['API_KEY=${API_KEY:-hunter2}']", "secrets-in-env"),
            ("security_opt: [seccomp:unconfined]", "seccomp-unconfined"),
            ("security_opt: [seccomp=unconfined]", "seccomp-unconfined"),
            ("security_opt: ['apparmor:unconfined']", "seccomp-unconfined"),
            ("pids_limit: -1", "no-pids-limit"),
            ("", "no-pids-limit"),
            ("networks: [internal]", "network-not-isolated"),
            ("shm_size: 64gb", "shm-excessive"),
            ("command: tritonserver --model-control-mode=explicit", "restricted-api-missing"),
            ("command:\n- tritonserver\n- --model-control-mode\n- explicit", "restricted-api-missing"),
            ("command: ['--model-repository=/m', '--model-control-mode=explicit']", "restricted-api-missing"),
            ("entrypoint: [tritonserver]\ncommand: [--model-control-mode=explicit]", "restricted-api-missing"),
            (
                "command: >\n  tritonserver --model-repository=/m\n  --model-control-mode=explicit",
                "restricted-api-missing",
            ),
            (
                "command: |\n  tritonserver --model-repository=/m \\\n  --model-control-mode=explicit",
                "restricted-api-missing",
            ),
            ("command: bash -c 'tritonserver --model-control-mode=${M:-explicit}'", "restricted-api-missing"),
            ("command: [sh, -c, 'exec tritonserver --model-control-mode=explicit']", "restricted-api-missing"),
            (
                "environment: {M: explicit}\ncommand: [sh, -c, 'tritonserver --model-control-mode=$$M']",
                "restricted-api-missing",
            ),
            ("command: >\n  tritonserver --log-info=1\n  # TLS\n  --grpc-use-ssl=true", "broken-continuation"),
            ("privileged: true\nprivileged: false", "yaml-parse-error"),
            ("x: [", "yaml-parse-error"),
            ("\tx: 1", "yaml-parse-error"),
            ("x: *nowhere", "yaml-parse-error"),
        ],
    )
    def test_is_found(self, service: str, rule: str) -> None:
        """Each way of writing it is found."""
        assert rule in names(compose(service))

    @pytest.mark.parametrize(
        ("service", "rule"),
        [
            ("privileged: false", "privileged"),
            ("volumes: ['./models:/models:ro', 'data:/data']", "host-path"),
            ("cap_add: [NET_BIND_SERVICE]", "caps-added"),
            ("user: triton-server", "run-as-root"),
            ("user: '${UID}:${GID}'", "run-as-root"),
            ("volumes: ['./models:/models:ro,z']", "writable-model-mount"),
            ("volumes: [{type: bind, source: ./m, target: /models, read_only: true}]", "writable-model-mount"),
            ("deploy: {resources: {limits: {memory: 16G}}}", "no-memory-limit"),
            ("deploy: {resources: {limits: {cpus: '4', pids: 100}}}", "no-cpu-limit"),
            ("deploy: {resources: {limits: {cpus: '4', pids: 100}}}", "no-pids-limit"),
            (
                "deploy: {resources: {reservations: {devices: [{driver: nvidia, device_ids: ['0'], capabilities: [gpu]}]}}}",
                "all-gpus",
            ),
            (
                "deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}",
                "all-gpus",
            ),
            ("runtime: nvidia\nenvironment: [NVIDIA_VISIBLE_DEVICES=0]", "all-gpus"),
            ("security_opt: ['no-new-privileges']", "privilege-escalation"),
            ("ports: ['127.0.0.1:8000:8000', '[::1]:8001:8001']", "ports-public"),
            ("ports: [{target: 8000, published: 8000, host_ip: 127.0.0.1}]", "ports-public"),
            ("expose: ['8000']", "ports-public"),
            (
                "environment: {PASSWORD_FILE: /run/secrets/p, MAX_TOKENS: '5', TOKENIZERS_PARALLELISM: 'false'}",
                "secrets-in-env",
            ),
            ("environment: ['HF_TOKEN', 'API_KEY=${API_KEY}', 'X_SECRET=${X:?missing}']", "secrets-in-env"),
            ("shm_size: 1gb", "shm-excessive"),
            ("network_mode: none", "network-not-isolated"),
            ("privileged: &p false\nread_only: *p", "yaml-parse-error"),
        ],
    )
    def test_is_clean(self, service: str, rule: str) -> None:
        """What is right, or only known elsewhere, is no finding."""
        assert rule not in names(compose(service))

    def test_hardened_has_no_findings_but_its_tag(self) -> None:
        """A service that does everything has nothing left but to add a digest."""
        found = compose(HARDENED, "networks: {inside: {internal: true}}\n")
        assert names(found) <= {"image-unpinned", "restricted-api-missing"}
        assert not [one for one in found if one.rule == "restricted-api-missing"]

    def test_merge_keys_anchors_and_extends(self) -> None:
        """What a service takes over from elsewhere in the file counts, with its own line."""
        text = (
            "x-base: &base\n  privileged: true\nservices:\n  triton:\n    <<: *base\n    image: tritonserver:26.07-py3\n"
            "  other:\n    extends: {service: third}\n    image: x\n  third:\n    ipc: host\n    image: y\n"
        )
        found = check_compose(text, "c")
        assert [one.line for one in found if one.rule == "privileged"] == [2]
        assert [one.line for one in found if one.rule == "host-ipc"] == [11, 11]

    def test_sidecars_need_only_what_is_dangerous(self) -> None:
        """A service beside Triton is judged for what it is given, not for what it lacks."""
        text = f"services:\n  triton: {{image: '{IMAGE}'}}\n  redis: {{image: 'redis:7', privileged: true}}\n"
        about = {one.rule for one in check_compose(text, "c") if one.message.startswith("redis")}
        assert about == {"privileged", "image-unpinned", "no-memory-limit"}

    def test_first_version_without_services(self) -> None:
        """The oldest form has the services on top."""
        assert "privileged" in names(check_compose("triton:\n  image: triton\n  privileged: true\n", "c"))


@pytest.mark.parametrize(
    ("service", "top", "rule"),
    [
        ("privileged: '${PRIVILEGED:-true}'", "", "privileged"),
        ("environment: ['DOCKER_HOST=tcp://10.0.0.1:2375']", "", "docker-socket"),
        ("volumes: ['v:/x']", "volumes: {v: {driver_opts: {type: none, o: bind, device: /etc}}}\n", "host-path"),
        ("networks: {host: {}}", "networks: {host: {external: true, name: host}}\n", "host-network"),
        (
            "gpus: all\ndeploy: {resources: {reservations: {devices: [{device_ids: ['0'], capabilities: [gpu]}]}}}",
            "",
            "all-gpus",
        ),
    ],
)
def test_by_another_door(service: str, top: str, rule: str) -> None:
    """The same power through a variable, a named volume, a named network."""
    assert rule in names(compose(service, top))


def test_aliases_that_unfold() -> None:
    """Aliases cost nothing here; tools that copy them end with the memory."""
    rows = "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9))
    found = check_compose(f"a: &a [1, 2]\n{rows}services: {{triton: {{image: {IMAGE}}}}}\n", "c")
    assert "yaml-parse-error" in names(found)
    few = "x: &x {restart: always}\n" + "services:\n" + "".join(f"  s{n}: {{<<: *x, image: a}}\n" for n in range(50))
    assert "yaml-parse-error" not in names(check_compose(few, "c"))
