"""Ask a running server: python client.py [127.0.0.1:8000]."""

from __future__ import annotations

import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def scores(client: triton.InferenceServerClient, token_ids: list[int]) -> np.ndarray:
    """Return the scores of one text."""
    array = np.array([token_ids], np.int64)
    tensor = triton.InferInput("TOKEN_IDS", array.shape, "INT64")
    tensor.set_data_from_numpy(array)
    return client.infer("mean_score", [tensor]).as_numpy("SCORES")[0]


def ask(client: triton.InferenceServerClient, token_ids: list[int]) -> str:
    """Return the scores of one text as a text, or why it was refused."""
    try:
        return str(scores(client, token_ids))
    except InferenceServerException as error:
        return str(error)


def main(url: str) -> None:
    """Send a good text, one that is too long and one with an unknown token."""
    with triton.InferenceServerClient(url) as client:
        print("good:", ask(client, [1, 2, 3]))
        print("too long:", ask(client, [1] * 600))
        print("unknown token:", ask(client, [1, 2, 1000]))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000")
