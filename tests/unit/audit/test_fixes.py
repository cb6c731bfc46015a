"""Repairs: planned from findings, made as a whole, and never on what has changed meanwhile."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from safe_triton.audit import check_paths
from safe_triton.audit.finding import Finding
from safe_triton.audit.fixes import Change, apply_change, plan_fixes
from tests.unit.audit.cases import CONFIG, ENSEMBLE, MODEL, POLICY, write


def planned(folder: Path) -> list[Change]:
    """Check a folder and plan its repairs."""
    return plan_fixes(check_paths([folder], jobs=1).findings)


def test_modes(tmp_path: Path) -> None:
    """A file that anyone may write is closed; a script that opens others is not touched."""
    repository = write(
        tmp_path, {"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL, "run.sh": "#!/bin/sh\nchmod 777 /m\n"}
    )
    (repository / "m/1/model.py").chmod(0o666)
    (repository / "run.sh").chmod(0o644)
    (change,) = planned(repository)
    assert (Path(change.path).name, change.mode) == ("model.py", 0o664)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    """There is nothing to repair."""
    assert plan_fixes([Finding(rule="world-writable", path=str(tmp_path / "gone"), message="")]) == []


@pytest.mark.parametrize("content", [b"name: \xff", b"name: [", b'name: "m"'])
def test_configurations_that_are_left_alone(tmp_path: Path, content: bytes) -> None:
    """What cannot be read, and a place that the file does not have."""
    path = tmp_path / "config.pbtxt"
    path.write_bytes(content)
    finding = Finding(rule="unpinned-version", path=str(path), message="", line=9, column=9, fix="model_version: 1")
    assert plan_fixes([finding]) == []


def test_links_are_left_alone(tmp_path: Path) -> None:
    """A link's target may belong to somebody else."""
    (tmp_path / "real").write_text(CONFIG)
    path = tmp_path / "config.pbtxt"
    path.symlink_to("real")
    finding = Finding(rule="version-policy-default", path=str(path), message="", fix="version_policy { latest { } }")
    assert plan_fixes([finding]) == []


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (POLICY, "", "version_policy { specific { versions: [ 1 ] } }"),
        (f"{POLICY}\n", "", "version_policy { specific { versions: [ 1 ] } }"),
        (POLICY, "version_policy { all { } }", "version_policy { specific { versions: [ 1 ] } }"),
    ],
)
def test_policies(tmp_path: Path, old: str, new: str, wanted: str) -> None:
    """A policy is written where there is none, and in place of one that loads everything."""
    repository = write(tmp_path, {"m/config.pbtxt": CONFIG.replace(old, new).rstrip("\n"), "m/1/model.py": MODEL})
    (change,) = planned(repository)
    apply_change(change)
    assert wanted in (repository / "m/config.pbtxt").read_text()
    assert planned(repository) == []


def test_versions_of_steps(tmp_path: Path) -> None:
    """Each step gets the version that is served, written in place or behind the name."""
    steps = ENSEMBLE.replace("model_version: 1", "model_version: -1")
    repository = write(tmp_path, {"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL, "e/config.pbtxt": steps, "e/1/": ""})
    (change,) = planned(repository)
    assert "model_version: 1" in change.after
    assert "-1" not in change.after


def test_versions_of_the_second_step(tmp_path: Path) -> None:
    """A step without a version gets one where it is; its neighbour keeps its own."""
    second = '{ model_name: "m" input_map { key: "X" value: "Z" } output_map { key: "Y" value: "OUT" } }'
    both = ENSEMBLE.replace('"OUT" }\n    }\n', f'"Z" }}\n    }},\n    {second}\n')
    assert both != ENSEMBLE
    path = write(tmp_path, {"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL, "e/config.pbtxt": both, "e/1/": ""})
    (change,) = planned(path)
    assert change.after.count("model_version: 1") == 2


def test_a_file_that_has_changed(tmp_path: Path) -> None:
    """What was planned for another text is not written."""
    path = tmp_path / "config.pbtxt"
    path.write_text("new")
    with pytest.raises(OSError, match="has changed"):
        apply_change(Change(path=str(path), before="old", after="newer"))


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays as it was, and nothing is left beside it."""
    path = tmp_path / "config.pbtxt"
    path.write_text("old")
    mode = stat.S_IMODE(path.stat().st_mode)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        apply_change(Change(path=str(path), before="old", after="new"))
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("config.pbtxt", "old")]
    assert stat.S_IMODE(path.stat().st_mode) == mode
