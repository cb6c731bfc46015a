"""A folder laid out like ``/opt/tritonserver`` of NVIDIA's container, made from the files of the wheel."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
needs_source = pytest.mark.skipif(not (ROOT / "src").is_dir(), reason="tests the installed wheel: there is no src here")


def wheel_folder() -> Path | None:
    """Return the installed ``nvidia-pytriton``'s folder with the server in it, without importing anything of it."""
    try:
        distribution = importlib.metadata.distribution("nvidia-pytriton")
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = Path(str(distribution.locate_file("pytriton/tritonserver")))
    return folder if (folder / "bin" / "tritonserver").is_file() else None


def make_layout(root: Path, wheel: Path) -> Path:
    """Lay the wheel's server out as the container does: one stub beside the backend, libraries in ``lib``.

    Binaries are copied, because a link would be followed back to the wheel's own folders; libraries are linked.
    """
    server = root / "opt" / "tritonserver"
    backend = server / "backends" / "python"
    backend.mkdir(parents=True)
    (server / "bin").mkdir()
    (server / "lib").mkdir()
    shutil.copy2(wheel / "bin" / "tritonserver", server / "bin" / "tritonserver")
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy2(wheel / "backends" / "python" / name, backend / name)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy2(stub, backend / stub.name)
    (backend / stub.name).chmod(0o755)
    for library in (wheel.parents[1] / "nvidia_pytriton.libs").iterdir():
        (server / "lib" / library.name).symlink_to(library)
    (server / "TRITON_VERSION").write_text("2.51.0\n", encoding="utf-8")
    return server
