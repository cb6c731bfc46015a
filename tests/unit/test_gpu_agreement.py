"""Audit, launch and rendered deployment give the same answer to which GPUs a model may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.audit import check_paths
from safe_triton.audit.rules.table import level_of
from safe_triton.config.pbtxt import read_pbtxt
from safe_triton.confinement.devices import Gpu
from safe_triton.deploy.deployment import DeployedModel, Deployment
from safe_triton.errors import PolicyError
from safe_triton.policyfile import load_policy
from safe_triton.server.granted import Host, granted
from safe_triton.server.scratch import ScratchFolders

CONFIG = """backend: "python"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] } ]
version_policy { specific { versions: [ 1 ] } }
"""
DEVICES = tuple(Gpu(number, number + 4, f"GPU-{number}") for number in range(3))
SLICE = Gpu(0, 4, "MIG-4f2a", (12, 13))

CASES = (
    # gpu_ids of the policy; instance group; device files; GPUs of a pod; None: refused everywhere
    ("", "kind: KIND_CPU", (), 0),
    ("", "kind: KIND_GPU gpus: [ 1 ]", (5,), 2),
    ("[0, 1]", "kind: KIND_GPU gpus: [ 1 ]", (4, 5), 2),
    ("[2]", "kind: KIND_MODEL", (6,), 3),
    ("[0]", "kind: KIND_CPU", (), 0),
    ("[0]", "kind: KIND_GPU gpus: [ 1 ]", None, 0),
    ("[]", "kind: KIND_GPU gpus: [ 0 ]", None, 0),
    ("[]", "kind: KIND_AUTO", (), 0),
)


def deployed(folder: Path, gpu_ids: str, group: str) -> tuple[Path, str]:
    """A repository with one model and its policy; the errors of the audit."""
    model = folder / "models" / "m"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(f"{CONFIG}instance_group [ {{ {group} }} ]\n")
    (model / "1" / "model.py").write_text("class TritonPythonModel: ...\n")
    file = folder / "safe-triton.toml"
    file.write_text(f"[models.m.sandbox]\ngpu_ids = {gpu_ids}\n" if gpu_ids else "")
    report = check_paths([folder / "models"], policy=load_policy(file), jobs=1, select=["gpu-not-granted"])
    return file, " ".join(level_of(finding).word for finding in report.findings)


@pytest.mark.parametrize(("gpu_ids", "group", "files", "count"), CASES)
def test_one_answer(tmp_path: Path, gpu_ids: str, group: str, files: tuple[int, ...] | None, count: int) -> None:
    """What the audit calls an error is what the launch refuses; the pod has as many GPUs as the highest number."""
    file, found = deployed(tmp_path, gpu_ids, group)
    folder = tmp_path / "models" / "m"
    policy, config = load_policy(file), read_pbtxt(folder / "config.pbtxt")
    host = Host(python=Path("/venv"), scratch=ScratchFolders(tmp_path / "scratch"), gpus=DEVICES)
    if files is None:
        assert found == "error"
        with pytest.raises(PolicyError, match=r"policy\.gpu"):
            granted(policy.model("m").sandbox, config, folder, host)
        return
    assert found == ""
    resolved, variables = granted(policy.model("m").sandbox, config, folder, host)
    assert resolved.gpu_ids == files
    assert variables["CUDA_VISIBLE_DEVICES"] == ",".join(gpu.uuid for gpu in DEVICES if gpu.minor in files)
    model = DeployedModel(name="m", config=config, policy=policy.model("m"))
    assert Deployment(policy=policy, models=(model,)).gpu_count == count


def test_a_slice(tmp_path: Path) -> None:
    """Its device files, its identity for CUDA, and a container that is given that one."""
    file, found = deployed(tmp_path, '["MIG-4f2a"]', "kind: KIND_GPU gpus: [ 0 ]")
    assert found == ""
    folder = tmp_path / "models" / "m"
    policy, config = load_policy(file), read_pbtxt(folder / "config.pbtxt")
    host = Host(python=Path("/venv"), scratch=ScratchFolders(tmp_path / "scratch"), gpus=(SLICE,))
    resolved, variables = granted(policy.model("m").sandbox, config, folder, host)
    assert resolved.gpu_ids == (4, "nvidia-cap12", "nvidia-cap13")
    assert variables["CUDA_VISIBLE_DEVICES"] == "MIG-4f2a"
    model = DeployedModel(name="m", config=config, policy=policy.model("m"))
    deployment = Deployment(policy=policy, models=(model,))
    assert (deployment.gpu_count, deployment.gpu_devices) == (1, ("MIG-4f2a",))
