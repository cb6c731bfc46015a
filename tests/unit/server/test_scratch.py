"""Scratch folders: private, bounded by the kernel where this process may mount, else measured; gone afterwards."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safe_triton import unsafe
from safe_triton.server import scratch
from safe_triton.server.scratch import PAGE_BYTES, ScratchFolders, empty, measured_bytes

MIB = 1 << 20


def mounts() -> list[str]:
    """Where something is mounted."""
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


class EndedModels:
    """Stands for a server's process: remembers which models were ended."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def end_model(self, name: str) -> None:
        self.names.append(name)


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[ScratchFolders]:
    made = ScratchFolders(tmp_path / "scratch")
    yield made
    made.remove()


@pytest.fixture
def measured(folders: ScratchFolders, monkeypatch: pytest.MonkeyPatch) -> ScratchFolders:
    """Folders on a machine where nothing can be mounted."""
    monkeypatch.setattr(scratch, "can_mount", lambda: False)
    return folders


@pytest.fixture
def mounted(folders: ScratchFolders) -> Path:
    """A folder of one MiB that is a file system of its own."""
    folder = folders.create("model", MIB)
    if not os.path.ismount(folder):
        pytest.skip("this user may not mount (CAP_SYS_ADMIN)")
    return folder


class TestFolders:
    def test_only_this_user_can_enter(self, folders: ScratchFolders) -> None:
        """Mode 0700, the folder above it too."""
        folder = folders.create("model", MIB)
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)] == [0o700, 0o700]

    def test_each_model_has_one(self, folders: ScratchFolders) -> None:
        """Asked again, it is the same; another model's is another."""
        assert folders.create("one", MIB) == folders.create("one", MIB) != folders.create("two", MIB)

    def test_what_was_there_before_is_not_used(self, folders: ScratchFolders) -> None:
        """Nothing is mounted over a folder that somebody else made."""
        (folders.root / "model").mkdir(parents=True)
        with pytest.raises(FileExistsError):
            folders.create("model", MIB)

    def test_removed(self, folders: ScratchFolders) -> None:
        """No mount and no file stays; it may be repeated."""
        before = mounts()
        folder = folders.create("model", MIB)
        (folder / "file").write_text("x")
        folders.remove()
        folders.remove()
        assert mounts() == before
        assert list(folder.iterdir()) == []


class TestMounted:
    def test_the_kernel_holds_the_size(self, mounted: Path) -> None:
        """All of it can be used, and no more."""
        (mounted / "most").write_bytes(bytes(MIB - 2 * PAGE_BYTES))
        with pytest.raises(OSError, match="No space left"):
            (mounted / "more").write_bytes(bytes(4 * PAGE_BYTES))

    def test_the_number_of_files_is_bounded(self, mounted: Path) -> None:
        """Empty files take memory of the kernel."""

        def fill() -> None:
            for number in range(10_000):
                (mounted / str(number)).touch()

        with pytest.raises(OSError, match="No space left"):
            fill()

    def test_nothing_there_runs(self, mounted: Path) -> None:
        """No programs, no devices, no set-user-ID."""
        options = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if str(mounted) in line)
        assert {"nosuid", "nodev", "noexec"} <= set(options.split()[3].split(","))


class TestMeasured:
    def test_a_full_folder_ends_the_model(self, measured: ScratchFolders) -> None:
        """Its processes are ended, the folder is emptied, and it is counted."""
        full, other = measured.create("full", MIB), measured.create("other", MIB)
        process: Any = EndedModels()
        (other / "file").write_bytes(bytes(MIB // 2))
        measured.watch(process)
        (full / "file").write_bytes(bytes(2 * MIB))
        end = time.monotonic() + 120
        while not measured.exceeded and time.monotonic() < end:
            time.sleep(0.01)
        assert (process.names, measured.exceeded) == (["full"], {"full": 1})
        assert list(full.iterdir()) == []
        assert (other / "file").stat().st_size == MIB // 2

    def test_unlimited_is_not_measured(self, measured: ScratchFolders) -> None:
        """A token takes the size away; nothing watches."""
        folder = measured.create("model", unsafe.Unlimited(reason="test"))
        assert not os.path.ismount(folder)
        assert measured._measured == {}

    @pytest.mark.parametrize(("count", "size_bytes", "least"), [(1, 3 * PAGE_BYTES, 3), (10, 0, 10), (0, 0, 0)])
    def test_bytes(self, tmp_path: Path, count: int, size_bytes: int, least: int) -> None:
        """The space on disk; an empty file counts as a page."""
        for number in range(count):
            (tmp_path / str(number)).write_bytes(os.urandom(size_bytes))
        assert measured_bytes(tmp_path, MIB) == least * PAGE_BYTES

    def test_folders_within_count(self, tmp_path: Path) -> None:
        """And what they hold."""
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "file").write_bytes(bytes(PAGE_BYTES))
        assert measured_bytes(tmp_path, MIB) >= 3 * PAGE_BYTES

    def test_a_path_that_is_too_long_is_too_much(self, tmp_path: Path) -> None:
        """What cannot be looked at could hold anything."""
        deep(tmp_path, 30, "x" * 200)
        assert measured_bytes(tmp_path, MIB) > MIB
        empty(tmp_path)

    @pytest.mark.skipif(os.getuid() == 0, reason="root may look into every folder")
    def test_a_folder_without_permissions_is_too_much(self, tmp_path: Path) -> None:
        """As above."""
        (tmp_path / "closed").mkdir(mode=0)
        assert measured_bytes(tmp_path, MIB) > MIB


def deep(folder: Path, levels: int, name: str = "x") -> None:
    """Make folders within folders, further than a path can name."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(levels):
            os.mkdir(name)
            os.chdir(name)
        Path("file").touch()
    finally:
        os.fchdir(before)
        os.close(before)


class TestEmpty:
    @pytest.mark.parametrize("levels", [1, 3000])
    def test_however_deep(self, tmp_path: Path, levels: int) -> None:
        """Deeper than Python recurses and than a path may be long."""
        deep(tmp_path, levels)
        empty(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_whatever_the_permissions(self, tmp_path: Path) -> None:
        """A model's folder may forbid even its owner everything."""
        (tmp_path / "closed" / "inner").mkdir(parents=True)
        (tmp_path / "closed" / "inner" / "file").touch()
        (tmp_path / "closed" / "inner").chmod(0)
        (tmp_path / "closed").chmod(0)
        empty(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        """What they lead to stays."""
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "file").touch()
        (tmp_path / "scratch").mkdir()
        (tmp_path / "scratch" / "link").symlink_to(tmp_path / "kept")
        empty(tmp_path / "scratch")
        assert (tmp_path / "kept" / "file").exists()
        assert list((tmp_path / "scratch").iterdir()) == []
