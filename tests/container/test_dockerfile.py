"""Dockerfile.test copies what exists, installs only what is locked and runs as nobody in particular."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from safe_triton.audit.cves import cve_table
from safe_triton.audit.deployment.dockerfile import read_instructions
from tests.container.layout import ROOT, needs_source
from tests.container.steps import copied

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FIRST_RELEASE_WITHOUT_KNOWN_VULNERABILITIES = cve_table().first_without("24.10")


def problems(text: str, root: Path) -> list[str]:
    """Return what is wrong with a Dockerfile; an empty list when nothing is."""
    found = []
    steps = list(read_instructions(text))
    names = [step.word for step in steps]
    if names[:2] != ["ARG", "FROM"]:
        found.append("the image is a build argument, before FROM")
    image = re.fullmatch(r"TRITON_IMAGE=nvcr\.io/nvidia/tritonserver:(\d+)\.(\d+)-py3", steps[0].rest)
    if image is None:
        found.append("TRITON_IMAGE has no fixed release")
    elif f"{image[1]}.{image[2]}" < FIRST_RELEASE_WITHOUT_KNOWN_VULNERABILITIES:
        found.append("TRITON_IMAGE has known vulnerabilities")
    users = [step.rest for step in steps if step.word == "USER"]
    if not users or users[-1].split(":")[0] in {"root", "0"} or names[-1] not in {"ENTRYPOINT", "CMD"}:
        found.append("the last user is not an ordinary one")
    for step in steps:
        if step.word == "ADD":
            found.append("ADD instead of COPY")
        elif step.word == "COPY":
            sources, _ = copied(step.rest)
            found += [f"COPY of {source}, which does not exist" for source in sources if not (root / source).exists()]
        elif step.word == "RUN":
            found += command_problems(step.rest.replace("\\\n", " "))
        elif step.word in {"ENTRYPOINT", "CMD"} and not step.rest.startswith("["):
            found.append(f"{step.word} through a shell")
    return found


def command_problems(text: str) -> list[str]:
    """Return what is wrong with the commands of one RUN."""
    found = []
    if re.search(r"(?<!\|)\|(?!\|)", text):
        found.append("a pipe hides a failure")
    for command in re.split(r"&&|;", text):
        words = shlex.split(command)
        if "sudo" in words or "curl" in words or "wget" in words:
            found.append(f"{words[0]} fetches or changes what is not locked")
        if "apt-get" in words and "install" in words:
            packages = [w for w in words[words.index("install") + 1 :] if not w.startswith("-")]
            found += [f"apt package {package} without a version" for package in packages if "=" not in package]
        if "pip" in words and "install" in words:
            locked = "--require-hashes" in words
            offline = {"--no-deps", "--no-index", "--no-build-isolation"} <= set(words)
            if not (locked or offline):
                found.append("pip install of something that is not locked")
            if "--no-cache-dir" not in words:
                found.append("pip leaves its cache in the image")
    return found


TEXT = (ROOT / "Dockerfile.test").read_text(encoding="utf-8")
STEPS = list(read_instructions(TEXT))
COPIED = [source for step in STEPS if step.word == "COPY" for source in copied(step.rest)[0]]


class TestDockerfile:
    @needs_source
    def test_it_has_no_problem(self) -> None:
        """The image is a fixed argument, sources exist, everything is locked, the user is not root."""
        assert problems(TEXT, ROOT) == []

    def test_it_tests_the_server_of_the_container(self) -> None:
        """The container's server is named, and must be there; the wheel with another one is left out of the lock."""
        first = next(step.rest for step in STEPS if step.word == "ENV")
        assert "TRITONSERVER=/opt/tritonserver" in first
        assert "SAFE_TRITON_REQUIRE_SERVER=1" in first
        assert "nvidia-pytriton==" in TEXT

    def test_the_filter_leaves_out_the_wheel_only(self) -> None:
        """The expression that cuts the wheel out of the lock cuts out that one package with its hashes."""
        lock = (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8")
        assert "awk '/^[a-z]/ { kept = !/^nvidia-pytriton==/ } kept'" in TEXT
        kept, lines = True, []
        for line in lock.splitlines():
            if re.match(r"[a-z]", line):
                kept = not line.startswith("nvidia-pytriton==")
            if kept:
                lines.append(line)
        names = re.findall(r"^([a-z][\w.-]*)==", lock, re.MULTILINE)
        assert re.findall(r"^([a-z][\w.-]*)==", "\n".join(lines), re.MULTILINE) == [
            name for name in names if name != "nvidia-pytriton"
        ]

    def test_the_environment_is_on_the_path_after_the_last_step(self) -> None:
        """The environment has no pip: a step that finds its python3 first would end with "No module named pip"."""
        places = [at for at, step in enumerate(STEPS) if step.word == "ENV" and "PATH=/opt/venv/bin" in step.rest]
        assert places and places[0] > max(at for at, step in enumerate(STEPS) if step.word == "RUN")

    def test_it_copies_what_the_source_release_has(self) -> None:
        """What is released as source is what the tests in the container see, and nothing else."""
        project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
        released = {name.removeprefix("/") for name in included} | {"pyproject.toml"}
        assert {source for source in COPIED if "/" not in source} == released

    def test_running_it_is_documented(self) -> None:
        """The head of the file says how to give it GPUs, shared memory and read-only mounts."""
        head = TEXT.split("\nARG ", 1)[0]
        for word in ("--gpus all", "--shm-size=", "--read-only", ":ro", "--build-arg TRITON_IMAGE="):
            assert word in head

    @pytest.mark.parametrize("page", ["Dockerfile.test", "SECURITY.md", "docs/how-to/test-in-container.md"])
    def test_pages_name_the_first_release_without_known_vulnerabilities(self, page: str) -> None:
        """What is written about releases is what the table of vulnerabilities says."""
        text = " ".join((ROOT / page).read_text(encoding="utf-8").replace("#", "").split())
        named = re.findall(r"(?:Before|to date;) (\d\d\.\d\d) (?:known|is the oldest release without)", text)
        assert named == [FIRST_RELEASE_WITHOUT_KNOWN_VULNERABILITIES]

    def test_the_entry_point_is_pytest(self) -> None:
        """What the container runs is the test suite."""
        assert json.loads(STEPS[-1].rest)[:3] == ["python", "-m", "pytest"]

    def test_ignored_files_are_not_copied(self) -> None:
        """The build context leaves out environments and the version history, and no file that is copied."""
        ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        assert ".*" in ignored
        assert {f"!{source}" for source in COPIED if source.startswith(".")} == {
            line for line in ignored if line.startswith("!")
        }


class TestCompose:
    FILE: dict[str, Any] = yaml.safe_load((ROOT / "compose.test.yaml").read_text(encoding="utf-8"))

    def test_the_image_is_that_of_the_dockerfile(self) -> None:
        """Both name the same release, and the same variable takes another."""
        name, _, default = STEPS[0].rest.partition("=")
        for service in self.FILE["services"].values():
            assert service["build"]["dockerfile"] == "Dockerfile.test"
            assert service["build"]["args"] == {name: f"${{{name}:-{default}}}"}

    @pytest.mark.parametrize("name", ["cpu", "gpu"])
    def test_every_service_is_closed(self, name: str) -> None:
        """The Dockerfile's user, no capabilities, no new privileges, no network, and /tmp alone to write to."""
        service = self.FILE["services"][name]
        assert service["user"] == next(step.rest for step in STEPS if step.word == "USER")
        assert (service["read_only"], service["cap_drop"], service["network_mode"]) == (True, ["ALL"], "none")
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert [place.partition(":")[0] for place in service["tmpfs"]] == ["/tmp"]
        assert all(volume["read_only"] for volume in service["volumes"])
        assert service["init"] is True and service["shm_size"] == "2gb"
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}

    def test_one_service_has_a_gpu(self) -> None:
        """A named GPU for one, none for the other; each starts only when it is asked for."""
        devices = {
            name: service["deploy"]["resources"].get("reservations", {}).get("devices")
            for name, service in self.FILE["services"].items()
        }
        assert devices["cpu"] is None
        assert [device["driver"] for device in devices["gpu"]] == ["nvidia"]
        assert all(service["profiles"] == [name] for name, service in self.FILE["services"].items())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("26.07-py3", "26.05-py3"),
        ("26.07-py3", "latest"),
        ("USER 10001:10001", "USER root"),
        ("USER 10001:10001\n", ""),
        ("COPY scripts scripts", "COPY no-such-folder scripts"),
        ("COPY scripts scripts", "ADD scripts scripts"),
        ("--require-hashes ", ""),
        ("--no-index ", ""),
        ("groupadd --gid", "apt-get install --yes git && groupadd --gid"),
        ("rm /tmp/container.lock", "cat /tmp/container.lock | sort"),
        ('ENTRYPOINT ["python", "-m", "pytest", "-p", "no:cacheprovider"]', "ENTRYPOINT python -m pytest"),
    ],
)
def test_each_rule_can_fail(before: str, after: str) -> None:
    """A Dockerfile that breaks one of the rules is found out."""
    changed = TEXT.replace(before, after)
    assert changed != TEXT
    assert problems(changed, ROOT) != []
