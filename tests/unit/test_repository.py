"""The lock, the build and the workflow hold what the project says about them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def locked() -> list[Requirement]:
    """Return every entry of the lock, without its hashes."""
    return [Requirement(line.rstrip(" \\")) for line in LOCK.splitlines() if re.match(r"[a-z]", line)]


def environment(python: str) -> dict[str, str]:
    """Return the marker values of an x86-64 Linux with this Python."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }


def versions(python: str) -> dict[str, str]:
    """Return what the lock installs on this Python."""
    chosen: dict[str, str] = {}
    for entry in locked():
        if entry.marker is None or entry.marker.evaluate(environment(python)):
            (specifier,) = entry.specifier
            assert entry.name not in chosen, f"{entry.name} is locked twice for {python}"
            chosen[canonicalize_name(entry.name)] = specifier.version
    return chosen


class TestLock:
    @pytest.mark.parametrize("python", PYTHONS)
    def test_it_holds_every_requirement(self, python: str) -> None:
        """Each dependency and each extra's is locked, in a version that it allows, on every supported Python."""
        installed = versions(python)
        for text in [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]:
            wanted = Requirement(text)
            if wanted.name == PROJECT["name"] or (wanted.marker and not wanted.marker.evaluate(environment(python))):
                continue
            version = installed.get(canonicalize_name(wanted.name))
            assert version is not None, f"{wanted.name} is not locked for {python}; run make lock"
            assert wanted.specifier.contains(version, prereleases=True), f"{text}, locked {version}; run make lock"

    def test_numpy_1_wherever_the_server_of_the_wheel_runs(self) -> None:
        """The wheel's server breaks every tensor under numpy 2, so the two are never locked together."""
        for python in PYTHONS:
            installed = versions(python)
            assert ("nvidia-pytriton" in installed) == installed["numpy"].startswith("1.26."), python

    def test_every_entry_has_hashes(self) -> None:
        """Nothing is installed that was not seen when the lock was made."""
        entries = re.split(r"\n(?=[a-z])", LOCK.strip())
        assert len(entries) == len(locked())
        assert [entry.split(" ")[0] for entry in entries if "--hash=sha256:" not in entry] == []

    @pytest.mark.parametrize("name", ["dev", "release"])
    def test_nothing_of_a_machine_is_in_it(self, name: str) -> None:
        """A lock has names, versions, markers and hashes: no index, no address, no path."""
        lock = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
        allowed = re.compile(r"[a-z][a-z0-9.-]*==[\w.]+( ; [^/@]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
        assert lock and [line for line in lock.splitlines() if not allowed.fullmatch(line)] == []


class TestProject:
    def test_all_names_every_extra_of_users(self) -> None:
        """``[all]`` is every extra but the developers' own."""
        (text,) = EXTRAS["all"]
        assert Requirement(text).extras == EXTRAS.keys() - {"all", "dev"}

    def test_the_version_stands_in_one_place(self) -> None:
        """The version is read from the package, and the changelog has a section for what comes next."""
        assert "version" in PROJECT["dynamic"]
        assert "version" not in PROJECT
        assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


class TestWorkflow:
    WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

    def test_there_is_one(self) -> None:
        """Without a workflow the rules below would prove nothing."""
        assert self.WORKFLOWS

    @pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
    def test_actions_are_pinned(self, file: Path) -> None:
        """Every action is named by its commit, with the release as a comment."""
        used = re.findall(r"uses: (.*)", file.read_text(encoding="utf-8"))
        assert used
        assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []

    @pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
    def test_nothing_is_permitted_by_default(self, file: Path) -> None:
        """A workflow has no permission, a job at most the one to read the source, and leaves no token behind."""
        workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {}
        for job in workflow["jobs"].values():
            assert job.get("permissions", {}) in ({}, {"contents": "read"})
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False

    def test_one_job_requires_all_others(self) -> None:
        """The job that a branch rule names needs every other job and fails when one did not succeed."""
        workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
        required = workflow["jobs"]["required"]
        others = workflow["jobs"].keys() - {"required"}
        assert set(required["needs"]) == others
        assert required["if"] == "always()"
        assert required["steps"][0]["run"].count("success") == len(others)
