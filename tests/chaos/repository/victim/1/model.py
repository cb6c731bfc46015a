"""An unmodified model that does to itself what its request asks for."""

from __future__ import annotations

import ctypes  # noqa: F401 - numpy has it loaded anyway
import os
import resource
import signal
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils


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


def loop_with_the_gil():
    sum(iter(int, 1))  # never reaches its end, in C, without a bytecode in between


def leave_by_cpu_limit():
    os.kill(os.getpid(), signal.SIGXCPU)
    time.sleep(60)


FAULTS = {
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sigsegv": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "sigabrt": os.abort,
    "exit": lambda: os._exit(3),
    "sigxcpu": leave_by_cpu_limit,
    "memory": fill_memory,
    "descriptors": fill_descriptors,
    "threads": fill_threads,
    "loop": loop,
    "loop_gil": loop_with_the_gil,
    "wait": lambda: time.sleep(60),
    "sigstop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            action = pb_utils.get_input_tensor_by_name(request, "ACTION").as_numpy().reshape(-1)[0].decode()
            if action == "none":
                return None
            if action == "huge":
                out = np.full(1, b"x" * (1 << 29), dtype=object)
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out)]))
                continue
            if action in FAULTS:
                FAULTS[action]()
            soft = resource.getrlimit(resource.RLIMIT_CORE)[0]
            out = np.array([f"{action} {soft}".encode()], dtype=object)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out)]))
        return responses
