"""What is looked at in a model repository before a server is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.errors import ServerStartError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server.served import check_links, read_model, read_models

TENSORS = "input [{name: 'X' data_type: TYPE_FP32 dims: [1]}]\noutput [{name: 'Y' data_type: TYPE_FP32 dims: [1]}]\n"


def make(folder: Path, config: str | None = "backend: 'python'\n" + TENSORS, entry: str = "1/model.py") -> Path:
    """Write one model."""
    (folder / entry).parent.mkdir(parents=True)
    (folder / entry).touch()
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    return folder


class TestReadModel:
    @pytest.mark.parametrize(
        ("config", "entry", "is_python"),
        [
            ("backend: 'python'", "1/other.py", True),
            ("backend: 'onnxruntime'", "1/model.py", False),
            ("platform: 'ensemble'", "1/model.py", False),
            ("", "1/model.py", True),
            ("", "1/model.onnx", False),
            ("default_model_filename: 'serve.py'", "1/serve.py", True),
            (None, "1/model.py", True),
        ],
    )
    def test_whether_the_python_backend_runs_it(
        self, tmp_path: Path, config: str | None, entry: str, is_python: bool
    ) -> None:
        """The configuration says so; where it is silent, the entry file does."""
        assert read_model(make(tmp_path / "m", config, entry)).is_python is is_python

    def test_fields(self, tmp_path: Path) -> None:
        """Name, entry file, versions, decoupled or not."""
        folder = make(
            tmp_path / "m",
            "default_model_filename: 'serve.py' model_transaction_policy {decoupled: true}",
            "3/serve.py",
        )
        (folder / "12").mkdir()
        (folder / "notes").mkdir()
        model = read_model(folder)
        assert (model.name, model.entry, model.versions, model.is_decoupled) == ("m", "serve.py", ("12", "3"), True)
        assert model.file("3") == folder / "3" / "serve.py"

    @pytest.mark.parametrize(
        ("config", "has_tensors"), [(TENSORS, True), (TENSORS.splitlines()[0], False), ("", False), (None, False)]
    )
    def test_whether_it_names_its_tensors(self, tmp_path: Path, config: str | None, has_tensors: bool) -> None:
        """Inputs and outputs, both."""
        assert read_model(make(tmp_path / "m", config)).has_tensors is has_tensors

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ("backend: {", "is no model configuration"),
            ("default_model_filename: 'a b.py'", "is no plain file name"),
            ("runtime: 'x.so'", "would be loaded into tritonserver itself"),
        ],
    )
    def test_what_would_run_in_the_server(self, tmp_path: Path, config: str, message: str) -> None:
        """It is refused before the server starts."""
        with pytest.raises(ServerStartError, match=message):
            read_model(make(tmp_path / "m", config))

    @pytest.mark.parametrize("hidden", ["m", "m/1"])
    def test_a_folder_that_cannot_be_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
        """Triton would still find a library in it, whose name it knows."""
        make(tmp_path / "m")
        monkeypatch.setattr("os.access", lambda place, mode: place != tmp_path / hidden)  # root may list every folder
        with pytest.raises(ServerStartError, match=f"{tmp_path / hidden}: the user who serves cannot list"):
            read_model(tmp_path / "m")

    def test_files_that_the_server_reads_may_lie_in_the_folder(self, tmp_path: Path) -> None:
        """Labels of the model's own are no way out of it."""
        folder = make(tmp_path / "m", "output [{name: 'Y' data_type: TYPE_FP32 dims: [1] label_filename: 'l.txt'}]")
        (folder / "l.txt").write_text("one\n")
        assert read_model(folder).name == "m"


def test_the_size_of_its_files(tmp_path: Path) -> None:
    """Of its versions, with what lies deeper, and without links that lead nowhere."""
    folder = make(tmp_path / "m", "backend: 'onnxruntime'", "1/model.onnx")
    (folder / "1" / "model.onnx").write_bytes(b"x" * 1000)
    (folder / "1" / "weights").mkdir()
    (folder / "1" / "weights" / "part").write_bytes(b"x" * 24)
    (folder / "1" / "gone").symlink_to(tmp_path / "nowhere")
    (folder / "notes").write_bytes(b"x" * 5000)
    assert read_model(folder).size_bytes == 1024


class TestReadModels:
    def test_several_repositories(self, tmp_path: Path) -> None:
        """Their models are served together."""
        make(tmp_path / "a" / "one")
        make(tmp_path / "b" / "two")
        (tmp_path / "a" / "README").touch()
        assert [model.name for model in read_models([tmp_path / "a", tmp_path / "b"])] == ["one", "two"]

    def test_two_of_one_name(self, tmp_path: Path) -> None:
        """Nobody could tell which of them is meant."""
        make(tmp_path / "a" / "one")
        make(tmp_path / "b" / "one")
        with pytest.raises(ServerStartError, match="rename one of them"):
            read_models([tmp_path / "a", tmp_path / "b"])

    def test_a_folder_that_goes_meanwhile(self, tmp_path: Path) -> None:
        """A reload is then refused, and the next one finds it right."""
        with pytest.raises(ServerStartError, match=f"{tmp_path / 'a'}: No such file or directory") as refused:
            read_models([tmp_path / "a"])
        assert refused.value.reason == "server.repository"


class TestLinks:
    @pytest.mark.parametrize("what", ["folder", "version", "entry"])
    def test_out_of_the_repository(self, tmp_path: Path, what: str) -> None:
        """Refused, and accepted where the operator has granted what it leads to."""
        elsewhere = make(tmp_path / "elsewhere" / "m")
        folder = tmp_path / "models" / "m"
        if what == "folder":
            folder.parent.mkdir()
            folder.symlink_to(elsewhere)
        else:
            make(folder)
            (folder / "1" / "model.py").unlink()
            if what == "version":
                (folder / "1").rmdir()
                (folder / "1").symlink_to(elsewhere / "1")
            else:
                (folder / "1" / "model.py").symlink_to(elsewhere / "1" / "model.py")
        model = read_model(folder)
        with pytest.raises(ServerStartError, match=f"grant the model to read {elsewhere}"):
            check_links(model, SandboxPolicy())
        check_links(model, SandboxPolicy(read=(str(elsewhere),)))

    def test_inside_the_repository(self, tmp_path: Path) -> None:
        """As mounted configuration maps have them."""
        folder = make(tmp_path / "models" / "m", entry="..data/model.py")
        (folder / "1").mkdir()
        (folder / "1" / "model.py").symlink_to("../..data/model.py")
        check_links(read_model(folder), SandboxPolicy())
