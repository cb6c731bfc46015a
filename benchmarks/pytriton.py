"""PyTriton serving the same function, in a process of its own: ``python -m benchmarks.pytriton HTTP_PORT GRPC_PORT METRICS_PORT``.

As its documentation shows it: one function for a batch, requests that wait together are one call.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from safe_triton.errors import ServerStartError
from safe_triton.server import locate
from safe_triton.server.ports import ReservedPorts

MODEL = "function"
ROOT = Path(__file__).parents[1]
START_S = 90.0
STOP_S = 20.0


@contextlib.contextmanager
def running() -> Iterator[int]:
    """Run it and give its HTTP port; nothing of it is left afterwards.

    Raises:
        ServerStartError: it does not answer.
    """
    # Its stub takes whatever libpython the loader finds first, which may be another than this interpreter's.
    libraries = os.pathsep.join(str(folder) for folder in locate().library_path)
    with ReservedPorts((0, 0, 0)) as reserved, tempfile.TemporaryFile() as log:
        process = psutil.Popen(
            [sys.executable, "-m", "benchmarks.pytriton", *map(str, reserved.numbers)],
            cwd=ROOT,
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until_ready(process, reserved.numbers[0])
            yield reserved.numbers[0]
        finally:
            stop(process)


def wait_until_ready(process: Any, port: int) -> None:
    """Wait until the model is ready.

    Raises:
        ServerStartError: it is not within the time.
    """
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", f"/v2/models/{MODEL}/ready")
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(0.2)
    raise ServerStartError("PyTriton did not start", reason="server.start")


def stop(process: Any) -> None:
    """End the process and everything that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        everything = [process, *process.children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(everything, timeout=STOP_S)
        for one in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(alive, timeout=STOP_S)


def serve(http_port: int, grpc_port: int, metrics_port: int) -> None:
    """Serve until this process is ended."""
    import numpy as np
    from pytriton.decorators import batch
    from pytriton.model_config import ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what it started is stopped by it
    factor = np.float32(2)

    def double(**inputs: Any) -> dict[str, Any]:
        return {"Y": inputs["X"] * factor}

    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=http_port,
        grpc_address="127.0.0.1",
        grpc_port=grpc_port,
        metrics_address="127.0.0.1",
        metrics_port=metrics_port,
        exit_timeout_secs=5,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=MODEL,
            infer_func=batch(double),
            inputs=[Tensor(name="X", dtype=np.float32, shape=(16,))],
            outputs=[Tensor(name="Y", dtype=np.float32, shape=(16,))],
            config=ModelConfig(max_batch_size=32),
        )
        triton.serve()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
