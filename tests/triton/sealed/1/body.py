"""What the sealed models do when a request names it: attempts that must be refused, and ordinary work."""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import io
import json
import logging
import os
import pickle
import queue
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import zoneinfo
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from safe_triton import Limits, SafeTritonPythonModel, protect, unsafe
from safe_triton.policy.sandbox import SandboxPolicy

HERE = os.path.dirname(os.path.abspath(__file__))
PLACES = json.loads(Path(HERE, "places.json").read_text())
LIBC = ctypes.CDLL(None, use_errno=True)
JOBS: queue.Queue[tuple] = queue.Queue()


def serve_jobs():
    """A thread from before the seal."""
    while True:
        function, answer = JOBS.get()
        try:
            answer.put(function())
        except BaseException as error:
            answer.put(error)


threading.Thread(target=serve_jobs, daemon=True).start()


def in_old_thread(function):
    answer = queue.Queue()
    JOBS.put((function, answer))
    found = answer.get(timeout=10)
    if isinstance(found, BaseException):
        raise found
    return found


def by_libc(call, *arguments):
    """Past Python's audit: a pointer bound before."""
    if getattr(LIBC, call)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"libc: {os.strerror(number)}")
    return "got through"


def fork(make):
    """Make a child that ends at once."""
    pid = make()
    if pid == 0:
        os._exit(0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), f"libc: {os.strerror(ctypes.get_errno())}")
    return os.waitpid(pid, 0)[1]


def read(path):
    with open(path, "rb") as file:
        return file.read(16)


class Bomb:
    def __reduce__(self):
        return (eval, ("1 + 1",))


PICKLE = pickle.dumps(Bomb())


def foreign_module():
    Path(PLACES["scratch"], "planted.py").write_text("got = 'through'")
    sys.path.append(PLACES["scratch"])
    importlib.invalidate_caches()
    return importlib.import_module("planted").got


def foreign_library():
    source = next(path for path in map(Path, sys.path) if (path / "numpy").is_dir())
    module = next((source / "numpy").rglob("_multiarray_umath*.so"))
    copy = Path(PLACES["scratch"], "planted.so")
    copy.write_bytes(module.read_bytes())
    return str(ctypes.CDLL(str(copy)))


def swapped_hook():
    """Reach the guard through the traceback of its own refusal and replace its code."""
    try:
        open("/etc/passwd").close()
    except PermissionError as error:
        trace = error.__traceback__
        while trace is not None:
            for found in trace.tb_frame.f_locals.values():
                if type(found).__name__ == "function" and "guard" in found.__module__:
                    found.__code__ = (lambda *_: None).__code__.replace(co_freevars=found.__code__.co_freevars)
            trace = trace.tb_next
    return read("/etc/passwd")


ATTEMPTS = {
    "file": lambda: read("/etc/passwd"),
    "file dotted": lambda: read(f"{HERE}/../../../../../../../../../etc/passwd"),
    "file bytes": lambda: read(b"/etc/passwd"),
    "file neighbour": lambda: read(PLACES["readable"] + "-evil/secret"),
    "file narrowed": lambda: read(PLACES["narrowed"] + "/data"),
    "file in old thread": lambda: in_old_thread(lambda: read("/etc/passwd")),
    "list": lambda: os.listdir("/"),
    "database": lambda: sqlite3.connect("/etc/passwd").execute("select 1"),
    "write": lambda: Path(HERE, "new").write_text("x"),
    "write readable": lambda: Path(PLACES["readable"], "new").write_text("x"),
    "remove": lambda: os.remove(f"{HERE}/one"),
    "rename": lambda: os.rename(f"{HERE}/two", f"{HERE}/moved"),
    "mkdir": lambda: os.mkdir(f"{HERE}/folder"),
    "network": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "network names": lambda: socket.getaddrinfo("localhost", 80),
    "network datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "process": lambda: subprocess.run(["/bin/true"], check=True),
    "process shell": lambda: os.system("true"),
    "process fork": lambda: fork(os.fork),
    "pickle": lambda: pickle.loads(PICKLE),
    "import": foreign_module,
    "ctypes": foreign_library,
    "guard": swapped_hook,
}
# Past the guard, so that the kernel is what refuses.
BYPASSES = {
    "open by libc": lambda: by_libc("open", b"/etc/passwd", 0),
    "open narrowed by libc": lambda: by_libc("open", os.fsencode(PLACES["narrowed"] + "/data"), 0),
    "create by libc": lambda: by_libc("open", os.fsencode(f"{HERE}/new"), os.O_CREAT | os.O_WRONLY, 0o600),
    "socket by libc": lambda: by_libc("socket", 2, 1, 0),
    "fork by libc": lambda: fork(LIBC.fork),
    "open by libc in old thread": lambda: in_old_thread(lambda: by_libc("open", b"/etc/passwd", 0)),
    "socket by libc in old thread": lambda: in_old_thread(lambda: by_libc("socket", 2, 1, 0)),
}


async def wait():
    await asyncio.gather(*[asyncio.sleep(0.001) for _ in range(10)])
    return await asyncio.to_thread(lambda: "waited")


def database():
    base = sqlite3.connect(":memory:")
    base.execute("create table t (x)")
    base.executemany("insert into t values (?)", [(value,) for value in range(100)])
    return base.execute("select sum(x) from t").fetchone()[0]


def threads():
    found = []
    workers = [threading.Thread(target=found.append, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(found)


def temporary():
    with tempfile.TemporaryDirectory(dir=PLACES["scratch"]) as folder:
        Path(folder, "sub").mkdir()
        Path(folder, "sub", "file").write_text("x")
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    return not os.path.exists(folder)


def lazy_numpy():
    import numpy.fft
    import numpy.ma
    import numpy.polynomial

    return float(abs(np.fft.ifft(np.fft.fft(np.arange(8.0)))[3])) + numpy.polynomial.Polynomial([1, 2])(1)


def lazy_standard_library():
    import bz2
    import cProfile  # a file of its own in every Python, where others are part of the interpreter
    import decimal
    import email.mime.text
    import multiprocessing
    import xml.etree.ElementTree as ET

    return (
        ET.fromstring("<a/>").tag,
        bz2.compress(b"x")[:1],
        cProfile.__name__,
        decimal.Decimal(1),
        email.__name__,
        multiprocessing.__name__,
    )


BENIGN = {
    "asyncio": lambda: asyncio.new_event_loop().run_until_complete(wait()),
    "database": database,
    "lazy numpy": lazy_numpy,
    "lazy library": lazy_standard_library,
    "linear algebra": lambda: float(np.linalg.det(np.eye(50) * 2)) > 2.0**49,
    "logging": lambda: logging.getLogger("sealed").warning("a line") or "logged",
    "pb logger": lambda: pb_utils.Logger.log_info("a line") or "logged",
    "threads": threads,
    "zoneinfo": lambda: str(zoneinfo.ZoneInfo("Europe/Berlin")),
    "json": lambda: json.loads(json.dumps([1])),
    "ssl": lambda: type(ssl.create_default_context()).__name__,
    "arrays in a pickle": lambda: pickle.loads(pickle.dumps(np.arange(3))).sum(),
    "own file": lambda: read(f"{HERE}/places.json"),
    "null": lambda: Path("/dev/null").write_bytes(b"x"),
    "array in memory": lambda: np.save(io.BytesIO(), np.arange(3)) is None,
    "random": lambda: len(os.urandom(8)) + float(np.random.default_rng().random()),
    "trace": lambda: logging.getLogger("sealed").warning("x", exc_info=ValueError("x")) or "logged",
    "granted file": lambda: read(PLACES["readable"] + "/data"),
}
SCRATCH = {
    "temporary": temporary,
    "array file": lambda: (
        np.save(PLACES["scratch"] + "/a.npy", np.arange(3)) or np.load(PLACES["scratch"] + "/a.npy").sum()
    ),
    "log file": lambda: logging.FileHandler(PLACES["scratch"] + "/log").emit(logging.makeLogRecord({"msg": "x"})),
    "database file": lambda: sqlite3.connect(PLACES["scratch"] + "/base").execute("create table if not exists t (x)"),
}
EVERYTHING = {**ATTEMPTS, **BYPASSES, **BENIGN, **SCRATCH}


def outcome(function):
    try:
        return f"got through: {function()!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def run(name):
    """Do one thing by name, raising what it raises; ``attempts``, ``benign`` …: all of a kind, with each outcome."""
    if name in EVERYTHING:
        return str(EVERYTHING[name]())
    group = {"attempts": ATTEMPTS, "bypasses": BYPASSES, "benign": BENIGN, "scratch": SCRATCH}[name]
    return json.dumps({each: outcome(function) for each, function in group.items()})


class Sealed(SafeTritonPythonModel):
    limits = Limits(deadline_ms=20_000, max_output_bytes=512 << 20)

    def load(self, context):
        self.loaded = read(PLACES["readable"] + "/data")

    def infer(self, inputs):
        size = int(inputs["SIZE"][0])
        text = run(inputs["NAME"][0].decode()) if size == 0 else ""
        return {"TEXT": np.array([text.encode()], dtype=object), "Y": np.full(size, 7, np.uint8)}


class Plain:
    """An unmodified model."""

    def execute(self, requests):
        responses = []
        for request in requests:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            found = Sealed.infer(self, inputs)
            outputs = [pb_utils.Tensor(name, array) for name, array in found.items()]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses


__all__ = ["PLACES", "Limits", "Plain", "SafeTritonPythonModel", "SandboxPolicy", "Sealed", "protect", "run", "unsafe"]
