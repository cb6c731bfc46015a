"""Runs in the place of Triton's stub: confines its own process, then becomes the real stub.

Triton starts ``<backend>/python/triton_python_backend_stub`` once for every instance of every Python model. Under
``safe-triton serve`` that file is a small script that calls :func:`main`. Nothing of the model has run by then, the
process has one thread, and whatever the model does later happens under the same confinement.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Sequence
from typing import NoReturn

from safe_triton._text import client_text
from safe_triton.confinement.enforcement import Enforcement
from safe_triton.confinement.engine import confine_and_execute
from safe_triton.confinement.launch import BEAT_BYTES, RECORD_VARIABLE, REFUSAL_VARIABLE, Launch, LaunchTable
from safe_triton.confinement.scratch import SCRATCH_VARIABLE, scratch_gaps, scratch_variables
from safe_triton.errors import ConfinementError, SafeTritonError

PROBE_STATUS = 1
"""Exit status without arguments: releases to 25.07 probe the stub so."""

FAILED_STATUS = 71
"""Exit status when not even a refusal could be started (``EX_OSERR`` of sysexits.h)."""


def main(table: str, arguments: Sequence[str]) -> NoReturn:
    """Confine this process and become the real stub; never returns, never forks.

    Args:
        table: path of the launch table, which the server command wrote.
        arguments: Triton's arguments, the program's own name first.
    """
    if len(arguments) < 2:
        os._exit(PROBE_STATUS)
    _open_outputs_anew()
    try:
        with open(table, encoding="utf-8") as file:
            launches = LaunchTable.from_json(file.read())
        launch = launches.decide(arguments, os.getpid())
        if launch.refusal:
            _log("error", "model refused", launch.instance, {"reason": launch.refusal})
        if launch.beat:
            with open(launch.beat, "wb") as beat:
                beat.truncate(BEAT_BYTES)
        _start(launches, launch, arguments)
    except SafeTritonError as error:
        _log("error", "model process not started", "", {"reason": error.message})
    except OSError as error:
        _log("error", "model process not started", "", {"reason": f"confinement.launch: {error.strerror}"})
    os._exit(FAILED_STATUS)


def _start(launches: LaunchTable, launch: Launch, arguments: Sequence[str]) -> NoReturn:
    def report(enforcement: Enforcement) -> None:
        gaps = (*enforcement.gaps, *scratch_gaps(launch.environment.get(SCRATCH_VARIABLE), launch.policy))
        fields = {
            "effective": enforcement.effective,
            "gaps": [str(gap) for gap in gaps],
            "landlock_abi": enforcement.landlock_abi,
            "elapsed_ms": round(enforcement.elapsed_ms, 1),
        }
        _log("info" if enforcement.is_complete else "warning", "model process is confined", launch.instance, fields)

    try:
        if launches.record and not launch.refusal:
            _become_recorded(launches.record, launch, arguments)
        confine_and_execute(launch.policy, launch.command, launch.environment, on_enforced=report)
    except ConfinementError as error:
        # Nothing of the model runs: the real stub loads a file of ours that tells the client of the load API why.
        _log("error", "model refused", launch.instance, {"reason": error.message})
        # The paths are for the operator's log only.
        environment = {**launch.environment, REFUSAL_VARIABLE: client_text(error.message)}
        os.execve(launches.stub, [launches.stub, launches.refusal, *arguments[2:]], environment)  # noqa: S606 - the stub


def _become_recorded(listener: str, launch: Launch, arguments: Sequence[str]) -> NoReturn:
    """Become the real stub unconfined, every call reported to the listener."""
    from safe_triton.confinement.record import record

    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    record(listener, entry=arguments[1], instance=launch.instance)
    _log("warning", "model process is recorded, not confined", launch.instance, {})
    scratch = os.path.join(os.path.dirname(listener), "scratch")
    environment = {**launch.environment, RECORD_VARIABLE: "1", **scratch_variables(scratch)}
    os.execve(launch.command[0], launch.command, environment)  # noqa: S606 - the stub


def _open_outputs_anew() -> None:
    """Make this process's outputs its own: it could let the server's lines be lost by the flags of a shared pipe."""
    for number in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(number).st_mode):
                # O_NONBLOCK while opening: without a reader, opening a pipe would wait for one.
                opened = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK)
                os.set_blocking(opened, True)
                os.dup2(opened, number)
                os.close(opened)


def _log(level: str, message: str, instance: str, fields: dict[str, object]) -> None:
    """Write one JSON line to the server's log."""
    line = {"level": level, "message": message, "instance": instance, **fields}
    sys.stderr.write(json.dumps(line, default=list) + "\n")
    sys.stderr.flush()
