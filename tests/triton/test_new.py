"""What ``safe-triton new`` writes serves at once."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
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


def encoded_image() -> bytes:
    """A red PNG."""
    file = io.BytesIO()
    Image.new("RGB", (2, 2), "red").save(file, "PNG")
    return file.getvalue()


def encoded_sound() -> bytes:
    """A tenth of a second."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(np.full(1_600, 16_384, np.int16).tobytes())
    return file.getvalue()


def content(value: bytes) -> Any:
    return np.array([[value]], object)


CONTENTS: dict[Form, tuple[dict[str, Any], str, list[list[float]]]] = {
    Form.IMAGE: ({"IMAGE": content(encoded_image())}, "MEAN", [[255, 0, 0]]),
    Form.AUDIO: ({"SOUND": content(encoded_sound())}, "LOUDNESS", [[0.5]]),
    Form.TEXT: ({"TEXT": content(b"two words")}, "WORDS", [[2]]),
    Form.JSON: ({"ORDER": content(b'{"item": "tea", "count": 4}')}, "PRICE", [[10]]),
    Form.TOKENS: ({"TOKENS": np.array([[31_999]])}, "SCORE", [[1]]),
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
        for form, (inputs, name, expected) in CONTENTS.items():
            model = f"my_{form.value}"
            assert side.ask(model, inputs).array(name).tolist() == expected, form
            wrong = {
                key: np.array([[b"\xff"]], object) if key != "TOKENS" else -values for key, values in inputs.items()
            }
            assert side.ask(model, wrong).code == "INVALID_ARG", form
        first, last = (side.ask("my_sequence", {"X": x[:, :1]}, correlation_id=7, flags=flags) for flags in (1, 2))
        assert (first.array("SUM").tolist(), last.array("SUM").tolist()) == ([[1]], [[2]])
        (seen,) = side.send("my_stream", [Request({"TEXT": np.array([b"two words"], object)})])
        assert [each["WORD"][2] for each in seen.responses] == [[b"two"], [b"words"]]
    finally:
        side.close()
