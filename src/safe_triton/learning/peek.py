"""Looking into the process whose call is reported: strings in its memory, the path that a name means there."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from safe_triton import _libc
from safe_triton.confinement.syscall_numbers import number_of

AT_CWD = -100
_PATH_MAX = 4096
_PAGE = 4096
_ADDRESS_MAX = 128
_OWN_PROCESS = ("/proc/self", "/proc/thread-self")


@dataclass(frozen=True)
class Peek:
    """A process, by the id of the thread that made a call and now waits.

    Every method raises ``OSError`` when the process is gone or does not let itself be read.
    """

    thread: int

    def memory(self, address: int, length: int) -> bytes:
        """Return bytes of its memory."""
        with open(f"/proc/{self.thread}/mem", "rb", buffering=0) as file:
            return os.pread(file.fileno(), length, address)

    def text(self, address: int) -> str:
        """Return the string at an address, as file names are."""
        data = b""
        while len(data) < _PATH_MAX:
            here = address + len(data)
            part = self.memory(here, _PAGE - here % _PAGE)  # the next page may not be mapped
            end = part.find(b"\0")
            if end >= 0 or not part:
                return os.fsdecode(data + part[: max(end, 0)])
            data += part
        return os.fsdecode(data[:_PATH_MAX])

    def path(self, folder: int, name: str, *, follow: bool = True) -> str:
        """Return the real absolute path that a name means, relative to a descriptor or to its working directory.

        Args:
            folder: descriptor, or :data:`AT_CWD`.
            name: as the call has it.
            follow: whether a link in the last place is followed.
        """
        process = self.process()
        if not name.startswith("/"):
            place = "cwd" if _signed(folder) == AT_CWD else f"fd/{_signed(folder)}"
            start = os.readlink(f"/proc/{self.thread}/{place}")
            name = os.path.join(start, name) if name else start
        for own in _OWN_PROCESS:
            if name == own or name.startswith(own + "/"):
                name = f"/proc/{process}{name[len(own) :]}"
        real = os.path.realpath(name) if follow else _real_parent(name)
        mine = f"/proc/{process}"
        return f"/proc/self{real[len(mine) :]}" if real == mine or real.startswith(mine + "/") else real

    def outside(self, path: str) -> str:
        """Return a path that :meth:`path` gave in words of every process: its own ``/proc`` by number."""
        own = _OWN_PROCESS[0]
        return f"/proc/{self.process()}{path[len(own) :]}" if path.startswith(own + "/") else path

    def process(self) -> int:
        """Return the id of the process that the thread belongs to."""
        with open(f"/proc/{self.thread}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("Tgid:"):
                    return int(line.split()[1])
        return self.thread

    def address(self, pointer: int, length: int) -> str:
        """Return a socket address as ``HOST:PORT`` of the internet, ``unix:PATH``, or ``family N``."""
        data = self.memory(pointer, min(length, _ADDRESS_MAX))
        family = struct.unpack_from("=H", data)[0] if len(data) >= 2 else 0
        if family == socket.AF_INET and len(data) >= 8:
            return f"{socket.inet_ntop(family, data[4:8])}:{struct.unpack_from('!H', data, 2)[0]}"
        if family == socket.AF_INET6 and len(data) >= 24:
            return f"[{socket.inet_ntop(family, data[8:24])}]:{struct.unpack_from('!H', data, 2)[0]}"
        if family == socket.AF_UNIX:
            name = data[2:]
            return "unix:@" + os.fsdecode(name[1:]) if name[:1] == b"\0" else "unix:" + _path_of(name)
        return f"family {family}"

    def is_datagram(self, descriptor: int) -> bool:
        """Whether a socket of the process carries datagrams; ``False`` where the kernel does not let it be asked."""
        number = number_of("pidfd_getfd", os.uname().machine)
        assert number is not None  # noqa: S101 - the call exists on both machines
        try:
            process = os.pidfd_open(self.process())
            try:
                copy = _libc.syscall(number, process, _signed(descriptor), 0)
            finally:
                os.close(process)
        except OSError:
            return False
        with socket.socket(fileno=copy) as found:
            return found.type == socket.SOCK_DGRAM


def _path_of(name: bytes) -> str:
    return os.fsdecode(name.split(b"\0", 1)[0])


def _real_parent(path: str) -> str:
    """A path whose folders have no links, its last part as it is."""
    parent, last = os.path.split(path.rstrip("/") or "/")
    return os.path.join(os.path.realpath(parent), last) if last not in {"", ".", ".."} else os.path.realpath(path)


def _signed(value: int) -> int:
    """The ``int`` in a register."""
    low = value & 0xFFFF_FFFF
    return low - (1 << 32) if low & 0x8000_0000 else low
