"""An attempt in a forked child, whose outcome comes back through a pipe."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable

PATIENCE_S = 90


def in_a_child(perform: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Fork, let the child perform, and collect its outcome; a child that became another program counts by exit status 7."""
    reader, writer = os.pipe()  # closed when the child becomes another program
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            answer = perform()
        except BaseException as error:
            answer = {"broken": f"{type(error).__name__}: {error}"}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    data = b""
    while select.select([reader], [], [], PATIENCE_S)[0]:
        part = os.read(reader, 65536)
        data += part
        if not part:
            break
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if data:
        return dict(json.loads(data))
    return {"secret": False, "true": status == 7, "error": f"no answer, status {status}"}
