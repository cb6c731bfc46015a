"""An open descriptor is access: what the grants do not cover is closed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.descriptors import close_ungranted
from safe_triton.confinement.grants import Grant

Open = Callable[[Path], int]


def listing(found: int) -> Callable[[str], list[str]]:
    """Stand in for the kernel's list, so that no other test's files are closed: the standard three, one, one that ended."""
    return lambda _: ["0", "1", "2", str(found), str(1 << 30)]


def pair(kind: socket.SocketKind) -> Open:
    def made(folder: Path) -> int:
        one, other = socket.socketpair(socket.AF_UNIX, kind)
        other.close()
        return one.detach()

    return made


def named(folder: Path) -> int:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "socket"))
    return listening.detach()


def connected(folder: Path) -> int:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(folder / "socket"))
        listening.listen()
        client.connect(str(folder / "socket"))
        return os.dup(client.fileno())


def pipe(folder: Path) -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


def unlinked(folder: Path) -> int:
    (folder / "gone").touch()
    found = os.open(folder / "gone", os.O_RDWR)
    (folder / "gone").unlink()
    return found


def file(flags: int) -> Open:
    return lambda folder: os.open(folder / "file", flags)


def internet(folder: Path) -> int:
    return socket.socket(socket.AF_INET).detach()


READ = rights.READ
WRITE = rights.WRITE

CASES: tuple[tuple[str, Open, int, bool, bool], ...] = (
    ("a file without a grant", file(os.O_RDONLY), 0, True, False),
    ("a file to read", file(os.O_RDONLY), READ, False, True),
    ("a file to write where reading is granted", file(os.O_WRONLY), READ, False, False),
    ("a file to write", file(os.O_WRONLY), rights.WRITE_FILE, False, True),
    ("a file for both where writing alone is granted", file(os.O_RDWR), rights.WRITE_FILE, False, False),
    ("a file for both", file(os.O_RDWR), WRITE, False, True),
    ("a name without a grant", file(os.O_PATH), 0, False, False),
    ("a name to read", file(os.O_PATH), READ, False, True),
    ("a folder without a grant", lambda folder: os.open(folder, os.O_RDONLY), rights.READ_FILE, False, False),
    ("a folder to list", lambda folder: os.open(folder, os.O_RDONLY), READ, False, True),
    ("a device", lambda _: os.open("/dev/null", os.O_RDONLY), 0, False, False),
    ("an unlinked file", unlinked, 0, False, True),
    ("a pipe", pipe, 0, False, True),
    ("an event", lambda _: os.eventfd(0), 0, False, True),
    ("a pair of streams", pair(socket.SOCK_STREAM), 0, False, True),
    ("a pair of datagrams", pair(socket.SOCK_DGRAM), 0, True, False),
    ("a stream socket that is not connected", lambda _: socket.socket(socket.AF_UNIX).detach(), 0, True, False),
    ("a named socket", named, 0, True, False),
    ("a socket connected to a name", connected, 0, True, False),
    ("an internet socket without network", internet, 0, False, False),
    ("an internet socket", internet, 0, True, True),
    ("another family's socket", lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).detach(), 0, True, False),
)


@pytest.mark.parametrize(
    ("make", "access", "has_network", "stays"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Open, access: int, has_network: bool, stays: bool
) -> None:
    """Exactly what the grants would let it open anew, and what leads nowhere."""
    (tmp_path / "file").touch()
    found = make(tmp_path)
    monkeypatch.setattr(os, "listdir", listing(found))
    closed = close_ungranted((Grant(str(tmp_path), access),), (), has_network=has_network)
    assert closed == (0 if stays else 1)
    if stays:
        os.close(found)
    else:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(found)


def test_what_is_kept_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is."""
    found = internet(tmp_path)
    monkeypatch.setattr(os, "listdir", listing(found))
    assert close_ungranted((), (found,), has_network=False) == 0
    os.close(found)
