"""The text model: similar spelling, and every bound on texts at and above."""

from __future__ import annotations

import numpy as np
import pytest

from tests.triton.test_models.asking import Array, Asker, Reply, texts


def vectors(ask: Asker, *passages: str | bytes) -> Reply:
    return ask("text_vectors", {"PASSAGES": texts(*passages)})


def test_similar_spelling_is_close(ask: Asker) -> None:
    """A misspelled word is closer to its word than another word is; vectors have length 1."""
    reply = vectors(ask, "validation", "validatoin", "Überraschung")
    found: Array = reply.outputs["VECTORS"]
    assert found.shape == (1, 3, 256)
    assert np.allclose(np.linalg.norm(found[0], axis=1), 1.0, atol=1e-5)
    assert found[0, 0] @ found[0, 1] > 0.4 > found[0, 0] @ found[0, 2]


def test_case_and_blanks_do_not_count(ask_once: Asker) -> None:
    """Upper case and more blanks give the same vector; an empty passage gives zeros."""
    found = vectors(ask_once, "Straße  am\tMeer", "STRASSE AM MEER", "").outputs["VECTORS"][0]
    assert np.array_equal(found[0], found[1])
    assert not found[2].any()


def test_passages_of_one_document(ask: Asker) -> None:
    """Sixteen passages are served, seventeen are a sequence too long."""
    assert vectors(ask, *["a"] * 16).code == "OK"
    reply = vectors(ask, *["a"] * 17)
    expected = "limit.sequence_length: 17 > 16 at inputs['PASSAGES'].shape[1]"
    assert (reply.code, reply.message) == ("INVALID_ARG", expected)


def test_bytes_of_one_passage(ask: Asker) -> None:
    """4096 bytes are served, 4097 and 8 MiB are refused, and the place of the passage is named."""
    assert vectors(ask, "a" * 4096).code == "OK"
    for size in (4097, 8 << 20):
        reply = vectors(ask, "short", "a" * size)
        expected = f"limit.string_bytes: {size} > 4096 at inputs['PASSAGES'][0][1]"
        assert (reply.code, reply.message) == ("INVALID_ARG", expected)


def test_bytes_of_one_request(ask_once: Asker) -> None:
    """64 KiB in one request are served, one byte more is refused."""
    full = ["a" * 4096] * 16
    assert vectors(ask_once, *full).code == "OK"
    documents = texts(*full, "b", *[""] * 15, shape=(2, 16))
    reply = ask_once("text_vectors", {"PASSAGES": documents})
    assert reply.code == "INVALID_ARG"
    assert reply.message.startswith("limit.request_bytes: 65537 > 65536")


@pytest.mark.parametrize("broken", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_broken_utf8(ask: Asker, broken: bytes) -> None:
    """Bytes that are no UTF-8 are refused: stray, cut off, a surrogate, an overlong NUL."""
    reply = vectors(ask, "fine", broken)
    assert reply.code == "INVALID_ARG"
    assert reply.message.startswith("content.utf8")
    assert reply.message.endswith("at inputs['PASSAGES'][0][1]")


def test_odd_but_valid_text(ask: Asker) -> None:
    """A NUL, an emoji and combining characters are text."""
    assert vectors(ask, b"nul\x00inside", "🦆🦆🦆", "e\u0301").code == "OK"
