"""Whole files as they were read by a person: a change of what is rendered shows in the diff of a commit.

Delete a file in ``golden`` and run the tests once: that writes it anew, and fails.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.deploy import render_compose, render_kserve, render_kubernetes, render_systemd
from tests.unit.deploy.deployments import PLAIN, deployment

GOLDEN = Path(__file__).with_name("golden")


def rendered(tmp_path: Path) -> dict[str, str]:
    """One file of each form."""
    found = deployment(tmp_path)
    unit = render_systemd(
        found,
        program="/opt/safe-triton/bin/safe-triton",
        models="/srv/models",
        policy="/etc/safe-triton/safe-triton.toml",
    )
    return {
        "compose.yaml": render_compose(found, "../models")["compose.yaml"],
        "kubernetes-workload.yaml": render_kubernetes(found)["workload.yaml"],
        "kserve-service.yaml": render_kserve(deployment(tmp_path, PLAIN))["service.yaml"],
        "triton.service": unit["triton.service"],
    }


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes-workload.yaml", "kserve-service.yaml", "triton.service"])
def test_as_it_was_read(tmp_path: Path, name: str) -> None:
    """The file is, to the letter, the one that is kept here."""
    text = rendered(tmp_path)[name]
    kept = GOLDEN / name
    if not kept.is_file():
        kept.write_text(text)
        pytest.fail(f"{name} was written; read it, and run the tests again")
    assert text == kept.read_text(), f"delete {kept} and run this once to keep the new one"
