"""The GitHub action: what its script hands to the command, whatever a workflow writes into its inputs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ACTION = Path(__file__).parents[3] / "action.yml"


def run(tmp_path: Path, **inputs: str) -> tuple[int, list[str]]:
    """Run the step that checks, with a program in the command's place; return its status and the last arguments."""
    program = tmp_path / "safe-triton/bin/safe-triton"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n[ "$FAIL_ON" != error ]\n')
    program.chmod(0o755)
    step = yaml.safe_load(ACTION.read_text())["runs"]["steps"][-1]
    values = {"PATHS": "models", "FAIL_ON": "warning", "POLICY": "", "BASELINE": "", "SARIF": "", **inputs}
    assert set(step["env"]) == set(values)
    script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    done = subprocess.run(script, env={**os.environ, **values, "RUNNER_TEMP": str(tmp_path)}, check=False)
    return done.returncode, (tmp_path / "arguments").read_text().splitlines()


@pytest.mark.parametrize("paths", ["models deploy", "models\ndeploy\n", "  models\n\n  deploy"])
def test_paths(tmp_path: Path, paths: str) -> None:
    """Blanks and line breaks separate: no path is left out without a word."""
    status, arguments = run(tmp_path, PATHS=paths)
    assert (status, arguments[-3:]) == (0, ["--", "models", "deploy"])


def test_status(tmp_path: Path) -> None:
    """The command's status is the job's, with a log for the security tab too."""
    assert run(tmp_path, FAIL_ON="error", SARIF="a.sarif")[0] == 1


def test_text_is_no_command(tmp_path: Path) -> None:
    """What a workflow takes from a pull request is an argument and nothing else."""
    status, arguments = run(tmp_path, PATHS="$(touch evil) ;touch evil", POLICY="`touch evil`")
    assert (status, arguments[-5:]) == (0, ["--", "$(touch", "evil)", ";touch", "evil"])
    assert "`touch evil`" in arguments
    assert not (tmp_path / "evil").exists()
