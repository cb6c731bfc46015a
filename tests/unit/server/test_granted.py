"""What a model is granted: GPUs by the configuration and Triton's numbers, a scratch folder where it is written to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from safe_triton import unsafe
from safe_triton.confinement.devices import Gpu, gpus_from_text, gpus_to_text
from safe_triton.errors import PolicyError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server.gpus import named_gpus, visible_gpus
from safe_triton.server.granted import Host, granted, granted_minors
from safe_triton.server.scratch import ScratchFolders

# Bus address, number of the device file, identity; the order of the bus is not that of the files.
DEVICES = (("0000:3b:00.0", 2, "GPU-cc"), ("0000:1a:00.0", 0, "GPU-aa"), ("0000:af:00.0", 1, "GPU-bb"))
VISIBLE = (Gpu(0, 0, "GPU-aa"), Gpu(1, 2, "GPU-cc"), Gpu(2, 1, "GPU-bb"))


def group(kind: str, *gpus: int) -> dict[str, Any]:
    return {"kind": f"KIND_{kind}", "gpus": list(gpus), "count": 1}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The files by which the driver tells of three GPUs, of which this container has two."""
    for bus, minor, uuid in DEVICES:
        folder = tmp_path / "proc/driver/nvidia/gpus" / bus
        folder.mkdir(parents=True)
        (folder / "information").write_text(
            f"Model: \t\t NVIDIA H100\nGPU UUID: \t {uuid}\nBus Location: \t {bus}\nDevice Minor: \t {minor}\n"
        )
    (tmp_path / "dev").mkdir()
    for minor in (0, 1, 2):
        (tmp_path / f"dev/nvidia{minor}").touch()
    return tmp_path


class TestVisible:
    def test_numbers_follow_the_bus(self, machine: Path) -> None:
        """As CUDA counts under CUDA_DEVICE_ORDER=PCI_BUS_ID, not as the device files are numbered."""
        assert visible_gpus({}, root=machine) == VISIBLE

    def test_a_device_that_is_not_in_the_container_does_not_count(self, machine: Path) -> None:
        """The driver tells of all, the files of those that can be opened."""
        (machine / "dev/nvidia0").unlink()
        assert visible_gpus({}, root=machine) == (Gpu(0, 2, "GPU-cc"), Gpu(1, 1, "GPU-bb"))

    @pytest.mark.parametrize(
        ("value", "minors"),
        [
            ("", []),
            ("1", [2]),
            ("2,0", [1, 0]),
            ("GPU-bb,GPU-a", [1, 0]),
            ("0,7,1", [0]),
            ("-1", []),
            ("0,0", [0]),
            ("GPU-", []),
            ("NoDevFiles", []),
        ],
    )
    def test_the_servers_own_choice(self, machine: Path, value: str, minors: list[int]) -> None:
        """Positions and identities, up to the first word that names no device."""
        found = visible_gpus({"CUDA_VISIBLE_DEVICES": value}, root=machine)
        assert [(gpu.number, gpu.minor) for gpu in found] == list(enumerate(minors))

    def test_a_machine_without_a_driver(self, tmp_path: Path) -> None:
        """No GPU."""
        assert visible_gpus({}, root=tmp_path) == ()


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        ({}, [0, 1, 2]),
        ({"instance_group": []}, [0, 1, 2]),
        ({"instance_group": [group("AUTO")]}, [0, 1, 2]),
        ({"instance_group": [group("GPU")]}, [0, 1, 2]),
        ({"instance_group": [group("GPU", 1)]}, [1]),
        ({"instance_group": [group("GPU", 2), group("GPU", 0), group("CPU")]}, [0, 2]),
        ({"instance_group": [group("GPU", 9)]}, []),
        ({"instance_group": [group("CPU")]}, []),
        ({"instance_group": [group("MODEL")]}, []),
    ],
)
def test_the_configuration_names_devices(config: Mapping[str, Any], numbers: list[int]) -> None:
    """As Triton puts instances on them."""
    assert [gpu.number for gpu in named_gpus(config, VISIBLE)] == numbers


@pytest.mark.parametrize(
    ("operator", "config", "minors"),
    [
        ((), {"instance_group": [group("GPU", 1)]}, (2,)),
        ((0,), {"instance_group": [group("GPU", 1)]}, (0, 2)),
        ((0,), {"instance_group": [group("MODEL")]}, (0,)),
        ((), {"instance_group": [group("MODEL")]}, ()),
        ((0, 1), {"instance_group": [group("CPU")]}, ()),
        ((), {}, (0, 1, 2)),
    ],
)
def test_device_files(operator: tuple[int, ...], config: Mapping[str, Any], minors: tuple[int, ...]) -> None:
    """The instances' and the operator's; none for a model on CPUs, whatever the operator names."""
    assert granted_minors(SandboxPolicy(gpu_ids=operator), config, VISIBLE) == minors


def test_the_devices_survive_the_environment() -> None:
    """A value that is something else names none."""
    assert gpus_from_text(gpus_to_text(VISIBLE)) == VISIBLE
    assert gpus_from_text("") == gpus_from_text("nonsense,1:2,:::") == ()


class TestGranted:
    @pytest.fixture
    def host(self, tmp_path: Path) -> Iterator[Host]:
        folders = ScratchFolders(tmp_path / "scratch")
        yield Host(python=Path("/venv"), scratch=folders, gpus=VISIBLE)
        folders.remove()

    def test_places(self, host: Host) -> None:
        """All but ``{version}``, of which a model may have several."""
        policy = SandboxPolicy(read=("{python}/lib", "{model}", "{version}/x", "{repository}/y"))
        found, _ = granted(policy, {}, Path("/models/digits"), host)
        assert found.read == ("/venv/lib", "/models/digits", "{version}/x", "/models/y")

    def test_a_scratch_folder_only_where_it_is_written_to(self, host: Host) -> None:
        """``tempfile`` finds it, too."""
        found, variables = granted(SandboxPolicy(write=("{scratch}",)), {}, Path("/models/digits"), host)
        folder = str(host.scratch.root / "digits")
        assert found.write == (folder,)
        assert (variables["TMPDIR"], variables["SAFE_TRITON_SCRATCH"]) == (folder, folder)
        _, other = granted(SandboxPolicy(), {}, Path("/models/other"), host)
        assert "TMPDIR" not in other
        assert not (host.scratch.root / "other").exists()
        with pytest.raises(PolicyError, match=r"policy\.placeholder"):
            granted(SandboxPolicy(read=("{scratch}",)), {}, Path("/models/other"), host)

    def test_programs_are_only_found_where_they_may_run(self, host: Host) -> None:
        """Otherwise the path holds the interpreter, which Triton's stub looks for."""
        assert granted(SandboxPolicy(), {}, Path("/models/digits"), host)[1]["PATH"] == "/venv/bin"
        policy = SandboxPolicy(processes=unsafe.AllowProcesses(reason="test"))
        assert "PATH" not in granted(policy, {}, Path("/models/digits"), host)[1]

    @pytest.mark.parametrize(
        ("groups", "uuids"),
        [([group("GPU", 1)], "GPU-cc"), ([group("GPU", 2, 0)], "GPU-aa,GPU-bb"), ([group("CPU")], "")],
    )
    def test_cuda_shows_what_is_granted(self, host: Host, groups: list[Any], uuids: str) -> None:
        """By identity, in Triton's order; nothing to a model on CPUs."""
        _, variables = granted(SandboxPolicy(), {"instance_group": groups}, Path("/models/digits"), host)
        assert variables["CUDA_VISIBLE_DEVICES"] == uuids
