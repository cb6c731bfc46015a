"""The same faults inside a model of this package."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np

from safe_triton import Limits, SafeTritonPythonModel


def fill_memory():
    blocks = []
    while True:
        blocks.append(np.ones(1 << 24))


def fill_descriptors():
    held = []
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))


def fill_threads():
    gate = threading.Event()
    while True:
        threading.Thread(target=gate.wait, daemon=True).start()


def loop():
    while True:
        pass


def swallow():
    while True:
        try:
            loop()
        except BaseException:
            pass


FAULTS = {
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sigsegv": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "sigabrt": os.abort,
    "exit": lambda: os._exit(3),
    "sigxcpu": lambda: os.kill(os.getpid(), signal.SIGXCPU),
    "memory": fill_memory,
    "descriptors": fill_descriptors,
    "threads": fill_threads,
    "loop": loop,
    "loop_swallowing": swallow,
    "loop_gil": lambda: sum(iter(int, 1)),
    "wait": lambda: time.sleep(60),
    "sigstop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "none": lambda: None,
}


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000, hard_deadline_grace_ms=500)

    def infer(self, inputs):
        action = inputs["ACTION"].reshape(-1)[0].decode()
        if action == "none":
            return None
        if action == "huge":
            return {"OUT": np.full(1, b"x" * (1 << 29), dtype=object)}
        if action in FAULTS:
            FAULTS[action]()
        return {"OUT": np.array([action.encode()], dtype=object)}
