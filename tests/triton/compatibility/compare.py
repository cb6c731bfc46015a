"""The same requests to a folder of models, bare, in ``protect``, and under ``protect=True`` of a server.

``python -m tests.triton.compatibility.compare FOLDER`` prints a table. A model's folder may hold ``requests.json``, a
list of requests: ``{"inputs": {name: values}, "outputs": [name, …], "parameters": {…}, "sequence": id, "start": …, "end": …}``.
Without it two requests are made from the model's configuration. A request may say more:

- ``"unary": true`` sends it outside the stream, which shows an error's code; ``"cancel_after_s"`` cancels it then;
- ``"wait_s"`` is how long an answer is waited for, and ``"bare_wait_s"`` the same for a bare server;
- ``"ends_bare": true`` makes a bare server crash, so that it is not sent to it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import queue
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient import grpc
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonServer

WAIT_S = 30.0
"""How long a request may take before it is said to hang; those that do hang have a shorter time of their own."""

ENDS = "ends the server"

FAILED = re.compile(r"model failed \(id [0-9a-f]{16}\)")

RAISED = re.compile(
    r"Failed to process the request\(s\)(?:.*message: TritonModelException: (.*?)(?:\n\nAt:.*)?$)?", re.DOTALL
)
"""What Triton makes of an exception; a ``TritonModelException`` was meant for the client, the frames were not."""

ASKED_AT_ONCE = 8
"""Models that are sent their requests at the same time: most of it is waiting."""

WRAPPER = """from safe_triton import protect

try:
    from .{original} import *
    from .{original} import TritonPythonModel as Original
except ImportError:  # imported again as ``model``, without a package, by a test runner inside the model
    from {original} import *
    from {original} import TritonPythonModel as Original

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
        for ends in ("hangs", ENDS):
            if ends in one and ends not in two:
                return f"request {number} {ends} bare, is answered here"
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

    def ask(
        self, model: str, request: Mapping[str, Any], config: Mapping[str, Any], number: int, wait_s: float
    ) -> list[Any]:
        """Return the responses to one request, each as arrays in plain form or as an error's text."""
        inputs = [tensor(name, values, config) for name, values in request["inputs"].items()]
        outputs = [grpc.InferRequestedOutput(name) for name in request.get("outputs", ())] or None
        tag = f"{model}-{number}"
        if request.get("unary"):
            return self.ask_unary(model, inputs, request.get("cancel_after_s"))
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
            outputs=outputs,
            request_id=tag,
            enable_empty_final_response=True,
            parameters=request.get("parameters"),
            **options,
        )
        seen: list[Any] = []
        while True:
            try:
                result, error = self.replies.get(timeout=wait_s)
            except queue.Empty:
                return [*seen, "hangs"]
            if error is not None:
                seen.append(
                    re.sub(r"in request id [^ ]+|in ensemble '[^']*', |'[^']*_\d+_\d+'|\[[^]]*\] ", "", error.message())
                )
                return seen
            response = result.get_response()
            if response.id != tag:
                continue
            if response.outputs:
                seen.append(contents(result))
            if response.parameters["triton_final_response"].bool_param:
                return seen

    def ask_unary(self, model: str, inputs: list[Any], cancel_after_s: float | None) -> list[Any]:
        """Return the only response to a request, or an error's code and text."""
        done: queue.Queue[Any] = queue.Queue()
        call = self.rpc.async_infer(model, inputs, callback=lambda result, error: done.put((result, error)))
        if cancel_after_s is not None:
            time.sleep(cancel_after_s)
            call.cancel()
        try:
            result, error = done.get(timeout=WAIT_S)
        except queue.Empty:
            return ["hangs"]
        return [contents(result)] if error is None else [str(error.status()), error.message()]


def contents(result: Any) -> dict[str, Any]:
    """Return a response's tensors and parameters in a form that can be compared."""
    response = result.get_response()
    found: dict[str, Any] = {
        each.name: (each.datatype, tuple(each.shape), data if each.datatype == "BF16" else read(result, each))
        for each, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    own = {
        name: str(value) for name, value in response.parameters.items() if not name.startswith(("triton_", "sequence_"))
    }
    return {**found, "parameters": own} if own else found


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


def plain_server(repository: Path, completing: Collection[str]) -> TritonServer:
    """Return a server as Triton is without any of the package's protection, but for the place of its files."""
    server = TritonServer(repository, allow_failed_models=True)
    server._auto_complete = tuple(completing)  # Triton's own default, which the package only allows by name in a view
    return server


@contextlib.contextmanager
def servers(repository: Path, completing: Collection[str]) -> Iterator[Iterator[tuple[str, TritonServer]]]:
    """Give the three servers, one after the other."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = protected_copy(repository, Path(temporary) / "models")
        ways: dict[str, Any] = {
            "bare": lambda: plain_server(repository, completing),
            "protect": lambda: plain_server(copy, completing),
            "serve --protect": lambda: TritonServer(
                repository,
                allow_failed_models=True,
                view=True,
                confinement=SandboxPolicy(),
                protect=True,
                auto_complete=completing,
            ),
        }

        def each() -> Iterator[tuple[str, TritonServer]]:
            with ThreadPoolExecutor(
                1
            ) as stopping:  # a stop is 3 s of Triton's waiting: the next server starts meanwhile
                for name, make in ways.items():
                    server = make().start()
                    try:
                        yield name, server
                    finally:
                        stopping.submit(server.stop)

        yield each()


def run(repository: Path, completing: Collection[str] = ()) -> dict[str, dict[str, Answers]]:
    """Return what each model answered in each way; some may complete their own configuration.

    Raises:
        RuntimeError: a server ended by requests of which none may end it, with its status and its log's end.
    """
    found: dict[str, dict[str, Answers]] = {}
    with servers(repository, completing) as each:
        for way, server in each:
            folders = sorted(path for path in repository.iterdir() if path.is_dir())
            with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
                answers = pool.map(functools.partial(ask_all, server.grpc_url, bare=way == "bare"), folders)
                for folder, answer in zip(folders, answers, strict=True):
                    found.setdefault(folder.name, {})[way] = answer
            if not server.is_alive():
                raise RuntimeError(f"{way}: tritonserver ended, {server.exit_status()}\n{server.log_text()[-4000:]}")
    return found


def ask_all(url: str, folder: Path, *, bare: bool) -> Answers:
    """Send one model its requests over a client of its own."""
    with contextlib.closing(Client(url)) as client:
        return ask(client, folder, bare)


def ask(client: Client, folder: Path, bare: bool) -> Answers:
    """Send one model its requests, but for those that a bare server does not survive."""
    try:
        if not client.rpc.is_model_ready(folder.name):
            return Answers(problem="does not load")
        config = client.rpc.get_model_config(folder.name, as_json=True)["config"]
        requests = requests_of(folder, config)
        answers = Answers()
        for number, each in enumerate(requests):
            wait_s = each.get("wait_s", each.get("bare_wait_s", WAIT_S) if bare else WAIT_S)
            ends = bare and each.get("ends_bare")
            answers.replies.append([ENDS] if ends else client.ask(folder.name, each, config, number, wait_s))
        return answers
    except InferenceServerException as error:
        return Answers(problem=str(error)[:300])


def main(folder: str) -> int:
    """Print the table; 1 where a model differs."""
    different = 0
    for model, ways in run(Path(folder)).items():
        bare = ways["bare"]
        words = [verdict(bare, ways[way]) for way in ("protect", "serve --protect")]
        different += any(word != "same" and " bare, is answered here" not in word for word in words)
        shown = bare.problem or f"{sum(map(len, bare.replies))} replies to {len(bare.replies)}"
        sys.stdout.write(f"{model:32} | {shown:28} | {words[0]:6} | {words[1]}\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
