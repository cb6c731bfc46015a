"""``safe_triton.client`` against the real server: over both protocols, blocking and in an event loop."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from safe_triton import Limits
from safe_triton.errors import (
    AnswerError,
    BatchError,
    ClientUsageError,
    RefusedError,
    RequestError,
    SafeTritonError,
)
from safe_triton.server import TritonServer
from tests.triton.clients import asker, texts

pytestmark = pytest.mark.triton

TESTS = Path(__file__).parents[1]
LONG_S = 60.0


def urls(server: TritonServer) -> dict[str, str]:
    return {"grpc": f"grpc://{server.grpc_url}", "http": f"http://{server.http_url}"}


def pixels(rows: int = 2) -> Any:
    return np.random.default_rng(7).uniform(0, 16, (rows, 64)).astype(np.float32)


variants = pytest.mark.parametrize("variant", ["grpc sync", "grpc async", "http sync", "http async"])


@variants
def test_passes(server: TritonServer, variant: str) -> None:
    """Numbers and texts, all outputs or some, many rows, a stream, health and metadata: the same everywhere."""

    async def run() -> None:
        ask = asker(urls(server), variant, limits={"digits": Limits(max_batch_size=16)})
        assert await ask("is_live")
        assert await ask("is_ready")
        assert await ask("is_ready", "digits")
        assert not await ask("is_ready", "none")
        assert (await ask("metadata"))["version"]
        assert (await ask("metadata", "digits"))["inputs"][0]["shape"] == [-1, 64]
        assert (await ask("signature", "digits")).is_complete

        answer = await ask("infer", "digits", {"PIXELS": pixels()}, request_id="me", version=1, timeout_s=LONG_S)
        assert (answer.model, answer.version, answer.request_id) == ("digits", "1", "me")
        assert {name: (array.dtype.name, array.shape) for name, array in answer.items()} == {
            "SCORES": ("float32", (2, 10)),
            "LABEL": ("int32", (2, 1)),
        }
        one = await ask("infer", "digits", {"PIXELS": np.asfortranarray(pixels())}, outputs=["LABEL"])
        assert list(one) == ["LABEL"]
        assert one["LABEL"].tolist() == answer["LABEL"].tolist()

        many = await ask("infer_rows", "digits", {"PIXELS": pixels(50)})
        assert many["LABEL"].shape == (50, 1)
        assert (
            many["LABEL"][:2].tolist() == (await ask("infer", "digits", {"PIXELS": pixels(50)[:2]}))["LABEL"].tolist()
        )
        each = await ask("infer_many", "digits", [{"PIXELS": pixels(1)}] * 9)
        assert len({answer["LABEL"].item() for answer in each}) == 1

        vectors = await ask("infer", "text_vectors", {"PASSAGES": texts("Zürich", b"bytes", shape=(1, 2))})
        assert vectors["VECTORS"].shape == (1, 2, 256)

        words = await ask("stream", "stream_words", {"TEXT": texts("grüne Katze da")})
        assert [(word["WORD"][0].decode(), word["POSITION"].tolist()) for word in words] == [
            ("grüne", [0]), ("Katze", [1]), ("da", [2]),
        ]  # fmt: skip
        assert await ask("stream", "stream_words", {"TEXT": texts("")}) == []
        await ask.close()

    asyncio.run(run())


REFUSALS: list[tuple[str, tuple[Any, ...], dict[str, Any], type[SafeTritonError], str]] = [
    # Found here, before anything is sent.
    ("infer", ("digits", {"PIXELS": pixels().astype(np.float64)}), {}, RequestError, "input.dtype: FP64, expected FP32 at inputs['PIXELS']"),
    ("infer", ("digits", {"PIXELS": pixels()[:, :3]}), {}, RequestError, "input.shape: 3, expected 64 at inputs['PIXELS'].shape[1]"),
    ("infer", ("digits", {"PIXELS": pixels(33)}), {}, RequestError, "limit.batch_size: 33 > 32 at inputs['PIXELS'].shape[0]"),
    ("infer", ("digits", {}), {}, RequestError, "request.invalid: "),
    ("infer", ("stream_words", {"TEXT": texts("a")}), {}, ClientUsageError, "client.usage: 'stream_words' answers with a stream"),
    # Found by the model itself, whose limits are its own: class, reason and text are the same as above.
    ("infer", ("digits", {"PIXELS": pixels(20)}), {}, RefusedError, "limit.batch_size: 20 > 16 at inputs['PIXELS'].shape[0]"),
    ("infer", ("digits", {"PIXELS": pixels()}), {"parameters": {"zeta": 3}}, RefusedError, "parameter.unknown: "),
    ("infer", ("text_vectors", {"PASSAGES": texts(b"\xff", shape=(1, 1))}), {}, RefusedError, "content.utf8: "),
    ("stream", ("stream_words", {"TEXT": texts("x" * 100_000)}), {}, RefusedError, "limit."),
    ("infer", ("digits", {"PIXELS": pixels()}), {"version": 7}, RefusedError, "client.not_found: "),
    ("infer", ("none", {"PIXELS": pixels()}), {}, RefusedError, "client.not_found: "),
    ("infer_many", ("digits", [{"PIXELS": pixels()}, {"PIXELS": pixels(20)}]), {}, BatchError, "client.batch: request 1: limit.batch_size: "),
]  # fmt: skip


@variants
def test_refusals(server: TritonServer, variant: str) -> None:
    """Each in one line that begins with its reason, whoever found it."""

    async def run() -> None:
        ask = asker(urls(server), variant)
        for do, arguments, options, kind, text in REFUSALS:
            with pytest.raises(kind) as raised:
                await ask(do, *arguments, **options)
            assert raised.value.message.startswith(text), raised.value.message
        await ask.close()

    asyncio.run(run())


@pytest.fixture(scope="module")
def kinds(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> TritonServer:
    """A server with a model of every data type, one of BF16, and one that keeps a state for each sequence."""
    folder = tmp_path_factory.mktemp("kinds")
    for source in (
        "conformance/repository/identity",
        "triton/compatibility/models/bfloat",
        "conformance/guarded/remembering",
    ):
        shutil.copytree(TESTS / source, folder / source.rpartition("/")[2])
    running: TritonServer = triton_server(folder)
    return running


@variants
def test_data_types_and_sequences(kinds: TritonServer, variant: str) -> None:
    """Every data type comes back as it was sent; a sequence's requests reach one state."""

    async def run() -> None:
        ask = asker(urls(kinds), variant)
        for spec in (await ask("signature", "identity")).config.inputs:
            values: Any = [["a", "ü"], ["", "d"]] if spec.dtype.is_bytes else [[0, 1], [1, 0]]
            array = np.array(values, dtype=spec.dtype.numpy)
            answer = await ask("infer", "identity", {spec.name: array}, outputs=[f"OUT_{spec.name}"])
            back = answer[f"OUT_{spec.name}"]
            assert back.dtype == array.dtype
            expected = [[text.encode() for text in row] for row in values] if spec.dtype.is_bytes else values
            assert back.tolist() == expected
        with pytest.raises(AnswerError, match="is not in the answer"):
            await ask("infer", "identity", {"FP32": np.ones((1, 1), np.float32)})
        halves = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
        back = (await ask("infer", "bfloat", {"X": halves}))["Y"]
        assert back.dtype == halves.dtype
        assert back.shape == halves.shape

        assert await ask.sums("remembering", [1, 2, 3]) == [1, 3, 6]
        with pytest.raises(ClientUsageError, match=r"open one with sequence\(\)"):
            await ask("infer", "remembering", {"X": np.array([[1]])})
        await ask.close()

    asyncio.run(run())
