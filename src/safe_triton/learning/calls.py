"""From a reported system call to what it uses: which argument is a path, a flag, an address."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass

from safe_triton.confinement.syscall_numbers import MACHINES, NUMBERS
from safe_triton.learning.notify import Report
from safe_triton.learning.peek import AT_CWD, Peek
from safe_triton.learning.records import Kind

Use = tuple[Kind, str]

_O_PATH = 0o10000000
_CLONE_THREAD = 0x10000
_AF_NETLINK = 16
_MESSAGE = struct.Struct("=QI")  # struct msghdr: pointer to the address, its length


@dataclass(frozen=True)
class _Entry:
    """A path among a call's arguments: an entry of a folder, which the call makes, renames or removes.

    Args:
        folder: the argument with the folder's descriptor; ``None``: the call has none.
        name: the argument with the name.
        exists: whether the call fails unless the entry exists (``True``) or is absent (``False``).
    """

    folder: int | None
    name: int
    exists: bool | None


_ENTRY_CALLS: dict[str, tuple[_Entry, ...]] = {
    "mkdir": (_Entry(None, 0, exists=False),),
    "mkdirat": (_Entry(0, 1, exists=False),),
    "rmdir": (_Entry(None, 0, exists=True),),
    "unlink": (_Entry(None, 0, exists=True),),
    "unlinkat": (_Entry(0, 1, exists=True),),
    "rename": (_Entry(None, 0, exists=True), _Entry(None, 1, exists=None)),
    "renameat": (_Entry(0, 1, exists=True), _Entry(2, 3, exists=None)),
    "renameat2": (_Entry(0, 1, exists=True), _Entry(2, 3, exists=None)),
    "link": (_Entry(None, 1, exists=False),),
    "linkat": (_Entry(2, 3, exists=False),),
}
_OPENS: dict[str, tuple[int | None, int, int]] = {"open": (None, 0, 1), "openat": (0, 1, 2), "openat2": (0, 1, 2)}


def call_names(machine: str) -> dict[int, str]:
    """Return the names of calls by their number on a machine."""
    column = MACHINES.index(machine)
    return {numbers[column]: name for name, numbers in NUMBERS.items() if numbers[column] >= 0}


def read_uses(name: str, report: Report, peek: Peek) -> list[Use]:
    """Return what a reported call uses; empty when it cannot succeed anyway, such as opening what does not exist.

    Raises:
        OSError: the caller is gone, or its memory cannot be read.
    """
    arguments = report.arguments
    if name in _OPENS:
        return _opened(name, arguments, peek)
    if name == "creat":
        return _written(peek.path(AT_CWD, peek.text(arguments[0])), peek, makes=True)
    if name == "truncate":
        return _written(peek.path(AT_CWD, peek.text(arguments[0])), peek, makes=False)
    if name in _ENTRY_CALLS:
        return _entries(_ENTRY_CALLS[name], arguments, peek)
    reader = _READERS.get(name)
    return reader(arguments, peek) if reader else [("call", name)]


def _opened(name: str, arguments: tuple[int, ...], peek: Peek) -> list[Use]:
    folder, at, flags_at = _OPENS[name]
    flags = arguments[flags_at]
    if name == "openat2":
        flags = int.from_bytes(peek.memory(arguments[flags_at], 8), "little")
    if flags & _O_PATH:
        return []
    path = peek.path(AT_CWD if folder is None else arguments[folder], peek.text(arguments[at]))
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        return [("create", os.path.join(path, "unnamed"))]
    here = peek.outside(path)
    if (
        flags & os.O_ACCMODE == os.O_RDONLY
        and not flags & os.O_TRUNC
        and (os.path.exists(here) or not flags & os.O_CREAT)
    ):
        if not os.access(here, os.R_OK):  # does not exist, or is refused without any confinement
            return []
        return [("list" if os.path.isdir(here) else "read", path)]
    reads: list[Use] = [("read", path)] if flags & os.O_ACCMODE == os.O_RDWR and os.path.exists(here) else []
    return [*reads, *_written(path, peek, makes=bool(flags & os.O_CREAT))]


def _written(path: str, peek: Peek, *, makes: bool) -> list[Use]:
    here = peek.outside(path)
    try:
        mode = os.stat(here).st_mode
    except OSError:
        parent = os.path.dirname(here)
        return [("create", path)] if makes and os.path.isdir(parent) and os.access(parent, os.W_OK) else []
    return [] if stat.S_ISDIR(mode) or not os.access(here, os.W_OK) else [("write", path)]


def _entries(entries: tuple[_Entry, ...], arguments: tuple[int, ...], peek: Peek) -> list[Use]:
    found: list[Use] = []
    for entry in entries:
        folder = AT_CWD if entry.folder is None else arguments[entry.folder]
        path = peek.path(folder, peek.text(arguments[entry.name]), follow=False)
        if not os.path.isdir(os.path.dirname(path)) or entry.exists not in {None, os.path.lexists(path)}:
            return []
        found.append(("create", path))
    return found


def _executed(arguments: tuple[int, ...], peek: Peek) -> list[Use]:
    path = peek.path(AT_CWD, peek.text(arguments[0]))
    return [("execute", path)] if os.access(path, os.X_OK) else []


def _cloned(arguments: tuple[int, ...], _: Peek) -> list[Use]:
    return [] if arguments[0] & _CLONE_THREAD else [("process", "clone")]


def _connected(arguments: tuple[int, ...], peek: Peek) -> list[Use]:
    return _addressed(peek.address(arguments[1], arguments[2]), arguments[0], peek)


def _sent_to(arguments: tuple[int, ...], peek: Peek) -> list[Use]:
    return _addressed(peek.address(arguments[4], arguments[5]), arguments[0], peek, sends=True)


def _sent_message(arguments: tuple[int, ...], peek: Peek) -> list[Use]:
    pointer, length = _MESSAGE.unpack(peek.memory(arguments[1], _MESSAGE.size))
    return _addressed(peek.address(pointer, length), arguments[0], peek, sends=True) if pointer else []


def _addressed(address: str, descriptor: int, peek: Peek, *, sends: bool = False) -> list[Use]:
    if address.startswith("unix:"):
        name = address.removeprefix("unix:")
        exists = name.startswith("@") or os.path.exists(name)
        return [("call", f"connect to {address}")] if exists else []
    if address.startswith("family"):
        return []  # AF_UNSPEC takes a connection back
    if not peek.is_datagram(descriptor):
        return [("connect", address)]
    # Name resolution "connects" datagram sockets to learn a route and sends nothing; port 53 is a name server.
    return [("send", address)] if sends or address.endswith(":53") else []


def _bound(arguments: tuple[int, ...], peek: Peek) -> list[Use]:
    return [("call", f"bind to {peek.address(arguments[1], arguments[2])}")]


def _made_socket(arguments: tuple[int, ...], _: Peek) -> list[Use]:
    # What a unix socket is used for is reported; the C library asks netlink for addresses, and goes on without.
    family = arguments[0]
    return [] if family in {socket.AF_UNIX, _AF_NETLINK} else [("call", f"a socket of family {family}")]


_NOTHING: Callable[[tuple[int, ...], Peek], list[Use]] = lambda _arguments, _peek: []  # noqa: E731 - an entry of a table

_READERS: dict[str, Callable[[tuple[int, ...], Peek], list[Use]]] = {
    "execve": _executed,
    "clone": _cloned,
    "fork": lambda _arguments, _peek: [("process", "fork")],
    "vfork": lambda _arguments, _peek: [("process", "vfork")],
    "setsid": _NOTHING,  # allowed to processes that may start others
    "setpgid": _NOTHING,
    "connect": _connected,
    "sendto": _sent_to,
    "sendmsg": _sent_message,
    "sendmmsg": _sent_message,  # of several messages the first, which is laid out alike
    "bind": _bound,
    "mmap": lambda _arguments, _peek: [("executable_memory", "mmap")],
    "mprotect": lambda _arguments, _peek: [("executable_memory", "mprotect")],
    "socket": _made_socket,
}
