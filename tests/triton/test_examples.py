"""The projects in examples/ do what their READMEs say."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_triton import Limits, LoadConditions
from safe_triton.config import ModelConfig
from safe_triton.validation import compile_plan
from tests.docs.blocks import Block, parse
from tests.triton.test_models.asking import Array, Asker, Reply

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def blocks(page: Path, language: str) -> list[Block]:
    return [block for block in parse(page.read_text(encoding="utf-8"), page) if block.language == language]


def run_python(*arguments: str, folder: Path) -> str:
    """Run this interpreter in a project's folder and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=170,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


class TestQuickstart:
    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        """A copy somewhere else, as a reader would make it."""
        return Path(shutil.copytree(EXAMPLES / "quickstart", tmp_path / "project"))

    @pytest.mark.usefixtures("triton_server")
    def test_its_own_tests_pass(self, project: Path) -> None:
        """Copied into an empty folder, the project's own tests pass there."""
        output = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", folder=project)
        assert "2 passed" in output

    @pytest.mark.usefixtures("triton_server")
    def test_the_readme_shows_what_the_client_prints(self, project: Path) -> None:
        """The README's Python serves the model and prints the README's text."""
        (code,), (shown,) = (blocks(project / "README.md", language) for language in ("python", "text"))
        assert run_python("-W", "error", "-c", code.text, folder=project) == shown.text


class TestTutorial:
    PAGE = ROOT / "docs" / "tutorial" / "first-model.md"
    MODEL = Path("model_repository") / "mean_score"

    def test_it_shows_the_files_of_the_quickstart(self) -> None:
        """Every file that the reader is told to write is the one in the example."""
        shown = {block.text for block in parse(self.PAGE.read_text(encoding="utf-8"), self.PAGE)}
        for name in (
            self.MODEL / "config.pbtxt",
            self.MODEL / "1" / "model.py",
            Path("client.py"),
            Path("test_model.py"),
        ):
            file = EXAMPLES / "quickstart" / name
            assert file.read_text(encoding="utf-8") in shown, f"the tutorial does not show {name} as it is"

    @pytest.mark.usefixtures("triton_server")
    def test_following_it_works(self, tmp_path: Path) -> None:
        """The files written as told, in an empty folder, give what the page prints; then the failure and the test."""
        config, (model, table, client, serve, test) = blocks(self.PAGE, "pbtxt")[0], blocks(self.PAGE, "python")
        folder = tmp_path / self.MODEL
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(config.text, encoding="utf-8")
        (folder / "1" / "model.py").write_text(model.text, encoding="utf-8")
        (tmp_path / "client.py").write_text(client.text, encoding="utf-8")
        run_python("-c", table.text, folder=tmp_path)
        printed, failed = blocks(self.PAGE, "text")
        assert run_python("-W", "error", "-c", serve.text, folder=tmp_path) == printed.text

        (folder / "1" / "model.py").write_text(model.text.replace("self.table[", "self.tabel["), encoding="utf-8")
        broken = run_python("-c", serve.text, folder=tmp_path)
        (folder / "1" / "model.py").write_text(model.text, encoding="utf-8")
        for line in (broken.splitlines()[0], failed.text.strip()):
            assert re.fullmatch(r"good: \[500\] model failed \(id [0-9a-f]+\)", line)

        (tmp_path / "test_model.py").write_text(test.text, encoding="utf-8")
        assert "2 passed" in run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=tmp_path)


class TestMigrate:
    @pytest.fixture(params=["before", "after"])
    def version(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    @pytest.fixture
    def ask(self, triton_server: Any, version: str) -> Iterator[Asker]:
        asker = Asker(triton_server(EXAMPLES / "migrate" / version), "grpc")
        yield asker
        asker.close()

    @staticmethod
    def flat(metres: float) -> dict[str, Array]:
        return {"SQUARE_METRES": np.array([[metres]], np.float32)}

    def send_four(self, ask: Asker) -> list[Reply]:
        return ask.together("prices", [self.flat(metres) for metres in (50.0, -5.0, 60.0, 70.0)])

    def test_good_requests_get_the_same_answer(self, ask: Asker) -> None:
        """Migrating does not change what a correct client sees."""
        reply = ask("prices", self.flat(50.0))
        assert (reply.code, reply.outputs["PRICE"].tolist()) == ("OK", [[170_000.0]])

    def test_a_bad_request_in_a_batch(self, ask: Asker, version: str) -> None:
        """Before, everybody sees the stranger's values and a path; after, only the bad request is refused."""
        replies = self.send_four(ask)
        bad, good = replies[1], [replies[0], *replies[2:]]
        if version == "before":
            for reply in (bad, *good):
                assert reply.code == "INTERNAL"
                assert "-5.0" in reply.message
                assert "/model.py(" in reply.message
        else:
            assert (bad.code, bad.message) == ("INVALID_ARG", "a flat has more than 0 square metres")
            assert [reply.outputs["PRICE"][0, 0] for reply in good] == [170_000.0, 200_000.0, 230_000.0]

    def test_nan(self, ask: Asker, version: str) -> None:
        """Before, NaN gives a price of NaN; after, it is refused with its place."""
        reply = ask("prices", self.flat(math.nan))
        if version == "before":
            assert math.isnan(reply.outputs["PRICE"][0, 0])
        else:
            expected = "content.not_finite: NaN at inputs['SQUARE_METRES']"
            assert (reply.code, reply.message) == ("INVALID_ARG", expected)
            assert expected in (EXAMPLES / "migrate" / "README.md").read_text(encoding="utf-8")

    def test_the_configuration_is_the_same(self) -> None:
        """Only model.py differs between the two repositories."""
        before, after = (EXAMPLES / "migrate" / version / "prices" for version in ("before", "after"))
        for name in ("config.pbtxt", "1/coefficients.json"):
            assert (before / name).read_bytes() == (after / name).read_bytes()


def declarations() -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(compile((EXAMPLES / "policy" / "limits.py").read_text(encoding="utf-8"), "limits.py", "exec"), namespace)
    return {name: value for name, value in namespace.items() if name.isupper()}


POLICY_INPUTS: dict[str, list[tuple[str, str, list[int]]]] = {
    "TABLE": [("FEATURES", "TYPE_FP32", [20])],
    "IMAGES": [("IMAGES", "TYPE_UINT8", [-1, -1, 3])],
    "ENCODED_IMAGES": [("FILES", "TYPE_STRING", [1])],
    "TOKENS": [("TOKEN_IDS", "TYPE_INT64", [-1]), ("ATTENTION_MASK", "TYPE_INT64", [-1])],
    "PROMPTS": [("PROMPT", "TYPE_STRING", [1])],
    "ARCHIVE": [("FILES", "TYPE_STRING", [-1])],
}
"""Inputs, as name, type and dims, of a model that each declaration is meant for."""


class TestPolicy:
    @staticmethod
    def config(inputs: list[tuple[str, str, list[int]]]) -> ModelConfig:
        tensors = [{"name": name, "data_type": dtype, "dims": dims} for name, dtype, dims in inputs]
        scores = {"name": "SCORES", "data_type": "TYPE_FP32", "dims": [3]}
        described = {"name": "m", "backend": "python", "max_batch_size": 64, "input": tensors, "output": [scores]}
        return ModelConfig.from_json(json.dumps(described))

    def test_each_declaration_is_known_here(self) -> None:
        """Every declaration of the file is checked below, and the README's table lists each."""
        found = declarations()
        assert {name for name, value in found.items() if isinstance(value, Limits)} == POLICY_INPUTS.keys()
        readme = (EXAMPLES / "policy" / "README.md").read_text(encoding="utf-8")
        assert [name for name in found if f"| `{name}` |" not in readme] == []

    @pytest.mark.parametrize("name", POLICY_INPUTS)
    def test_it_fits_a_model(self, name: str) -> None:
        """A declaration compiles against the configuration of a model that it is meant for."""
        compile_plan(declarations()[name], self.config(POLICY_INPUTS[name]))

    def test_the_readme_shows_one_to_copy(self) -> None:
        """The README's class is loadable with the limits that it shows."""
        (block,) = blocks(EXAMPLES / "policy" / "README.md", "python")
        namespace: dict[str, Any] = {}
        exec(compile(block.text, block.place, "exec"), namespace)
        token_ids = [row for row in POLICY_INPUTS["TOKENS"] if row[0] == "TOKEN_IDS"]
        compile_plan(namespace["TritonPythonModel"].limits, self.config(token_ids))

    def test_the_weakening_is_found_by_name(self) -> None:
        """The one declaration that takes limits away says which and why."""
        tokens = {name: value.tokens() for name, value in declarations().items() if isinstance(value, Limits)}
        assert set(tokens.pop("ARCHIVE")) == {"max_input_bytes", "max_request_bytes"}
        assert not any(tokens.values())

    def test_conditions(self) -> None:
        """The conditions name one root and one kind of device."""
        conditions = declarations()["ONLY_ON_CPU"]
        assert isinstance(conditions, LoadConditions)
        assert (conditions.model_root, conditions.instance_kinds) == ("/models", ("CPU",))
