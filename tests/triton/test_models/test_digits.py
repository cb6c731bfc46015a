"""The digits classifier: right on digits it never saw, and strict about what is a digit."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.triton.test_models.asking import Array, Asker

ROOT = Path(__file__).parents[3]
TRAIN = ROOT / "examples" / "train_digits"
WEIGHTS = ROOT / "model_repository" / "digits" / "1" / "weights.npz"


def held_out() -> tuple[Array, Array]:
    """The 360 digits that training never saw: pixels (360, 64), labels (360,)."""
    with np.load(TRAIN / "held_out.npz", allow_pickle=False) as file:
        return file["pixels"].astype(np.float32), file["labels"]


def train_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_digits", TRAIN / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pixels(rows: int = 1, value: float = 1.0) -> dict[str, Array]:
    return {"PIXELS": np.full((rows, 64), value, np.float32)}


def test_accuracy(ask: Asker) -> None:
    """At least 95 % of the held-out digits are recognised, and scores are probabilities."""
    images, labels = held_out()
    assert len(labels) == 360
    replies = [ask("digits", {"PIXELS": images[start : start + 16]}) for start in range(0, 360, 16)]
    assert {reply.code for reply in replies} == {"OK"}
    scores = np.concatenate([reply.outputs["SCORES"] for reply in replies])
    found = np.concatenate([reply.outputs["LABEL"] for reply in replies])
    assert (found[:, 0] == labels).mean() >= 0.95
    assert np.array_equal(scores.argmax(axis=1), found[:, 0])
    assert np.allclose(scores.sum(axis=1), 1.0, atol=1e-5)
    assert scores.min() >= 0.0


@pytest.mark.parametrize("value", [0.0, 16.0])
def test_the_ends_of_the_range_are_accepted(ask_once: Asker, value: float) -> None:
    """Pixels of exactly 0 and 16 are served."""
    assert ask_once("digits", pixels(value=value)).code == "OK"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 16.001, -0.001])
def test_what_is_no_pixel_is_refused(ask: Asker, value: float) -> None:
    """NaN, infinities and values outside 0 to 16 are refused as content of PIXELS."""
    reply = ask("digits", pixels(value=value))
    assert reply.code == "INVALID_ARG"
    assert reply.message.startswith("content.")
    assert reply.message.endswith("at inputs['PIXELS']")


def test_rows_of_one_request(ask: Asker) -> None:
    """Sixteen rows are served; seventeen are the model's limit, thirty-three are config.pbtxt's."""
    assert ask("digits", pixels(16)).code == "OK"
    own = ask("digits", pixels(17))
    assert (own.code, own.message) == ("INVALID_ARG", "limit.batch_size: 17 > 16 at inputs['PIXELS'].shape[0]")
    tritons = ask("digits", pixels(33))
    assert tritons.code == "INVALID_ARG"
    assert "batch-size must be <= 32" in tritons.message


def test_a_parameter_is_refused(ask: Asker) -> None:
    """The model declares no request parameters, so any is unknown."""
    reply = ask("digits", pixels(), shell="1")
    assert reply.code == "INVALID_ARG"
    assert reply.message.startswith("parameter.unknown")


def test_neighbours_of_a_bad_request(ask: Asker) -> None:
    """Of eight requests sent together only the one with NaN is refused."""
    images, _ = held_out()
    several: list[dict[str, Array]] = [{"PIXELS": images[index : index + 1]} for index in range(8)]
    several[3] = pixels(value=np.nan)
    replies = ask.together("digits", several)
    assert [reply.code for reply in replies] == ["OK"] * 3 + ["INVALID_ARG"] + ["OK"] * 4
    alone = [ask("digits", several[index]).outputs["LABEL"] for index in range(8) if index != 3]
    together = [reply.outputs["LABEL"] for index, reply in enumerate(replies) if index != 3]
    assert np.array_equal(np.concatenate(alone), np.concatenate(together))


def test_the_weights_are_plain_arrays() -> None:
    """The committed weights and held-out digits are read without pickle, and nothing in them is an object."""
    for path in (WEIGHTS, TRAIN / "held_out.npz"):
        with np.load(path, allow_pickle=False) as file:
            assert all(file[name].dtype.kind in "fu" for name in file.files)


def test_the_script_makes_what_is_committed() -> None:
    """Training again holds out the same digits, reaches the accuracy, and agrees with the committed weights."""
    script = train_script()
    train_pixels, held_out_pixels, train_labels, held_out_labels = script.split()
    images, labels = held_out()
    assert np.array_equal(held_out_pixels, images)
    assert np.array_equal(held_out_labels, labels)
    again = script.train(train_pixels, train_labels)
    with np.load(WEIGHTS, allow_pickle=False) as file:
        committed = {name: file[name] for name in file.files}
    assert {name: array.shape for name, array in again.items()} == {n: a.shape for n, a in committed.items()}
    for weights in (again, committed):
        assert script.accuracy(weights, images, labels) >= 0.95
