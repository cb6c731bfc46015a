"""What the Python environment of a server's models holds, asked of that interpreter itself."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from safe_triton.errors import IncompatibleEnvironmentError
from safe_triton.server.process import run_briefly

# Reads metadata only: importing pytriton starts threads and writes files.
_PROBE = """
import importlib.metadata as m, json, sys, sysconfig
def version(name):
    try:
        return m.version(name)
    except m.PackageNotFoundError:
        return None
wheel = None
if version("nvidia-pytriton"):
    wheel = str(m.distribution("nvidia-pytriton").locate_file("pytriton"))
print(json.dumps({
    "version": list(sys.version_info[:3]), "prefix": sys.prefix, "base": sys.base_prefix,
    "libraries": sysconfig.get_config_var("LIBDIR"), "library": sysconfig.get_config_var("INSTSONAME"),
    "numpy": version("numpy"), "wheel": wheel, "wheel_version": version("nvidia-pytriton"),
}))
"""


@dataclass(frozen=True, kw_only=True)
class PythonEnvironment:
    """One interpreter with what matters to a server about it.

    ``library_folders``: where its shared library may be. ``wheel``: folder of the installed ``pytriton`` package.
    """

    python: Path
    version: tuple[int, int, int]
    prefix: Path
    library_folders: tuple[Path, ...]
    numpy_version: str | None = None
    wheel: Path | None = None
    wheel_version: str | None = None

    @property
    def minor(self) -> str:
        """Major and minor version, such as ``3.11``."""
        return f"{self.version[0]}.{self.version[1]}"


def inspect_python(python: Path | None = None) -> PythonEnvironment:
    """Ask an interpreter (this one when None) for its version, libraries and installed packages.

    A model process finds its interpreter as the first ``python3`` on PATH, ignores PYTHONPATH and user
    site-packages, and so does this probe.

    Raises:
        IncompatibleEnvironmentError: reason ``server.python``: it does not run, or its folder has no ``python3``
            of the same environment.
    """
    # Not resolved: following a virtual environment's link leads out of the environment.
    python = Path(os.path.abspath(python or sys.executable))
    found = _ask(python)
    namesake = python.with_name("python3")
    if namesake != python:
        reason = "model processes start the first python3 on PATH"
        if not namesake.exists():
            raise IncompatibleEnvironmentError(
                f"{python.parent} has no python3 beside {python.name}, and {reason}: create a virtual environment with "
                f"{python} -m venv and use its python3",
                reason="server.python",
            )
        if not namesake.samefile(python):
            other = _ask(namesake)
            if (other.version, other.prefix) != (found.version, found.prefix):
                raise IncompatibleEnvironmentError(
                    f"{namesake} is Python {other.minor}, {python} is {found.minor}, and {reason}: create a virtual "
                    f"environment with {python} -m venv and use its python3",
                    reason="server.python",
                )
    return found


def _ask(python: Path) -> PythonEnvironment:
    try:
        answer = run_briefly([python, "-I", "-c", _PROBE], environment={"PATH": os.defpath})
        fields = json.loads(answer.output.strip().splitlines()[-1])
    except (OSError, TimeoutError, ValueError, IndexError):
        raise IncompatibleEnvironmentError(
            f"{python} does not run as a Python interpreter", reason="server.python"
        ) from None
    major, minor, micro = fields["version"]
    base = Path(fields["base"])
    folders = [Path(fields["libraries"])] if fields["libraries"] else []
    folders += [base / "lib", base / "lib64"]
    return PythonEnvironment(
        python=python,
        version=(major, minor, micro),
        prefix=Path(fields["prefix"]),
        library_folders=tuple(dict.fromkeys(folders)),
        numpy_version=fields["numpy"],
        wheel=Path(fields["wheel"]) if fields["wheel"] else None,
        wheel_version=fields["wheel_version"],
    )
