"""Scratch folders on the real server: usable, bounded, and gone with it, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton

from safe_triton.errors import ModelLoadError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonServer, scratch
from tests.triton.sealed.repository import CONFIG, Places, ask, lines
from tests.triton.stubs import wait_until

SIZE_BYTES = 8 << 20
OPERATOR = SandboxPolicy(read=("{python}/lib",), write=("{scratch}",), scratch_bytes=SIZE_BYTES)

# What the models do when a request names it; `bare` shows none of it to the guard, so that the kernel answers.
WORK = """
import json, sqlite3, tempfile
import numpy as np
from safe_triton import Limits, SafeTritonPythonModel, protect
from safe_triton.policy.sandbox import SandboxPolicy

def work(name):
    if name == "temporary":
        with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
            np.save(folder + "/a.npy", np.arange(3))
            np.load(folder + "/a.npy", mmap_mode="r")
        with tempfile.TemporaryFile() as file, tempfile.SpooledTemporaryFile(max_size=1) as spooled:
            file.write(b"x")
            spooled.write(b"xx")
        sqlite3.connect(tempfile.mktemp()).execute("create table t (x)")
        return tempfile.gettempdir()
    if name.startswith("share "):
        with open(os.path.join(tempfile.gettempdir(), "shared"), "a+") as file:
            file.write(name[6:])
            file.seek(0)
            return file.read()
    if name.startswith("write "):
        with open(os.path.join(tempfile.gettempdir(), "big"), "wb") as file:
            for _ in range(int(name[6:])):
                file.write(bytes(1 << 20))
                file.flush()
        return "written"
    if name.startswith("list "):
        return json.dumps(os.listdir(name[5:]))

class Base(SafeTritonPythonModel):
    limits = Limits(deadline_ms=60_000)
    def load(self, context):
        if context.scratch is None:
            return
        assert str(context.scratch) == tempfile.gettempdir(), (context.scratch, tempfile.gettempdir())
        assert context.scratch.stat().st_mode & 0o777 == 0o700
    def infer(self, inputs):
        try:
            text = work(inputs["NAME"][0].decode())
        except OSError as error:
            text = type(error).__name__ + ": " + str(error)
        return {"TEXT": np.array([text.encode()], dtype=object), "Y": np.zeros(0, np.uint8)}
"""
SEALED = (
    WORK + "class TritonPythonModel(Base):\n    sandbox = SandboxPolicy(read=['{python}/lib'], write=['{scratch}'])\n"
)
UNSEALED = WORK + "class TritonPythonModel(Base):\n    pass\n"
TWICE = CONFIG.replace("count: 1", "count: 2")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path)
    found.add("sealed", SEALED)
    found.add("twice", UNSEALED, TWICE)
    return found


def mounted(workspace: Path) -> list[str]:
    """What is mounted in one server's private folder."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{workspace}/")]


def is_ended(server: TritonServer) -> bool:
    """Whether the sealed model's process is gone."""
    try:
        ask(server, "sealed", "temporary")
    except triton.InferenceServerException as error:
        return "not healthy" in str(error)
    return False


def can_mount(folder: Path) -> bool:
    probe = scratch.ScratchFolders(folder / "probe")
    try:
        return os.path.ismount(probe.create("x", 1 << 20))
    finally:
        probe.remove()


def test_what_it_is_for(places: Places) -> None:
    """Temporary files after the seal and under the guard; one folder for all instances, none of another model's."""
    with TritonServer(places.repository, confinement=OPERATOR, stop_timeout_s=1.0) as server:
        folders = {name: ask(server, name, "temporary") for name in ("sealed", "twice")}
        assert len(set(folders.values())) == 2
        assert all(Path(folder).parent.name == "scratch" for folder in folders.values())
        found = [ask(server, "twice", f"share {number}") for number in range(4)]
        assert max(found, key=len) == "0123"
        assert ask(server, "sealed", f"list {folders['sealed']}") != "[]"
        assert ask(server, "sealed", f"list {folders['twice']}").startswith("PermissionError")
        assert ask(server, "twice", f"list {folders['sealed']}").startswith("PermissionError")
        assert ask(server, "twice", f"list {Path(folders['sealed']).parent}").startswith("PermissionError")
    assert not any(os.path.exists(folder) for folder in folders.values())


def test_the_kernel_holds_the_size(places: Places, tmp_path: Path) -> None:
    """Where the server command may mount: the write fails, the model goes on, and nothing is left mounted."""
    if not can_mount(tmp_path):
        pytest.skip("this user may not mount (CAP_SYS_ADMIN)")
    with TritonServer(places.repository, confinement=OPERATOR, stop_timeout_s=1.0) as server:
        workspace = server.log.parent
        assert len(mounted(workspace)) == 2
        assert "No space left" in ask(server, "sealed", f"write {2 * SIZE_BYTES >> 20}")
        assert ask(server, "sealed", f"write {SIZE_BYTES // 2 >> 20}") == "written"
        (line,) = lines(server, "sealed", "model is sealed")
        assert not any(gap.startswith("confinement.scratch") for gap in line["gaps"])
    assert mounted(workspace) == []


def test_elsewhere_a_watcher_does(places: Places, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """It says that it is no promise of the kernel's, ends the model that is over the size, and empties the folder."""
    monkeypatch.setattr(scratch, "can_mount", lambda: False)
    with TritonServer(places.repository, confinement=OPERATOR, stop_timeout_s=1.0) as server:
        (line,) = lines(server, "sealed", "model is sealed")
        assert any(gap.startswith("confinement.scratch: ") and "the kernel does not" in gap for gap in line["gaps"])
        folder = Path(ask(server, "sealed", "temporary"))
        with contextlib.suppress(triton.InferenceServerException):  # it can be ended while it still writes
            ask(server, "sealed", f"write {2 * SIZE_BYTES >> 20}")
        wait_until(lambda: is_ended(server))
        wait_until(lambda: list(folder.iterdir()) == [])
        assert ask(server, "twice", "temporary")
        assert server.is_alive()
    wait_until(lambda: "model sealed: its scratch folder held more than" in caplog.text)


def test_what_was_not_granted_is_named(places: Places) -> None:
    """A class that asks for a folder that the operator did not grant fails with the line to add."""
    with TritonServer(
        places.repository, confinement=SandboxPolicy(), model_control="explicit", load=[], stop_timeout_s=1.0
    ) as server:
        with pytest.raises(ModelLoadError, match=r"confinement\.not_granted"):
            server.load_model("sealed")
        (line,) = lines(server, "sealed", "model refused")
        assert "{scratch}" in line["detail"]


def test_a_killed_program_leaves_nothing_mounted(places: Places, tmp_path: Path) -> None:
    """Its janitor unmounts before it removes."""
    if not can_mount(tmp_path):
        pytest.skip("this user may not mount (CAP_SYS_ADMIN)")
    code = (
        "import time\nfrom safe_triton.server import TritonServer\n"
        "from safe_triton.policy.sandbox import SandboxPolicy\n"
        f"policy = SandboxPolicy(write=('{{scratch}}',), read=('{{python}}/lib',), scratch_bytes={SIZE_BYTES})\n"
        f"server = TritonServer({str(places.repository)!r}, confinement=policy).start()\n"
        "print(server.log.parent, flush=True)\ntime.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert program.stdout is not None
    workspace = Path(program.stdout.readline().strip())
    try:
        assert len(mounted(workspace)) == 2
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
        program.stdout.close()
    wait_until(lambda: not workspace.exists())
    assert mounted(workspace) == []
