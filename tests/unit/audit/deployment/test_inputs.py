"""What a file is, which release an image is, and YAML that is there to do harm."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest

from safe_triton.audit import check_paths
from safe_triton.audit.cves import TABLE_VARIABLE, cve_table
from safe_triton.audit.deployment import check_compose, check_dockerfile, check_kubernetes, check_text, detect
from safe_triton.audit.deployment.fixes import FIXES, fix_for
from safe_triton.audit.deployment.images import release_of
from safe_triton.audit.deployment.yamltree import MAX_DEPTH, read_yaml
from safe_triton.audit.rules import cli, container
from safe_triton.errors import ServerError


class TestDetect:
    @pytest.mark.parametrize(
        ("name", "head", "kind"),
        [
            ("Dockerfile", "", "dockerfile"),
            ("a/Dockerfile.gpu", "", "dockerfile"),
            ("triton.dockerfile", "", "dockerfile"),
            ("Containerfile", "", "dockerfile"),
            ("-", "# x\n\nFROM a\nRUN b", "dockerfile"),
            ("-", "ARG A=1\nFROM $A", "dockerfile"),
            ("run.sh", "", "shell"),
            ("entrypoint", "#!/usr/bin/env bash\n", "shell"),
            ("-", "#!/bin/sh -e\ntritonserver", "shell"),
            ("-", "set -e\ntritonserver --x\n", "shell"),
            ("-", "tritonserver --model-repository=/m", "command-line"),
            ("-", "docker run --gpus all x", "command-line"),
            ("triton.service", "[Service]\nExecStart=/opt/tritonserver/bin/tritonserver", "shell"),
            ("command.txt", "tritonserver --x", "command-line"),
            ("docker-compose.yml", "", "compose"),
            ("compose.prod.yaml", "", "compose"),
            ("stack.yml", "version: '3'\nservices:\n  a:\n    image: b", "compose"),
            ("-", "services:\n  a: {image: b}", "compose"),
            ("k.yaml", "apiVersion: v1\nkind: Pod", "kubernetes"),
            ("k.yaml", "# c\n---\nkind: Pod\napiVersion: v1", "kubernetes"),
            ("k.json", '{"apiVersion": "v1", "kind": "Pod"}', "kubernetes"),
            ("k.json", '{\n "kind": "Pod",\n "apiVersion": "v1"}', "kubernetes"),
            ("-", "apiVersion: v1\nkind: List\nitems:\n- kind: Pod", "kubernetes"),
            ("-", "- apiVersion: v1\n  kind: Pod", "kubernetes"),
            ("x.yaml", "containers:\n- name: triton", "kubernetes"),
            ("x.yaml", "\ufeffapiVersion: v1\nkind: Pod", "kubernetes"),
            ("x.py", "import tritonserver", None),
            ("README.md", "docker run x", None),
            ("config.pbtxt", 'name: "tritonserver"', None),
            ("requirements.txt", "# for tritonserver\nnumpy", None),
            ("values.yaml", "replicas: 1", None),
            ("ci.yml", "on: push\njobs:\n  a:\n    steps: []", None),
            ("data.json", "{}", None),
            ("x", "\0\1", None),
            ("x", "", None),
        ],
    )
    def test_detect(self, name: str, head: str, kind: str | None) -> None:
        """The name and the first lines tell."""
        assert detect(name, head) == kind

    @pytest.mark.parametrize("text", ["\n", " \n", "- ", "ARG a\n", "docker ", "{,"])
    def test_is_bounded(self, text: str) -> None:
        """The longest head of anything is told in no time."""
        start = time.process_time()
        for name in ("-", "x.yaml", "x.txt"):
            detect(name, (text * 65_536)[:65_536])
        assert time.process_time() - start < 30


class TestImages:
    @pytest.mark.parametrize(
        ("reference", "release"),
        [
            ("nvcr.io/nvidia/tritonserver:24.10-py3", "24.10"),
            ("nvcr.io/nvidia/tritonserver:24.10-py3-min", "24.10"),
            ("nvcr.io/nvidia/tritonserver:25.03-trtllm-python-py3", "25.03"),
            ("nvcr.io/nvidia/tritonserver:24.08-vllm-python-py3@sha256:00", "24.08"),
            ("registry.example:5000/mirror/tritonserver:23.10", "23.10"),
            ("ghcr.io/acme/my-triton-server:v24.10", "24.10"),
            ("ghcr.io/acme/tritonserver:2.51.0", "24.10"),
            ("nvcr.io/nvidia/tensorrtserver:19.10-py3", "19.10"),
            ("tritonserver:r24.10-custom", "24.10"),
            ("acme/triton-models:2.5.1", ""),
            ("acme/triton:124.10", ""),
            ("acme/triton:24.13", ""),
            ("acme/triton", ""),
            ("acme/inference:24.10", ""),
            ("acme/triton@sha256:2410", ""),
        ],
    )
    def test_release(self, reference: str, release: str) -> None:
        """The tag names the release, of images with Triton's name only."""
        assert release_of(reference) == release

    def test_message(self) -> None:
        """The finding names the worst, the first release without any, and the day of the table."""
        found = [
            one
            for one in check_dockerfile("FROM nvcr.io/nvidia/tritonserver:24.10-py3", "D")
            if one.rule == "image-outdated"
        ]
        assert "CVE-" in found[0].message and "26." in found[0].message and "as of 2026" in found[0].message
        assert found[0].fix

    def test_a_newer_table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A table from a file takes the place of the package's."""
        row = {
            "cve": "CVE-2027-0001",
            "cvss": 9.8,
            "vector": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
            "cwe": ["CWE-20"],
            "bulletin": 9999,
            "first_affected": None,
            "first_fixed": "27.01",
        }
        table = {
            "schema": 1,
            "read": "2027-02-01",
            "source": "a bulletin",
            "containers": {"2.71": "26.07"},
            "cves": [row],
        }
        path = tmp_path / "cves.json"
        path.write_text(json.dumps(table))
        monkeypatch.setenv(TABLE_VARIABLE, str(path))
        found = check_dockerfile("FROM nvcr.io/nvidia/tritonserver:26.07-py3", "D")
        assert any("CVE-2027-0001" in one.message for one in found)

    @pytest.mark.parametrize("text", ["{", "[]", None])
    def test_a_table_that_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
        """A file that cannot be read as a table is refused with its name."""
        path = tmp_path / "cves.json"
        if text is not None:
            path.write_text(text)
        monkeypatch.setenv(TABLE_VARIABLE, str(path))
        with pytest.raises(ServerError, match=r"cves\.json") as caught:
            cve_table()
        assert caught.value.reason == "server.cves"


class TestHarmfulYaml:
    @pytest.mark.parametrize(
        "text",
        [
            "a: &a [x, x]\n"
            + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghijklmnopqrstuvwxyz")),
            "a: &a {k: v}\n" + "".join(f"m{n}: &m{n} {{<<: [*a, *a], k{n}: 1}}\n" for n in range(500)),
            "[" * 100_000,
            "{a: " * 50_000,
            "- " * 50_000,
            "a: &a [*a]",
            "a: !!python/object/apply:os.system [id]",
            "x: " + "y" * 5_000_000,
            "services:\n" + "  - a\n" * 150_000,
            "\x00",
            "a: \ud800",
            "%YAML 9.9\n---\na: 1",
        ],
        ids=lambda text: repr(text[:20]),
    )
    def test_is_bounded(self, text: str) -> None:
        """Bombs, depth, size and tags end in bounded time, with or without findings, and run nothing."""
        start = time.process_time()
        for kind in ("compose", "kubernetes"):
            check_text(kind, text, "x.yaml")
        assert time.process_time() - start < 60

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[" * (MAX_DEPTH + 2), "deeper"),
            ("a: &a [*a]", "contains itself"),
            ("a: 1\nb: 2\na: 3", "stands twice"),
            ("a: [1", "flow sequence"),
            ("x: " + "y" * 5_000_000, "larger"),
        ],
    )
    def test_is_said(self, text: str, said: str) -> None:
        """What is wrong is named."""
        _, problem = read_yaml(text)
        assert problem is not None and said in str(problem)

    def test_what_stands_before_a_mistake_is_checked(self) -> None:
        """One broken document does not hide the ones before it."""
        text = "apiVersion: v1\nkind: Pod\nspec: {hostPID: true, containers: [{name: a}]}\n---\na: [\n"
        assert {"host-pid", "yaml-parse-error"} <= {one.rule for one in check_kubernetes(text, "k")}

    def test_a_merged_bomb_is_refused(self) -> None:
        """Merge keys that multiply are counted."""
        keys = ", ".join(f"k{n}: 1" for n in range(1000))
        text = f"a: &a {{{keys}}}\n" + "".join(f"m{n}: {{<<: *a}}\n" for n in range(1000))
        assert "yaml-parse-error" in {one.rule for one in check_compose(text, "c")}


class TestFixes:
    @pytest.mark.parametrize(("origin", "texts"), sorted(FIXES.items()))
    def test_of_each_tool(self, origin: str, texts: dict[str, str]) -> None:
        """A text stands for a rule of the table, and is that tool's own."""
        assert set(texts) <= {rule.name for rule in container.RULES}
        assert all(fix_for(rule, origin) == text for rule, text in texts.items())  # type: ignore[arg-type]


class TestExamples:
    @pytest.mark.parametrize("rule", [*cli.RULES, *container.RULES], ids=lambda rule: rule.name)
    def test_of_the_table(self, rule: object) -> None:
        """Every rule's bad example has its finding, the good one has not."""
        from safe_triton.audit.rule import Rule

        assert isinstance(rule, Rule)
        for example, is_found in ((rule.bad, True), (rule.good, False)):
            found = set()
            for name, text in example.files.items():
                assert isinstance(text, str)
                kind = detect(name, text)
                assert kind is not None
                found |= {one.rule for one in check_text(kind, text, name)}
            assert (rule.name in found) is is_found


class TestOtherYaml:
    """Command lines in YAML and JSON that is neither compose nor Kubernetes."""

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("values.yaml", "triton:\n  args: [tritonserver, --model-repository=/m, --model-control-mode=explicit]\n"),
            ("values.yaml", "args:\n  - tritonserver\n  - --model-control-mode=explicit\n"),
            (
                "ci.yml",
                "jobs:\n  a:\n    steps:\n    - run: |\n        cd x\n        tritonserver --model-control-mode=explicit\n",
            ),
            ("task.json", '{"containers": [{"command": ["tritonserver", "--model-control-mode=explicit"]}]}'),
            (
                "user-data.yaml",
                "runcmd:\n- docker run x/tritonserver:26.07-py3 tritonserver --model-control-mode=explicit\n",
            ),
        ],
    )
    def test_is_found(self, tmp_path: Path, name: str, text: str) -> None:
        """Wherever they stand."""
        (tmp_path / name).write_text(text)
        assert "restricted-api-missing" in {found.rule for found in check_paths([tmp_path / name]).findings}

    @pytest.mark.parametrize(
        "text",
        [
            "description: starts tritonserver and waits\n",
            "image: {repository: nvcr.io/nvidia/tritonserver, tag: 26.07-py3}\n",
            "steps:\n- name: tritonserver\n  run: make test\n",
        ],
    )
    def test_words_are_no_commands(self, tmp_path: Path, text: str) -> None:
        """A mention of the server starts none."""
        (tmp_path / "a.yaml").write_text(text)
        assert check_paths([tmp_path / "a.yaml"]).findings == ()
