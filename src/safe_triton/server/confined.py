"""Putting the launcher in the stub's place: the table of what may start, and the files of one server."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import safe_triton
from safe_triton.config.pbtxt import read_pbtxt
from safe_triton.confinement.environment import clean_environment
from safe_triton.confinement.launch import REFUSAL_VARIABLE, LaunchTable, joined
from safe_triton.errors import ConfigError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server.planted import check_config, check_folder, is_plain, refused

if TYPE_CHECKING:
    from safe_triton.server.installation import TritonInstallation
    from safe_triton.server.workspace import Workspace

DEFAULT_ENTRY = "model.py"

LAUNCHER = """#!{python} -IS
import sys

sys.path.append({package!r})
from safe_triton.confinement.launcher import main

main({table!r}, sys.argv)
"""

REFUSAL = f'''"""Stands for a model that was not started: fails to load and says why."""

import os


class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError(os.environ["{REFUSAL_VARIABLE}"])

    initialize.__code__ = initialize.__code__.replace(co_filename="safe_triton")

    def execute(self, requests):
        return []
'''

LONGEST_SHEBANG = 127
"""Bytes of a ``#!`` line that every kernel reads."""


def install_launcher(
    workspace: Workspace,
    installation: TritonInstallation,
    repositories: tuple[Path, ...],
    policies: SandboxPolicy | Mapping[str, SandboxPolicy],
    environment: Mapping[str, str],
) -> None:
    """Put the launcher where Triton looks for the stub of a server's backend folder.

    Args:
        workspace: the server's private folder; the table and the real stub go there.
        installation: what is run.
        repositories: the model repositories, absolute.
        policies: the operator's grants for every model, or by model name (then a model without one gets the
            defaults).
        environment: the server's environment, of which the models get a part.

    Raises:
        ServerStartError: reason ``server.confinement``; a repository with a file that would run in the launcher's
            place, a configuration that cannot be read, or a path that cannot be used.
    """
    python = os.path.realpath(sys.executable)
    if len(python) + len("#! -IS") > LONGEST_SHEBANG or any(char.isspace() for char in python):
        raise refused(f"the interpreter's path {python!r} cannot stand in a '#!' line")
    folder = workspace.root / "launch"
    refusal = folder / "refused" / "1" / DEFAULT_ENTRY
    refusal.parent.mkdir(parents=True)
    refusal.write_text(REFUSAL, encoding="utf-8")
    stub = folder / workspace.stub.name
    workspace.stub.rename(stub)
    package = Path(safe_triton.__file__).parents[1]
    table = LaunchTable(
        stub=str(stub),
        refusal=str(refusal),
        region_prefix=workspace.region_prefix,
        environment=clean_environment(environment),
        read=tuple(
            str(path)
            for path in (
                workspace.stub.parent,
                stub,
                folder / "refused",  # not the table: it says what the other models were granted
                package,
                *installation.library_path,
                *python_folders(installation.python),
            )
        ),
        models=_models(repositories, policies),
    )
    (folder / "table.json").write_text(table.to_json(), encoding="utf-8")
    workspace.stub.write_text(
        LAUNCHER.format(python=python, package=str(package), table=str(folder / "table.json")), encoding="utf-8"
    )
    workspace.stub.chmod(0o755)


def python_folders(python: Path) -> tuple[Path, ...]:
    """Return what the models' interpreter reads to start: its environment's libraries and configuration."""
    prefixes = {python.parent.parent, python.resolve().parent.parent}
    found = [prefix / part for prefix in sorted(prefixes) for part in ("lib", "lib64", "pyvenv.cfg")]
    return tuple(path for path in (*found, python, python.resolve(), python.parent) if path.exists())


def _models(
    repositories: tuple[Path, ...], policies: SandboxPolicy | Mapping[str, SandboxPolicy]
) -> dict[str, SandboxPolicy]:
    found: dict[str, SandboxPolicy] = {}
    for repository in repositories:
        for folder in sorted(entry for entry in repository.iterdir() if entry.is_dir()):
            check_folder(folder)
            policy = policies if isinstance(policies, SandboxPolicy) else policies.get(folder.name, SandboxPolicy())
            entry = _entry_file(folder)
            for version in folder.iterdir():
                if version.name.isdecimal() and version.is_dir():
                    places = {"model": str(folder), "version": str(version), "repository": str(repository)}
                    own = SandboxPolicy(read=(str(folder),))
                    found[str(version / entry)] = joined(policy.resolve(places), own)
    return found


def _entry_file(folder: Path) -> str:
    path = folder / "config.pbtxt"
    if not path.is_file():
        return DEFAULT_ENTRY
    try:
        config = read_pbtxt(path)
    except ConfigError as error:
        raise refused(f"{path}: {error.message}") from None
    check_config(path, config)
    name = str(config.get("default_model_filename", "")) or DEFAULT_ENTRY
    if not is_plain(name):
        raise refused(f"{path}: default_model_filename {name!r} is no plain file name; Triton would run it in a shell")
    return name
