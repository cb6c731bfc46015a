# ruff: noqa: N802 - the names of NVIDIA's library
"""What a model is granted: GPUs by the configuration and Triton's numbers, a scratch folder where it is written to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from safe_triton import unsafe
from safe_triton.confinement.devices import Gpu, gpus_from_text, gpus_to_text
from safe_triton.confinement.grants import compile_grants
from safe_triton.errors import PolicyError
from safe_triton.policy.gpus import compile_gpu_use, gpu_groups
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy
from safe_triton.server import nvml
from safe_triton.server.gpus import device_files, machine_gpus, visible_gpus
from safe_triton.server.granted import Host, granted, granted_gpus, memory_variables
from safe_triton.server.scratch import ScratchFolders

# Bus address, number of the device file, identity; the order of the bus is not that of the files.
DEVICES = (("0000:3b:00.0", 2, "GPU-cc"), ("0000:1a:00.0", 0, "GPU-aa"), ("0000:af:00.0", 1, "GPU-bb"))
VISIBLE = (Gpu(0, 0, "GPU-aa"), Gpu(1, 2, "GPU-cc"), Gpu(2, 1, "GPU-bb"))
HOST = Host(python=Path("/venv"), scratch=ScratchFolders(Path("/none")), gpus=VISIBLE)


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


CASES: tuple[tuple[tuple[int | str, ...] | None, dict[str, Any], tuple[int, ...]], ...] = (
    # Without a word of the policy: the devices on which Triton puts the instances.
    (None, {}, (0, 2, 1)),
    (None, {"instance_group": [group("AUTO")]}, (0, 2, 1)),
    (None, {"instance_group": [group("GPU")]}, (0, 2, 1)),
    (None, {"instance_group": [group("GPU", 1)]}, (2,)),
    (None, {"instance_group": [group("GPU", 2), group("GPU", 0), group("CPU")]}, (0, 1)),
    (None, {"instance_group": [group("GPU", 9)]}, ()),
    (None, {"instance_group": [group("CPU")]}, ()),
    (None, {"instance_group": [group("MODEL")]}, ()),
    # With one: these, by Triton's numbers or by identity, as far as they are here.
    ((1,), {"instance_group": [group("GPU", 1)]}, (2,)),
    ((0, 1), {"instance_group": [group("GPU", 1)]}, (0, 2)),
    ((0, 9), {"instance_group": [group("MODEL")]}, (0,)),
    (("GPU-cc",), {"instance_group": [group("GPU", 1)]}, (2,)),
    (("GPU-bb",), {"instance_group": [group("MODEL")]}, (1,)),
    ((), {}, ()),
    ((0,), {}, (0,)),
    ((0, 1), {"instance_group": [group("CPU")]}, ()),
)


class TestDeviceFiles:
    @pytest.mark.parametrize(("gpu_ids", "config", "minors"), CASES)
    def test_by_configuration_and_policy(
        self, gpu_ids: tuple[int | str, ...] | None, config: dict[str, Any], minors: tuple[int, ...]
    ) -> None:
        """The instances' where the policy is silent, else the policy's; none for a model on CPUs."""
        policy = SandboxPolicy() if gpu_ids is None else SandboxPolicy(gpu_ids=gpu_ids)
        use = compile_gpu_use(gpu_groups(config), policy)
        assert tuple(gpu.minor for gpu in granted_gpus(use, HOST)) == minors

    @pytest.mark.parametrize(
        ("gpu_ids", "config", "said"),
        [
            ((0,), {"instance_group": [group("GPU", 1)]}, "instances on GPU 1, and the policy grants 0"),
            ((), {"instance_group": [group("GPU", 0)]}, "the policy grants no GPU"),
            ((0,), {"instance_group": [group("GPU")]}, "instances on GPU 1, and the policy grants 0"),
            (("GPU-aa",), {"instance_group": [group("GPU", 1)]}, "instances on GPU 1, and the policy grants GPU-aa"),
            (("GPU-zz",), {}, "GPU-zz, which is not here"),
            (("MIG-zz",), {"instance_group": [group("MODEL")]}, "MIG-zz, which is not here"),
        ],
    )
    def test_disagreement_is_refused(self, gpu_ids: tuple[int | str, ...], config: dict[str, Any], said: str) -> None:
        """Before anything starts: the model would not find its GPU."""
        with pytest.raises(PolicyError, match=said) as caught:
            granted_gpus(compile_gpu_use(gpu_groups(config), SandboxPolicy(gpu_ids=gpu_ids)), HOST)
        assert caught.value.reason == "policy.gpu"


MIG_ACCESS = {
    "gi1/access": 12,
    "gi1/ci0/access": 13,
    "gi2/access": 21,
    "gi2/ci0/access": 22,
    "gi2/ci1/access": 23,
    "gi9/access": 84,  # a slice of another container: its device files are not here
    "gi9/ci0/access": 85,
}
FIRST = Gpu(0, 0, "MIG-GPU-aa/1/0", (12, 13))
SECOND = Gpu(-1, 0, "MIG-GPU-aa/2/0", (21, 22))


@pytest.fixture
def sliced(machine: Path) -> Path:
    """The machine, with GPU 0 cut into slices."""
    for name, number in MIG_ACCESS.items():
        file = machine / "proc/driver/nvidia/capabilities/gpu0/mig" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"DeviceFileMinor: {number}\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
    (machine / "dev/nvidia-caps").mkdir()
    for number in (1, 2, 12, 13, 21, 22, 23, 84):
        (machine / f"dev/nvidia-caps/nvidia-cap{number}").touch()
    return machine


class TestSlices:
    def test_each_has_the_files_of_both_instances(self, sliced: Path) -> None:
        """Of its GPU instance and of its compute instance; without both there is no slice."""
        found = [gpu for gpu in machine_gpus(root=sliced) if gpu.capabilities]
        assert found == [
            replace(FIRST, number=-1),
            SECOND,
            Gpu(-1, 0, "MIG-GPU-aa/2/1", (21, 23)),
        ]
        assert FIRST.files == (0, "nvidia-cap12", "nvidia-cap13")

    @pytest.mark.parametrize(
        ("value", "number", "uuid"),
        [
            (None, 0, "MIG-GPU-aa/1/0"),
            ("0", 0, "MIG-GPU-aa/1/0"),
            ("MIG-GPU-aa/2/1", 0, "MIG-GPU-aa/2/1"),
            ("MIG-GPU-aa/2/1,MIG-GPU-aa/1/0", 0, "MIG-GPU-aa/2/1"),
        ],
    )
    def test_the_server_sees_one(self, sliced: Path, value: str | None, number: int, uuid: str) -> None:
        """As CUDA does: one slice, and no whole GPU beside it."""
        environment = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
        (found,) = visible_gpus(environment, root=sliced)
        assert (found.number, found.uuid) == (number, uuid)

    def test_identities_and_memory_of_the_management_library(self) -> None:
        """The names that CUDA knows since release 470, by GPU and instances; a GPU that cannot be sliced has none."""
        assert details_of(FakeNvml()) == {
            (0,): ("GPU-aa", 0),  # only root is told of the whole
            (0, 1, 0): ("MIG-11", 10 << 30),
            (0, 2, 0): ("MIG-22", 20 << 30),
            (2,): ("GPU-cc", 80 << 30),
        }

    def test_without_the_library_nothing_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No package, or a package without a driver."""
        monkeypatch.setitem(sys.modules, "pynvml", None)
        assert nvml.read_details() == {}

    def test_the_real_library_has_what_is_asked(self) -> None:
        """Every call that is made, by name; without a driver it says so and nothing is known."""
        library = pytest.importorskip("pynvml", reason="no nvidia-ml-py")
        names = [name for name in dir(FakeNvml) if name.startswith("nvml")]
        assert len(names) > 8
        assert all(callable(getattr(library, name)) for name in names)

    def test_a_slice_that_the_policy_names(self, sliced: Path) -> None:
        """The process may open the GPU's file and the slice's two, and CUDA is told the slice."""
        host = replace(HOST, gpus=visible_gpus({}, root=sliced), others=machine_gpus(root=sliced))
        policy = SandboxPolicy(gpu_ids=("MIG-GPU-aa/2/0",))
        use = compile_gpu_use(gpu_groups({"instance_group": [group("MODEL")]}), policy)
        assert granted_gpus(use, host) == (SECOND,)
        files = {grant.path for grant in compile_grants(SandboxPolicy(gpu_ids=SECOND.files), ())}
        assert {"/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap21", "/dev/nvidia-caps/nvidia-cap22"} <= files
        assert not files & {"/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps", "/dev"}

    @pytest.mark.parametrize(
        ("groups", "is_fine"),
        [
            ([group("GPU", 0)], False),  # Triton puts it on the slice that it sees, which is another one
            ([group("GPU")], False),
            ([group("GPU", 1)], False),
            ([group("MODEL")], True),
            ([], True),
        ],
    )
    def test_another_slice_than_tritons(self, sliced: Path, groups: list[Any], is_fine: bool) -> None:
        """Only for a model that chooses its device itself."""
        host = replace(HOST, gpus=visible_gpus({}, root=sliced), others=machine_gpus(root=sliced))
        use = compile_gpu_use(gpu_groups({"instance_group": groups}), SandboxPolicy(gpu_ids=("MIG-GPU-aa/2/0",)))
        if is_fine:
            assert granted_gpus(use, host) == (SECOND,)
            return
        with pytest.raises(PolicyError):
            granted_gpus(use, host)

    def test_the_servers_slice_by_the_configuration(self, sliced: Path) -> None:
        """An instance on Triton's GPU 0 has that slice's files and no others."""
        host = replace(HOST, gpus=visible_gpus({}, root=sliced), others=machine_gpus(root=sliced))
        use = compile_gpu_use(gpu_groups({"instance_group": [group("GPU", 0)]}), SandboxPolicy())
        assert granted_gpus(use, host) == (FIRST,)

    def test_commands_name_slices_too(self, sliced: Path) -> None:
        """``run-confined --gpu MIG-…`` has its files; a plain number stays that of the file."""
        assert device_files(("MIG-GPU-aa/1/0", 2), root=sliced) == (0, "nvidia-cap12", "nvidia-cap13", 2)
        with pytest.raises(PolicyError, match="there is no MIG-zz here"):
            device_files(("MIG-zz",), root=sliced)


class FakeNvml:
    """The part of NVIDIA's management library that is used: GPU 0 with two slices, GPU 2 whole."""

    NVMLError = RuntimeError
    PARTS: ClassVar[dict[Any, Any]] = {
        "slice-0": ("MIG-11", 10, 1, 0),
        "slice-2": ("MIG-22", 20, 2, 0),
        0: ("GPU-aa", 80),
        1: ("GPU-cc", 80),
    }

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMinorNumber(self, gpu: int) -> int:
        return (0, 2)[gpu]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: int) -> int:
        if gpu:
            raise self.NVMLError("not supported")
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: int, place: int) -> str:
        if f"slice-{place}" not in self.PARTS or gpu:
            raise self.NVMLError("not found")
        return f"slice-{place}"

    def nvmlDeviceGetGpuInstanceId(self, part: str) -> int:
        return int(self.PARTS[part][2])

    def nvmlDeviceGetComputeInstanceId(self, part: str) -> int:
        return int(self.PARTS[part][3])

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return str(self.PARTS[handle][0])

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        if handle == 0:
            raise self.NVMLError("insufficient permissions")
        return SimpleNamespace(total=self.PARTS[handle][1] << 30)


def details_of(library: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pynvml", library)
        return nvml.read_details()


@pytest.mark.parametrize(
    ("resources", "total", "share"),
    [
        (ResourceLimits(gpu_memory_percent=25), 0, "0.2500"),
        (ResourceLimits(gpu_memory_percent=25), 80 << 30, "0.2000"),  # 16 GiB are less
        (ResourceLimits(gpu_memory_percent=10), 80 << 30, "0.1000"),
        (ResourceLimits(), 0, None),
        (ResourceLimits(), 8 << 30, None),
        (ResourceLimits(gpu_memory_bytes=unsafe.Unlimited(reason="test")), 80 << 30, None),
    ],
)
def test_jax_is_told_its_share(resources: ResourceLimits, total: int, share: str | None) -> None:
    """From bytes where somebody knows how much there is; the smaller bound holds."""
    found = memory_variables(resources, [Gpu(0, 0, "GPU-aa", (), total)])
    assert found.get("XLA_PYTHON_CLIENT_MEM_FRACTION") == share
    assert found["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert memory_variables(resources, []) == {}


def test_the_devices_survive_the_environment() -> None:
    """A value that is something else names none."""
    several = (*VISIBLE, SECOND, replace(FIRST, memory_bytes=1 << 34))
    assert gpus_from_text(gpus_to_text(several)) == several
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

    def test_a_refusal_names_the_model(self, host: Host) -> None:
        """One line, with what to compare."""
        config = {"instance_group": [group("GPU", 1)]}
        with pytest.raises(PolicyError, match=r"policy\.gpu: .* grants 0 \(model 'digits'\)"):
            granted(SandboxPolicy(gpu_ids=(0,)), config, Path("/models/digits"), host)

    def test_where_the_driver_says_nothing(self, host: Host) -> None:
        """The policy's numbers are those of the device files, and CUDA's variable stays the server's."""
        found, variables = granted(SandboxPolicy(gpu_ids=(1,)), {}, Path("/models/digits"), replace(host, gpus=()))
        assert found.gpu_ids == (1,)
        assert "CUDA_VISIBLE_DEVICES" not in variables
