"""An unmodified, hostile model: tries what it should not reach, while it is imported, loaded and asked.

The positive controls run these lines without any protection, perhaps as root: none of them changes the machine.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import threading

import numpy as np
import triton_python_backend_utils as pb_utils

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
LIBC = ctypes.CDLL(None, use_errno=True)


def libc(function, *arguments):
    """Make a call that changes nothing even where it is allowed; any answer but a refusal means it got through."""
    if getattr(LIBC, function)(*arguments) < 0 and ctypes.get_errno() in (errno.EPERM, errno.EACCES):
        raise OSError(ctypes.get_errno(), function)
    return "answered"


def connect_unix():
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pair[0].sendto(b"x", "/tmp/none")
    return "sent"


def run(program):
    status = os.system(program)
    if status:
        raise OSError(status, "system")
    return "ran"


def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "forked"


def write(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
    return "written"


def read(path):
    with open(path, "rb") as file:
        return f"{len(file.read(4096)) > 0}"


def in_a_thread(function):
    found = []

    def body():
        try:
            found.append(function())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def by_raw_call(path):
    descriptor = LIBC.open(path.encode(), 0)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "open")
    os.close(descriptor)
    return "opened"


ATTEMPTS = {
    "read /etc/passwd": lambda: read("/etc/passwd"),
    "read /etc/passwd by libc": lambda: by_raw_call("/etc/passwd"),
    "read /etc/passwd in a thread": lambda: in_a_thread(lambda: read("/etc/passwd")),
    "read another model": lambda: read(os.path.join(REPOSITORY, "benign", "1", "model.py")),
    "list the repository": lambda: str(os.listdir(REPOSITORY)),
    "read the server's environment": lambda: read(f"/proc/{os.getppid()}/environ"),
    "read the server's memory map": lambda: read(f"/proc/{os.getppid()}/maps"),
    "read its first environment": lambda: read("/proc/self/environ"),
    "list shared memory": lambda: str(os.listdir("/dev/shm")),
    "make shared memory": lambda: write("/dev/shm/safe_triton_test_attempt"),
    "write beside the model": lambda: write(os.path.join(HERE, "dropped.py")),
    "write to /tmp": lambda: write("/tmp/safe_triton_test_attempt"),
    "list /": lambda: str(os.listdir("/")),
    "run a shell": lambda: run("true"),
    "fork": fork,
    "execve": lambda: os.execv("/bin/true", ["true"]),
    "open a TCP socket": lambda: socket.socket().close() or "opened",
    "open a UDP socket": lambda: socket.socket(type=socket.SOCK_DGRAM).close() or "opened",
    "open a UNIX socket": lambda: socket.socket(socket.AF_UNIX).close() or "opened",
    "send to a UNIX path": connect_unix,
    "signal the server": lambda: os.kill(os.getppid(), signal.SIGCONT) or "sent",
    "trace the server": lambda: libc("ptrace", 3, os.getppid(), 0, 0),
    "unshare": lambda: libc("unshare", 0),
    "mount": lambda: libc("mount", b"none", b"/safe_triton_no_such_folder", b"tmpfs", 0, None),
    "userfaultfd": lambda: libc("syscall", 323, -1),
    "key ring": lambda: libc("syscall", 250, -1, 0, 0),
    "change a mode": lambda: os.chmod(os.path.join(HERE, "no_such_file"), 0o644),
    "allocate 64 GiB": lambda: mmap.mmap(-1, 64 << 30).close() or "allocated",
    "find a secret in the environment": lambda: os.environ["SAFE_TRITON_TEST_SECRET"],
}


def attempt(name):
    try:
        return f"got through: {ATTEMPTS[name]()}"
    except FileNotFoundError:
        return "got through: looked for a file that is not there"
    except BaseException as error:
        return f"refused: {type(error).__name__}"


def attempt_all():
    # execve would succeed without a protection and end this process: only asked for by name.
    return {name: attempt(name) for name in ATTEMPTS if name != "execve"}


AT_IMPORT = attempt_all()


class TritonPythonModel:
    def initialize(self, args):
        self.outcomes = {"import": AT_IMPORT, "initialize": attempt_all()}

    def execute(self, requests):
        responses = []
        for request in requests:
            name = request.inputs()[0].as_numpy()[0].decode()
            outcome = json.dumps({**self.outcomes, "execute": attempt_all()}) if name == "all" else attempt(name)
            tensor = pb_utils.Tensor("OUTCOME", np.array([outcome], dtype=object))
            responses.append(pb_utils.InferenceResponse([tensor]))
        return responses
