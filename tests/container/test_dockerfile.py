"""Dockerfile.test copies what exists, installs only what is locked and runs as nobody in particular."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FIRST_RELEASE_WITHOUT_KNOWN_VULNERABILITIES = (26, 7)


class Instruction(NamedTuple):
    """One instruction of a Dockerfile, its lines joined."""

    name: str
    text: str


def instructions(text: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile without comments."""
    kept = "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", kept)
    return [Instruction(name.upper(), rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def problems(text: str, root: Path) -> list[str]:
    """Return what is wrong with a Dockerfile; an empty list when nothing is."""
    found = []
    steps = instructions(text)
    names = [step.name for step in steps]
    if names[:2] != ["ARG", "FROM"]:
        found.append("the image is a build argument, before FROM")
    image = re.fullmatch(r"TRITON_IMAGE=nvcr\.io/nvidia/tritonserver:(\d+)\.(\d+)-py3", steps[0].text)
    if image is None:
        found.append("TRITON_IMAGE has no fixed release")
    elif (int(image[1]), int(image[2])) < FIRST_RELEASE_WITHOUT_KNOWN_VULNERABILITIES:
        found.append("TRITON_IMAGE has known vulnerabilities")
    users = [step.text for step in steps if step.name == "USER"]
    if not users or users[-1].split(":")[0] in {"root", "0"} or names[-1] not in {"ENTRYPOINT", "CMD"}:
        found.append("the last user is not an ordinary one")
    for step in steps:
        if step.name == "ADD":
            found.append("ADD instead of COPY")
        elif step.name == "COPY":
            sources = [word for word in shlex.split(step.text) if not word.startswith("--")][:-1]
            found += [f"COPY of {source}, which does not exist" for source in sources if not (root / source).exists()]
        elif step.name == "RUN":
            found += command_problems(step.text)
        elif step.name in {"ENTRYPOINT", "CMD"} and not step.text.startswith("["):
            found.append(f"{step.name} through a shell")
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


class TestDockerfile:
    def test_it_has_no_problem(self) -> None:
        """The image is a fixed argument, sources exist, everything is locked, the user is not root."""
        assert problems(TEXT, ROOT) == []

    def test_it_tests_the_server_of_the_container(self) -> None:
        """The wheel with a server of its own is left out, and the container's is named."""
        (environment,) = [step.text for step in instructions(TEXT) if step.name == "ENV"]
        assert "TRITONSERVER=/opt/tritonserver" in environment
        assert "SAFE_TRITON_REQUIRE_SERVER=1" in environment
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

    def test_running_it_is_documented(self) -> None:
        """The head of the file says how to give it GPUs, shared memory and read-only mounts."""
        head = TEXT.split("\nARG ", 1)[0]
        for word in ("--gpus all", "--shm-size=", "--read-only", ":ro", "--build-arg TRITON_IMAGE="):
            assert word in head

    def test_the_entry_point_is_pytest(self) -> None:
        """What the container runs is the test suite."""
        assert json.loads(instructions(TEXT)[-1].text)[:3] == ["python", "-m", "pytest"]

    def test_ignored_files_are_not_copied(self) -> None:
        """The build context leaves out environments and the version history."""
        ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        assert ".*" in ignored
        assert {"!.dockerignore", "!.github"} == {line for line in ignored if line.startswith("!")}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("26.07-py3", "26.06-py3"),
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
