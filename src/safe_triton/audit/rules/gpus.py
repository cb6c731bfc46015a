"""Rules on configurations and a policy that disagree about GPUs."""

from __future__ import annotations

from functools import partial

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule, numbered_rule
from safe_triton.audit.rules.parse import CONFIG, GUIDE, MODEL

_rule = partial(numbered_rule, 2, reference=GUIDE)

GPU_0 = CONFIG.replace("KIND_CPU count: 1", "KIND_GPU count: 1 gpus: [ 0 ]")
GPU_1 = GPU_0.replace("gpus: [ 0 ]", "gpus: [ 1 ]")


def _served(policy: str, **configs: str) -> Example:
    """A repository of some models, and the policy beside it."""
    files: dict[str, str | bytes] = {"safe-triton.toml": f"schema = 1\n{policy}"}
    for name, config in configs.items():
        files[f"models/{name}/config.pbtxt"] = config.replace('name: "m"', f'name: "{name}"')
        files[f"models/{name}/1/model.py"] = MODEL
    return Example(files=files)


RULES: tuple[Rule, ...] = (
    _rule(
        22,
        "gpu-not-granted",
        Level.ERROR,
        "Instances on a GPU that the policy's gpu_ids does not name.",
        "The server puts the model there and the kernel refuses the device: safe-triton serve does not start with it.",
        "[models.m.sandbox]\ngpu_ids = [1]",
        cwe="CWE-668",
        bad=_served("[models.m.sandbox]\ngpu_ids = [0]\n", m=GPU_1),
        good=_served("[models.m.sandbox]\ngpu_ids = [1]\n", m=GPU_1),
    ),
    _rule(
        23,
        "gpu-grant-ineffective",
        Level.INFO,
        "A policy that grants GPUs to a model whose instances are all on CPUs.",
        "Its processes get no device: a grant that was meant for them does nothing.",
        "instance_group [ { kind: KIND_GPU count: 1 gpus: [ 0 ] } ], or KIND_MODEL for a model that chooses itself.",
        bad=_served("[models.m.sandbox]\ngpu_ids = [0]\n", m=CONFIG),
        good=_served("[models.m.sandbox]\ngpu_ids = [0]\n", m=GPU_0),
    ),
    _rule(
        24,
        "gpu-memory-oversubscribed",
        Level.WARNING,
        "Processes on one GPU, or on one MIG slice, whose gpu_memory_percent sum to more than 100.",
        "Whoever loads first takes the memory of the others; they fail at load or under traffic.",
        "[defaults.sandbox.resources]\ngpu_memory_percent = 50",
        cwe="CWE-770",
        bad=_served("", a=GPU_0, b=GPU_0),
        good=_served("[defaults.sandbox.resources]\ngpu_memory_percent = 50\n", a=GPU_0, b=GPU_0),
    ),
)
