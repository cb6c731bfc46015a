"""Lock files: everything in a repository is recorded once, nothing outside it is read, every change is named."""

from __future__ import annotations

import os
import resource
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from safe_triton.audit import lock as locks
from safe_triton.audit.lock import make_lock, read_lock, verify_lock, write_lock
from safe_triton.errors import LockError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small repository with a file, an executable, a link and an empty version folder."""
    root = tmp_path / "models"
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "2").mkdir()
    (root / "m" / "config.pbtxt").write_text('name: "m"\n')
    (root / "m" / "1" / "model.py").write_text("x = 1\n")
    (root / "m" / "1" / "run").write_text("#!/bin/sh\n")
    (root / "m" / "1" / "run").chmod(0o755)
    (root / "m" / "latest").symlink_to("1")
    return root


def changes(repository: Path) -> list[tuple[str, str]]:
    """Return what verify names."""
    return [(problem.change, problem.path) for problem in verify_lock(repository)]


class TestFaults:
    """A fault is one error with the file's name, and nothing is left behind."""

    def test_a_file_that_cannot_be_opened(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One file is enough: a lock of the rest would be no lock."""
        real = os.open

        def some(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if path == "model.py":
                raise PermissionError(13, "Permission denied")
            return real(path, flags, mode, dir_fd=dir_fd)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", some)
        with pytest.raises(LockError, match=r"m/1/model\.py: Permission denied"):
            make_lock(repository)

    def test_a_file_that_cannot_be_read(self) -> None:
        """A file whose beginning is nowhere."""
        with pytest.raises(LockError, match="Input/output error"):
            locks._hash(os.open("/proc/self/mem", os.O_RDONLY), "memory")

    def test_what_is_left_out(self, repository: Path) -> None:
        """A file, or an empty folder, that is not to be in the lock."""
        without = (repository / "m/2", repository / "m/1/run")
        assert not make_lock(repository, without=without).entries.keys() & {"m/2", "m/1/run"}

    def test_a_lock_that_cannot_be_written(self, repository: Path, tmp_path: Path) -> None:
        """A folder in its place."""
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "x").write_text("")
        with pytest.raises(LockError, match="there"):
            write_lock(repository, tmp_path / "there")
        assert {each.name for each in tmp_path.iterdir()} == {"models", "there"}

    def test_a_lock_that_is_too_large(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody reads it to its end."""
        write_lock(repository)
        monkeypatch.setattr(locks, "MAX_LOCK_BYTES", 10)
        with pytest.raises(LockError, match="no file of at most 10 bytes"):
            locks.read_lock_bytes(repository / "safe-triton.lock")

    def test_a_special_file_in_place_of_one(self, tmp_path: Path) -> None:
        """What was a file when it was listed, and is a pipe when it is read."""
        os.mkfifo(tmp_path / "pipe")
        descriptor = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(LockError, match="is no file any more"):
            locks._hash(descriptor, "pipe")

    def test_as_one_line(self, repository: Path) -> None:
        """A change is named with its file."""
        write_lock(repository)
        (repository / "m/1/more.py").write_text("")
        (problem,) = verify_lock(repository)
        assert str(problem).startswith("added m/1/more.py: ")


class TestChanges:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda r: None, []),
            (lambda r: (r / "m/1/model.py").write_text("x = 2\n"), [("changed", "m/1/model.py")]),
            (lambda r: (r / "m/1/model.py").write_text("x = 10\n"), [("changed", "m/1/model.py")]),
            (lambda r: (r / "m/1/model.py").unlink(), [("removed", "m/1/model.py")]),
            (lambda r: (r / "m/1/more.py").write_text(""), [("added", "m/1/more.py")]),
            (lambda r: (r / "m/1/.hidden").write_text(""), [("added", "m/1/.hidden")]),
            (lambda r: (r / "m/1/model.py").chmod(0o755), [("changed", "m/1/model.py")]),
            (lambda r: (r / "m/1/run").chmod(0o644), [("changed", "m/1/run")]),
            (lambda r: (r / "m/7").mkdir(), [("added", "m/7")]),
            (lambda r: (r / "m/2").rmdir(), [("removed", "m/2")]),
            (lambda r: (r / "m/2/model.py").write_text(""), [("removed", "m/2"), ("added", "m/2/model.py")]),
            (lambda r: ((r / "m/latest").unlink(), (r / "m/latest").symlink_to("2")), [("changed", "m/latest")]),
            (lambda r: ((r / "m/latest").unlink(), (r / "m/latest").write_text("1")), [("changed", "m/latest")]),
            (
                lambda r: (r / "m/1/model.py").rename(r / "m/1/n.py"),
                [("removed", "m/1/model.py"), ("added", "m/1/n.py")],
            ),
            (lambda r: os.utime(r / "m/1/model.py", (1, 1)), []),
            (lambda r: (r / "m/1/model.py").chmod(0o600), []),
        ],
    )
    def test_each_is_named(
        self, repository: Path, change: Callable[[Path], object], expected: list[tuple[str, str]]
    ) -> None:
        """Content, the execute bit, links and empty folders count; times and other modes do not."""
        write_lock(repository)
        change(repository)
        assert changes(repository) == expected

    def test_a_lock_elsewhere(self, repository: Path, tmp_path: Path) -> None:
        """A lock file may lie outside, where who writes to the repository cannot write."""
        write_lock(repository, tmp_path / "a.lock")
        assert not (repository / locks.LOCK_NAME).exists()
        assert verify_lock(repository, tmp_path / "a.lock") == []


class TestText:
    def test_is_deterministic(self, repository: Path, tmp_path: Path) -> None:
        """The same files in another place and order give the same bytes, with any number of threads."""
        first = write_lock(repository).to_text()
        other = tmp_path / "other"
        for name in sorted(first and make_lock(repository).entries, reverse=True):
            source, target = repository / name, other / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(os.readlink(source))
            elif source.is_dir():
                target.mkdir()
            elif name != locks.LOCK_NAME:
                target.write_bytes(source.read_bytes())
                target.chmod(source.stat().st_mode)
        assert make_lock(other, jobs=1).to_text() == make_lock(other, jobs=8).to_text() == first

    def test_reads_what_it_writes(self, repository: Path) -> None:
        """Names of any bytes come back as they were."""
        (repository / os.fsdecode(b"\xff\xfe")).write_text("")
        (repository / 'a"\n\\').write_text("")
        lock = make_lock(repository)
        assert read_lock(lock.to_text().encode()) == lock

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{}",
            '{"schema": 2, "entries": {}}',
            '{"schema": 1, "entries": []}',
            '{"schema": 1, "entries": {}, "more": 1}',
            '{"schema": 1, "entries": {"../a": {"folder": true}}}',
            '{"schema": 1, "entries": {"/a": {"folder": true}}}',
            '{"schema": 1, "entries": {"a//b": {"folder": true}}}',
            '{"schema": 1, "entries": {"a": {"folder": false}}}',
            '{"schema": 1, "entries": {"a": {"bytes": true, "sha256": "%s"}}}' % ("0" * 64),
            '{"schema": 1, "entries": {"a": {"bytes": -1, "sha256": "%s"}}}' % ("0" * 64),
            '{"schema": 1, "entries": {"a": {"bytes": 1, "sha256": "00"}}}',
            '{"schema": 1, "entries": {"a": {"bytes": 1, "sha256": "%s", "executable": false}}}' % ("0" * 64),
            '{"schema": 1, "entries": {"a": {"link": 1}}}',
            '{"schema": 1, "entries": {"a": {"folder": true}, "a": {"folder": true}}}',
            "[" * 100_000,
            "\xff",
        ],
    )
    def test_what_is_refused(self, text: str) -> None:
        """Anything but a lock file is refused; nothing is guessed."""
        with pytest.raises(LockError) as caught:
            read_lock(text.encode("latin-1"))
        assert caught.value.reason == "lock.invalid"


class TestHostileRepositories:
    def test_links_are_not_followed(self, repository: Path, tmp_path: Path) -> None:
        """What a link leads to is neither read nor locked, and a loop ends."""
        secret = tmp_path / "secret"
        secret.mkdir()
        (secret / "key").write_text("k")
        (repository / "out").symlink_to(secret)
        (repository / "loop").symlink_to(".")
        write_lock(repository)
        entries = make_lock(repository).entries
        assert entries["out"].link == str(secret) and "out/key" not in entries and entries["loop"].link == "."
        (secret / "key").write_text("other")
        assert changes(repository) == []

    @pytest.mark.parametrize("kind", ["fifo", "socket"])
    def test_special_files_are_refused(self, repository: Path, kind: str) -> None:
        """A pipe would be waited for: it is refused with its name, and no lock is written."""
        path = repository / "m" / "x"
        if kind == "fifo":
            os.mkfifo(path)
        else:
            # A socket's address is short: it is bound from its folder.
            here = Path.cwd()
            os.chdir(path.parent)
            try:
                with socket.socket(socket.AF_UNIX) as bound:
                    bound.bind("x")
            finally:
                os.chdir(here)
        with pytest.raises(LockError, match="m/x: neither file") as caught:
            write_lock(repository)
        assert caught.value.reason == "lock.unreadable"
        assert not (repository / locks.LOCK_NAME).exists()

    def test_depth_is_bounded(self, tmp_path: Path) -> None:
        """Folders without end are refused, not recursed into."""
        path = tmp_path.joinpath("r", *["d"] * (locks.MAX_DEPTH + 2))
        path.mkdir(parents=True)
        with pytest.raises(LockError, match="deeper"):
            make_lock(tmp_path / "r")

    def test_open_files_are_bounded(self, tmp_path: Path) -> None:
        """Many files and folders need few descriptors, and all of them are closed."""
        for number in range(300):
            (tmp_path / "r" / f"m{number}" / "1").mkdir(parents=True)
            (tmp_path / "r" / f"m{number}" / "1" / "model.py").write_text(str(number))
        before = len(os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 150, hard))
        try:
            assert len(make_lock(tmp_path / "r").entries) == 300
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert len(os.listdir("/proc/self/fd")) == before

    def test_large_files_are_streamed(self, tmp_path: Path) -> None:
        """A file of 256 MiB costs no more memory than a small one."""
        (tmp_path / "r").mkdir()
        with open(tmp_path / "r" / "weights", "wb") as file:
            file.truncate(256 << 20)
        tracemalloc.start()
        try:
            make_lock(tmp_path / "r")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 16 << 20

    def test_a_file_that_changes_meanwhile(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that is written while it is read has no digest."""
        real = locks.hashlib.sha256  # type: ignore[attr-defined]

        def writing() -> object:
            (repository / "m/1/model.py").write_text("something longer\n")
            return real()

        monkeypatch.setattr(locks.hashlib, "sha256", writing)  # type: ignore[attr-defined]
        with pytest.raises(LockError, match="changed while it was read"):
            make_lock(repository / "m" / "1", jobs=1)

    def test_a_missing_repository(self, tmp_path: Path) -> None:
        """No folder is an error with its name."""
        with pytest.raises(LockError, match="nowhere"):
            make_lock(tmp_path / "nowhere")
