"""Which GPU CUDA shows in a model's process, what the model is told, and the bound on the GPU's memory."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from safe_triton import unsafe
from safe_triton.confinement.launch import granted_to_json
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy
from safe_triton.runtime import gpu
from safe_triton.runtime.gpu import (
    PER_SESSION,
    STARTED,
    UNKNOWN,
    files_of,
    granted_bytes,
    limit_before_load,
    limit_memory,
    memory_bound,
    show_own,
)
from safe_triton.server.in_stub import _cuda_number

UNLIMITED = unsafe.Unlimited(reason="test")
TWO = "1:5:GPU-bb,3:7:GPU-dd"
BOTH = "GPU-bb,GPU-dd"


def arguments(number: int, kind: str = "GPU") -> dict[str, str]:
    return {"model_instance_kind": kind, "model_instance_device_id": str(number), "model_name": "m"}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that believes to be Triton's stub and has no GPU open."""
    monkeypatch.setattr(gpu, "is_triton_stub", lambda: True)
    monkeypatch.setattr(gpu, "has_cuda_started", lambda: False)
    for name in ("CUDA_VISIBLE_DEVICES", "SAFE_TRITON_GPUS", "SAFE_TRITON_GPU"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    return monkeypatch


class TestShowOwn:
    @pytest.mark.parametrize(
        ("number", "granted", "visible", "renumbers", "shown", "told"),
        [
            # Under the launcher: identities of what was granted, in Triton's order.
            (1, TWO, BOTH, True, "GPU-bb", 0),
            (3, TWO, BOTH, True, "GPU-dd", 0),
            (1, TWO, BOTH, False, "GPU-bb", 0),
            (3, TWO, BOTH, False, BOTH, 1),
            (3, "3:7:GPU-dd", "GPU-dd", False, "GPU-dd", 0),
            # A plain tritonserver: the server's own choice, or none.
            (1, "", "4,6", True, "6", 0),
            (1, "", "4,6", False, "4,6", 1),
            (0, "", "4,6", False, "4", 0),
            (2, "", None, True, "2", 0),
            (2, "", None, False, None, 2),
            (0, "", None, False, "0", 0),
            # A number beyond what the variable names: nothing is changed that is not understood.
            (5, "", "4,6", True, "4,6", 5),
        ],
    )
    def test_one_device(
        self,
        stub: pytest.MonkeyPatch,
        number: int,
        granted: str,
        visible: str | None,
        renumbers: bool,
        shown: str | None,
        told: int,
    ) -> None:
        """What the model is told is the number that CUDA's libraries give the instance's device."""
        stub.setenv("SAFE_TRITON_GPUS", granted)
        if visible is not None:
            stub.setenv("CUDA_VISIBLE_DEVICES", visible)
        found, gaps = show_own(arguments(number), renumbers=renumbers)
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == shown
        assert (found, gaps) == ({**arguments(number), "model_instance_device_id": str(told)}, ())

    def test_after_cuda_was_initialised_nothing_changes(self, stub: pytest.MonkeyPatch) -> None:
        """The libraries go on counting as they began; it is reported."""
        stub.setattr(gpu, "has_cuda_started", lambda: True)
        stub.setenv("SAFE_TRITON_GPUS", TWO)
        stub.setenv("CUDA_VISIBLE_DEVICES", BOTH)
        found, gaps = show_own(arguments(3), renumbers=True)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == BOTH
        assert (found["model_instance_device_id"], gaps) == ("1", (STARTED,))

    @pytest.mark.parametrize("kind", ["CPU", "MODEL"])
    def test_other_kinds_are_left_alone(self, stub: pytest.MonkeyPatch, kind: str) -> None:
        """A model that chooses its devices itself sees those it was granted."""
        stub.setenv("CUDA_VISIBLE_DEVICES", BOTH)
        assert show_own(arguments(0, kind), renumbers=True) == (arguments(0, kind), ())
        assert os.environ["CUDA_VISIBLE_DEVICES"] == BOTH

    def test_a_test_process_is_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variable belongs to whoever runs the tests."""
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
        assert show_own(arguments(1), renumbers=True) == (arguments(1), ())
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"


def test_the_device_file(stub: pytest.MonkeyPatch) -> None:
    """Its number is not Triton's where the launcher says so."""
    assert files_of(arguments(3)) == (3,)
    stub.setenv("SAFE_TRITON_GPUS", TWO)
    assert (files_of(arguments(3)), files_of(arguments(0))) == ((7,), (0,))
    stub.setenv("SAFE_TRITON_GPUS", "0:7:MIG-dd:12+13:0")
    assert files_of(arguments(0)) == (7, "nvidia-cap12", "nvidia-cap13")


def test_behind_a_repository_view(stub: pytest.MonkeyPatch) -> None:
    """The arguments hold CUDA's number there, and the environment Triton's: nothing is counted twice."""
    stub.setenv("SAFE_TRITON_GPUS", TWO)
    stub.setenv("CUDA_VISIBLE_DEVICES", BOTH)
    shown = {**arguments(3), **_cuda_number(arguments(3))}
    assert shown["model_instance_device_id"] == "1"
    assert files_of(shown) == (7,)
    assert show_own(shown, renumbers=False) == (shown, ())
    assert show_own(shown, renumbers=True)[0]["model_instance_device_id"] == "0"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-dd"
    assert _cuda_number(arguments(3, "CPU")) == _cuda_number(arguments(0)) == {}


def test_no_gpu_is_open_here() -> None:
    """Asked from the kernel, without any library."""
    assert gpu.has_cuda_started() is False


class FakeTorch:
    """The part of PyTorch that is used; CUDA is initialised by the test."""

    def __init__(self, total_bytes: int) -> None:
        self.fractions: list[tuple[float, int]] = []
        self.waiting: list[Any] = []
        self.cuda = SimpleNamespace(
            _lazy_call=self.waiting.append,
            get_device_properties=lambda _: SimpleNamespace(total_memory=total_bytes),
            set_per_process_memory_fraction=lambda fraction, device: self.fractions.append((fraction, device)),
        )


class FakeCupy:
    """The part of CuPy that is used."""

    def __init__(self) -> None:
        self.limits: list[tuple[int, int]] = []
        self.device = -1
        self.cuda = SimpleNamespace(Device=self.chosen)

    def chosen(self, device: int) -> Any:
        self.device = device
        return nullcontext()

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(set_limit=lambda size: self.limits.append((size, self.device)))


class FakeTensorflow:
    """The part of TensorFlow that is used; once it has begun its devices stay as they are."""

    def __init__(self) -> None:
        self.devices: dict[str, list[Any]] = {}
        self.has_begun = False
        self.config = SimpleNamespace(
            list_physical_devices=lambda kind: [f"{kind}:0", f"{kind}:1"],
            LogicalDeviceConfiguration=lambda memory_limit: memory_limit,
            set_logical_device_configuration=self.configure,
        )

    def configure(self, device: str, sizes: list[Any]) -> None:
        if self.has_begun:
            raise RuntimeError("Virtual devices cannot be modified after being initialized")
        self.devices[device] = sizes


LIBRARIES = {"torch", "cupy", "tensorflow", "jax", "onnxruntime"}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the process has imported: neither library."""
    found = {name: module for name, module in sys.modules.items() if name not in LIBRARIES}
    monkeypatch.setattr(sys, "modules", found)
    monkeypatch.setattr(gpu, "_held", {})
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    return found


class TestMemory:
    @pytest.mark.parametrize(("limit", "fraction"), [(10, 0.25), (40, 1.0), (400, 1.0)])
    def test_torch_gets_a_fraction_when_cuda_starts(self, modules: dict[str, Any], limit: int, fraction: float) -> None:
        """Not before: a model that never uses the GPU does not initialise it."""
        modules["torch"] = torch = FakeTorch(40)
        assert limit_memory(limit, 1) == (("gpu.memory.torch",), ())
        assert torch.fractions == []
        for call in torch.waiting:
            call()
        assert torch.fractions == [(fraction, 1)]

    def test_cupy_gets_bytes(self, modules: dict[str, Any]) -> None:
        """For its pool on the instance's device."""
        modules["cupy"] = cupy = FakeCupy()
        assert limit_memory(10, 1) == (("gpu.memory.cupy",), ())
        assert cupy.limits == [(10, 1)]

    def test_neither_is_a_gap(self, modules: dict[str, Any]) -> None:
        """Nothing is imported for it."""
        assert limit_memory(10, 0) == ((), (UNKNOWN,))
        assert not LIBRARIES & set(modules)

    def test_a_library_that_refuses_is_a_gap(self, modules: dict[str, Any]) -> None:
        """Its name and the kind of error, no more; the model loads."""
        modules["torch"] = SimpleNamespace()
        bounded, (gap,) = limit_memory(10, 0)
        assert bounded == ()
        assert (gap.is_essential, gap.detail) == (
            False,
            "torch did not take a bound on the GPU's memory: AttributeError",
        )

    def test_a_token_takes_the_bound_away(self, modules: dict[str, Any]) -> None:
        """Nothing is called."""
        modules["torch"] = SimpleNamespace()
        unlimited = ResourceLimits(gpu_memory_bytes=unsafe.Unlimited(reason="test"))
        assert limit_memory(memory_bound(unlimited, 0), 0) == ((), ())

    def test_tensorflow_gets_a_device_of_that_size(self, modules: dict[str, Any]) -> None:
        """In MiB, before load(); the seal asks no second time, which TensorFlow would refuse."""
        modules["tensorflow"] = tensorflow = FakeTensorflow()
        assert limit_memory(3 << 30, 1) == (("gpu.memory.tensorflow",), ())
        assert tensorflow.devices == {"GPU:1": [3072]}
        tensorflow.has_begun = True
        assert limit_memory(3 << 30, 1) == (("gpu.memory.tensorflow",), ())
        bounded, (gap,) = limit_memory(1 << 30, 1)
        assert (bounded, gap.reason) == ((), "gpu.memory")

    def test_jax_reads_its_environment(self, modules: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the launcher set no share, nothing bounds it."""
        modules["jax"] = SimpleNamespace()
        assert [gap.reason for gap in limit_memory(10, 0)[1]] == ["gpu.memory"]
        monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2500")
        assert limit_memory(10, 0) == (("gpu.memory.jax",), ())

    def test_onnx_runtime_is_a_gap_with_the_word_to_write(self, modules: dict[str, Any]) -> None:
        """Its bound is an option of each session."""
        modules["onnxruntime"] = SimpleNamespace()
        assert limit_memory(10, 0) == ((), (PER_SESSION,))
        assert "context.gpu_memory_bytes" in PER_SESSION.fix

    @pytest.mark.parametrize(
        ("resources", "total", "bound"),
        [
            (ResourceLimits(), 0, 16 << 30),
            (ResourceLimits(), 80 << 30, 16 << 30),
            (ResourceLimits(gpu_memory_percent=10), 80 << 30, 8 << 30),
            (ResourceLimits(gpu_memory_percent=10), 0, 16 << 30),
            (ResourceLimits(gpu_memory_bytes=UNLIMITED, gpu_memory_percent=50), 80 << 30, 40 << 30),
            (ResourceLimits(gpu_memory_bytes=UNLIMITED, gpu_memory_percent=50), 0, None),
        ],
    )
    def test_bytes_and_percent(self, resources: ResourceLimits, total: int, bound: int | None) -> None:
        """The smaller one; a share of nobody knows what is no bound."""
        assert memory_bound(resources, total) == bound

    def test_it_holds_before_load(self, modules: dict[str, Any], stub: pytest.MonkeyPatch) -> None:
        """What the operator granted, from the launcher's own words; a process without them is left to the seal."""
        modules["cupy"] = cupy = FakeCupy()
        limit_before_load(arguments(1), 0)
        assert cupy.limits == []
        granted = SandboxPolicy(resources=ResourceLimits(gpu_memory_percent=25))
        stub.setenv("SAFE_TRITON_GRANT", granted_to_json(granted, SandboxPolicy()))
        stub.setenv("SAFE_TRITON_GPUS", f"1:5:GPU-bb::{8 << 30}")
        limit_before_load(arguments(1), 0)
        assert cupy.limits == [(2 << 30, 0)]
        assert granted_bytes(arguments(1)) == 2 << 30
        assert granted_bytes(arguments(1, "CPU")) is None
