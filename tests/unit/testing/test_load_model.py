"""load_model: what a model is handed and what is left behind."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_triton.config.pbtxt import model_config_class
from safe_triton.errors import ConfigError, EnvironmentMissingError
from safe_triton.testing import load_model

NAME = "triton_python_backend_utils"
CONFIG: dict[str, Any] = {
    "name": "double",
    "max_batch_size": 4,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [2]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [2]}],
}
X = np.ones((1, 2), np.float32)

MODEL = """
import sys
import triton_python_backend_utils as pb_utils
import beside

AT_IMPORT = [hasattr(pb_utils, name) for name in ("Tensor", "TritonError", "get_input_tensor_by_name", "ModelConfig")]

class TritonPythonModel:
    def initialize(self, args):
        self.args = args
        self.at_import = AT_IMPORT
        self.name = __name__
        self.beside = beside.VALUE

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x * 2)]))
        return answers
"""
PBTXT = """
backend: "python"
max_batch_size: 4
input [ { name: "X" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { kind: KIND_CPU } ]
"""


class Bare:
    """A model without initialize and finalize."""

    def execute(self, requests: list[Any]) -> list[Any]:
        import triton_python_backend_utils as pb_utils

        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("Y", each.inputs()[0].as_numpy() * 2)]) for each in requests
        ]


class Hooked(Bare):
    """A model that notes what is called."""

    calls: list[str]

    def __init__(self) -> None:
        type(self).calls = ["__init__"]

    def initialize(self, args: dict[str, str]) -> None:
        self.args = args
        self.calls.append("initialize")

    def finalize(self) -> None:
        self.calls.append("finalize")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "double"
    (root / "3").mkdir(parents=True)
    (root / "config.pbtxt").write_text(PBTXT)
    (root / "3" / "model.py").write_text(MODEL)
    (root / "3" / "beside.py").write_text("VALUE = 'beside'")
    return root


def test_class_and_dict() -> None:
    """A class and a dict are enough."""
    with load_model(Bare, CONFIG) as model:
        outcome = model.infer({"X": X})
    assert outcome.error is None
    assert outcome.outputs["Y"].tolist() == [[2, 2]]


def test_calls_in_order() -> None:
    """Construction without arguments, initialize with the arguments, finalize at the end."""
    with load_model(Hooked, CONFIG) as model:
        assert Hooked.calls == ["__init__", "initialize"]
        assert model.model.args is model.args
    assert Hooked.calls == ["__init__", "initialize", "finalize"]


def test_arguments() -> None:
    """The arguments are texts under the real keys; the folder exists while the model is loaded."""
    with load_model(Hooked, CONFIG, version=7, instance_kind="GPU", device_id=1) as model:
        args = dict(model.args)
        assert (Path(args["model_repository"]) / "7").is_dir()
    assert json.loads(args.pop("model_config"))["instance_group"][0]["kind"] == "KIND_GPU"
    assert Path(args.pop("model_repository")).name == "double"
    assert args == {
        "model_instance_kind": "GPU",
        "model_instance_name": "double_0",
        "model_instance_device_id": "1",
        "model_version": "7",
        "model_name": "double",
    }


def test_file_is_imported_as_the_stub_does(folder: Path) -> None:
    """A model.py is imported as ``<version>.model``, with its folder on the path and without the native classes."""
    with load_model(folder / "3" / "model.py", folder / "config.pbtxt", version=3) as model:
        assert model.model.name == "3.model"
        assert model.model.at_import == [False, False, True, True]
        assert model.model.beside == "beside"
        assert model.args["model_repository"] == str(folder)
        assert model.config["name"] == "double"
        assert model.infer({"X": X}).outputs["Y"].tolist() == [[2, 2]]


def test_nothing_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules, search path and pb_utils are as before, so that the next model may have files of the same names."""
    marker: Any = object()
    monkeypatch.setitem(sys.modules, NAME, marker)
    before = (list(sys.path), set(sys.modules), threading.active_count())
    for value in ("first", "second"):
        (folder / "3" / "beside.py").write_text(f"VALUE = {value!r}  # of another length: {'x' * len(value)}")
        with load_model(str(folder / "3" / "model.py"), str(folder / "config.pbtxt"), version=3) as model:
            assert sys.modules[NAME] is not marker
            assert model.model.beside == value
    assert sys.modules[NAME] is marker
    assert before == (list(sys.path), set(sys.modules), threading.active_count())


def test_initialize_raises() -> None:
    """Whatever initialize raises reaches the test unchanged, and nothing is left."""

    class Failing(Bare):
        def initialize(self, args: dict[str, str]) -> None:
            raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"), load_model(Failing, CONFIG):
        raise AssertionError("must not be reached")
    assert NAME not in sys.modules


def test_finalize_raises() -> None:
    """An exception of finalize is only logged, as in Triton, and kept for the test."""

    class Failing(Bare):
        def finalize(self) -> None:
            raise ValueError("no end")

    with load_model(Failing, CONFIG) as model:
        pass
    assert repr(model.finalize_error) == "ValueError('no end')"
    assert model.log == [("ERROR", "finalize: ValueError('no end')")]


@pytest.fixture
def fresh_definition() -> Iterator[None]:
    """The definition of a model configuration is read once in a process: not before, and not from here on."""
    model_config_class.cache_clear()
    yield
    model_config_class.cache_clear()


@pytest.mark.usefixtures("fresh_definition")
def test_without_protobuf(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config.pbtxt without protobuf is an error that names the extra and the way around."""
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with (
        pytest.raises(EnvironmentMissingError, match=r"safe-triton\[audit\].*as a dict"),
        load_model(Bare, folder / "config.pbtxt"),
    ):
        raise AssertionError("must not be reached")


@pytest.mark.usefixtures("fresh_definition")
def test_without_tritonclient(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that ships the definition is named."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name == "tritonclient" else found(name, package)
    )
    with (
        pytest.raises(EnvironmentMissingError, match=r"'tritonclient\[grpc\]': pip install"),
        load_model(Bare, folder / "config.pbtxt"),
    ):
        raise AssertionError("must not be reached")


@pytest.mark.parametrize("text", ["max_batch_size: many", "no_such_field: 1", "input {"])
def test_broken_config(folder: Path, text: str) -> None:
    """A config.pbtxt that the server would refuse to read is an error without the host's path."""
    (folder / "config.pbtxt").write_text(text)
    with pytest.raises(ConfigError, match="no model configuration") as error, load_model(Bare, folder / "config.pbtxt"):
        raise AssertionError("must not be reached")
    assert str(folder) not in str(error.value)


def test_missing_config(tmp_path: Path) -> None:
    """A config.pbtxt that is not there is a ConfigError."""
    with pytest.raises(ConfigError, match="cannot be read"), load_model(Bare, tmp_path / "config.pbtxt"):
        raise AssertionError("must not be reached")


def test_dict_and_file_are_the_same(folder: Path) -> None:
    """The same fields as a dict and as config.pbtxt give the model the same configuration."""
    fields = {**CONFIG, "instance_group": [{"kind": "KIND_CPU"}]}
    with load_model(Bare, folder / "config.pbtxt") as from_file:
        configured = json.loads(from_file.args["model_config"])
    with load_model(Bare, fields) as from_dict:
        assert json.loads(from_dict.args["model_config"]) == configured


def test_two_models_at_once() -> None:
    """What one model replaces on the request class does not reach another, as if each had its own process."""

    class Patching(Bare):
        def initialize(self, args: dict[str, str]) -> None:
            import triton_python_backend_utils as pb_utils

            pb_utils.InferenceRequest.request_id = lambda request: "patched"

        def execute(self, requests: list[Any]) -> list[Any]:
            assert requests[0].request_id() == "patched"
            return super().execute(requests)

    class Other(Bare):
        def execute(self, requests: list[Any]) -> list[Any]:
            assert requests[0].request_id() == "mine"
            return super().execute(requests)

    with load_model(Patching, CONFIG) as first, load_model(Other, CONFIG) as second:
        for model in (first, second, first):
            assert model.infer({"X": X}, request_id="mine").error is None
    with load_model(Other, CONFIG) as later:
        assert later.infer({"X": X}, request_id="mine").error is None
