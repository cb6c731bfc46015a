"""Landlock's rights by ABI, as data.

Source:
    Linux ``include/uapi/linux/landlock.h`` and ``Documentation/userspace-api/landlock.rst``.
"""

from __future__ import annotations

from dataclasses import dataclass

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_CHAR = 1 << 6
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
MAKE_SOCK = 1 << 9
MAKE_FIFO = 1 << 10
MAKE_BLOCK = 1 << 11
MAKE_SYM = 1 << 12
REFER = 1 << 13
TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15
RESOLVE_UNIX = 1 << 16

NET_BIND_TCP = 1 << 0
NET_CONNECT_TCP = 1 << 1

SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0

RESTRICT_ALL_THREADS = 1 << 3

FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV | RESOLVE_UNIX
"""Rights that mean something for a file; the kernel refuses the others in a rule for one."""

READ = READ_FILE | READ_DIR
# No links, devices, pipes and sockets: other processes that find one in a writable folder could be led astray.
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
DEVICE = READ_FILE | WRITE_FILE | IOCTL_DEV
# One process's sockets in a folder of its own, which nobody else enters.
SOCKETS = READ | MAKE_SOCK | REMOVE_FILE | RESOLVE_UNIX

_FIRST = (1 << 13) - 1


@dataclass(frozen=True)
class Abi:
    """What one ABI can restrict.

    Args:
        version: its number.
        linux: the first kernel release with it.
        files: ``LANDLOCK_ACCESS_FS_*`` bits.
        network: ``LANDLOCK_ACCESS_NET_*`` bits.
        scopes: ``LANDLOCK_SCOPE_*`` bits. Not signals: Triton's stub tests for its parent with ``kill(pid, 0)``.
        has_thread_sync: whether one call restricts every thread.
    """

    version: int
    linux: str
    files: int
    network: int = 0
    scopes: int = 0
    has_thread_sync: bool = False


_TCP = NET_BIND_TCP | NET_CONNECT_TCP
_SIXTH = (_FIRST | REFER | TRUNCATE | IOCTL_DEV, _TCP, SCOPE_ABSTRACT_UNIX_SOCKET)

ABIS: tuple[Abi, ...] = (
    Abi(1, "5.13", _FIRST),
    Abi(2, "5.19", _FIRST | REFER),
    Abi(3, "6.2", _FIRST | REFER | TRUNCATE),
    Abi(4, "6.7", _FIRST | REFER | TRUNCATE, _TCP),
    Abi(5, "6.10", _FIRST | REFER | TRUNCATE | IOCTL_DEV, _TCP),
    Abi(6, "6.12", *_SIXTH),
    Abi(7, "6.15", *_SIXTH),
    Abi(8, "7.0", *_SIXTH, has_thread_sync=True),
    Abi(9, "7.1", _SIXTH[0] | RESOLVE_UNIX, *_SIXTH[1:], has_thread_sync=True),
)


def abi(version: int) -> Abi:
    """Return the newest row that a kernel of ``version`` has.

    Raises:
        ValueError: below 1.
    """
    if version < 1:
        raise ValueError(f"Landlock ABI {version}")
    return ABIS[min(version, len(ABIS)) - 1]
