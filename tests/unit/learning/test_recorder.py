"""What the kernel reports of a real process: each use once seen, whatever it was made with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safe_triton.confinement import seccomp
from safe_triton.learning.recorder import Recorder
from safe_triton.learning.records import Record

pytestmark = pytest.mark.skipif(bool(seccomp.probe()), reason=seccomp.probe() or "system calls are reported here")

# Becomes recorded as the launcher does, then executes what it is told, which begins when it opens the entry file.
LAUNCH = """
import os, sys
from safe_triton.confinement.record import record
address, entry, code = sys.argv[1:]
record(address, entry, "m_0_0")
os.execv(sys.executable, [sys.executable, "-IS", "-c", f"open({entry!r}).close()\\n" + code])
"""


def recorded(tmp_path: Path, code: str) -> set[tuple[str, str]]:
    """Return kinds and targets of what code did beneath the test's folder, or with the network and processes."""
    (tmp_path / "linked" / "1").mkdir(parents=True)
    (tmp_path / "model").symlink_to("linked")
    entry = tmp_path / "model" / "1" / "model.py"
    entry.touch()
    (tmp_path / "file").write_text("content")
    with Recorder() as recorder:
        command = [sys.executable, "-c", LAUNCH, str(recorder.address), str(entry), code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
        records = recorder.records(tmp_path / "model")
        assert recorder.unread == 0
    assert done.returncode == 0, done.stderr
    assert {record.instance for record in records} == {"m_0_0"}
    return {(record.kind, _short(record, tmp_path)) for record in records if _is_shown(record, tmp_path)}


def _short(record: Record, folder: Path) -> str:
    return record.target.replace(str(folder.resolve()), "")


def _is_shown(record: Record, folder: Path) -> bool:
    kinds = {"read", "list", "write", "create"}
    if record.target == "/proc/self/stat":  # where Python, from 3.12 on, counts its threads when it forks
        return False
    if record.kind in kinds:
        return record.target.startswith((f"{folder.resolve()}/", "/proc/self/")) and "/linked/" not in record.target
    return record.kind != "executable_memory"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("open('file').read()", {("read", "/file")}, id="relative"),
        pytest.param("import os; os.mkdir('d'); os.listdir('d')", {("create", "/d"), ("list", "/d")}, id="folder"),
        pytest.param("open('file', 'a').write('x')", {("write", "/file")}, id="append"),
        pytest.param("open('file', 'r+')", {("read", "/file"), ("write", "/file")}, id="read and write"),
        pytest.param("open('new', 'w')", {("create", "/new")}, id="new file"),
        pytest.param("import os; os.remove('file')", {("create", "/file")}, id="remove"),
        pytest.param("import os; os.rename('file', 'f2')", {("create", "/file"), ("create", "/f2")}, id="rename"),
        pytest.param("import os; os.truncate('file', 0)", {("write", "/file")}, id="truncate"),
        pytest.param("import os; os.path.exists('absent') or os.stat('file')", set(), id="only looked at"),
        pytest.param("import os; os.open('file', os.O_PATH)", set(), id="only named"),
        pytest.param(
            "import os\nfor f in (lambda: open('absent'), lambda: os.remove('absent'), lambda: os.mkdir('model')):\n"
            "    try: f()\n    except OSError: pass",
            set(),
            id="what fails anyway",
        ),
        pytest.param(
            "import os; os.symlink('file', 'l'); open('l')", {("call", "symlink"), ("read", "/file")}, id="link"
        ),
        pytest.param(
            "import os; d = os.open('.', os.O_PATH); os.chdir('/'); os.open('file', 0, dir_fd=d)",
            {("read", "/file")},
            id="beneath a descriptor",
        ),
        pytest.param(
            "import threading; t = threading.Thread(target=lambda: open('file')); t.start(); t.join()",
            {("read", "/file")},
            id="in a thread",
        ),
        pytest.param("open('/proc/self/status')", {("read", "/proc/self/status")}, id="own process"),
        pytest.param(
            "import socket; s = socket.socket(); s.connect_ex(('127.0.0.1', 9))",
            {("connect", "127.0.0.1:9")},
            id="TCP",
        ),
        pytest.param(
            "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b'', ('127.0.0.1', 9))",
            {("send", "127.0.0.1:9")},
            id="UDP",
        ),
        pytest.param(
            "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.sendmsg([b''], [], 0, ('127.0.0.1', 9))",
            {("send", "127.0.0.1:9")},
            id="UDP message",
        ),
        pytest.param(
            "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', 9))",
            set(),
            id="a route that is only asked for",
        ),
        pytest.param(
            "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()",
            {("call", "bind to 127.0.0.1:0"), ("call", "listen")},
            id="listening",
        ),
        pytest.param(
            "import socket; socket.socket(socket.AF_UNIX).connect_ex('absent')", set(), id="no such unix socket"
        ),
        pytest.param(
            "import os; os.fork() or os._exit(0); os.wait()",
            {("process", "clone")},
            id="fork",
        ),
        pytest.param(
            "import os; os.fork() or (open('file'), os._exit(0)); os.wait()",
            {("process", "clone"), ("read", "/file")},
            id="in a child",
        ),
        pytest.param("import os; os.chmod('file', 0o600)", {("call", "chmod")}, id="a call that no policy allows"),
    ],
)
def test_uses(tmp_path: Path, code: str, expected: set[tuple[str, str]]) -> None:
    """Files, sockets, processes and other calls are reported with what they are about, and happen."""
    assert recorded(tmp_path, code) == expected


def test_executed_programs(tmp_path: Path) -> None:
    """A program that a child executes is named by its real path."""
    found = recorded(tmp_path, "import os; os.posix_spawn('/bin/true', ['true'], {}); os.wait()")
    assert ("execute", os.path.realpath("/bin/true")) in found
    assert "process" in {kind for kind, _ in found}


def test_compiled_modules(tmp_path: Path) -> None:
    """Compiled modules are neither written nor reported; the import works."""
    (tmp_path / "helper.py").write_text("value = 1")
    found = recorded(tmp_path, f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import helper; assert helper.value")
    assert ("read", "/helper.py") in found
    assert not [target for kind, target in found if kind in {"create", "write"}]
    assert not (tmp_path / "__pycache__").exists()


def test_moments(tmp_path: Path) -> None:
    """What precedes the model's file is left out; what follows carries the moment that was set."""
    entry = tmp_path / "model" / "1" / "model.py"
    entry.parent.mkdir(parents=True)
    entry.touch()
    with Recorder() as recorder:
        recorder.moment = "serving"
        command = [sys.executable, "-c", LAUNCH, str(recorder.address), str(entry), "open('/etc/hostname')"]
        subprocess.run(command, timeout=150, check=True)
        records = recorder.records(tmp_path / "model")
        assert recorder.records(tmp_path / "mod") == []
    assert {record.moment for record in records} == {"serving"}
    assert not [record for record in records if record.target.endswith("/os.py")]


def test_nothing_is_left(tmp_path: Path) -> None:
    """The recorder's folder is gone afterwards, and its thread."""
    with Recorder() as recorder:
        folder = recorder.folder
        assert recorder.scratch.is_dir()
    assert not folder.exists()


def test_without_a_listener(tmp_path: Path) -> None:
    """A process whose listener is not there is not started."""
    command = [sys.executable, "-c", LAUNCH, str(tmp_path / "absent"), "/m/1/model.py", "pass"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 1
    assert "confinement.record" in done.stderr
