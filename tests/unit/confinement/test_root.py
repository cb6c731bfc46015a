"""ConfinedRoot and is_beneath."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from safe_triton.confinement import ConfinedRoot, is_beneath
from safe_triton.errors import PathError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"alpha\r\n")
    (root / "sub" / "b.bin").write_bytes(b"beta")
    (root / "link").symlink_to("a.txt")
    (root / "linked").symlink_to("sub")
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture(params=["openat2", "openat"])
def root(folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConfinedRoot]:
    if request.param == "openat":
        monkeypatch.setattr(ConfinedRoot, "_probe_openat2", lambda self: False)
    with ConfinedRoot(folder) as opened:
        if opened.mechanism != request.param:
            pytest.skip("this kernel has no openat2")
        yield opened


def reason_of(error: pytest.ExceptionInfo[PathError]) -> str:
    return error.value.reason


def test_open_reads_a_file(root: ConfinedRoot) -> None:
    """A regular file is opened in binary mode by default."""
    with root.open("sub/b.bin") as file:
        assert file.read() == b"beta"


def test_open_text_is_utf8(root: ConfinedRoot, folder: Path) -> None:
    """Text is UTF-8 whatever the locale says."""
    (folder / "u.txt").write_bytes("ü\n".encode())
    with root.open("u.txt", "r") as file:
        assert file.read() == "ü\n"


def test_open_takes_another_encoding(root: ConfinedRoot, folder: Path) -> None:
    """An encoding may be named."""
    (folder / "l.txt").write_bytes(b"\xfc")
    with root.open("l.txt", "r", encoding="latin-1") as file:
        assert file.read() == "ü"


def test_numpy_loads_from_it(root: ConfinedRoot, folder: Path) -> None:
    """np.load accepts the opened file."""
    np.save(folder / "t.npy", np.arange(6).reshape(2, 3))
    with root.open("t.npy") as file:
        assert np.load(file, allow_pickle=False).shape == (2, 3)


@pytest.mark.parametrize("name", ["./a.txt", "sub/../a.txt", "a.txt/", "sub//b.bin", "sub/./b.bin"])
def test_dots_and_doubled_slashes(root: ConfinedRoot, name: str) -> None:
    """'.' and empty components mean nothing; '..' is refused even where it would stay inside."""
    if ".." in name:
        with pytest.raises(PathError) as error:
            root.open(name)
        assert reason_of(error) == "path.parent"
    else:
        root.open(name).close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "path.invalid"),
        ("a\0b", "path.invalid"),
        ("\ud800", "path.invalid"),
        ("n" * 300, "path.invalid"),
        ("d/" * 5000 + "f", "path.invalid"),
        ("/etc/passwd", "path.absolute"),
        ("//etc/passwd", "path.absolute"),
        ("..", "path.parent"),
        ("sub/..", "path.parent"),
        ("missing", "path.missing"),
        ("missing/x", "path.missing"),
        (".", "path.directory"),
        ("sub", "path.directory"),
        ("link", "path.link"),
        ("linked/b.bin", "path.link"),
        ("linked", "path.link"),
        ("a.txt/x", "path.not_a_directory"),
        ("fifo", "path.special"),
    ],
)
def test_refusals(root: ConfinedRoot, name: str, reason: str) -> None:
    """Each kind of refusal has its reason."""
    with pytest.raises(PathError) as error:
        root.open(name)
    # A name of many missing folders is too long for one openat2 call and merely missing component by component.
    assert reason_of(error) in (reason, "path.missing" if name.startswith("d/") else reason)


def test_socket_is_refused(root: ConfinedRoot, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unix socket is no file to read."""
    monkeypatch.chdir(folder)  # a socket's path is at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(PathError) as error:
            root.open("s")
    assert reason_of(error) == "path.special"


@pytest.mark.parametrize("mode", ["w", "wb", "a", "r+", "rb+", "x", "rt", "U", ""])
def test_only_reading_modes(root: ConfinedRoot, folder: Path, mode: str) -> None:
    """Whatever could write is refused before anything is opened."""
    with pytest.raises(PathError) as error:
        root.open("new", mode)  # type: ignore[call-overload]
    assert reason_of(error) == "path.mode"
    assert not (folder / "new").exists()


def test_encoding_is_for_text(root: ConfinedRoot) -> None:
    """An encoding in binary mode, or an unknown one, is refused."""
    with pytest.raises(PathError):
        root.open("a.txt", "rb", encoding="utf-8")  # type: ignore[call-overload]
    with pytest.raises(PathError, match="unknown encoding"):
        root.open("a.txt", "r", encoding="no-such")


def test_bytes_names_are_a_type_error(root: ConfinedRoot) -> None:
    """A name is text."""
    with pytest.raises(TypeError, match=r"str or os\.PathLike"):
        root.open(b"a.txt")  # type: ignore[call-overload]


def test_str_subclass_cannot_answer_differently(root: ConfinedRoot) -> None:
    """The name that is checked is the name that is opened."""

    class Two(str):
        __slots__ = ()

        def encode(self, *args: object, **kwargs: object) -> bytes:
            return b"/etc/passwd"

        def split(self, *args: object, **kwargs: object) -> list[str]:
            return ["..", "secret"]

    with root.open(Two("a.txt")) as file:
        assert file.read() == b"alpha\r\n"


def test_read_bytes_at_and_above_the_bound(root: ConfinedRoot) -> None:
    """max_bytes is the largest content accepted."""
    assert root.read_bytes("sub/b.bin", max_bytes=4) == b"beta"
    with pytest.raises(PathError, match="more than 3 bytes") as error:
        root.read_bytes("sub/b.bin", max_bytes=3)
    assert reason_of(error) == "path.too_large"


def test_read_text(root: ConfinedRoot) -> None:
    """Text has its line ends made plain, as with open()."""
    assert root.read_text("a.txt") == "alpha\n"


def test_exists(root: ConfinedRoot) -> None:
    """exists() is about what open() or names() would reach."""
    assert root.exists("a.txt") and root.exists("sub") and root.exists(".") and root.exists("sub/b.bin")
    for name in ("missing", "link", "linked", "linked/b.bin", "fifo", "a.txt/x"):
        assert not root.exists(name)
    with pytest.raises(PathError):
        root.exists("../root/a.txt")


def test_names(root: ConfinedRoot) -> None:
    """names() lists a folder, sorted, without following links."""
    assert root.names() == ["a.txt", "fifo", "link", "linked", "sub"]
    assert root.names("sub") == ["b.bin"]
    for name, reason in [("linked", "path.link"), ("a.txt", "path.not_a_directory"), ("none", "path.missing")]:
        with pytest.raises(PathError) as error:
            root.names(name)
        assert reason_of(error) == reason


def test_close_ends_it(root: ConfinedRoot) -> None:
    """After close() nothing more is opened, and what is open stays open."""
    file = root.open("a.txt")
    root.close()
    root.close()
    assert file.read() == b"alpha\r\n"
    file.close()
    for call in (root.open, root.names, root.exists):
        with pytest.raises(PathError) as error:
            call("a.txt")
        assert reason_of(error) == "path.closed"
    assert repr(root).endswith("closed>")


def test_no_descriptor_is_left(root: ConfinedRoot) -> None:
    """Neither success nor refusal leaks a descriptor."""
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a.txt", "link", "fifo", "sub", "missing", "linked/b.bin", "sub/b.bin/x"):
        try:
            root.open(name).close()
        except PathError:
            pass
        root.exists(name)
        try:
            root.names(name)
        except PathError:
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_descriptor_is_not_inherited(root: ConfinedRoot) -> None:
    """Opened files close at exec."""
    with root.open("a.txt") as file:
        assert not os.get_inheritable(file.fileno())


def test_messages_hold_no_host_path(root: ConfinedRoot, folder: Path) -> None:
    """A refusal never tells where the root is, even when the caller's name contained it."""
    for name in (
        "missing",
        "link",
        "linked/b.bin",
        "fifo",
        "sub",
        "..",
        "/x",
        str(folder / "a.txt"),
        "q" * 400,
        "a.txt/b",
    ):
        with pytest.raises(PathError) as error:
            root.open(name)
        shown = str(error.value) + repr(error.value) + repr(root)
        assert str(folder) not in shown and str(folder.parent) not in shown
        assert (error.value.__cause__ is None and error.value.__suppress_context__) or error.value.__context__ is None
        assert len(str(error.value)) < 300 and str(error.value).isascii()


def test_root_must_be_a_folder(tmp_path: Path) -> None:
    """A root that is missing or a file is refused without its path."""
    (tmp_path / "f").write_text("")
    cases: list[tuple[Path | str, str]] = [
        (tmp_path / "none", "path.missing"),
        (tmp_path / "f", "path.directory"),
        ("a\0", "path.missing"),
    ]
    for path, reason in cases:
        with pytest.raises(PathError) as error:
            ConfinedRoot(path)
        assert reason_of(error) == reason
        assert str(tmp_path) not in str(error.value)


def test_seccomp_after_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a filter takes openat2 away later, names are resolved by component."""
    root = ConfinedRoot(folder)

    def denied(*args: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("safe_triton._libc.openat2", denied)
    assert root.read_bytes("sub/b.bin") == b"beta"
    with pytest.raises(PathError):
        root.open("linked/b.bin")


def test_interrupted_call_is_repeated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal during openat2 does not fail the read."""
    from safe_triton import _libc

    root = ConfinedRoot(folder)
    if root.mechanism != "openat2":
        pytest.skip("this kernel has no openat2")
    real, calls = _libc.openat2, []

    def once(*args: object) -> int:
        calls.append(args)
        if len(calls) == 1:
            raise InterruptedError(4, "Interrupted system call")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("safe_triton._libc.openat2", once)
    assert root.read_bytes("a.txt") == b"alpha\r\n"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EINVAL])
def test_a_kernel_without_openat2(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Names are resolved by component from the start."""

    def answer(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("safe_triton._libc.openat2", answer)
    with ConfinedRoot(folder) as root:
        assert root.mechanism == "openat"
        assert root.read_bytes("sub/b.bin") == b"beta"


def test_what_the_system_refuses(root: ConfinedRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reason is told, without the path."""

    def refuse(*args: object, **options: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/host/path")

    monkeypatch.setattr("safe_triton._libc.openat2", refuse)
    monkeypatch.setattr(ConfinedRoot, "_reach_by_component", refuse)
    with pytest.raises(PathError) as error:
        root.open("a.txt")
    assert (reason_of(error), str(error.value)) == ("path.unreadable", "cannot be read (Input/output error): 'a.txt'")


def test_is_beneath_compares_components(tmp_path: Path) -> None:
    """/models-evil is not beneath /models."""
    for name in ("models", "models/a", "models-evil"):
        (tmp_path / name).mkdir()
    models = tmp_path / "models"
    assert is_beneath(models, models / "a")
    assert is_beneath(models, models)
    assert is_beneath("/", models)
    assert is_beneath(f"{models}/", f"{models}/a/../a")
    assert not is_beneath(models, tmp_path / "models-evil")
    assert not is_beneath(models / "a", models)
    assert not is_beneath(models, models / "a" / ".." / "..")


def test_is_beneath_resolves_links(tmp_path: Path) -> None:
    """Where a link leads decides, on both sides."""
    (tmp_path / "models").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "models" / "way-out").symlink_to(tmp_path / "out")
    (tmp_path / "alias").symlink_to(tmp_path / "models")
    (tmp_path / "models" / "loop").symlink_to("loop")
    assert not is_beneath(tmp_path / "models", tmp_path / "models" / "way-out")
    assert is_beneath(tmp_path / "alias", tmp_path / "models")
    assert not is_beneath(tmp_path / "models", tmp_path / "models" / "loop")
    assert not is_beneath(tmp_path / "models", tmp_path / "models" / "none")
    assert not is_beneath(tmp_path / "models", f"{tmp_path}/models\0/a")


def test_is_beneath_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths mean the working directory's."""
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path)
    assert is_beneath(tmp_path, "m")
    assert not is_beneath("m", tmp_path)
