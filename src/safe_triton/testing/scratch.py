"""A scratch folder for a model that declares one, as the launcher gives it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from safe_triton.confinement.scratch import scratch_variables
from safe_triton.policy.sandbox import SandboxPolicy


@contextmanager
def scratch_of(model: object) -> Iterator[None]:
    """Let a model that writes to ``{scratch}`` find a folder, with ``tempfile`` too, meanwhile; it has no size."""
    sandbox = getattr(model, "sandbox", None)
    if not isinstance(sandbox, SandboxPolicy) or not sandbox.has_scratch:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="safe-triton-") as folder:
        variables = {name: value for name, value in scratch_variables(folder).items() if name != "HOME"}
        before = {name: os.environ.get(name) for name in variables}, tempfile.tempdir
        os.environ.update(variables)
        tempfile.tempdir = None
        try:
            yield
        finally:
            for name, value in before[0].items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            tempfile.tempdir = before[1]
