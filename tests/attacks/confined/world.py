"""What an attempt finds: files, sockets and a process that it should not reach, and how each effect shows from outside.

Plain strings and numbers, so that a world can be handed to any process, a model included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

SECRET = b"only for the operator 7f3a"

MOMENT_S = 0.1
"""How long an effect is looked for that must not be there."""

PATIENCE_S = 60.0
"""How long one is looked for that must: a control's."""


@dataclass(frozen=True)
class World:
    """The places of one attempt.

    Args:
        outside: folder that is not granted, with ``secret``, ``script.py``, ``base.sqlite`` and ``empty/``.
        data: folder granted for reading, with ``weights``.
        scratch: folder granted for writing.
        victim: process id of a process of the same user.
        tcp: port of a listening TCP socket on 127.0.0.1.
        udp: port of a UDP socket on 127.0.0.1.
        stream: path of a listening unix socket, inside ``data``.
        datagram: path of a unix datagram socket, inside ``data``.
        abstract: name of a listening abstract socket.
        shared: name of a file in ``/dev/shm``.
        folder_descriptor: descriptor of ``outside``, opened before the confinement.
        file_descriptor: descriptor of ``secret``, opened before the confinement.
        socket_descriptor: UDP socket, opened before the confinement.
    """

    outside: str
    data: str
    scratch: str
    victim: int
    tcp: int
    udp: int
    stream: str
    datagram: str
    abstract: str
    shared: str
    folder_descriptor: int = -1
    file_descriptor: int = -1
    socket_descriptor: int = -1

    @property
    def secret(self) -> str:
        """The file that must not be read."""
        return f"{self.outside}/secret"


class Stage:
    """Builds a world and tells what happened to it.

    Args:
        folder: parent of the three folders of the world.
        name: one more folder below each of the three; several stages can then share two grants that were made before.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        outside, data, scratch = (folder / part / name for part in ("outside", "data", "scratch"))
        for place in (outside, data, scratch, outside / "empty"):
            place.mkdir(parents=True)
        (outside / "secret").write_bytes(SECRET)
        (outside / "script.py").write_text(f"SECRET = {SECRET!r}\n")
        (outside / "base.sqlite").touch()
        (data / "weights").write_bytes(b"weights")
        self._stack = contextlib.ExitStack()
        self._contacts: list[socket.socket] = []
        shared = f"/dev/shm/safe-triton-test-{os.getpid()}-{time.monotonic_ns()}"
        Path(shared).write_bytes(SECRET)
        self._stack.callback(Path(shared).unlink)
        short = Path(f"/tmp/st-{os.getpid()}-{time.monotonic_ns()}")  # a socket's path has 107 characters
        short.symlink_to(data)
        self._stack.callback(short.unlink)
        self.victim = subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL, start_new_session=True)
        self._stack.callback(self._end_victim)
        while not Path(f"/proc/{self.victim.pid}/cmdline").read_bytes():
            time.sleep(0.001)  # Popen returns before the kernel has laid out the program's memory and arguments
        tcp = self._listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        udp = self._listen(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self._listen(socket.AF_UNIX, socket.SOCK_STREAM, str(short / "stream"))
        self._listen(socket.AF_UNIX, socket.SOCK_DGRAM, str(short / "datagram"))
        abstract = f"safe-triton-{os.getpid()}-{time.monotonic_ns()}"
        self._listen(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{abstract}")
        self.world = World(
            outside=str(outside),
            data=str(data),
            scratch=str(scratch),
            victim=self.victim.pid,
            tcp=tcp.getsockname()[1],
            udp=udp.getsockname()[1],
            stream=str(short / "stream"),
            datagram=str(short / "datagram"),
            abstract=abstract,
            shared=shared,
        )
        self._before = self._snapshot()
        self._victim_before = self._victim_state()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _listen(self, family: int, kind: int, address: object) -> socket.socket:
        made = self._stack.enter_context(socket.socket(family, kind))
        made.bind(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_STREAM:
            made.listen()
        made.setblocking(False)
        self._contacts.append(made)
        return made

    def shows(self, effect: str, *, patience_s: float = MOMENT_S) -> bool:
        """Whether an effect on another shows; a signal and a packet take their time, on a busy machine a long one."""
        look = {"changed": self.is_changed, "victim": self.is_victim_touched, "contact": self.has_contact}[effect]
        until_s = time.monotonic() + patience_s
        while not look():
            if effect == "changed" or time.monotonic() > until_s:
                return False
            time.sleep(0.005)
        return True

    def has_contact(self) -> bool:
        """Whether anything arrived at a listening socket."""
        for listener in self._contacts:
            try:
                if listener.type == socket.SOCK_STREAM:
                    listener.accept()[0].close()
                else:
                    listener.recv(1)
            except BlockingIOError:
                continue
            return True
        return False

    def is_changed(self) -> bool:
        """Whether a file that is not in the scratch folder changed, or something odd appeared in it."""
        return self._snapshot() != self._before

    def is_victim_touched(self) -> bool:
        """Whether the other process ended, stopped, or has other settings than before."""
        return self.victim.poll() is not None or self._victim_state() != self._victim_before

    def _snapshot(self) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for root in (self.world.outside, self.world.data):
            for folder, folders, names in os.walk(root):
                for name in (".", *folders, *names):
                    path = Path(folder, name)
                    status = path.lstat()
                    content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
                    attributes = os.listxattr(path, follow_symlinks=False)
                    times = status.st_mtime_ns if stat.S_ISREG(status.st_mode) else 0
                    found.append(
                        (str(path), status.st_mode, status.st_uid, status.st_nlink, times, content, attributes)
                    )
        for path in Path(self.world.scratch).rglob("*"):
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or mode & (stat.S_ISUID | stat.S_ISGID):
                found.append((str(path), mode))
        return sorted(found, key=str)

    def _victim_state(self) -> tuple[object, ...]:
        try:
            state = Path(f"/proc/{self.victim.pid}/stat").read_text().rpartition(")")[2].split()
            limits = Path(f"/proc/{self.victim.pid}/limits").read_text()
            return (state[0] in "TtZX", state[16], os.sched_getaffinity(self.victim.pid), limits)
        except OSError:
            return ()

    def _end_victim(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.victim.send_signal(signal.SIGKILL)
        self.victim.wait()


def with_descriptors(world: World) -> World:
    """Open what a careless parent would leave open; runs before the confinement, in the process that is confined."""
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return dataclasses.replace(
        world,
        folder_descriptor=os.open(world.outside, os.O_RDONLY | os.O_DIRECTORY),
        file_descriptor=os.open(world.secret, os.O_RDONLY),
        socket_descriptor=plain.detach(),
    )
