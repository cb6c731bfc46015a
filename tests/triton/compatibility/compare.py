"""The same requests to a folder of models, bare, in ``protect``, and under ``protect=True`` of a server.

``python -m tests.triton.compatibility.compare FOLDER`` prints a table. A model's folder may hold ``requests.json``: a
list of requests, each ``{"inputs": {name: values}, "parameters": {…}, "sequence": id, "start": …, "end": …,
"wait_s": …}``. Without one, two requests are made from its configuration.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient import grpc
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonServer

WAIT_S = 5.0
"""How long a request may take before it is said to hang."""

FAILED = re.compile(r"model failed \(id [0-9a-f]{16}\)")

RAISED = re.compile(
    r"Failed to process the request\(s\)(?:.*message: TritonModelException: (.*?)(?:\n\nAt:.*)?$)?", re.DOTALL
)
"""What Triton makes of an exception; a ``TritonModelException`` was meant for the client, the frames were not."""

WRAPPER = """from safe_triton import protect

from .{original} import *
from .{original} import TritonPythonModel as Original

TritonPythonModel = protect(Original)
"""


@dataclass
class Answers:
    """What one model answered, and why it could not be asked."""

    problem: str = ""
    replies: list[list[Any]] = field(default_factory=list)


def is_same(bare: Any, other: Any) -> bool:
    """Tell whether two replies are the same for a client: an exception's text may be cleaned of its frames."""
    if isinstance(bare, str) and isinstance(other, str):
        raised = RAISED.search(bare)
        return bare == other or (raised is not None and (raised[1] == other or bool(FAILED.fullmatch(other))))
    return bool(bare == other)


def verdict(bare: Answers, other: Answers) -> str:
    """Return ``same``, or in words what differs."""
    if bare.problem or other.problem:
        return "same" if bool(bare.problem) == bool(other.problem) else f"load: {bare.problem or other.problem}"
    for number, (one, two) in enumerate(zip(bare.replies, other.replies, strict=True)):
        if "hangs" in one and "hangs" not in two:
            return f"request {number} hangs bare, is answered here"
        if len(one) != len(two) or not all(map(is_same, one, two)):
            return f"request {number}: {str(one)[:160]} / {str(two)[:160]}"
    return "same"


def protected_copy(repository: Path, folder: Path) -> Path:
    """Return a copy of a repository in which every Python model's entry file wraps the original."""
    shutil.copytree(repository, folder, symlinks=True)
    for entry in folder.glob("*/[0-9]*/*.py"):
        config = (entry.parents[1] / "config.pbtxt").read_text()
        named = re.search(r'default_model_filename:\s*"([^"]+)"', config)
        if entry.name == (named.group(1) if named else "model.py"):
            original = f"original_{entry.stem}"
            entry.rename(entry.with_name(f"{original}.py"))
            entry.write_text(WRAPPER.format(original=original))
    return folder


class Client:
    """Sends requests over one gRPC stream and collects what comes back."""

    def __init__(self, url: str) -> None:
        self.rpc = grpc.InferenceServerClient(url)
        self.replies: queue.Queue[Any] = queue.Queue()
        self.rpc.start_stream(lambda result, error: self.replies.put((result, error)))

    def close(self) -> None:
        """End the stream."""
        self.rpc.stop_stream(cancel_requests=True)
        self.rpc.close()

    def ask(self, model: str, request: Mapping[str, Any], config: Mapping[str, Any], number: int) -> list[Any]:
        """Return the responses to one request, each as arrays in plain form or as an error's text."""
        inputs = [tensor(name, values, config) for name, values in request["inputs"].items()]
        tag = f"{model}-{number}"
        options: dict[str, Any] = {}
        if "sequence" in request:
            options = {
                "sequence_id": request["sequence"],
                "sequence_start": request.get("start", False),
                "sequence_end": request.get("end", False),
            }
        self.rpc.async_stream_infer(
            model,
            inputs,
            request_id=tag,
            enable_empty_final_response=True,
            parameters=request.get("parameters"),
            **options,
        )
        seen: list[Any] = []
        while True:
            try:
                result, error = self.replies.get(timeout=request.get("wait_s", WAIT_S))
            except queue.Empty:
                return [*seen, "hangs"]
            if error is not None:
                seen.append(re.sub(r"in request id [^ ]+|'[^']*_\d+_\d+'|\[[^]]*\] ", "", error.message()))
                return seen
            response = result.get_response()
            if response.id != tag:
                continue
            if response.outputs:
                raw = response.raw_output_contents
                seen.append(
                    {
                        each.name: (
                            each.datatype,
                            tuple(each.shape),
                            data if each.datatype == "BF16" else read(result, each),
                        )
                        for each, data in zip(response.outputs, raw, strict=True)
                    }
                )
            if response.parameters["triton_final_response"].bool_param:
                return seen


def read(result: Any, output: Any) -> str:
    """Return an output's values as a text that can be compared."""
    return repr(result.as_numpy(output.name).tolist())


def tensor(name: str, values: Any, config: Mapping[str, Any]) -> Any:
    """Return an input of the client's from plain values."""
    datatype = next(each for each in config["input"] if each["name"] == name)["data_type"].removeprefix("TYPE_")
    datatype = {"STRING": "BYTES"}.get(datatype, datatype)
    if datatype == "BF16":  # the upper half of FP32; the client itself needs another package for it
        array = np.array(values, np.float32)
        made = grpc.InferInput(name, list(array.shape), datatype)
        made._raw_content = (array.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        return made
    array = np.array(values, dtype=triton_to_np_dtype(datatype))
    made = grpc.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def requests_of(folder: Path, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the requests of one model: its own, or two made from its configuration."""
    file = folder / "requests.json"
    if file.exists():
        loaded: list[dict[str, Any]] = json.loads(file.read_text())
        return loaded
    batch = [1] if config.get("max_batch_size", 0) else []
    return [{"inputs": {each["name"]: example(each, batch, n) for each in config["input"]}} for n in range(2)]


def example(spec: Mapping[str, Any], batch: list[int], number: int) -> Any:
    """Return values that fit one input."""
    shape = batch + [max(int(size), 1) if int(size) > 0 else 4 for size in spec["dims"]]
    values = (np.arange(np.prod(shape)) % 7 + number + 1).reshape(shape)
    if spec["data_type"] == "TYPE_STRING":
        return values.astype(str).astype(object).tolist()
    return (values % 2 == 0).tolist() if spec["data_type"] == "TYPE_BOOL" else values.tolist()


@contextlib.contextmanager
def servers(repository: Path) -> Iterator[Iterator[tuple[str, TritonServer]]]:
    """Give the three servers, one running at a time."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = protected_copy(repository, Path(temporary) / "models")
        ways: dict[str, Any] = {
            "bare": lambda: TritonServer(repository, allow_failed_models=True),
            "protect": lambda: TritonServer(copy, allow_failed_models=True),
            "serve --protect": lambda: TritonServer(
                repository, allow_failed_models=True, view=True, confinement=SandboxPolicy(), protect=True
            ),
        }

        def each() -> Iterator[tuple[str, TritonServer]]:
            for name, make in ways.items():
                with make() as server:
                    yield name, server

        yield each()


def run(repository: Path) -> dict[str, dict[str, Answers]]:
    """Return what each model answered in each way."""
    found: dict[str, dict[str, Answers]] = {}
    with servers(repository) as each:
        for way, server in each:
            for folder in sorted(path for path in repository.iterdir() if path.is_dir()):
                client = Client(server.grpc_url)
                try:
                    found.setdefault(folder.name, {})[way] = ask(client, folder)
                finally:
                    client.close()
    return found


def ask(client: Client, folder: Path) -> Answers:
    """Send one model its requests."""
    try:
        if not client.rpc.is_model_ready(folder.name):
            return Answers(problem="does not load")
        config = client.rpc.get_model_config(folder.name, as_json=True)["config"]
        requests = requests_of(folder, config)
        return Answers(replies=[client.ask(folder.name, each, config, n) for n, each in enumerate(requests)])
    except InferenceServerException as error:
        return Answers(problem=str(error)[:300])


def main(folder: str) -> int:
    """Print the table; 1 where a model differs."""
    different = 0
    for model, ways in run(Path(folder)).items():
        bare = ways["bare"]
        words = [verdict(bare, ways[way]) for way in ("protect", "serve --protect")]
        different += any(word != "same" and "hangs bare" not in word for word in words)
        shown = bare.problem or f"{sum(map(len, bare.replies))} replies to {len(bare.replies)}"
        sys.stdout.write(f"{model:32} | {shown:28} | {words[0]:6} | {words[1]}\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
