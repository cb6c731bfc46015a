"""PyTorch and ONNX Runtime do what models do with them: confined by the kernel, and after the seal under the guard."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_triton import SafeTritonPythonModel
from safe_triton.confinement import landlock
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.testing import load_model

CONFIG = {
    "backend": "python",
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [4]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [1]}],
}

# A float model Y = sum(X) with one axis of four, as ONNX's protobuf: ReduceSum without kept axes, opset 11, IR 6.
ONNX = bytes.fromhex(
    "08064202100b3a450a220a0158120159220952656475636553756d2a0f0a086b65657064696d731800a001021201675a0f0a0158120a0a08080112"
    "040a020804620b0a015912060a0408011200"
)

LOAD = {
    "torch": """
import torch
network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).eval()
""",
    "onnxruntime": """
import onnxruntime
session = onnxruntime.InferenceSession(ONNX, providers=["CPUExecutionProvider"])
""",
}
"""What a model does while it loads."""

SERVE = {
    "torch": {
        "inference": "with torch.inference_mode(): y = network(torch.ones(2, 4)).sum().item() < 1e9",
        "gradient": "y = torch.ones(3, requires_grad=True).pow(2).sum().backward() is None",
        "numpy": "y = torch.from_numpy(np.ones((2, 4), np.float32)).numpy().sum() == 8",
        "threads": "torch.set_num_threads(2); y = float((torch.ones(400, 400) @ torch.ones(400, 400)).sum()) == 400**3",
        "convolution": "y = torch.nn.functional.conv2d(torch.ones(1, 1, 9, 9), torch.ones(1, 1, 3, 3)).sum() == 441",
        "linear algebra": "y = torch.linalg.svdvals(torch.eye(20)).sum().item() > 19",
        "random": "y = torch.Generator().manual_seed(1).initial_seed() == 1 and torch.rand(3).shape == (3,)",
        "quantised": "y = torch.ones(4, dtype=torch.float16).to(torch.bfloat16).sum() == 4",
        "fft": "y = abs(torch.fft.fft(torch.ones(8))[0]).item() == 8",
    },
    "onnxruntime": {
        "inference": 'y = session.run(None, {"X": np.ones(4, np.float32)})[0] == 4',
        "another session": """
y = onnxruntime.InferenceSession(ONNX, providers=["CPUExecutionProvider"]).get_inputs()[0].name == "X"
""",
        "threads": """
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 2
options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
parallel = onnxruntime.InferenceSession(ONNX, options, providers=["CPUExecutionProvider"])
y = parallel.run(None, {"X": np.ones(4, np.float32)})[0] == 4
""",
        "binding": """
binding = session.io_binding()
binding.bind_cpu_input("X", np.ones(4, np.float32))
binding.bind_output("Y")
session.run_with_iobinding(binding)
y = binding.copy_outputs_to_cpu()[0] == 4
""",
    },
}
"""What it does with every request; ``y`` has to be true."""

CASES = [(library, case) for library, cases in SERVE.items() for case in cases]

CHILD = """
import json, sys
import numpy as np
from safe_triton.confinement import confine
from safe_triton.policy.sandbox import SandboxPolicy
ONNX = bytes.fromhex(sys.argv[3])
early, late = json.loads(sys.argv[1]), json.loads(sys.argv[2])
scope = {"np": np, "ONNX": ONNX}
exec(early, scope)
report = confine(SandboxPolicy())
exec(late, scope)
print(json.dumps([report.is_complete, bool(scope["y"])]))
"""


def needs(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"no {library}")


@pytest.mark.skipif(not landlock.probe()[0], reason=landlock.probe()[1] or "Landlock is here")
class TestConfined:
    @pytest.mark.parametrize("moment", ["loaded before", "loaded after"])
    @pytest.mark.parametrize(("library", "case"), CASES)
    def test_works(self, library: str, case: str, moment: str) -> None:
        """As when the launcher confines the process, and as when the seal does it later."""
        needs(library)
        both = [LOAD[library], SERVE[library][case]]
        early, late = ("", "\n".join(both)) if moment == "loaded after" else both
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(early), json.dumps(late), ONNX.hex()],
            # What the server command sets for a model that may not start programs.
            env={**os.environ, "PATH": os.path.dirname(sys.executable), "ORT_DISABLE_TELEMETRY": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout.splitlines()[-1]) == [True, True]


class TestGuarded:
    @pytest.mark.parametrize(("library", "case"), CASES)
    def test_works(self, library: str, case: str, tmp_path: Path) -> None:
        """Nothing that it does is a violation."""
        needs(library)

        class Guarded(SafeTritonPythonModel):
            sandbox = SandboxPolicy()

            def load(self, context: Any) -> None:
                self.scope: dict[str, Any] = {"np": np, "ONNX": ONNX}
                exec(LOAD[library], self.scope)

            def infer(self, inputs: dict[str, Any]) -> Any:
                exec(textwrap.dedent(SERVE[library][case]), self.scope)
                return {"Y": np.full(1, bool(self.scope["y"]), np.float32)}

        with load_model(Guarded, CONFIG) as fake:
            outcome = fake.infer({"X": np.ones(4, np.float32)})
            violations = dict(fake.model._instance.stats.violations)
        assert (outcome.error, violations) == (None, {})
        assert outcome.outputs["Y"] == 1
