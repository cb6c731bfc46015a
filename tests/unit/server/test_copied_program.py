"""The check of a model process that was just copied, while other threads of the program start processes."""

from __future__ import annotations

import errno
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from safe_triton.errors import IncompatibleEnvironmentError
from safe_triton.server import command


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """Ends with 1, as the real one does without arguments."""
    return Path(shutil.copy(str(shutil.which("false")), tmp_path / "stub"))


def test_waits_until_nobody_writes_it(stub: Path) -> None:
    """A process that a thread began during the copy still has it open; the kernel runs nothing that is."""
    with open(stub, "r+b") as file:
        with pytest.raises(OSError, match=str(stub)) as refused:
            subprocess.run([str(stub)], check=False)
        assert refused.value.errno == errno.ETXTBSY
        ending = threading.Timer(0.3, file.close)
        ending.start()
        command.check_stub(stub, {})
        ending.join()


def test_not_for_ever(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stays open is said after a while."""
    monkeypatch.setattr(command, "BUSY_S", 0.05)
    with open(stub, "r+b"), pytest.raises(IncompatibleEnvironmentError, match="Text file busy"):
        command.check_stub(stub, {})
