"""Writing a folder: the same twice, nothing of others lost, nothing left over."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from safe_triton.deploy.folder import RECORD, write_folder
from safe_triton.errors import DeployError

FILES = {"a.yaml": "a\n", "b.yaml": "b\n"}


def refused(folder: Path, form: str = "x", files: dict[str, str] = FILES) -> str:
    with pytest.raises(DeployError) as caught:
        write_folder(folder, form, files)
    assert caught.value.reason == "deploy.output"
    return caught.value.message


class TestOwnFiles:
    def test_written_then_unchanged(self, tmp_path: Path) -> None:
        """The second time changes nothing, the files' times included."""
        assert write_folder(tmp_path / "out", "x", FILES) == {"a.yaml": "written", "b.yaml": "written"}
        before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
        assert write_folder(tmp_path / "out", "x", FILES) == {"a.yaml": "unchanged", "b.yaml": "unchanged"}
        assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before

    def test_replaced_and_removed(self, tmp_path: Path) -> None:
        """What is rendered otherwise is replaced; what is no longer rendered goes."""
        write_folder(tmp_path, "x", FILES)
        assert write_folder(tmp_path, "x", {"a.yaml": "new\n"}) == {"a.yaml": "written", "b.yaml": "removed"}
        assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD, "a.yaml"]

    def test_secret_files(self, tmp_path: Path) -> None:
        """Only this user may read what has digests of keys in it."""
        write_folder(tmp_path / "out", "x", FILES, is_secret=True)
        modes = {stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in FILES}
        assert (modes, stat.S_IMODE((tmp_path / "out").stat().st_mode)) == ({0o600}, 0o700)

    def test_secret_files_that_others_could_read(self, tmp_path: Path) -> None:
        """A mode that was widened since is narrowed again, though the content is the same."""
        write_folder(tmp_path, "x", FILES, is_secret=True)
        (tmp_path / "a.yaml").chmod(0o644)
        assert write_folder(tmp_path, "x", FILES, is_secret=True) == {"a.yaml": "written", "b.yaml": "unchanged"}
        assert stat.S_IMODE((tmp_path / "a.yaml").stat().st_mode) == 0o600


class TestForeignFiles:
    def test_a_file_that_was_there(self, tmp_path: Path) -> None:
        """It stays, and nothing at all is written; --force replaces it."""
        (tmp_path / "b.yaml").write_text("mine\n")
        assert "b.yaml was not written by render" in refused(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["b.yaml"]
        assert write_folder(tmp_path, "x", FILES, overwrite=True)["b.yaml"] == "written"

    @pytest.mark.parametrize("files", [{**FILES, "a.yaml": "newer\n"}, {"b.yaml": "b\n"}])
    def test_a_file_that_was_changed(self, tmp_path: Path, files: dict[str, str]) -> None:
        """A change by hand is neither replaced nor removed."""
        write_folder(tmp_path, "x", FILES)
        (tmp_path / "a.yaml").write_text("changed\n")
        assert "was changed since it was written" in refused(tmp_path, files=files)
        assert (tmp_path / "a.yaml").read_text() == "changed\n"

    def test_another_form(self, tmp_path: Path) -> None:
        """A folder is of one form."""
        write_folder(tmp_path, "compose", FILES)
        assert "render compose" in refused(tmp_path)

    def test_links_and_folders(self, tmp_path: Path) -> None:
        """A link is not followed to a file elsewhere, a folder is no file."""
        (tmp_path / "elsewhere").write_text("mine\n")
        (tmp_path / "out").mkdir()
        os.symlink(tmp_path / "elsewhere", tmp_path / "out" / "a.yaml")
        assert "no plain file" in refused(tmp_path / "out")
        (tmp_path / "out" / "a.yaml").unlink()
        (tmp_path / "out" / "a.yaml").mkdir()
        assert "no plain file" in refused(tmp_path / "out")

    def test_no_folder(self, tmp_path: Path) -> None:
        """A file in the folder's place is one clear line."""
        (tmp_path / "out").write_text("mine\n")
        assert str(tmp_path / "out") in refused(tmp_path / "out")

    @pytest.mark.parametrize("record", ["", "[]", '{"files": 1}', '{"form": "x", "files": {"../../a": "0"}}'])
    def test_a_record_that_lies(self, tmp_path: Path, record: str) -> None:
        """What the record names outside the folder is left alone; a broken one is somebody else's."""
        (tmp_path / "out").mkdir()
        (tmp_path / "a").write_text("mine\n")
        (tmp_path / "out" / RECORD).write_text(record)
        if "form" in record:
            write_folder(tmp_path / "out", "x", FILES)
        else:
            assert "something else" in refused(tmp_path / "out")
        assert (tmp_path / "a").read_text() == "mine\n"
