"""How a policy's words become device files."""

from __future__ import annotations

import pytest

from safe_triton.confinement.devices import Gpu, device_path, gpus_from_text, gpus_to_text, resolved_gpus
from safe_triton.errors import PolicyError

KNOWN = (Gpu(0, 3, "GPU-a", (), 1 << 30), Gpu(1, 3, "MIG-b", (12, 13)))


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ((), ()),
        ((0,), (3,)),
        (("GPU-a",), (3,)),
        (("MIG-b",), (3, "nvidia-cap12", "nvidia-cap13")),
        ((0, "GPU-a", 1), (3, "nvidia-cap12", "nvidia-cap13")),
        ((7, "nvidia-cap5"), (7, "nvidia-cap5")),
    ],
)
def test_words_become_files(words: tuple[int | str, ...], files: tuple[int | str, ...]) -> None:
    """Triton's number is not the file's, and a slice has files of its own; each file once."""
    assert resolved_gpus(words, KNOWN) == files


@pytest.mark.parametrize(
    ("known", "message"), [(KNOWN, "there is no GPU-c here; there is GPU-a, MIG-b"), ((), "no GPU-c here$")]
)
def test_an_identity_that_is_not_here(known: tuple[Gpu, ...], message: str) -> None:
    """It names what there is instead."""
    with pytest.raises(PolicyError, match=message):
        resolved_gpus(("GPU-c",), known)


def test_paths() -> None:
    """Of devices and capabilities; an identity has none before it was looked up."""
    assert device_path(3) == "/dev/nvidia3"
    assert device_path("nvidia-cap12") == "/dev/nvidia-caps/nvidia-cap12"
    with pytest.raises(PolicyError, match="GPU-a has to be named by device files here"):
        device_path("GPU-a")


@pytest.mark.parametrize("noise", ["", ",", "a:b:c", "1:2", "1:2::", "1:x:GPU-a", "1:2:GPU-a:x", "1:2:GPU-a::x"])
def test_the_environment_carries_them(noise: str) -> None:
    """They come back as they were; what is no device is none."""
    assert gpus_from_text(f"{noise},{gpus_to_text(KNOWN)}") == KNOWN
