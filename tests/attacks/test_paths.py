"""Attempts to read outside a ConfinedRoot. Each names its positive control: a plain ``open`` that succeeds.

Not covered, and shown as such: a hard link, which *is* the file.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from safe_triton.confinement import ConfinedRoot, is_beneath
from safe_triton.errors import PathError

SECRET = b"outside the root"
LONG_S = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "secret").write_bytes(SECRET)
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "secret").write_bytes(b"inside")
    return root


@pytest.fixture(params=["openat2", "openat"])
def root(folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConfinedRoot]:
    if request.param == "openat":
        monkeypatch.setattr(ConfinedRoot, "_probe_openat2", lambda self: False)
    with ConfinedRoot(folder) as opened:
        if opened.mechanism != request.param:
            pytest.skip("this kernel has no openat2")
        yield opened


def plain_open(folder: Path, name: str) -> bytes:
    """The control: what a join and an open give."""
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "./../secret", "sub/./../../secret", "..//secret"])
def test_parent(root: ConfinedRoot, folder: Path, name: str) -> None:
    """'..' does not lead out."""
    assert plain_open(folder, name) == SECRET
    with pytest.raises(PathError, match=r"'\.\.' is refused"):
        root.open(name)


def test_absolute(root: ConfinedRoot, folder: Path) -> None:
    """os.path.join forgets the root for an absolute name; this does not."""
    name = str(folder.parent / "secret")
    assert plain_open(folder, name) == SECRET
    with pytest.raises(PathError):
        root.open(name)
    with pytest.raises(PathError):
        root.open("/" + name)


def test_link_to_outside(root: ConfinedRoot, folder: Path) -> None:
    """A link as the last component is not followed, relative or absolute."""
    (folder / "relative").symlink_to("../secret")
    (folder / "absolute").symlink_to(folder.parent / "secret")
    for name in ("relative", "absolute"):
        assert plain_open(folder, name) == SECRET
        with pytest.raises(PathError) as error:
            root.open(name)
        assert error.value.reason == "path.link"


def test_link_inside_the_chain(root: ConfinedRoot, folder: Path) -> None:
    """A linked folder in the middle is not followed, nor is one that points inside."""
    (folder / "way").symlink_to("../away")
    (folder / "sub" / "up").symlink_to("../..")
    (folder / "inner").symlink_to("sub")
    for name in ("way/secret", "sub/up/secret"):
        assert plain_open(folder, name) == SECRET
        with pytest.raises(PathError) as error:
            root.open(name)
        assert error.value.reason == "path.link"
    with pytest.raises(PathError):
        root.open("inner/secret")
    with pytest.raises(PathError):
        root.names("way")


def test_proc_magic_links(folder: Path) -> None:
    """Magic links of /proc are links too, even with /proc itself as the root."""
    target = str(folder.parent / "secret")
    assert plain_open(Path("/proc/self"), "root" + target) == SECRET
    with ConfinedRoot("/proc/self") as root:
        for name in ("root" + target, "cwd/secret", "fd/0", "exe"):
            with pytest.raises(PathError):
                root.open(name)
        assert not root.exists("root")


def swapping(folder: Path, swap: Callable[[], None], stop: threading.Event) -> threading.Thread:
    """A thread that keeps exchanging what stands at a name."""

    def run() -> None:
        while not stop.is_set():
            swap()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_swapped_link(root: ConfinedRoot, folder: Path, kind: str) -> None:
    """A name that alternates between a real entry and a link outside never gives what is outside."""
    if kind == "folder":
        name, inside, outside, place = "turn/secret", folder / "sub", folder / "way", folder / "turn"
        outside.symlink_to("../away")
    else:
        name, inside, outside, place = "turn", folder / "plain", folder / "way", folder / "turn"
        inside.write_bytes(b"inside")
        outside.symlink_to("../secret")
    stop = threading.Event()

    def swap() -> None:
        for one in (inside, outside):
            os.rename(one, place)
            os.rename(place, one)

    thread = swapping(folder, swap, stop)
    read: dict[str, set[bytes]] = {"confined": set(), "plain": set()}
    try:
        began = time.monotonic()
        while True:
            try:
                read["confined"].add(root.read_bytes(name))
            except PathError:
                pass
            try:
                read["plain"].add(plain_open(folder, name))
            except OSError:
                pass
            done = SECRET in read["plain"] and b"inside" in read["plain"] and b"inside" in read["confined"]
            if time.monotonic() - began > (1.0 if done else LONG_S):
                break
    finally:
        stop.set()
        thread.join()
    assert SECRET in read["plain"], "positive control: the race can be won against a plain open"
    assert read["confined"] == {b"inside"}


def test_fifo_does_not_block(root: ConfinedRoot, folder: Path) -> None:
    """A FIFO without a writer is refused at once; a plain open waits for ever."""
    os.mkfifo(folder / "fifo")
    blocked = threading.Thread(target=plain_open, args=(folder, "fifo"), daemon=True)
    blocked.start()
    began = time.monotonic()
    with pytest.raises(PathError) as error:
        root.open("fifo")
    assert time.monotonic() - began < LONG_S
    assert error.value.reason == "path.special"
    blocked.join(0.2)
    assert blocked.is_alive(), "positive control: the plain open is still waiting"
    os.close(os.open(folder / "fifo", os.O_WRONLY))
    blocked.join(LONG_S)
    assert not blocked.is_alive()


def test_fifo_put_there_after_the_look(root: ConfinedRoot, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file exchanged for a FIFO between the look and the open is refused without waiting."""
    (folder / "turn").write_bytes(b"inside")
    real = ConfinedRoot._reach
    looks: list[int] = []

    def reach(self: ConfinedRoot, parts: list[bytes], flags: int) -> int:
        looks.append(flags)
        if len(looks) == 2:
            os.unlink(folder / "turn")
            os.mkfifo(folder / "turn")
        return real(self, parts, flags)

    monkeypatch.setattr(ConfinedRoot, "_reach", reach)
    with pytest.raises(PathError) as error:
        root.open("turn")
    assert error.value.reason == "path.special" and len(looks) == 2


def test_device() -> None:
    """A device is not opened, even when the root is /dev."""
    assert plain_open(Path("/dev"), "null") == b""
    with ConfinedRoot("/dev") as root:
        for name in ("null", "zero", "full", "urandom", "tty"):
            if os.path.exists(f"/dev/{name}"):
                with pytest.raises(PathError) as error:
                    root.open(name)
                assert error.value.reason == "path.special"


@pytest.mark.parametrize(
    "name", ["\u2025/secret", "\uff0e\uff0e/secret", "..\u2215secret", "%2e%2e/secret", "..\\secret", "~/secret"]
)
def test_look_alikes(root: ConfinedRoot, folder: Path, name: str) -> None:
    """Names that only look like a way out, or are one elsewhere, are ordinary names here."""
    with pytest.raises(PathError) as error:
        root.open(name)
    assert error.value.reason == "path.missing"
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"inside")
    assert root.read_bytes(name) == b"inside"


@pytest.mark.parametrize("name", ["n" * 10_000, "d/" * 100_000, "../" * 2000 + "etc/passwd", "\udcff" * 5000])
def test_very_long_names(root: ConfinedRoot, name: str) -> None:
    """A huge name is refused in one short line."""
    with pytest.raises(PathError) as error:
        root.open(name)
    assert len(str(error.value)) < 300


def test_working_directory_does_not_matter(root: ConfinedRoot, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names start at the root, not at the working directory."""
    monkeypatch.chdir(folder.parent)
    assert Path("secret").read_bytes() == SECRET
    with pytest.raises(PathError) as error:
        root.open("secret")
    assert error.value.reason == "path.missing"


def test_replaced_root(root: ConfinedRoot, folder: Path) -> None:
    """The folder that was opened stays the root when another takes its name."""
    folder.rename(folder.parent / "moved")
    folder.symlink_to("away")
    assert plain_open(folder, "secret") == SECRET
    assert root.read_bytes("sub/secret") == b"inside"
    with pytest.raises(PathError):
        root.open("secret")


def test_prefix_is_not_beneath(tmp_path: Path) -> None:
    """A sibling whose name begins like the root is not beneath it; startswith says it is."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models-evil").mkdir()
    assert str(tmp_path / "models-evil").startswith(str(tmp_path / "models"))
    assert not is_beneath(tmp_path / "models", tmp_path / "models-evil")


def test_hard_link_is_not_covered(root: ConfinedRoot, folder: Path) -> None:
    """Known limit: a hard link made by someone who may write in the root is a file of the root, and is opened."""
    os.link(folder.parent / "secret", folder / "hard")
    assert root.read_bytes("hard") == SECRET
