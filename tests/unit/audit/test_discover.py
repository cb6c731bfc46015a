"""What there is to check: folders that change, end or cannot be listed, and files given one by one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from safe_triton.audit import check_paths, discover
from safe_triton.audit.reading import UnreadableError, read_bounded
from tests.unit.audit.cases import CONFIG, MODEL, found, look, write

CLEAN = {"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL}


def fails(*_: Any, **__: Any) -> Any:
    """A system that says no."""
    raise PermissionError(13, "Permission denied")


class Entry:
    """An entry of a folder that is gone before anybody looks."""

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name, self.path = entry.name, entry.path
        self.is_symlink, self.stat, self.is_dir = entry.is_symlink, fails, fails


class TestFolders:
    def test_that_cannot_be_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A folder that hides what is in it is a finding."""
        write(tmp_path, {"a/b/notes.txt": ""})
        scandir = os.scandir

        def some(path: Any) -> Any:
            return fails() if str(path).endswith("/b") else scandir(path)

        monkeypatch.setattr(os, "scandir", some)
        (finding,) = check_paths([tmp_path], jobs=1).findings
        assert (finding.rule, Path(finding.path).name) == ("audit-unreadable", "b")

    def test_of_a_version_that_cannot_be_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A version that hides what is in it is a finding, said once."""
        write(tmp_path, CLEAN)
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: fails() if str(path).endswith("/1") else scandir(path))
        hidden = [each for each in check_paths([tmp_path], jobs=1).findings if each.rule == "audit-unreadable"]
        assert [Path(each.path).name for each in hidden] == ["1"]

    def test_of_a_pipe_alone(self, tmp_path: Path) -> None:
        """A configuration that is a pipe is nobody's, and no pass."""
        os.mkfifo(tmp_path / "config.pbtxt")
        tmp_path.chmod(0o755)
        assert found(check_paths([tmp_path], jobs=1)).keys() >= {"special-file", "audit-unreadable", "config-missing"}

    def test_whose_entries_are_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An entry that cannot be looked at is a finding, as a file and as a folder."""
        write(tmp_path, CLEAN)
        listed = discover._Walk._list

        def gone(self: Any, path: str, shown: str, *, quiet: bool = False) -> Any:
            return [Entry(each) for each in listed(self, path, shown, quiet=quiet)]

        monkeypatch.setattr(discover._Walk, "_list", gone)
        assert "audit-unreadable" in {each.rule for each in discover.discover([tmp_path]).findings}

    def test_of_a_size_that_is_not_known(self, tmp_path: Path) -> None:
        """A file that vanishes between two looks counts as empty."""
        write(tmp_path, CLEAN)
        with os.scandir(tmp_path) as entries:
            (entry,) = entries
        assert discover._Walk()._size(Entry(entry)) == 0  # type: ignore[arg-type]

    def test_without_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Folders too deep, in a repository and in a model, and too many files."""
        write(tmp_path, {**CLEAN, "m/1/a/b/c/x": "", "d/e/f/g/y": ""})
        monkeypatch.setattr(discover, "MAX_DEPTH", 2)
        deep = [each for each in check_paths([tmp_path], jobs=1).findings if each.rule == "audit-limit"]
        assert {Path(each.path).name for each in deep} == {"b", "f"}
        monkeypatch.setattr(discover, "MAX_ENTRIES", 3)
        many = [each for each in check_paths([tmp_path], jobs=1).findings if each.rule == "audit-limit"]
        assert any("more than 3 files" in each.message for each in many)

    def test_that_hold_no_deployment(self, tmp_path: Path) -> None:
        """Folders of tools are not looked at."""
        report = look(tmp_path, {".git/run.sh": "chmod 777 /m\n", "node_modules/run.sh": "chmod 777 /m\n"})
        assert report.findings == ()

    def test_version_folders_that_cannot_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """They hold no model's file, as far as anybody can tell."""
        monkeypatch.setattr(os, "scandir", fails)
        assert discover._names_in(str(tmp_path)) is False


class TestLinks:
    def test_to_a_folder_that_is_no_model(self, tmp_path: Path) -> None:
        """Outside it is reported, and no neighbour of the models."""
        write(tmp_path, {"outside/notes.txt": "", "outside/file": ""})
        repository = write(tmp_path / "r", CLEAN)
        (repository / "notes").symlink_to("../outside")
        (repository / "file").symlink_to("../outside/file")
        assert found(check_paths([repository], jobs=1))["symlink-escape"] == "error"

    def test_in_a_circle_beside_the_versions(self, tmp_path: Path) -> None:
        """It is no version."""
        repository = write(tmp_path, CLEAN)
        (repository / "m/2").symlink_to("2")
        assert found(check_paths([repository], jobs=1)).keys() == {"symlink-escape"}

    def test_seen_twice(self, tmp_path: Path) -> None:
        """A folder that two links lead to is looked at once."""
        repository = write(tmp_path, {**CLEAN, "shared/run.sh": "chmod 777 /m\n"})
        (repository / "a").symlink_to("shared")
        (repository / "z").symlink_to("shared")
        (repository / "run.sh").symlink_to("shared/run.sh")
        report = check_paths([repository], jobs=1)
        assert {each.rule for each in report.findings} == {"world-writable"}


class TestOneByOne:
    def test_a_folder_of_one_configuration(self, tmp_path: Path) -> None:
        """Without a version beside it, a folder's name says nothing."""
        folder = write(tmp_path / "other", {"config.pbtxt": CONFIG})
        assert "config-name-mismatch" not in found(check_paths([folder], jobs=1))

    def test_a_configuration_of_another_name(self, tmp_path: Path) -> None:
        """A configuration beside a model's has no folder of its own."""
        folder = write(tmp_path, {"m/1/model.py": MODEL, "m/other.pbtxt": CONFIG.replace('"m"', '"x"')})
        assert "config-name-mismatch" not in found(check_paths([folder / "m/other.pbtxt"], jobs=1))

    def test_a_model_beside_what_is_none(self, tmp_path: Path) -> None:
        """Only models are neighbours."""
        folder = write(tmp_path, {**CLEAN, "notes/a.txt": "", "file": ""})
        assert found(check_paths([folder / "m"], jobs=1)) == {}


class TestNames:
    @pytest.mark.parametrize("name", ["venv", "site-packages", "node_modules", ".git", "__pycache__"])
    def test_of_what_is_skipped(self, tmp_path: Path, name: str) -> None:
        """A model whose folder is called like what holds none is served, and looked at."""
        program = MODEL + "\nimport os\nos.system('id')\n"
        write(tmp_path, {**CLEAN, f"{name}/1/model.py": program, f"{name}/config.pbtxt": CONFIG})
        report = check_paths([tmp_path], jobs=1)
        assert report.models == 2
        assert "py-shell-exec" in found(report)

    @pytest.mark.parametrize("name", ["venv", ".git"])
    def test_of_folders_that_are_skipped(self, tmp_path: Path, name: str) -> None:
        """What tools keep beside models is nobody's deployment."""
        write(tmp_path, {**CLEAN, f"{name}/run.sh": "chmod 777 /data\n"})
        assert found(check_paths([tmp_path], jobs=1)) == {}

    @pytest.mark.parametrize("name", ["run.py", "code/run.py", "./code/run.py"])
    def test_of_the_model_file(self, tmp_path: Path, name: str) -> None:
        """The file that the configuration names is the model's code, in a folder of its own too."""
        config = f'{CONFIG}default_model_filename: "{name}"\n'
        write(tmp_path, {"m/config.pbtxt": config, f"m/1/{name}": f"{MODEL}\nimport os\nos.system('id')\n"})
        assert "py-shell-exec" in found(check_paths([tmp_path], jobs=1))


class TestTwice:
    @pytest.mark.parametrize("more", [".", "m", "m/config.pbtxt", "m/1/model.py", "run.sh"])
    @pytest.mark.parametrize("is_first", [True, False])
    def test_a_part_of_what_is_given(self, tmp_path: Path, more: str, is_first: bool) -> None:
        """A folder and a part of it are counted, and looked at, once, in either order."""
        write(tmp_path, {**CLEAN, "run.sh": "chmod 777 /data\n"})
        paths: list[Path | str] = [tmp_path, f"{tmp_path}/{more}"]
        once = check_paths([tmp_path], jobs=1)
        twice = check_paths(paths[::-1] if is_first else paths, jobs=1)
        assert (twice.models, twice.findings) == (once.models, once.findings)

    def test_two_configurations_of_a_folder(self, tmp_path: Path) -> None:
        """Two files of one folder are two configurations."""
        write(tmp_path, {"a.pbtxt": CONFIG, "b.pbtxt": CONFIG})
        assert check_paths([tmp_path / "a.pbtxt", tmp_path / "b.pbtxt"], jobs=1).models == 2


class TestReading:
    def test_a_pipe(self, tmp_path: Path) -> None:
        """Nobody waits for a writer."""
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UnreadableError, match="no plain file"):
            read_bounded(str(tmp_path / "pipe"), 10)

    def test_a_fault_of_the_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What cannot be read is said."""
        (tmp_path / "a").write_text("a")
        monkeypatch.setattr(os, "read", fails)
        with pytest.raises(UnreadableError, match="cannot be read"):
            read_bounded(str(tmp_path / "a"), 10)

    def test_a_bound(self, tmp_path: Path) -> None:
        """No more than asked for."""
        (tmp_path / "a").write_text("abc")
        assert read_bounded(str(tmp_path / "a"), 2) == b"ab"
