"""GPUs under confinement: the granted device works, others and ungranted ones do not; memory is bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from safe_triton.confinement.devices import Gpu, gpus_to_text
from safe_triton.server.gpus import ORDER, visible_gpus

SETUP = """
import ctypes, json, os, resource, sys
from safe_triton import ResourceLimits, SandboxPolicy
from safe_triton.confinement import confine

def cuda():
    # Result codes of CUDA's driver: start it, count, take the first device's context and 1 MiB of its memory.
    lib = ctypes.CDLL("libcuda.so.1")
    count, device, context, memory = ctypes.c_int(-1), ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    results = [lib.cuInit(0), lib.cuDeviceGetCount(ctypes.byref(count)), lib.cuDeviceGet(ctypes.byref(device), 0)]
    results.append(lib.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    results += [lib.cuCtxSetCurrent(context), lib.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(1 << 20))]
    return {"results": results, "count": count.value}
"""


def in_child(code: str, **variables: str) -> Any:
    """Run code in a fresh process and return the JSON that it printed last."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SETUP) + textwrap.dedent(code)],
        env={**environment, **ORDER, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def gpus() -> tuple[Gpu, ...]:
    found = visible_gpus({})
    assert found, "there is a driver, and no GPU beneath /proc/driver/nvidia"
    return found


def needs(module: str) -> None:
    """Skip where a library is missing; it is asked for in a child, as importing it here would start threads."""
    if subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False).returncode:
        pytest.skip(f"no {module}")


def test_devices_are_counted_as_cuda_does(gpus: tuple[Gpu, ...]) -> None:
    """The positive control of all others: unconfined, CUDA works and sees as many."""
    found = in_child("print(json.dumps(cuda()))")
    assert found == {"results": [0] * 6, "count": len(gpus)}


def test_the_granted_device_works(gpus: tuple[Gpu, ...]) -> None:
    """CUDA is started, and memory is had, after the confinement."""
    policy = f"SandboxPolicy(gpu_ids=[{gpus[0].minor}])"
    found = in_child(f"report = confine({policy})\nprint(json.dumps([report.is_complete, cuda()]))")
    assert found[0] is True
    assert found[1]["results"] == [0] * 6


def test_started_before_it_goes_on(gpus: tuple[Gpu, ...]) -> None:
    """As at the seal: what ``load`` started keeps working."""
    policy = f"SandboxPolicy(gpu_ids=[{gpus[0].minor}])"
    found = in_child(f"cuda()\nconfine({policy})\nprint(json.dumps(cuda()))")
    assert found["results"] == [0] * 6


def test_nothing_granted_is_nothing_opened(gpus: tuple[Gpu, ...]) -> None:
    """No device file, and CUDA finds no device."""
    code = """
        def opened(path):
            try:
                os.close(os.open(path, os.O_RDWR))
                return "opened"
            except OSError as error:
                return error.errno
        PATHS = ["/dev/nvidiactl", "/dev/nvidia%d"]
        before = [opened(path) for path in PATHS]
        confine(SandboxPolicy())
        try:
            started = cuda()["results"][0] == 0
        except OSError:
            started = False  # the driver's library is not even readable
        print(json.dumps([before, [opened(path) for path in PATHS], started]))
    """
    assert in_child(code % gpus[0].minor) == [["opened", "opened"], [13, 13], False]


def test_memory_is_limited_as_data(gpus: tuple[Gpu, ...]) -> None:
    """CUDA reserves address space by the hundred gigabytes; what is allocated privately is bounded."""
    code = f"""
        confine(SandboxPolicy(gpu_ids=[{gpus[0].minor}], resources=ResourceLimits(memory_bytes=8 << 30)))
        limits = [resource.getrlimit(number)[0] for number in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
        print(json.dumps([limits, cuda()["results"]]))
    """
    limits, results = in_child(code)
    assert limits == [-1, 8 << 30]
    assert results == [0] * 6


SHOW = """
    from safe_triton.runtime import gpu
    gpu.is_triton_stub = lambda: True
    args = {{"model_instance_kind": "GPU", "model_instance_device_id": "{number}"}}
    {before}
    shown, gaps = gpu.show_own(args, renumbers={renumbers})
    print(json.dumps([shown["model_instance_device_id"], len(gaps), cuda()["count"], gpu.files_of(args)]))
"""


def variables(gpus: tuple[Gpu, ...]) -> dict[str, str]:
    """What the launcher tells a process that was granted these."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus), "SAFE_TRITON_GPUS": gpus_to_text(gpus)}


class TestShowOwn:
    def test_one_device_is_shown(self, gpus: tuple[Gpu, ...]) -> None:
        """Chosen by its identity, before CUDA starts."""
        code = SHOW.format(number=0, before="", renumbers=True)
        assert in_child(code, **variables(gpus)) == ["0", 0, 1, [gpus[0].minor]]

    def test_too_late_is_reported(self, gpus: tuple[Gpu, ...]) -> None:
        """CUDA was started while the model was imported: noticed without any library."""
        code = SHOW.format(number=0, before="cuda()", renumbers=True)
        assert in_child(code, **variables(gpus)) == ["0", 1, len(gpus), [gpus[0].minor]]

    @pytest.mark.parametrize("renumbers", [True, False])
    def test_the_second_device(self, gpus: tuple[Gpu, ...], renumbers: bool) -> None:
        """Alone it is number 0; where numbers may not change nothing is hidden."""
        if len(gpus) < 2:
            pytest.skip("one GPU here, two are needed")
        code = SHOW.format(number=1, before="", renumbers=renumbers)
        expected = ["0", 0, 1] if renumbers else ["1", 0, len(gpus)]
        assert in_child(code, **variables(gpus)) == [*expected, [gpus[1].minor]]


MEMORY = """
    from safe_triton.runtime.gpu import limit_memory
    import {module}
    report, gaps = limit_memory(1 << 30, 0)
    allocate = {allocate}
    def outcome(size):
        try:
            allocate(size)
            return "allocated"
        except Exception as error:
            return type(error).__name__
    print(json.dumps([report, len(gaps), outcome(256 << 20), outcome(2 << 30)]))
"""


@pytest.mark.parametrize(
    ("module", "allocate"),
    [
        ("torch", 'lambda size: torch.empty(size, dtype=torch.uint8, device="cuda")'),
        ("cupy", "lambda size: cupy.empty(size, dtype=cupy.uint8)"),
    ],
)
def test_memory_of_the_gpu_is_bounded(gpus: tuple[Gpu, ...], module: str, allocate: str) -> None:
    """Below the bound it is had, above it the library refuses; the device has more."""
    needs(module)
    found = in_child(MEMORY.format(module=module, allocate=allocate))
    assert found == [[f"gpu.memory.{module}"], 0, "allocated", "OutOfMemoryError"]


CONFINED = """
    import {module}
    confine(SandboxPolicy(gpu_ids=[{minor}], read={read!r}, write=[os.environ["TMPDIR"]]))
    {work}
    print(json.dumps("worked"))
"""


@pytest.mark.parametrize(
    ("module", "work"),
    [
        (
            "torch",
            "assert float((torch.ones(512, 512, device='cuda') @ torch.ones(512, 512, device='cuda')).sum()) == 512**3",
        ),
        ("torch", "torch.nn.Conv2d(3, 8, 3).cuda()(torch.ones(2, 3, 64, 64, device='cuda')).sum().item()"),
        ("cupy", "x = cupy.ones((512, 512)); assert float((x @ x).sum()) == 512**3"),
    ],
)
def test_libraries_work_under_confinement(gpus: tuple[Gpu, ...], module: str, work: str, tmp_path: Path) -> None:
    """Imported before and used after, as in a model that is sealed; with a scratch folder, where CuPy compiles."""
    needs(module)
    read = [path for path in sys.path if path and Path(path).is_dir()]
    code = CONFINED.format(module=module, minor=gpus[0].minor, read=read, work=work)
    assert in_child(code, TMPDIR=str(tmp_path), HOME=str(tmp_path)) == "worked"
