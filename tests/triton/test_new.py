"""What ``safe-triton new`` writes serves at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from safe_triton.cli.app import app
from safe_triton.cli.new import Form
from safe_triton.policyfile import load_policy
from safe_triton.testing import Request
from tests.conformance.sides import Viewed

pytestmark = pytest.mark.triton

ANSWERS: dict[Form, tuple[str, list[list[float]]]] = {
    Form.INFER: ("Y", [[2, 4, 6, 8]]),
    Form.INFER_BATCH: ("Y", [[10, 10]]),
    Form.ASYNC: ("Y", [[2, 4, 6, 8]]),
    Form.BLS: ("Y", [[4, 8, 12, 16]]),
    Form.PIPELINE: ("TOTAL", [[20]]),
    Form.PROTECT: ("Y", [[2, 4, 6, 8]]),
    Form.EXPRESSION: ("Y", [[2, 2, 2, 2]]),
}


def test_each_form_answers(triton_server: Any, tmp_path: Path) -> None:
    """All of them on one server, confined, under the policy that was written with them."""
    for form in Form:
        words = ["new", f"my_{form.value}", "--form", form.value, "--into", str(tmp_path)]
        assert CliRunner().invoke(app, words).exit_code == 0
    policy = load_policy(tmp_path / "safe-triton.toml")
    server = triton_server(tmp_path / "model_repository", view=True, confinement=policy)
    side = Viewed(server.grpc_url)
    try:
        x = np.array([[1, 2, 3, 4]], np.float32)
        for form, (name, expected) in ANSWERS.items():
            assert side.ask(f"my_{form.value}", {"X": x}).array(name).tolist() == expected, form
            assert side.ask(f"my_{form.value}", {"X": x * np.float32("nan")}).code == "INVALID_ARG", form
        (seen,) = side.send("my_stream", [Request({"TEXT": np.array([b"two words"], object)})])
        assert [each["WORD"][2] for each in seen.responses] == [[b"two"], [b"words"]]
    finally:
        side.close()
