"""Two tests to start from: the model alone in a fraction of a second, and on a real server."""

from __future__ import annotations

from pathlib import Path

import client
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from safe_triton.testing import load_model

REPOSITORY = Path(__file__).resolve().parent / "model_repository"
MODEL = REPOSITORY / "mean_score"


def test_model_alone():
    with load_model(MODEL / "1" / "model.py", MODEL / "config.pbtxt") as model:
        good = model.infer({"TOKEN_IDS": np.array([[10, 30]], np.int64)})
        np.testing.assert_allclose(good.outputs["SCORES"], [[0.2, 0.0, 1.0]])

        refused = model.infer({"TOKEN_IDS": np.ones((1, 513), np.int64)})
        assert refused.code == "INVALID_ARG"
        assert refused.error == "limit.sequence_length: 513 > 512 at inputs['TOKEN_IDS'].shape[1]"


def test_real_server(triton_server):
    server = triton_server(REPOSITORY)
    with triton.InferenceServerClient(server.http_url) as http:
        np.testing.assert_allclose(client.scores(http, [10, 30]), [0.2, 0.0, 1.0])
        with pytest.raises(InferenceServerException, match=r"limit\.sequence_length: 513 > 512"):
            client.scores(http, [1] * 513)
