"""What ``Dockerfile.test`` does, done: its instructions are run one after the other, and then the tests in what they made."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.container.layout import ROOT, make_layout, needs_source, wheel_folder
from tests.container.steps import copied, instructions_of, script

FILE = ROOT / "Dockerfile.test"
WHEEL = wheel_folder()
PYTHON = "/usr/bin/python3"
# What reads the files that COPY brings, and a model on the server of /opt/tritonserver.
SLICE = [
    "tests/container/test_dockerfile.py",
    "tests/unit/audit/test_own.py",
    "tests/unit/cli/test_action.py",
    "tests/triton/test_models/test_json_order.py",
]


def missing() -> str | None:
    """Return what keeps the instructions from running here, or None."""
    if WHEEL is None:
        return "needs the files of the nvidia-pytriton wheel"
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        return "needs root, unshare(1) and ip(8) for a root of its own"
    probe = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([PYTHON, "-c", probe], capture_output=True, text=True, check=False)
    if done.stdout.strip() != "{}.{}".format(*sys.version_info):
        return f"needs a {PYTHON} of the version that runs the tests: both use its packages"
    if subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        return f"needs pip for {PYTHON}, as the container has"
    return None


def make_wheel(folder: Path, name: str, files: dict[str, str]) -> str:
    """Write a wheel with these files; return its entry in a lock."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text.encode())}\n")
    files[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"])
    file = folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


def make_context(folder: Path, wheels: Path) -> None:
    """Lay out what COPY reads, with a lock that needs no network.

    Its packages lead to those that are installed here. Between them stands the wheel with a server, under a hash that nothing
    has: installing it would fail.
    """
    for one in instructions_of(FILE):
        for source in copied(one.rest)[0] if one.word == "COPY" else ():
            target = folder / source
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(
                    ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"), dirs_exist_ok=True
                )
            else:
                shutil.copy2(ROOT / source, target)
    first = make_wheel(wheels, "a-first", {"host.pth": "/mnt/packages\n"})
    last = make_wheel(wheels, "z-last", {"z_last.py": ""})
    refused = f"nvidia-pytriton==0.7.0 ; sys_platform == 'linux' \\\n    --hash=sha256:{'0' * 64}\n"
    (folder / "requirements" / "container.lock").write_text(first + refused + last, encoding="utf-8")


@needs_source
def test_each_run_step_works_and_so_does_what_it_made(tmp_path: Path) -> None:
    """Every COPY and RUN succeeds in the file's order; then its user runs tests with nothing to write but /tmp.

    The text of each RUN is run as it stands. Only the lock's content is another, so that no package is downloaded.
    """
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    assert WHEEL is not None
    context, wheels, root = (tmp_path / name for name in ("context", "wheels", "root"))
    for folder in (context, wheels, root):
        folder.mkdir()
    tmp_path.chmod(0o755)
    make_context(context, wheels)
    make_layout(root, WHEEL)
    lock = context / "requirements" / "container.lock"
    build = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/mnt/wheels", "PIP_CONFIG_FILE": "/dev/null"}
    packages = sysconfig.get_path("purelib")
    libraries = WHEEL.parents[1] / "nvidia_pytriton.libs"
    mounts = "\n".join(
        [
            f'mkdir -p "$root"/mnt/packages "$root"/mnt/wheels "$root"{libraries}',
            f'mount --bind {packages} "$root"/mnt/packages && mount -o remount,bind,ro "$root"/mnt/packages',
            f'mount --bind {wheels} "$root"/mnt/wheels',
            f'mount --bind {libraries} "$root"{libraries}',
            f"mount --bind {lock} {context}/requirements/dev.lock",
        ]
    )
    arguments = ["-q", "--no-fold-skipped", *SLICE]
    text = script(instructions_of(FILE), context, build, mounts, arguments)
    result = subprocess.run(
        [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--net",
            "--ipc",
            "bash",
            "-c",
            text,
            "bash",
            str(root),
        ],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert "Successfully installed a-first-1.0 z-last-1.0" in result.stdout
    assert "Successfully installed safe-triton-" in result.stdout
    assert " passed" in result.stdout.splitlines()[-1]
