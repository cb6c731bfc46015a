"""``safe-triton plan`` and ``schema``: what they print in both formats, and how they exit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from safe_triton.cli.app import app
from safe_triton.policyfile import json_schema

CONFIG = 'backend: "python"\n{more}'
POLICY = """
[defaults.limits]
deadline_ms = 1000
[models.b.limits.inputs."[bold]"]
finite = true
[models.b.sandbox]
read = ["/srv/[red]/x"]
network = { reason = "asks", to = [443] }
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a runner of the command on three models; ``policy`` is the text of the file."""
    for name, more in (("a", ""), ("b", ""), ("c", PARAMETER.format("limits.max_inputs", "3"))):
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "1" / "model.py").touch()
        (tmp_path / "models" / name / "config.pbtxt").write_text(CONFIG.format(more=more))

    def call(*arguments: str, policy: str = POLICY) -> Result:
        file = tmp_path / "safe-triton.toml"
        file.write_text(policy)
        words = ["plan", str(tmp_path / "models"), "--policy", str(file), *arguments]
        return CliRunner().invoke(app, words, env={"COLUMNS": "100"})

    return call


PARAMETER = 'parameters {{ key: "safe_triton.{}" value {{ string_value: "{}" }} }}'


class TestText:
    def test_what_is_no_default_with_its_source(self, run: Run) -> None:
        """Shared values once, then each model's own; brackets are text, not markup."""
        result = run()
        assert result.exit_code == 0
        rows = [line.split() for line in result.output.splitlines()]
        assert ["every", "model", "limits.deadline_ms", "1000", "safe-triton.toml:3"] in rows
        assert ["b", 'limits.inputs."[bold]".finite', "true", "safe-triton.toml:5"] in rows
        assert ["sandbox.read", '["/srv/[red]/x"]', "safe-triton.toml:7"] in rows
        assert ["c", "limits.max_inputs", "3", "config.pbtxt"] in rows
        assert "nothing of their own: a" in result.output
        assert "max_elements" not in result.output

    def test_it_says_what_it_cannot_know(self, run: Run) -> None:
        """The class is code, and nothing of a model runs."""
        assert "a model's class declares is known only when it loads" in run().output

    def test_everything_on_request(self, run: Run) -> None:
        """Defaults too, with ``--all``."""
        rows = [line.split() for line in run("--all").output.splitlines()]
        assert ["limits.max_elements", "268_435_456", "default"] in rows

    def test_nothing_but_defaults(self, run: Run) -> None:
        """Models under an empty file, except the one that tightens itself."""
        output = run(policy="").output
        assert "nothing but defaults: a, b" in output

    def test_no_colours_without_a_terminal(self, run: Run) -> None:
        """What goes into a file holds no escape sequences."""
        assert "\x1b" not in run("--all").output


class TestJson:
    def test_every_value_of_every_model(self, run: Run) -> None:
        """Defaults included, each with its source; tokens as in the file."""
        found = json.loads(run("--format", "json").output)
        assert found["models"].keys() == {"a", "b", "c"}
        b = found["models"]["b"]
        assert b["limits.deadline_ms"] == {"value": 1000, "source": "safe-triton.toml:3"}
        assert b["sandbox.network"]["value"] == {"reason": "asks", "to": [443]}
        assert b["sandbox.gpu_ids"] == {"value": [], "source": "default"}
        assert found["models"]["c"]["limits.max_inputs"] == {"value": 3, "source": "config.pbtxt"}
        assert (found["server"]["http_port"], found["supervision"]["max_failures"]) == (8000, 5)

    def test_suppressions_have_dates(self, run: Run) -> None:
        """As texts: JSON has no other."""
        text = "[[audit.suppress]]\nrule='a'\npath='b'\nreason='c'\nexpires=2031-01-31"
        found = json.loads(run("--format", "json", policy=text).output)
        assert found["audit"]["suppress"] == [{"rule": "a", "path": "b", "reason": "c", "expires": "2031-01-31"}]


class TestMistakes:
    @pytest.mark.parametrize(
        ("policy", "text"),
        [
            ("[server]\nhttp_prt = 1", "safe-triton.toml:2: server.http_prt: is unknown; did you mean 'http_port'?"),
            ("[models.bb]", "safe-triton.toml:1: models.bb: no model of that name; did you mean 'b'?"),
            ("[models.c.limits]\nmax_inputs = 2", "c/config.pbtxt: parameters['safe_triton.limits.max_inputs'] is wider than 2"),
            ("x", "no TOML"),
        ],
    )  # fmt: skip
    def test_one_line_and_status_2(self, run: Run, policy: str, text: str) -> None:
        """A mistake in the file, a model that is not there, a configuration that widens."""
        result = run(policy=policy)
        assert result.exit_code == 2
        (line,) = result.output.splitlines()
        assert line.startswith("safe-triton: policy.")
        assert text in line

    def test_no_repository(self, tmp_path: Path) -> None:
        """One line with the folder."""
        result = CliRunner().invoke(app, ["plan", str(tmp_path / "none")])
        assert (result.exit_code, result.output.count("\n")) == (2, 1)
        assert "none is not a folder" in result.output


def test_the_schema_is_printed() -> None:
    """As it is published."""
    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.output) == json_schema()
