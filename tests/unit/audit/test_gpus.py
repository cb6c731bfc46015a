"""What the audit says where configurations and policy disagree about GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.audit import check_paths
from safe_triton.audit.rules.table import level_of
from safe_triton.policyfile import load_policy
from tests.unit.audit.cases import CONFIG, GROUP, MODEL

RULES = {"gpu-not-granted", "gpu-grant-ineffective", "gpu-memory-oversubscribed"}
GPU_0 = "[ { kind: KIND_GPU count: 1 gpus: [ 0 ] } ]"
TIGHTER = 'parameters { key: "safe_triton.sandbox.resources.gpu_memory_percent" value { string_value: "30" } }'


def audited(folder: Path, policy: str, **groups: str) -> list[tuple[str, str, str]]:
    """Rule, level and message for models with these instance groups."""
    for name, group in groups.items():
        (folder / "models" / name / "1").mkdir(parents=True)
        config = CONFIG.replace(GROUP, f"instance_group {group}").replace('name: "m"', f'name: "{name}"')
        (folder / "models" / name / "config.pbtxt").write_text(config)
        (folder / "models" / name / "1" / "model.py").write_text(MODEL)
    (folder / "safe-triton.toml").write_text(policy)
    report = check_paths([folder / "models"], policy=load_policy(folder / "safe-triton.toml"), jobs=1)
    return [(each.rule, level_of(each).word, each.message) for each in report.findings if each.rule in RULES]


@pytest.mark.parametrize(
    ("policy", "group", "expected"),
    [
        ("", GPU_0, ()),
        ("", "[ { kind: KIND_GPU } ]", ()),
        ("[defaults.sandbox]\ngpu_ids = [0]", GPU_0, ()),
        ("[defaults.sandbox]\ngpu_ids = []", GPU_0, (("gpu-not-granted", "error"),)),
        ("[defaults.sandbox]\ngpu_ids = [1]", GPU_0, (("gpu-not-granted", "error"),)),
        ("[defaults.sandbox]\ngpu_ids = [0]", "[ { kind: KIND_GPU } ]", (("gpu-not-granted", "warning"),)),
        ('[defaults.sandbox]\ngpu_ids = ["MIG-4f2a"]', "[ { kind: KIND_MODEL } ]", ()),
        ('[defaults.sandbox]\ngpu_ids = ["MIG-4f2a"]', "[ { kind: KIND_CPU } ]", (("gpu-grant-ineffective", "info"),)),
        ("", "[ { kind: KIND_GPU count: 2 gpus: [ 0 ] } ]", (("gpu-memory-oversubscribed", "warning"),)),
        ("[defaults.sandbox.resources]\ngpu_memory_percent = 50", "[ { kind: KIND_GPU count: 2 gpus: [ 0 ] } ]", ()),
        ("", f"{GPU_0}\n{TIGHTER}", ()),
    ],
)
def test_one_model(tmp_path: Path, policy: str, group: str, expected: tuple[tuple[str, str], ...]) -> None:
    """Each disagreement once, at its level."""
    assert tuple((rule, level) for rule, level, _ in audited(tmp_path, policy, m=group)) == expected


def test_two_models_on_one_gpu(tmp_path: Path) -> None:
    """The sum of both, at the one that takes more."""
    policy = "[defaults.sandbox.resources]\ngpu_memory_percent = 60\n"
    ((rule, _, message),) = audited(tmp_path, policy, a=GPU_0, b=f"{GPU_0}\n{TIGHTER.replace('30', '41')}")
    assert rule == "gpu-memory-oversubscribed"
    assert message == "GPU 0: its processes may take 101 percent of its memory: a 60 (1 × 60), b 41 (1 × 41)"


def test_two_models_on_two_gpus(tmp_path: Path) -> None:
    """Each has its own."""
    assert audited(tmp_path, "", a=GPU_0, b=GPU_0.replace("0 ]", "1 ]")) == []


def test_a_parameter_that_the_server_refuses(tmp_path: Path) -> None:
    """The policy alone counts, as far as the audit is concerned."""
    folder = tmp_path / "models/m"
    (folder / "1").mkdir(parents=True)
    (folder / "1/model.py").write_text(MODEL)
    (folder / "config.pbtxt").write_text(
        CONFIG.replace(GROUP, f"instance_group {GPU_0}") + TIGHTER.replace('"30"', '"many"')
    )
    policy = tmp_path / "safe-triton.toml"
    policy.write_text("schema = 1\n[models.m.sandbox]\ngpu_ids = [1]\n")
    report = check_paths([tmp_path / "models"], policy=load_policy(policy), jobs=1)
    assert "gpu-not-granted" in {each.rule for each in report.findings}
