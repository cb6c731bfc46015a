"""Putting the launcher in the stub's place: the table of what may start, and the files of one server."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import safe_triton
from safe_triton.confinement.environment import clean_environment
from safe_triton.confinement.launch import REFUSAL_VARIABLE, LaunchTable, joined
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server.gpus import machine_gpus, visible_gpus
from safe_triton.server.granted import Host, granted
from safe_triton.server.planted import refused
from safe_triton.server.policies import grants
from safe_triton.server.served import DEFAULT_ENTRY, ServedModel, check_backend, check_links

if TYPE_CHECKING:
    from safe_triton.server.installation import TritonInstallation
    from safe_triton.server.policies import Policies
    from safe_triton.server.view import RepositoryView
    from safe_triton.server.workspace import Workspace

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


class Launcher:
    """Stands where Triton looks for the stub of a server's backend folder.

    Args:
        workspace: the server's private folder; the table and the real stub go there.
        installation: what is run.
        policies: the operator's policy; or grants for every model, or by model name (then a model without any gets
            the defaults).
        environment: the server's environment, of which the models get a part.
        view: the repository view that Triton is shown; None: the repositories.
        record: socket of a listener; the models are then reported to it and not confined.

    Raises:
        ServerStartError: reason ``server.confinement``; a path that cannot be used.
    """

    def __init__(
        self,
        workspace: Workspace,
        installation: TritonInstallation,
        policies: Policies,
        environment: Mapping[str, str],
        *,
        view: RepositoryView | None = None,
        record: Path | None = None,
    ) -> None:
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
        self._policies = policies
        self._view = view
        self._host = Host(
            python=installation.python.parent.parent,
            scratch=workspace.scratch,
            gpus=visible_gpus(environment),
            others=machine_gpus(),
        )
        self._backends = installation.backend_directory.parent
        self._file = folder / "table.json"
        self._table = LaunchTable(
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
                    *([] if view is None else [view.code]),
                    *installation.library_path,
                    *python_folders(installation.python),
                )
            ),
            models={},
            beats="" if view is None else str(workspace.beats),
            record=str(record or ""),
        )
        workspace.stub.write_text(
            LAUNCHER.format(python=python, package=str(package), table=str(self._file)), encoding="utf-8"
        )
        workspace.stub.chmod(0o755)

    def allow(self, models: Sequence[ServedModel], policies: Policies | None = None) -> None:
        """Write the table of what may start: these models, and no others.

        Args:
            models: of the repositories.
            policies: what holds from now on; None: what held before.

        Raises:
            ServerStartError: reason ``server.confinement``; see :func:`safe_triton.server.served.check_links`, and
                ``server.backend``; see :func:`safe_triton.server.served.check_backend`. The table stays as it was.
            PolicyError: what a model's configuration says about its policy is wrong, or widens it.
        """
        allowed: dict[str, SandboxPolicy] = {}
        variables: dict[str, dict[str, str]] = {}
        folders: dict[str, str] = {}
        for model in models:
            if self._view is None:
                check_backend(model, self._backends)
            policy, limits = grants(self._policies if policies is None else policies, model)
            resolved, own_variables = granted(policy, model.config, model.folder, self._host)
            check_links(model, resolved)
            shown = model.folder if self._view is None else self._view.path / model.name
            code = () if model.backend_file is None else (str(model.backend_file.resolve().parent),)
            own = SandboxPolicy(read=(str(model.folder), str(shown), *code))
            for version in model.versions:
                entry = str(shown / version / model.entry)
                allowed[entry] = joined(resolved.resolve({"version": str(model.folder / version)}), own)
                variables[entry] = {**own_variables, **limits}
                folders[entry] = str(model.folder)
        table = replace(self._table, models=allowed, variables=variables, folders=folders)
        made = self._file.with_suffix(".new")
        made.write_text(table.to_json(), encoding="utf-8")
        made.replace(self._file)  # a launcher that starts now reads the one or the other
        self._policies = self._policies if policies is None else policies


def python_folders(python: Path) -> tuple[Path, ...]:
    """Return what the models' interpreter reads to start: its environment's libraries and configuration."""
    prefixes = {python.parent.parent, python.resolve().parent.parent}
    found = [prefix / part for prefix in sorted(prefixes) for part in ("lib", "lib64", "ssl", "pyvenv.cfg")]
    return tuple(path for path in (*found, python, python.resolve(), python.parent) if path.exists())
