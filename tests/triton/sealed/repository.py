"""A repository of sealed models in a temporary folder, and one request to one of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonServer
from tests.triton.stubs import LogMark

BODY = Path(__file__).parent / "1" / "body.py"
CONFIG = """
backend: "python"
input [{ name: "NAME" data_type: TYPE_STRING dims: [1] }, { name: "SIZE" data_type: TYPE_INT64 dims: [1] }]
output [{ name: "TEXT" data_type: TYPE_STRING dims: [1] }, { name: "Y" data_type: TYPE_UINT8 dims: [-1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
HEAD = "import asyncio, os\nfrom body import *\n"


class Places:
    """Folders around a repository: readable, narrowed (granted for loading, not for serving) and scratch."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "models"
        self.readable, self.narrowed, self.scratch = (folder / name for name in ("readable", "narrowed", "scratch"))
        for path in (self.repository, self.readable, self.narrowed, self.scratch, folder / "readable-evil"):
            path.mkdir()
        for path in (self.readable, self.narrowed):
            (path / "data").write_text("data")
        (folder / "readable-evil" / "secret").write_text("secret")

    def add(self, name: str, code: str, config: str = CONFIG) -> Path:
        """Write a model whose ``model.py`` is ``code`` behind the shared imports."""
        version = self.repository / name / "1"
        version.mkdir(parents=True)
        shutil.copy(BODY, version / "body.py")
        (version / "model.py").write_text(HEAD + code)
        (version.parent / "config.pbtxt").write_text(config)
        for victim in ("one", "two"):
            (version / victim).write_text("x")
        places = {"readable": self.readable, "narrowed": self.narrowed, "scratch": self.scratch}
        (version / "places.json").write_text(json.dumps({key: str(path) for key, path in places.items()}))
        return version

    def operator(self, **options: Any) -> SandboxPolicy:
        """What the operator grants for loading."""
        return SandboxPolicy(read=(str(self.readable), str(self.narrowed)), write=(str(self.scratch),), **options)


def ask(server: TritonServer, model: str, name: str = "", size: int = 0) -> Any:
    """Send one request; the outcomes by name for a group, the text of one thing, or the bytes that came back."""
    inputs = [triton.InferInput("NAME", [1], "BYTES"), triton.InferInput("SIZE", [1], "INT64")]
    inputs[0].set_data_from_numpy(np.array([name.encode()], dtype=object))
    inputs[1].set_data_from_numpy(np.array([size], np.int64))
    with triton.InferenceServerClient(server.grpc_url) as client:
        result = client.infer(model, inputs, client_timeout=60)
    if size:
        return result.as_numpy("Y")
    text = result.as_numpy("TEXT")[0].decode()
    return json.loads(text) if text.startswith("{") else text


def lines(server: TritonServer, model: str, message: str) -> list[Mapping[str, Any]]:
    """The JSON lines of a server's log about one model with one message."""
    return [line for line in LogMark(server, start=0).lines(model=model) if message in line["message"]]
