"""Train the weights of `model_repository/digits` on scikit-learn's handwritten digits.

Writes two files, both plain arrays (`allow_pickle=False` reads them):

- `model_repository/digits/1/weights.npz`: one hidden layer, `hidden_weight` (64, 32), `hidden_bias` (32,),
  `output_weight` (32, 10), `output_bias` (10,), all float32;
- `examples/train_digits/held_out.npz`: the 360 digits that training never saw, `pixels` (360, 64) uint8 in
  0..16 and `labels` (360,) uint8. Tests and the demo measure accuracy on exactly these.

The result is the same on every run with the same versions of numpy and scikit-learn.

    python examples/train_digits/train.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE.parents[1] / "model_repository" / "digits" / "1" / "weights.npz"
HELD_OUT = HERE / "held_out.npz"

HELD_OUT_COUNT = 360
HIDDEN_UNITS = 32
PIXEL_MAXIMUM = 16.0
SEED = 20


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return train pixels, held-out pixels, train labels, held-out labels; the same split on every call."""
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(pixels, labels, test_size=HELD_OUT_COUNT, stratify=labels, random_state=SEED)
    train_pixels, held_out_pixels, train_labels, held_out_labels = parts
    return train_pixels, held_out_pixels, train_labels, held_out_labels


def train(pixels: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Fit one hidden layer of rectified linear units and return its arrays by name."""
    classifier = MLPClassifier(hidden_layer_sizes=(HIDDEN_UNITS,), alpha=1e-2, max_iter=1000, random_state=SEED)
    classifier.fit(pixels / PIXEL_MAXIMUM, labels)
    (hidden_weight, output_weight), (hidden_bias, output_bias) = classifier.coefs_, classifier.intercepts_
    arrays = {
        "hidden_weight": hidden_weight,
        "hidden_bias": hidden_bias,
        "output_weight": output_weight,
        "output_bias": output_bias,
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def accuracy(weights: dict[str, np.ndarray], pixels: np.ndarray, labels: np.ndarray) -> float:
    """Share of `pixels` whose most likely digit is the labelled one."""
    hidden = np.maximum(pixels / PIXEL_MAXIMUM @ weights["hidden_weight"] + weights["hidden_bias"], 0.0)
    scores = hidden @ weights["output_weight"] + weights["output_bias"]
    return float((scores.argmax(axis=1) == labels).mean())


def main() -> None:
    """Train, store weights and held-out digits, and print the accuracy of both parts."""
    train_pixels, held_out_pixels, train_labels, held_out_labels = split()
    weights = train(train_pixels, train_labels)
    np.savez(WEIGHTS, **weights)
    np.savez_compressed(HELD_OUT, pixels=held_out_pixels.astype(np.uint8), labels=held_out_labels.astype(np.uint8))
    parts = {"training": (train_pixels, train_labels), "held-out": (held_out_pixels, held_out_labels)}
    for name, (pixels, labels) in parts.items():
        print(f"accuracy on {len(labels)} {name} digits: {accuracy(weights, pixels, labels):.4f}")


if __name__ == "__main__":
    main()
