"""A repository view as a folder: what stands in it, and what each call changes."""

from __future__ import annotations

import ast
import errno
import os
import shutil
from pathlib import Path

import pytest

from safe_triton.config.pbtxt import read_pbtxt
from safe_triton.errors import ServerStartError
from safe_triton.server.view import Changes, RepositoryView, incomplete_text

TENSORS = "input [{name: 'X' data_type: TYPE_FP32 dims: [1]}]\noutput [{name: 'Y' data_type: TYPE_FP32 dims: [1]}]\n"
PYTHON = "backend: 'python'\n" + TENSORS


def labelled(file: str) -> str:
    """A configuration whose output has labels."""
    return PYTHON.replace("name: 'Y'", f"name: 'Y' label_filename: '{file}'")


def write(path: Path, text: str = "") -> Path:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for version in "12":
        write(folder / "digits" / version / "model.py", "class TritonPythonModel: ...\n")
        write(folder / "digits" / version / "weights.npz")
    write(folder / "digits" / "config.pbtxt", labelled("l.txt"))
    write(folder / "digits" / "l.txt", "zero\n")
    write(folder / "digits" / "secret.txt")
    write(folder / "onnx" / "1" / "model.onnx")
    write(folder / "onnx" / "config.pbtxt", "backend: 'onnxruntime'\n" + TENSORS)
    (folder / "chain" / "1").mkdir(parents=True)
    write(folder / "chain" / "config.pbtxt", "platform: 'ensemble'\n" + TENSORS)
    return folder


@pytest.fixture
def view(tmp_path: Path, repository: Path) -> RepositoryView:
    return RepositoryView(tmp_path / "view", [repository])


def content(view: RepositoryView) -> dict[str, bytes]:
    """Every file of a view, by path, as far as it is a file of the view's own."""
    return {
        str(path.relative_to(view.path)): path.read_bytes()
        for path in sorted(view.path.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def test_a_python_model_is_copied_as_far_as_the_server_reads_it(view: RepositoryView, repository: Path) -> None:
    """No link leads from its folder into the repository: nothing that changes there reaches the server."""
    assert [path for path in (view.path / "digits").rglob("*") if path.is_symlink()] == []
    assert sorted(name for name in content(view) if name.startswith("digits")) == [
        "digits/1/__pycache__",
        "digits/1/model.py",
        "digits/2/__pycache__",
        "digits/2/model.py",
        "digits/config.pbtxt",
        "digits/l.txt",
    ]
    assert (view.path / "digits" / "config.pbtxt").read_bytes() == (repository / "digits/config.pbtxt").read_bytes()


def test_other_models_are_linked(view: RepositoryView, repository: Path) -> None:
    """Their backends run in the server, which reads their files; an ensemble's empty version is there."""
    assert (view.path / "onnx" / "1" / "model.onnx").readlink() == repository / "onnx" / "1" / "model.onnx"
    assert not (view.path / "onnx" / "config.pbtxt").is_symlink()
    assert (view.path / "chain" / "1").is_dir()


def test_the_entry_file_runs_the_real_one(view: RepositoryView, repository: Path) -> None:
    """It is short, and holds what it needs to know as plain data."""
    text = (view.path / "digits" / "2" / "model.py").read_text()
    assert len(text.splitlines()) < 10
    call = ast.parse(text).body[-1]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    settings = ast.literal_eval(call.value.args[1])
    assert settings["file"] == str(repository / "digits" / "2" / "model.py")
    assert settings["folder"] == str(repository / "digits")
    assert settings["view"] == str(view.path / "digits")
    assert (settings["protect"], settings["completes"], settings["decoupled"]) == (False, False, False)


@pytest.mark.parametrize(("protect", "expected"), [(True, True), (("digits",), True), (("x",), False), (False, False)])
def test_protect_is_by_name(tmp_path: Path, repository: Path, protect: bool | tuple[str, ...], expected: bool) -> None:
    """All, some, none."""
    view = RepositoryView(tmp_path / "view", [repository], protect=protect)
    assert f"'protect': {expected}" in (view.path / "digits" / "1" / "model.py").read_text()


class TestReload:
    def test_only_dates_change(self, view: RepositoryView) -> None:
        """Of every version of the one model, and of nothing else."""
        for path in view.path.rglob("*"):
            os.utime(path, ns=(1, 1), follow_symlinks=False)
        before = content(view)
        view.reload("digits")
        assert content(view) == before
        changed = {str(path.relative_to(view.path)) for path in view.path.rglob("*") if path.lstat().st_mtime_ns != 1}
        assert changed == {"digits/1/model.py", "digits/2/model.py"}

    @pytest.mark.parametrize("call", ["reload", "restore"])
    def test_what_cannot_be_reloaded(self, view: RepositoryView, call: str) -> None:
        """An unknown model, and one without processes of its own."""
        with pytest.raises(KeyError):
            getattr(view, call)("nobody")
        with pytest.raises(ValueError, match="Python backend"):
            getattr(view, call)("onnx")


class TestWithdraw:
    def test_and_restore(self, view: RepositoryView) -> None:
        """A stand-in with the same configuration, then the same file as before."""
        before = content(view)
        view.withdraw("digits", 'model \'digits\' is quarantined: """ \\ {x}')
        assert view.withdrawn == {"digits": 'model \'digits\' is quarantined: """ \\ {x}'}
        during = content(view)
        assert {name for name in before if before[name] != during[name]} == {"digits/1/model.py", "digits/2/model.py"}
        assert "is quarantined" in ast.unparse(ast.parse(during["digits/1/model.py"]))
        view.restore("digits")
        assert content(view) == before
        assert view.withdrawn == {}

    def test_nothing_is_left_beside_the_view(self, view: RepositoryView) -> None:
        """Files are made elsewhere and moved in whole."""
        view.withdraw("digits", "x")
        assert list((view.path.parent / "building").iterdir()) == []
        assert {path.name for path in (view.path / "digits" / "1").iterdir()} == {"__pycache__", "model.py"}


class TestRefresh:
    def test_nothing_new(self, view: RepositoryView, repository: Path) -> None:
        """Compiled Python is no change."""
        write(repository / "digits" / "1" / "__pycache__" / "model.cpython-311.pyc")
        assert view.refresh() == Changes()

    @pytest.mark.parametrize("file", ["1/model.py", "1/weights.npz", "config.pbtxt", "new.txt", "3/model.py"])
    def test_a_change(self, view: RepositoryView, repository: Path, file: str) -> None:
        """Of any file of the model, and a new one; a withdrawn model is served again then."""
        view.withdraw("digits", "x")
        write(repository / "digits" / file, PYTHON if file == "config.pbtxt" else "new")
        assert view.refresh() == Changes(changed=("digits",))
        assert view.withdrawn == {}
        assert "serve" in (view.path / "digits" / "1" / "model.py").read_text()

    def test_models_come_and_go(self, view: RepositoryView, repository: Path) -> None:
        """The view follows the repository, once asked."""
        (repository / "digits").rename(repository / "numbers")
        assert view.models == ("chain", "digits", "onnx")
        assert view.refresh() == Changes(added=("numbers",), removed=("digits",))
        assert view.models == ("chain", "numbers", "onnx")
        assert {path.name for path in view.path.iterdir()} == set(view.models)

    def test_what_is_refused(self, view: RepositoryView, repository: Path) -> None:
        """The view stays as it was."""
        before = content(view)
        write(repository / "digits" / "config.pbtxt", "backend: {")
        write(repository / "new" / "1" / "model.py")
        with pytest.raises(ServerStartError):
            view.refresh()
        assert content(view) == before

    def test_a_full_disk(self, view: RepositoryView, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing changes until everything is copied, and the next time all of it is news again."""
        before = content(view)
        (repository / "onnx").rename(repository / "other")
        write(repository / "digits" / "1" / "model.py", "new")
        write(repository / "later" / "config.pbtxt", PYTHON)
        write(repository / "later" / "1" / "model.py")

        copy = shutil.copyfile

        def full(source: Path, target: Path) -> None:
            if "later" in source.parts:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            copy(source, target)

        with monkeypatch.context() as patched:
            patched.setattr("safe_triton.server.view.shutil.copyfile", full)
            with pytest.raises(ServerStartError, match="No space left"):
                view.refresh()
        assert content(view) == before
        assert view.models == ("chain", "digits", "onnx")
        assert view.refresh() == Changes(added=("later", "other"), changed=("digits",), removed=("onnx",))


class TestIncomplete:
    def test_only_python_models_that_may_not_complete_themselves(self, tmp_path: Path, repository: Path) -> None:
        """Each is named with the line to add."""
        for name in ("short", "completing"):
            write(repository / name / "1" / "model.py")
            write(repository / name / "config.pbtxt", "backend: 'python'\n")
        view = RepositoryView(tmp_path / "view", [repository], auto_complete=("completing",))
        assert view.incomplete == ("short",)
        assert '[models.short] auto_complete = { reason = "…" }' in incomplete_text(view.incomplete)


def test_a_label_file_named_by_detours_stays_inside(tmp_path: Path, repository: Path) -> None:
    """A path that leaves the model's folder and comes back by a link is not followed into another model's folder."""
    (repository / "zzz").symlink_to(repository / "digits")
    write(repository / "digits" / "config.pbtxt", labelled("../zzz/l.txt"))
    view = RepositoryView(tmp_path / "view", [repository])
    assert not (view.path / "digits" / "l.txt").exists()
    assert view.models == ("chain", "digits", "onnx", "zzz")


class TestBackendInPython:
    @pytest.fixture
    def backends(self, tmp_path: Path) -> Path:
        """A backend whose code is Python, one that has a library beside, and one that is a library."""
        folder = tmp_path / "backends"
        write(folder / "adder" / "model.py", "class TritonPythonModel: ...\n")
        write(folder / "both" / "model.py")
        write(folder / "both" / "libtriton_both.so")
        write(folder / "onnxruntime" / "libtriton_onnxruntime.so")
        return folder

    def test_it_is_shown_as_a_python_model(self, tmp_path: Path, repository: Path, backends: Path) -> None:
        """The entry file runs the backend's code, and the configuration names the Python backend; nothing else differs."""
        write(repository / "adding" / "config.pbtxt", "backend: 'adder'\nruntime: 'libtriton_adder.so'\n" + TENSORS)
        write(repository / "adding" / "1" / "weights.npz")
        view = RepositoryView(tmp_path / "view", [repository], backends=backends)
        shown = read_pbtxt(view.path / "adding" / "config.pbtxt")
        own = read_pbtxt(repository / "adding" / "config.pbtxt")
        assert shown == {**own, "backend": "python", "runtime": ""}
        assert str(backends / "adder" / "model.py") in (view.path / "adding" / "1" / "model.py").read_text()
        (model,) = (model for model in view.served if model.name == "adding")
        assert model.is_python
        view.reload("adding")

    @pytest.mark.parametrize("backend", ["python", "both", "onnxruntime", "absent"])
    def test_others_stay_what_they_are(self, tmp_path: Path, repository: Path, backends: Path, backend: str) -> None:
        """Where Triton finds a library it takes that."""
        write(repository / "other" / "config.pbtxt", f"backend: '{backend}'\n" + TENSORS)
        write(repository / "other" / "1" / "model.py")
        view = RepositoryView(tmp_path / "view", [repository], backends=backends)
        (model,) = (model for model in view.served if model.name == "other")
        assert (model.backend_file, model.is_python) == (None, backend == "python")


class TestHold:
    def test_and_restore(self, view: RepositoryView) -> None:
        """Another name than the folder's, which Triton's poll refuses; everything as it was afterwards."""
        before = content(view)
        view.hold("digits")
        view.hold("digits")
        during = content(view)
        assert {name for name in before if before[name] != during[name]} == {"digits/config.pbtxt"}
        assert read_pbtxt(view.path / "digits" / "config.pbtxt")["name"] not in {"", "digits"}
        view.restore("digits")
        assert content(view) == before

    def test_and_withdraw(self, view: RepositoryView) -> None:
        """The stand-in has the configuration of the model."""
        before = content(view)
        view.hold("digits")
        view.withdraw("digits", "x")
        view.restore("digits")
        assert content(view) == before

    def test_a_change(self, view: RepositoryView, repository: Path) -> None:
        """A model that the operator has changed is shown as it is now."""
        view.hold("digits")
        write(repository / "digits" / "config.pbtxt", PYTHON + "max_batch_size: 3\n")
        assert view.refresh() == Changes(changed=("digits",))
        view.restore("digits")
        assert read_pbtxt(view.path / "digits" / "config.pbtxt")["max_batch_size"] == 3

    def test_a_model_of_another_backend(self, view: RepositoryView) -> None:
        """Has no processes that could serve on."""
        with pytest.raises(ValueError, match="Python backend"):
            view.hold("onnx")


def test_a_version_that_is_half_copied(view: RepositoryView, repository: Path) -> None:
    """It has an entry file all the same: without one the stub crashes, and the server waits for it for ever."""
    (repository / "digits" / "3").mkdir()
    assert view.refresh() == Changes(changed=("digits",))
    assert "serve" in (view.path / "digits" / "3" / "model.py").read_text()


@pytest.mark.parametrize("call", ["reload", "withdraw", "restore", "refresh"])
def test_a_clock_that_is_set_back(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Dates only grow: Triton takes no file for changed whose date is before the one that it knows."""
    now_ns = [2_000_000_000_000_000_000]
    monkeypatch.setattr("safe_triton.server.view.time.time_ns", lambda: now_ns[0])
    view = RepositoryView(tmp_path / "view", [repository])
    entry = view.path / "digits" / "1" / "model.py"
    before_ns = entry.stat().st_mtime_ns
    now_ns[0] -= 3600 * 1_000_000_000
    if call == "refresh":
        write(repository / "digits" / "new.txt")
        view.refresh()
    else:
        getattr(view, call)(*(["digits", "x"] if call == "withdraw" else ["digits"]))
    assert entry.stat().st_mtime_ns > before_ns


class TestWhatCountsAsChanged:
    def test_same_size_and_date(self, view: RepositoryView, repository: Path) -> None:
        """As after a copy that keeps dates."""
        file = repository / "digits" / "1" / "weights.npz"
        dates = file.stat()
        new = write(repository / "digits.new")
        os.utime(new, ns=(dates.st_atime_ns, dates.st_mtime_ns))
        new.replace(file)
        assert view.refresh() == Changes(changed=("digits",))

    def test_a_version_that_is_a_link(self, tmp_path: Path, repository: Path) -> None:
        """Somewhere else now."""
        for release in ("old", "new"):
            write(repository / "digits" / release / "model.py")
        version = repository / "digits" / "3"
        version.symlink_to("old")
        view = RepositoryView(tmp_path / "view", [repository])
        version.unlink()
        version.symlink_to("new")
        assert view.refresh() == Changes(changed=("digits",))

    def test_a_repository_that_is_a_link(self, tmp_path: Path, repository: Path) -> None:
        """As of tools that check out beside each other: it is followed at the next look, and not before."""
        shutil.copytree(repository, tmp_path / "later", symlinks=True)
        link = tmp_path / "current"
        link.symlink_to(repository)
        view = RepositoryView(tmp_path / "view", [link])
        link.unlink()
        link.symlink_to(tmp_path / "later")
        view.reload("digits")
        assert str(repository) in (view.path / "digits" / "1" / "model.py").read_text()
        assert view.refresh() == Changes(changed=("chain", "digits", "onnx"))
        assert str(tmp_path / "later") in (view.path / "digits" / "1" / "model.py").read_text()

    def test_a_file_that_goes_while_it_is_looked_at(
        self, view: RepositoryView, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing changes, and the message says that somebody is at work."""

        def gone(status: os.stat_result) -> tuple[int, ...]:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "model.py.swp")

        before = content(view)
        monkeypatch.setattr("safe_triton.server.view._dates", gone)
        with pytest.raises(ServerStartError, match=r"model\.py\.swp: No such file .* is being changed"):
            view.refresh()
        monkeypatch.undo()
        assert content(view) == before
