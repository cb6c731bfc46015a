"""``docker run`` in scripts: each option in every form, and what is right."""

from __future__ import annotations

import pytest

from safe_triton.audit.deployment import check_shell
from safe_triton.audit.finding import Finding

IMAGE = "nvcr.io/nvidia/tritonserver:26.07-py3"


def names(found: list[Finding]) -> set[str]:
    """Return the names of the rules."""
    return {one.rule for one in found}


def run(options: str, image: str = IMAGE) -> list[Finding]:
    """Check one docker run."""
    return check_shell(f"docker run {options} {image} tritonserver --model-repository=/models", "run.sh")


class TestDockerRun:
    @pytest.mark.parametrize(
        ("options", "rule"),
        [
            ("--privileged", "privileged"),
            ("--privileged=true", "privileged"),
            ("-it --rm --privileged", "privileged"),
            ("-v /var/run/docker.sock:/var/run/docker.sock", "docker-socket"),
            ("--volume=/run/podman/podman.sock:/s", "docker-socket"),
            ("--mount type=bind,src=/var/run/docker.sock,dst=/s", "docker-socket"),
            ("-v /:/host", "host-path"),
            ("--mount type=bind,source=/etc,target=/etc2,readonly", "host-path"),
            ("--device=/dev/sda", "host-path"),
            ("--cap-add SYS_PTRACE", "caps-added"),
            ("--cap-add=all", "caps-added"),
            ("-u root", "run-as-root"),
            ("--user 0", "run-as-root"),
            ("-it", "run-as-root"),
            ("-v $PWD/models:/models", "writable-model-mount"),
            ("-v$(pwd)/models:/models", "writable-model-mount"),
            ("--mount type=bind,src=/m,dst=/models", "writable-model-mount"),
            ("-d", "no-memory-limit"),
            ("-m 0", "no-memory-limit"),
            ("-m 8g", "no-cpu-limit"),
            ("--gpus all", "all-gpus"),
            ("--gpus=all", "all-gpus"),
            ("--gpus '\"device=all\"'", "all-gpus"),
            ("--gpus 'all,capabilities=utility'", "all-gpus"),
            ("--runtime=nvidia", "all-gpus"),
            ("--runtime nvidia -e NVIDIA_VISIBLE_DEVICES=all", "all-gpus"),
            ("--device nvidia.com/gpu=all", "all-gpus"),
            ("--rm", "privilege-escalation"),
            ("--rm", "caps-not-dropped"),
            ("--rm", "writable-rootfs"),
            ("--network host", "host-network"),
            ("--net=host", "host-network"),
            ("--pid=host", "host-pid"),
            ("--ipc host", "host-ipc"),
            ("-p 8000:8000", "ports-public"),
            ("-p8000:8000 -p 8001:8001", "ports-public"),
            ("--publish=0.0.0.0:8000:8000", "ports-public"),
            ("-P", "ports-public"),
            ("-itP", "ports-public"),
            ("-e PASSWORD=hunter2", "secrets-in-env"),
            ("--env=HF_TOKEN=hf_abcdefghijklmnopq", "secrets-in-env"),
            ("--security-opt seccomp=unconfined", "seccomp-unconfined"),
            ("--security-opt=apparmor:unconfined", "seccomp-unconfined"),
            ("--pids-limit -1", "no-pids-limit"),
            ("--rm", "network-not-isolated"),
            ("--shm-size=64g", "shm-excessive"),
            ("--shm-size 1g --ulimit memlock=-1 --name tritonserver \\\n  --privileged", "privileged"),
            ("$GPU_OPTIONS --privileged", "privileged"),
        ],
    )
    def test_is_found(self, options: str, rule: str) -> None:
        """Each option in each of its forms is found."""
        assert rule in names(run(options))

    @pytest.mark.parametrize(
        ("options", "rule"),
        [
            ("--privileged=false", "privileged"),
            ("--user 1000:1000", "run-as-root"),
            ("-u $(id -u):$(id -g)", "run-as-root"),
            ("-v $PWD/models:/models:ro", "writable-model-mount"),
            ("--mount type=bind,src=/m,dst=/models,readonly", "writable-model-mount"),
            ("--memory=16g --cpus 4 --pids-limit=100", "no-memory-limit"),
            ("--memory=16g --cpus 4 --pids-limit=100", "no-pids-limit"),
            ("--gpus device=0", "all-gpus"),
            ("--gpus '\"device=0,1\"'", "all-gpus"),
            ("--gpus 1", "all-gpus"),
            ("--security-opt no-new-privileges", "privilege-escalation"),
            ("--cap-drop ALL --read-only", "caps-not-dropped"),
            ("-p 127.0.0.1:8000:8000", "ports-public"),
            ("-e HF_TOKEN -e PASSWORD=$PASSWORD", "secrets-in-env"),
            ("--network inside", "network-not-isolated"),
        ],
    )
    def test_is_clean(self, options: str, rule: str) -> None:
        """What is right is no finding."""
        assert rule not in names(run(options))

    @pytest.mark.parametrize(
        "start",
        [
            "docker run",
            "sudo docker run",
            "podman run",
            "docker container run",
            "nvidia-docker run",
            "docker --context x run",
            "nerdctl run",
            "exec docker create",
        ],
    )
    def test_programs(self, start: str) -> None:
        """Whatever starts it."""
        assert "privileged" in names(check_shell(f"{start} --privileged {IMAGE}", "x.sh"))

    def test_of_something_else(self) -> None:
        """A container without Triton is judged for what it is given."""
        assert names(check_shell("docker run -d --memory 1g redis:7@sha256:1", "x.sh")) == set()
