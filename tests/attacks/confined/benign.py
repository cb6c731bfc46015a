"""What a Python process does every day and must still be able to do when it is confined."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from tests.attacks.confined.world import World

BENIGN: dict[str, Callable[[World], object]] = {}


def benign(run: Callable[[World], object]) -> Callable[[World], object]:
    """Add a case; it has to return something true."""
    BENIGN[run.__name__] = run
    return run


@benign
def asyncio_sleep(world: World) -> object:
    import asyncio

    async def both() -> int:
        return sum(await asyncio.gather(asyncio.sleep(0.001, 1), asyncio.sleep(0.001, 2)))

    return asyncio.run(both()) == 3


@benign
def asyncio_thread(world: World) -> object:
    import asyncio

    return asyncio.run(asyncio.to_thread(lambda: 7)) == 7


@benign
def asyncio_stream_pair(world: World) -> object:
    import asyncio
    import socket

    async def talk() -> bytes:
        one, other = socket.socketpair()
        reader, kept = await asyncio.open_connection(sock=one)
        _, writer = await asyncio.open_connection(sock=other)
        writer.write(b"hello\n")
        await writer.drain()
        line = await reader.readline()
        kept.close()
        return line

    return asyncio.run(talk()) == b"hello\n"


@benign
def threads(world: World) -> object:
    found: list[int] = []
    made = [threading.Thread(target=found.append, args=(index,)) for index in range(8)]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()
    return sorted(found) == list(range(8))


@benign
def thread_pool(world: World) -> object:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(abs, range(-10, 1))) == 55


@benign
def thread_signal(world: World) -> object:
    import signal

    caught: list[int] = []
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGRTMIN + 9, lambda number, _: caught.append(number))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGRTMIN + 9)
        return bool(caught)
    signal.pthread_kill(threading.get_ident(), 0)
    return True


@benign
def own_signal(world: World) -> object:
    import signal

    if threading.current_thread() is not threading.main_thread():
        return True
    caught: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: caught.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR1)
    return len(caught) == 2


@benign
def timers(world: World) -> object:
    import signal
    import time

    if threading.current_thread() is not threading.main_thread():
        return True
    caught: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, _: caught.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    time.sleep(0.01)
    return caught


@benign
def parent_is_alive(world: World) -> object:
    os.kill(os.getppid(), 0)
    return True


@benign
def database_in_memory(world: World) -> object:
    import sqlite3

    base = sqlite3.connect(":memory:")
    base.execute("create table t (x)")
    base.execute("insert into t values (1)")
    return base.execute("select x from t").fetchall() == [(1,)]


@benign
def database_in_scratch(world: World) -> object:
    import sqlite3

    with sqlite3.connect(f"{world.scratch}/base.sqlite") as base:
        base.execute("create table t (x)")
        base.execute("insert into t values (1)")
    return base.execute("select count(*) from t").fetchone() == (1,)


@benign
def numpy_lazy_parts(world: World) -> object:
    import numpy as np
    import numpy.fft
    import numpy.ma
    import numpy.polynomial

    return abs(np.fft.ifft(np.fft.fft(np.arange(8.0)))[3] - 3) < 1e-9 and numpy.polynomial.Polynomial([1, 2])(1) == 3


@benign
def numpy_algebra(world: World) -> object:
    import numpy as np

    return np.linalg.inv(np.eye(200))[5, 5] == 1 and (np.ones((256, 256)) @ np.ones((256, 256)))[0, 0] == 256


@benign
def numpy_random(world: World) -> object:
    import numpy as np

    return np.random.default_rng().random(10).shape == (10,)


@benign
def numpy_files(world: World) -> object:
    import numpy as np

    np.savez(f"{world.scratch}/a.npz", x=np.arange(3))
    with np.load(f"{world.scratch}/a.npz", allow_pickle=False) as found:
        return found["x"][2] == 2


@benign
def numpy_mapped(world: World) -> object:
    import numpy as np

    mapped = np.memmap(f"{world.scratch}/mapped", dtype=np.uint8, mode="w+", shape=(100,))
    mapped[:] = 7
    mapped.flush()
    return bool((np.memmap(f"{world.scratch}/mapped", dtype=np.uint8, mode="r") == 7).all())


@benign
def logging_to_standard_error(world: World) -> object:
    import logging

    logger = logging.getLogger("benign")
    logger.addHandler(logging.StreamHandler())
    logger.debug("nothing")
    return True


@benign
def logging_to_scratch(world: World) -> object:
    import logging.handlers

    handler = logging.handlers.RotatingFileHandler(f"{world.scratch}/log", maxBytes=100, backupCount=2)
    for _ in range(5):
        handler.emit(logging.makeLogRecord({"msg": "x" * 50}))
    handler.close()
    return Path(f"{world.scratch}/log.1").exists()


@benign
def temporary_file(world: World) -> object:
    with tempfile.NamedTemporaryFile(dir=world.scratch) as file:
        file.write(b"x")
        file.flush()
        return Path(file.name).read_bytes() == b"x"


@benign
def unnamed_temporary_file(world: World) -> object:
    with tempfile.TemporaryFile(dir=world.scratch) as file:
        return file.write(b"x")


@benign
def temporary_folder(world: World) -> object:
    with tempfile.TemporaryDirectory(dir=world.scratch) as folder:
        Path(folder, "sub").mkdir()
        Path(folder, "sub", "file").write_text("x")
    return not Path(folder).exists()


@benign
def spooled_file(world: World) -> object:
    tempfile.tempdir = world.scratch
    with tempfile.SpooledTemporaryFile(max_size=10) as file:
        return file.write(b"x" * 100)


@benign
def atomic_replace(world: World) -> object:
    Path(f"{world.scratch}/new").write_text("new")
    os.replace(f"{world.scratch}/new", f"{world.scratch}/current")
    return Path(f"{world.scratch}/current").read_text() == "new"


@benign
def move_between_folders(world: World) -> object:
    Path(f"{world.scratch}/sub").mkdir()
    Path(f"{world.scratch}/file").write_text("x")
    os.rename(f"{world.scratch}/file", f"{world.scratch}/sub/file")
    return os.listdir(f"{world.scratch}/sub") == ["file"]


@benign
def remove_tree(world: World) -> object:
    import shutil

    Path(f"{world.scratch}/tree/deep").mkdir(parents=True)
    Path(f"{world.scratch}/tree/deep/file").write_text("x")
    shutil.rmtree(f"{world.scratch}/tree")
    return not os.path.exists(f"{world.scratch}/tree")


@benign
def copy_file(world: World) -> object:
    import shutil

    return Path(shutil.copyfile(f"{world.data}/weights", f"{world.scratch}/weights")).read_bytes() == b"weights"


@benign
def read_data(world: World) -> object:
    return Path(f"{world.data}/weights").read_bytes() == b"weights"


@benign
def list_data(world: World) -> object:
    return "weights" in os.listdir(world.data)


@benign
def confined_root(world: World) -> object:
    from safe_triton.confinement import ConfinedRoot

    with ConfinedRoot(world.data) as root:
        return root.read_bytes("weights") == b"weights"


@benign
def time_zone(world: World) -> object:
    import datetime as dt
    import zoneinfo

    return dt.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Rome")).utcoffset() is not None


@benign
def local_time(world: World) -> object:
    import time

    return time.localtime().tm_year > 2000 and time.strftime("%Z")


@benign
def certificates(world: World) -> object:
    import ssl

    return ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED


@benign
def random_numbers(world: World) -> object:
    import random
    import secrets
    import uuid

    return secrets.token_hex(8) and random.random() >= 0 and str(uuid.uuid4())


@benign
def hashes(world: World) -> object:
    import hashlib

    return hashlib.sha256(b"x").hexdigest()[:4] == "2d71"


@benign
def compression(world: World) -> object:
    import bz2
    import gzip
    import lzma

    return all(module.decompress(module.compress(b"x" * 100)) == b"x" * 100 for module in (bz2, gzip, lzma))


@benign
def zip_files(world: World) -> object:
    import zipfile

    with zipfile.ZipFile(f"{world.scratch}/a.zip", "w") as made:
        made.writestr("x", "y")
    return zipfile.ZipFile(f"{world.scratch}/a.zip").read("x") == b"y"


@benign
def json_and_pickle(world: World) -> object:
    import json
    import pickle

    return json.loads("[1]") == pickle.loads(pickle.dumps([1]))


@benign
def regular_expressions(world: World) -> object:
    import re

    return re.sub("a+", "b", "caat") == "cbt"


@benign
def native_calls(world: World) -> object:
    import ctypes

    return ctypes.CDLL(None).getpid() == os.getpid()


@benign
def native_callback(world: World) -> object:
    import ctypes

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    return kind(lambda value: value + 1)(6) == 7


@benign
def processors(world: World) -> object:
    return os.cpu_count() and len(os.sched_getaffinity(0)) and os.getloadavg if hasattr(os, "getloadavg") else True


@benign
def resource_use(world: World) -> object:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss and resource.getrlimit(resource.RLIMIT_NOFILE)


@benign
def garbage(world: World) -> object:
    import gc

    return gc.collect() >= 0


@benign
def stack_traces(world: World) -> object:
    import traceback

    try:
        raise ValueError("x")
    except ValueError:
        return "stack_traces" in traceback.format_exc()


@benign
def fault_handler(world: World) -> object:
    import faulthandler

    with tempfile.TemporaryFile(dir=world.scratch) as file:
        faulthandler.enable(file)
        faulthandler.dump_traceback_later(60, file=file)
        faulthandler.cancel_dump_traceback_later()
        faulthandler.disable()
    return True


@benign
def host_facts(world: World) -> object:
    import platform

    return platform.machine() and platform.python_version()


@benign
def null_device(world: World) -> object:
    with open(os.devnull, "wb") as file:
        return file.write(b"x")


@benign
def decimal_places(world: World) -> object:
    import decimal
    import locale

    return decimal.Decimal("0.1") * 3 == decimal.Decimal("0.3") and locale.getpreferredencoding()


@benign
def imports(world: World) -> object:
    import email.mime.text
    import http.client
    import multiprocessing
    import unittest.mock
    import xml.etree.ElementTree as ET

    found = [email.__name__, http.__name__, multiprocessing.__name__, unittest.__name__]
    return ET.fromstring("<a/>").tag == "a" and len(found) == 4


@benign
def tighten_again(world: World) -> object:
    from safe_triton.confinement import confine
    from safe_triton.policy.sandbox import SandboxPolicy

    if threading.current_thread() is not threading.main_thread():
        return True
    return confine(SandboxPolicy(read=[world.data], enforcement="best-effort")).effective
