"""What is looked at as what: by content where the name says nothing, and what happens when a look fails."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from safe_triton.audit import check_paths, engine, work
from safe_triton.audit.discover import Entry
from safe_triton.audit.finding import Finding
from safe_triton.audit.reading import UnreadableError, read_bounded
from safe_triton.audit.suppress import Suppression, apply_suppressions
from tests.unit.audit.cases import CONFIG, ENSEMBLE, MODEL, found, look, write

QUEUE = "priority_queue_policy { key: %d value { %s } }"
BATCHING = (
    "dynamic_batching { priority_levels: 2 default_priority_level: 1 default_queue_policy { max_queue_size: 9 } "
    f"{QUEUE % (1, 'max_queue_size: 9')} {QUEUE % (2, '')} }}\n"
)
CLEAN = {"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL}


@pytest.mark.parametrize(
    ("name", "text", "rules"),
    [
        ("notes/model.pbtxt", CONFIG.replace("max_batch_size", "max_batchsize"), {"config-unknown-field"}),
        ("notes/model.pbtxt", CONFIG + "input [", {"config-parse-error"}),
        ("notes/graph.pbtxt", 'node { name: "a" op: "Add" }\nname: "x"\nedges { a: 1 }\n', set()),
        ("notes/model.txt", CONFIG, set()),
        ("safe-triton.toml", "schema = 1\n", set()),
        ("safe-triton.toml", "schema = 1\nnothing = 2\n", {"policy-invalid"}),
    ],
)
def test_files_beside_models(tmp_path: Path, name: str, text: str, rules: set[str]) -> None:
    """A configuration is one by its fields, a policy by its name."""
    assert set(found(look(tmp_path, {**CLEAN, name: text}))) == rules


@pytest.mark.parametrize(
    ("content", "rules"), [("", {"config-missing"}), ("# later\n", {"config-missing"}), ("  \n", {"config-missing"})]
)
def test_empty_configurations(tmp_path: Path, content: str, rules: set[str]) -> None:
    """A configuration that says nothing is none."""
    assert set(found(look(tmp_path, {"m/config.pbtxt": content, "m/1/model.py": MODEL}))) >= rules


def test_a_long_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a deployment file above the bound the beginning is read, and that is said."""
    monkeypatch.setattr(work, "TEXT_BYTES", 6000)
    text = "#!/bin/sh\ntritonserver --exit-on-error=0\n" + "# nothing\n" * 1000
    assert found(look(tmp_path, {"run.sh": text})).keys() >= {"audit-limit", "exit-on-error-off"}


def test_a_release_in_a_file_that_is_gone(tmp_path: Path) -> None:
    """A deployment that cannot be read names no release; its own turn says why."""
    (tmp_path / "run.sh").write_text("docker run nvcr.io/nvidia/tritonserver:24.10-py3\n")
    entries = [Entry(str(tmp_path / name), name, 9) for name in ("gone", "run.sh")]
    assert engine._declared_release(entries) == (24, 10)


def test_a_neighbour_without_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model beside the checked one that cannot be read is known by nothing, and not reported."""
    write(tmp_path, {**CLEAN, "e/config.pbtxt": ENSEMBLE, "e/1/": ""})
    real = read_bounded

    def some(path: str, limit_bytes: int) -> bytes:
        if path.endswith("m/config.pbtxt"):
            raise UnreadableError("gone")
        return real(path, limit_bytes)

    monkeypatch.setattr(work, "read_bounded", some)
    assert "audit-unreadable" not in found(check_paths([tmp_path / "e"], jobs=1))


@pytest.mark.parametrize(
    ("more", "rules"),
    [
        ('parameters { key: "EXECUTION_ENV_PATH" value { string_value: "${WHERE}/e.tar.gz" } }\n', set()),
        (
            BATCHING,
            {"unbounded-queue"},
        ),
    ],
)
def test_configurations(tmp_path: Path, more: str, rules: set[str]) -> None:
    """What a template decides, and what one of several levels leaves out."""
    levels = found(look(tmp_path, {**CLEAN, "m/config.pbtxt": CONFIG + more}))
    assert levels.keys() - {"config-placeholder"} == rules


def test_a_policy_that_is_filled_in_later(tmp_path: Path) -> None:
    """Nothing is said of versions that a template decides."""
    config = CONFIG.replace("[ 1 ]", "[ {{ version }} ]")
    assert found(look(tmp_path, {**CLEAN, "m/config.pbtxt": config})).keys() == {"config-placeholder"}


def test_words_about_secrets(tmp_path: Path) -> None:
    """Documentation shows how a secret is set."""
    assert found(look(tmp_path, {**CLEAN, "m/1/README.md": "DATABASE_PASSWORD=correct-horse-battery\n"})) == {}


def test_what_is_about_nothing() -> None:
    """A piece of work without files has no name."""
    assert work.Task().shown == ""


class TestSuppressions:
    """What a suppression covers."""

    @pytest.mark.parametrize(
        ("each", "is_kept"),
        [
            ({"rules": ("no-tls",), "path": "run.sh"}, False),
            ({"rules": ("ST701",), "path": "run.sh"}, False),
            ({"rules": ("no-tls",), "path": "other.sh"}, True),
            ({"rules": ("no-tls",), "path": "run.sh", "lines": (9,)}, True),
            ({"rules": ("metrics-exposed",), "path": "run.sh"}, True),
            ({"rules": ("no-tls",), "path": "*.sh", "is_pattern": True}, False),
        ],
    )
    def test_covers(self, each: dict[str, object], is_kept: bool) -> None:
        """A rule by name or code, a file, a line."""
        finding = Finding(rule="no-tls", path="run.sh", message="", line=1)
        suppression = Suppression(**{"reason": "tried", "place": ("run.sh", 1), **each})  # type: ignore[arg-type]
        kept, _ = apply_suppressions([finding], [suppression], {"no-tls": "ST701"}, dt.date(2027, 1, 1))
        assert (finding in kept) is is_kept
