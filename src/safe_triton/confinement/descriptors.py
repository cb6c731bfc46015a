"""Open files that a policy does not grant: an open descriptor is access, whatever ``open`` would say now."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Collection
from typing import TYPE_CHECKING

from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.grants import Grant, is_granted

if TYPE_CHECKING:
    import socket

STANDARD = (0, 1, 2)


def close_ungranted(grants: tuple[Grant, ...], keep: Collection[int], *, has_network: bool) -> int:
    """Close descriptors of files, folders, devices and sockets that the grants do not cover; return how many.

    Pipes, pairs of stream sockets, event and poll descriptors stay: they lead nowhere by name. So do unlinked files.

    Args:
        grants: what may be opened.
        keep: descriptors that stay whatever they are; the standard three always do.
        has_network: internet sockets stay.

    Does not cover:
        What was read or mapped from them before. Descriptors that arrive over a stream socket later.
    """
    closed = 0
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor in STANDARD or descriptor in keep:
            continue
        try:
            allowed = _is_allowed(descriptor, grants, has_network=has_network)
        except OSError:  # the descriptor of the listing itself, gone by now
            continue
        if not allowed:
            os.close(descriptor)
            closed += 1
    return closed


def _is_allowed(descriptor: int, grants: tuple[Grant, ...], *, has_network: bool) -> bool:
    status = os.fstat(descriptor)
    if stat.S_ISSOCK(status.st_mode):
        return _is_socket_allowed(descriptor, has_network=has_network)
    if stat.S_IFMT(status.st_mode) == 0 or status.st_nlink == 0:  # anonymous inode, unlinked file, memfd
        return True
    target = os.readlink(f"/proc/self/fd/{descriptor}")
    if not target.startswith("/"):  # pipe:[…]
        return True
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if flags & os.O_PATH:  # leads on by openat, where Landlock looks again
        return is_granted(target, rights.READ_FILE, grants)
    mode = flags & os.O_ACCMODE
    needed = rights.READ_DIR if stat.S_ISDIR(status.st_mode) else rights.READ_FILE
    if mode != os.O_RDONLY:
        needed = rights.WRITE_FILE if mode == os.O_WRONLY else rights.WRITE_FILE | rights.READ_FILE
    return is_granted(target, needed, grants)


def _is_socket_allowed(descriptor: int, *, has_network: bool) -> bool:
    import socket

    with socket.socket(fileno=os.dup(descriptor)) as found:
        if found.family == socket.AF_UNIX:
            # A datagram socket can send to any name; a named or listening one is reached from outside.
            return found.type == socket.SOCK_STREAM and not found.getsockname() and not _peer_name(found)
        return has_network and found.family in {socket.AF_INET, socket.AF_INET6}


def _peer_name(found: socket.socket) -> object:
    try:
        return found.getpeername()
    except OSError:
        return "not connected"
