"""safe-triton without extras is enough where Triton is there already, and small."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.container.layout import ROOT, make_layout, needs_source, wheel_folder

WHEEL = wheel_folder()
MOST_PACKAGES = 11


def needed(name: str = "safe-triton") -> set[str]:
    """Return the names of everything that installing a package without extras brings, itself included."""
    found, left = set[str](), [name]
    while left:
        one = canonicalize_name(left.pop())
        if one in found:
            continue
        found.add(one)
        for text in importlib.metadata.requires(one) or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                left.append(wanted.name)
    return found


def link(source: str, target: str) -> None:
    """Give a file a second name, or copy it to another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def install(name: str, packages: Path) -> None:
    """Put an installed package's folders and files there."""
    distribution = importlib.metadata.distribution(name)
    for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        source = Path(str(distribution.locate_file(top)))
        if source.is_dir():
            shutil.copytree(source, packages / top, copy_function=link, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            link(str(source), str(packages / top))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment that has the built wheel, what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    venv.create(folder / "venv", symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    (wheel,) = (folder / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for name in needed() - {"safe-triton"}:
        install(name, packages)
    return folder / "venv" / "bin" / "python"


def test_it_is_small() -> None:
    """Fewer than 12 packages are installed, itself included."""
    assert len(needed()) <= MOST_PACKAGES, sorted(needed())


@needs_source
@pytest.mark.triton
@pytest.mark.skipif(WHEEL is None, reason="needs the files of the nvidia-pytriton wheel")
def test_a_guarded_model_serves(python: Path, tmp_path: Path) -> None:
    """On a server laid out as the container's, a model is loaded, answers, and refuses what it should."""
    assert WHEEL is not None
    script = shutil.copy(ROOT / "tests" / "container" / "alone.py", tmp_path)
    server = make_layout(tmp_path, WHEEL)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TRITON"))}
    done = subprocess.run(
        [str(python), "-W", "error", script, str(server)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith(f"a guarded model serves with {len(needed())} packages: ")


@needs_source
def test_what_needs_an_extra_says_so(python: Path, tmp_path: Path) -> None:
    """The command, which needs ``[cli]``, ends with one line that names the extra."""
    done = subprocess.run(
        [str(python), "-c", "from safe_triton.cli import main; main()"],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "safe-triton[cli]" in done.stderr
