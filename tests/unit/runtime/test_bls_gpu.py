"""Tensors in a GPU's memory on their way to another model and back: never touched, never copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_triton import BlsPolicy, BlsTarget, BlsTensor
from safe_triton.errors import BlsOutputError, BlsUsageError
from safe_triton.runtime.bls.targets import Target

NUMBERS = BlsTensor(dtype="FP32", dims=(-1,))


class Tensor:
    """What is used of ``pb_utils.Tensor``; one on a GPU has no numpy array."""

    def __init__(self, name: str, array: Any = None) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def is_cpu(self) -> bool:
        return self._array is not None

    def as_numpy(self) -> Any:
        assert self._array is not None, "a tensor on a GPU was read"
        return self._array

    def shape(self) -> tuple[int, ...]:
        return (3,)


class Response:
    """What is used of a response."""

    def __init__(self, *tensors: Tensor) -> None:
        self.output_tensors = lambda: list(tensors)


@pytest.fixture
def target() -> Target:
    """A target of two inputs and two outputs."""
    declared = BlsTarget(version=1, inputs={"A": NUMBERS, "B": NUMBERS}, outputs={"C": NUMBERS, "D": NUMBERS})
    policy = BlsPolicy(allow={"t": declared})
    return Target("t", declared, policy, Path(), Tensor, [0, 0.0])


def test_inputs_stay_the_same_object(target: Target) -> None:
    """Beside one that numpy has."""
    on_gpu, array = Tensor("A"), np.ones(3, np.float32)
    tensors, _, sent = target.tensors_of({"A": on_gpu, "B": array})
    assert any(each is on_gpu for each in tensors)
    assert [each.name() for each in tensors if each is not on_gpu] == ["B"]
    assert sent == array.nbytes


def test_outputs_come_back_as_they_are(target: Target) -> None:
    """For ``to_dlpack``; those on the CPU are arrays."""
    on_gpu = Tensor("C")
    outputs, _ = target.outputs_of(Response(on_gpu, Tensor("D", np.ones(3, np.float32))), 0, target.output_names)
    assert outputs["C"] is on_gpu
    assert outputs["D"].tolist() == [1, 1, 1]


def test_names_are_checked_all_the_same(target: Target) -> None:
    """What is known without reading."""
    with pytest.raises(BlsUsageError, match=r"^bls\.usage: "):
        target.tensors_of({"A": Tensor("B"), "B": Tensor("B")})
    with pytest.raises(BlsUsageError, match=r"input 'B' of 't' is missing"):
        target.tensors_of({"A": Tensor("A")})
    with pytest.raises(BlsOutputError):
        target.outputs_of(Response(Tensor("C"), Tensor("C")), 0, target.output_names)
