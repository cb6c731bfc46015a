"""An unmodified model that does what models do: threads, event loops, databases in memory, large tensors, logging."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import threading
import zoneinfo

import numpy as np
import triton_python_backend_utils as pb_utils

HERE = os.path.dirname(os.path.abspath(__file__))


async def wait():
    await asyncio.gather(*[asyncio.sleep(0.001) for _ in range(10)])
    return "waited"


def database():
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (x)")
    connection.executemany("insert into t values (?)", [(value,) for value in range(100)])
    return str(connection.execute("select sum(x) from t").fetchone()[0])


def threads():
    found = []
    workers = [threading.Thread(target=found.append, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return str(len(found))


BENIGN = {
    "own folder": lambda: str(sorted(os.listdir(HERE))[0] != ""),
    "own file": lambda: open(os.path.join(HERE, "model.py")).readline()[:3],
    "asyncio": lambda: asyncio.new_event_loop().run_until_complete(wait()),
    "sqlite": database,
    "threads": threads,
    "time zone": lambda: str(zoneinfo.ZoneInfo("Europe/Berlin")),
    "linear algebra": lambda: str(round(float(np.linalg.det(np.eye(50) * 2)) == 2.0**50)),
    "random": lambda: str(len(os.urandom(16))),
    "logging": lambda: logging.getLogger("benign").warning("a line") or "logged",
    "pb logger": lambda: pb_utils.Logger.log_info("a line") or "logged",
    "cpu count": lambda: str(os.cpu_count() > 0),
    "/dev/null": lambda: str(open("/dev/null", "w").write("x")),
    "ssl": lambda: type(__import__("ssl").create_default_context()).__name__,
}


class TritonPythonModel:
    def initialize(self, args):
        os.environ["BENIGN_SETTING"] = "1"

    def execute(self, requests):
        responses = []
        for request in requests:
            size = int(request.inputs()[0].as_numpy()[0])
            did = json.dumps({name: str(function()) for name, function in BENIGN.items()})
            outputs = [
                pb_utils.Tensor("Y", np.zeros(size, np.uint8)),
                pb_utils.Tensor("DID", np.array([did], dtype=object)),
            ]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses

    def finalize(self):
        pass
