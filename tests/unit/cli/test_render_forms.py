"""``safe-triton render compose|envoy|image|kserve|kubernetes|systemd``: what is written and said, and how it exits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from safe_triton.cli.app import app
from tests.unit.deploy.deployments import GATEWAY, IMAGE, PLAIN, PUBLIC

CONFIG = """backend: "python"
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] } ]
"""
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a runner of one form on a repository with one model; ``policy`` is the text of the file."""
    (tmp_path / "models" / "digits" / "1").mkdir(parents=True)
    (tmp_path / "models" / "digits" / "1" / "model.py").touch()
    (tmp_path / "models" / "digits" / "config.pbtxt").write_text(CONFIG)

    def call(form: str, *words: str, policy: str | None = GATEWAY, models: str = "models") -> Result:
        file = tmp_path / "safe-triton.toml"
        given = []
        if policy is not None:
            file.write_text(policy)
            given = ["--policy", str(file)]
        output = [] if "--output" in words else ["--output", str(tmp_path / "out")]
        return CliRunner().invoke(app, ["render", form, str(tmp_path / models), *given, *output, *words])

    return call


def line(result: Result) -> str:
    """The one line of a refusal."""
    assert (result.exit_code, result.stdout) == (2, "")
    (found,) = result.stderr.splitlines()
    assert found.startswith("safe-triton: ")
    return found


FORMS = {
    "compose": (GATEWAY, ["--image", IMAGE], "compose.yaml"),
    "kubernetes": (GATEWAY, ["--image", IMAGE], "workload.yaml"),
    "kserve": (PLAIN, ["--image", IMAGE], "service.yaml"),
    "systemd": (GATEWAY, [], "triton.service"),
    "image": ("", ["--base", "nvcr.io/nvidia/tritonserver:26.07-py3"], "Dockerfile"),
}


@pytest.mark.parametrize("form", FORMS)
class TestForms:
    def test_what_was_written_is_said(self, run: Run, tmp_path: Path, form: str) -> None:
        """A line for each file; the second time nothing changes."""
        policy, words, file = FORMS[form]
        first, second = run(form, *words, policy=policy), run(form, *words, policy=policy)
        assert (first.exit_code, second.exit_code) == (0, 0), first.output
        assert f"written   {tmp_path / 'out' / file}" in first.stdout.splitlines()
        assert not any(text.startswith("written") for text in second.stdout.splitlines())
        assert (tmp_path / "out" / "README.md").is_file()

    def test_for_programs(self, run: Run, form: str) -> None:
        """``--format json`` says the same."""
        policy, words, file = FORMS[form]
        found = json.loads(run(form, *words, "--format", "json", policy=policy).stdout)
        assert (found["form"], found["files"][file]) == (form, "written")
        assert isinstance(found["notes"], list)


class TestEnvoy:
    def test_digests_for_this_user_alone(self, run: Run, tmp_path: Path) -> None:
        """The key's file is read; what is written has its digest, not the key, and is closed to others."""
        key = tmp_path / "alice.key"
        key.write_text("0123456789abcdef" * 4)
        key.chmod(0o600)
        result = run("envoy", policy=PLAIN.replace("/etc/safe-triton/alice.key", str(key)))
        assert result.exit_code == 0, result.output
        texts = [path.read_text() for path in (tmp_path / "out").iterdir()]
        assert any("{SHA}" in text for text in texts)
        assert not any("0123456789abcdef" in text for text in texts)
        assert {path.stat().st_mode & 0o077 for path in (tmp_path / "out").glob("*ds.json")} == {0}


class TestRefusals:
    def test_an_image_that_is_not_pinned(self, run: Run) -> None:
        """It may be another one at the next start."""
        assert "triton:latest is whatever is newest" in line(run("kubernetes", "--image", "triton:latest"))

    def test_no_image(self, run: Run) -> None:
        """The message says how to name one."""
        assert "--image NAME:TAG@sha256:DIGEST" in line(run("compose"))

    def test_the_policys_image(self, run: Run) -> None:
        """An image in the policy is enough."""
        assert run("compose", policy=GATEWAY + f'[deploy]\nimage = "{IMAGE}"\n').exit_code == 0

    def test_no_such_policy(self, run: Run) -> None:
        """A missing file is named."""
        assert "/nothing.toml cannot be read" in line(run("compose", "--policy", "/nothing.toml", policy=None))

    def test_a_service_without_policy(self, run: Run) -> None:
        """A unit reads its policy at each start."""
        assert "give --policy" in line(run("systemd", policy=None))

    def test_no_gateway(self, run: Run) -> None:
        """Nothing could call it."""
        assert "nothing could be reached" in line(run("kubernetes", "--image", IMAGE, policy=None))
        assert "no [gateway]" in line(run("envoy", policy=PUBLIC))

    def test_no_such_repository(self, run: Run) -> None:
        """A missing repository is named."""
        assert "is not a folder" in line(run("compose", "--image", IMAGE, models="nowhere"))

    def test_an_empty_repository(self, run: Run, tmp_path: Path) -> None:
        """There is nothing to serve."""
        (tmp_path / "empty").mkdir()
        assert "has no models" in line(run("compose", "--image", IMAGE, models="empty", policy=PUBLIC))

    def test_a_model_that_is_not_there(self, run: Run) -> None:
        """A misspelt name in the policy is found before anything is deployed."""
        assert "no model of that name" in line(run("compose", "--image", IMAGE, policy=PUBLIC + "[models.digit]\n"))

    def test_a_changed_file(self, run: Run, tmp_path: Path) -> None:
        """It is kept, unless --force is given."""
        words = ("--image", IMAGE)
        run("compose", *words)
        (tmp_path / "out" / "compose.yaml").write_text("mine: true\n")
        assert "was changed since" in line(run("compose", *words))
        assert run("compose", *words, "--force").exit_code == 0

    def test_no_requirements(self, run: Run) -> None:
        """A missing lock file is named."""
        base = ["--base", "nvcr.io/nvidia/tritonserver:26.07-py3"]
        assert "/no.lock cannot be read" in line(run("image", *base, "--requirements", "/no.lock", policy=None))

    @pytest.mark.parametrize("words", [[], ["--imagee", "x"], ["--format", "xml"]])
    def test_wrong_words(self, tmp_path: Path, words: list[str]) -> None:
        """Missing and unknown options end with 2, never with a traceback."""
        result = CliRunner().invoke(app, ["render", "kubernetes", str(tmp_path), *words])
        assert result.exit_code == 2
        assert "Traceback" not in result.output
