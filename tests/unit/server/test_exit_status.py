"""How a model's process ended is read, or said to be unknown; never made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.attacks.model.schedule import OTHER_USER
from tests.attacks.model.users import command_as, folder_of, missing_for

# A confined process is undumpable, and its parent has not collected it yet.
PROGRAM = """
import json, os, sys, time
from safe_triton.confinement import privileges
from safe_triton.server.stubs import exit_status, read_times

def status_of(ends, is_confined):
    pid = os.fork()
    if pid == 0:
        if is_confined:
            privileges.set_undumpable()
        ends()
    while read_times(pid).state != "Z":
        time.sleep(0.01)
    found = exit_status(pid)
    os.waitpid(pid, 0)
    return found

print(json.dumps([status_of(ends, is_confined) for is_confined in (False, True) for ends in (os.abort, lambda: os._exit(0))]))
"""


@pytest.mark.parametrize("user", ["this", OTHER_USER])
def test_a_status_is_read_or_unknown(user: str) -> None:
    """By anyone of an ordinary process; of a confined one by whoever may, and nobody takes an abort for an exit with 0."""
    if missing := missing_for(user):
        pytest.skip(f"running as {user} needs {missing}")
    with folder_of(user) as folder:
        done = subprocess.run(
            command_as(user, [sys.executable, "-c", PROGRAM]),
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder)},
            cwd=folder,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    *ordinary, aborted, ended = json.loads(done.stdout)
    assert ordinary == [-6, 0]
    assert (aborted, ended) in {(-6, 0), (None, None)}
