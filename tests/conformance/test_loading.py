"""A wrong declaration is one clear line at load, without paths: in the fake, and as the load API's client sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safe_triton.errors import ModelLoadError
from safe_triton.testing import load_model

HEAD = """
import sys, time
import numpy as np
import safe_triton
from safe_triton import *
"""
CLASS = "class TritonPythonModel(SafeTritonPythonModel):\n    "
INFER = "def infer(self, inputs): return {'Y': inputs['X']}\n"
CONFIG = """
backend: "python"
max_batch_size: {batch}
input [ {{ name: "X" data_type: TYPE_{dtype} dims: [ {dim} ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{extra}
"""
DECOUPLED = "model_transaction_policy { decoupled: true }"
FAILED = r"load\.failed: load\(\) raised \(id [0-9a-f]{16}\); the server's log has the details"


@dataclass(frozen=True)
class Case:
    """One model that must not load, or must (an empty pattern)."""

    name: str
    code: str
    pattern: str
    batch: int = 8
    dtype: str = "FP32"
    dim: int = -1
    extra: str = ""

    def write(self, repository: Path) -> Path:
        folder = repository / self.name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "table.npy").write_bytes(b"")
        (folder / "1" / "model.py").write_text(HEAD + self.code, encoding="utf-8")
        text = CONFIG.format(batch=self.batch, dtype=self.dtype, dim=self.dim, extra=self.extra)
        (folder / "config.pbtxt").write_text(text, encoding="utf-8")
        return folder


def limits(declaration: str) -> str:
    return CLASS + f"limits = Limits({declaration})\n    " + INFER


CASES = (
    Case("good", CLASS + INFER, ""),
    Case("good_conditions", CLASS + "conditions = LoadConditions(instance_kinds=('CPU',), gpu_ids=(5,))\n    " + INFER, ""),
    Case("negative", limits("max_batch_size=-1"), r"policy\.range: Limits\.max_batch_size must be at least 1, not -1"),
    Case("misspelt", limits("max_bach_size=1"), r"policy\.unknown_field: .* did you mean 'max_batch_size'\?"),
    Case("none", limits("deadline_ms=None"), r"policy\.type: Limits\.deadline_ms is None: .*"),
    Case("nested", limits("inputs={'X': InputLimits(finite=3)}"), r"policy\.type: InputLimits\.finite must be True or False, not 3"),
    Case("unknown_input", limits("inputs={'Q': InputLimits()}"), r"policy\.unknown_tensor: Limits\.inputs names 'Q'; .* has X"),
    Case("conflict", limits("max_batch_size=9"), r"policy\.conflict: max_batch_size 9 is above config\.pbtxt's max_batch_size 8"),
    Case("no_reason", limits("max_inputs=unsafe.Unlimited(reason='')"), r"policy\.token: unsafe\.Unlimited needs a reason"),
    Case("no_limits", CLASS + "limits = {'max_batch_size': 3}\n    " + INFER, r"policy\.type: limits must be a Limits .*"),
    Case("two_forms", CLASS + INFER + "    def infer_batch(self, inputs): return {}\n",
         r"policy\.form: override exactly one of infer, infer_batch, stream; this class overrides infer and infer_batch"),
    Case("no_form", CLASS + "pass\n", r"policy\.form: .* overrides none of them"),
    Case("final", CLASS + INFER + "    def execute(self, requests): return []\n", r"policy\.final: execute must not be overridden; .*"),
    Case("own_initialize", CLASS + INFER + "    def initialize(self, args): pass\n", r"policy\.final: initialize .*"),
    Case("not_decoupled", CLASS + "def stream(self, inputs): yield\n", r"policy\.form: stream is overridden and .* not decoupled; .*"),
    Case("decoupled", CLASS + INFER, r"policy\.form: infer is overridden and config\.pbtxt is decoupled; .*", extra=DECOUPLED),
    Case("generator", CLASS + "def infer(self, inputs): yield {}\n", r"policy\.form: infer must return its outputs, not yield them; .*"),
    Case("async_batch", CLASS + "async def infer_batch(self, inputs): return {}\n", r"policy\.form: infer_batch must not be async; .*"),
    Case("unbatched", CLASS + "def infer_batch(self, inputs): return {}\n", r"policy\.form: infer_batch needs a batch axis: .*", batch=0),
    Case("bf16", CLASS + INFER, r"config\.dtype: input 'X' is BF16, which numpy cannot hold", dtype="BF16"),
    Case("fixed", limits("max_sequence_length=7"), r"policy\.conflict: max_sequence_length 7 is below the 9 .*", dim=9),
    Case("root", CLASS + "conditions = LoadConditions(model_root='/models')\n    " + INFER,
         r"condition\.model_root: the model's folder is not beneath the declared model_root"),
    Case("environment", CLASS + "conditions = LoadConditions(environment={'PLATFORM_SANDBOX': 'true'})\n    " + INFER,
         r"condition\.environment: the environment variable PLATFORM_SANDBOX has not the declared value"),
    Case("kind", CLASS + "conditions = LoadConditions(instance_kinds=('GPU',))\n    " + INFER,
         r"condition\.instance_kind: instance kind CPU, declared GPU"),
    Case("load_raises", CLASS + INFER + "    def load(self, context): raise ValueError('password in /srv')\n", FAILED),
    Case("load_exits", CLASS + INFER + "    def load(self, context): sys.exit(3)\n", FAILED),
    Case("load_says", CLASS + INFER + "    def load(self, context): raise ModelError('weights missing in /srv/w')\n",
         r"model\.error: weights missing in <path>"),
    Case("load_file", CLASS + INFER + "    def load(self, context): context.files.open('weights.npy')\n",
         r"path\.missing: no such file: 'weights\.npy'"),
    Case("load_outside", CLASS + INFER + "    def load(self, context): context.files.open('../config.pbtxt')\n", r"path\.parent: .*"),
    Case("load_own_files", CLASS + INFER + "    def load(self, context):\n        context.files.open('table.npy').close()\n"
         "        context.model_files.open('config.pbtxt').close()\n", ""),
    Case("load_hangs", CLASS + "limits = Limits(load_deadline_ms=300)\n    " + INFER + "    def load(self, context): time.sleep(30)\n",
         r"load\.deadline: load\(\) did not return within 300 ms"),
    Case("protect_async", "class M:\n    async def execute(self, requests): pass\nTritonPythonModel = protect(M)\n", ""),
    Case("protect_what", "TritonPythonModel = protect(3)\n", r"policy\.type: protect needs the model's class"),
    Case("protect_none", "class M: pass\nTritonPythonModel = protect(M)\n", r"policy\.form: M has no execute"),
    Case("protect_outputs", "class M:\n    def execute(self, requests): pass\nTritonPythonModel = protect(M, outputs='maybe')\n",
         r'policy\.type: outputs must be "warn" or "refuse"'),
    Case("protect_limits", "class M:\n    def execute(self, requests): pass\nTritonPythonModel = protect(M, limits=Limits(max_inputs=0))\n",
         r"policy\.range: Limits\.max_inputs must be at least 1, not 0"),
    Case("protect_raises", "class M:\n    def initialize(self, args): raise ValueError('password')\n    def execute(self, requests): pass\n"
         "TritonPythonModel = protect(M)\n", FAILED),
)  # fmt: skip

Load = Callable[[Case], str]


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.triton)])
def load(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """Load a case and return the error's text; empty when it loads."""
    repository = tmp_path_factory.mktemp("models")
    folders = {case.name: case.write(repository) for case in CASES}

    def load_fake(case: Case) -> str:
        folder = folders[case.name]
        in_stub = pytest.MonkeyPatch()
        # The fake is no stub process; the declarations must behave as they do there.
        in_stub.setattr("safe_triton._declared.is_triton_stub", lambda: True)
        try:
            with load_model(folder / "1" / "model.py", folder / "config.pbtxt"):
                return ""
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            in_stub.undo()

    if request.param == "fake":
        yield load_fake
        return
    server = request.getfixturevalue("triton_server")(repository, model_control="explicit", load=())

    def load_real(case: Case) -> str:
        try:
            server.load_model(case.name)
        except ModelLoadError as error:
            return str(error.message)
        return ""

    yield load_real


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loads_or_says_why(load: Load, case: Case, request: Any) -> None:
    """The reader learns which declaration to change, and nothing about the host."""
    text = load(case)
    if not case.pattern:
        assert text == ""
        return
    assert re.search(rf"\w+Error: {case.pattern}(\n|$)", text), text
    assert not re.search(r"/srv|/tmp|/usr|/home|model\.py|site-packages|password|Traceback", text)
    frames = text.partition("At:")[2].split()
    assert set(frames) <= {frame for frame in frames if frame.startswith("safe_triton(")} | {"initialize", ";"}
