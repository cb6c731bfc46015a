"""Python objects in YAML and JSON: what a careless loader would import and call."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.audit.modelfiles import check_file
from safe_triton.audit.rules.table import level_of

OBJECTS = (
    ("apply", "a.yaml", "a: !!python/object/apply:os.system [id]\n", "error"),
    ("name", "a.yml", "a: !!python/name:subprocess.Popen\n", "error"),
    ("module", "a.yml", '{"a": !!python/module:os }\n', "error"),
    ("verbatim tag", "a.yaml", "a: !<tag:yaml.org,2002:python/object/new:os.system> [id]\n", "error"),
    ("declared handle", "a.yaml", "%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:os.system [id]\n", "error"),
    ("tag in two", "a.yaml", "%TAG !x! tag:yaml.org,2002:pyth\n---\n!x!on/object/apply:os.system [id]\n", "error"),
    ("tag in two, all tags", "a.yaml", "%TAG ! tag:yaml.org,2002:pyt\n---\n- !hon/name:os.system\n", "error"),
    ("letter as a number", "a.yaml", "a: [!!pyth%6fn/object/apply:os.system [id]]\n", "error"),
    ("verbatim, as a number", "a.yaml", "- !<tag:yaml.org,2002:pyth%6fn/object/apply:os.system> [id]\n", "error"),
    ("first of two documents", "a.yaml", "--- !!pyth%6fn/object/apply:os.system [id]\n--- [\n", "error"),
    ("somebody's class", "a.yaml", "a: !!python/object:acme.Thing {x: 1}\n", "warning"),
    ("broken behind the tag", "a.yaml", "a: !!python/object/apply:os.system [id]\nb: [\n", "error"),
    ("jsonpickle", "a.json", '{"py/object": "subprocess.Popen", "args": ["id"]}', "error"),
    ("jsonpickle inside", "a.json", '{"a": [{"py/type": "os.system"}]}', "error"),
    ("jsonpickle reduce", "a.json", '{"py/reduce": [1, 2]}', "warning"),
    ("hydra", "a.yaml", "model:\n  _target_: os.system\n  command: id\n", "error"),
    ("hydra in JSON", "a.json", '{"_target_": "subprocess.run"}', "error"),
)
PLAIN = (
    ("tuple", "a.yaml", "a: !!python/tuple [1, 2]\n"),
    ("own tag", "a.yaml", "a: !custom 1\n"),
    ("a vocabulary of signs", "vocab.txt", "!\n!!\n!!!\n!<\n%TAG\n[UNK]\n@@\n`\n"),
    ("in a string", "a.yaml", "a: 'write !!python/object/apply:os.system never'\n"),
    ("in a comment", "a.yaml", "# !!python/object/apply:os.system\na: 1\n"),
    ("a vocabulary", "a.json", '{"py/object": 7, "_target_": 8}'),
    ("a class of a framework", "a.yaml", "model:\n  _target_: torch.nn.Linear\n"),
    ("a logger", "a.yaml", "log:\n  _target_: logging.Formatter\n"),
)


def levels(path: Path, text: str, rule: str) -> set[str]:
    """Write a file and return the levels of a rule's findings."""
    path.write_text(text)
    return {level_of(one).word for one in check_file(path, path.name, size_bytes=len(text)) if one.rule == rule}


class TestObjects:
    """By content, whatever loads it."""

    @pytest.mark.parametrize(("what", "name", "text", "level"), OBJECTS, ids=[case[0] for case in OBJECTS])
    def test_found(self, tmp_path: Path, what: str, name: str, text: str, level: str) -> None:
        """An error where what is named runs code."""
        assert level in levels(tmp_path / name, text, "data-file-object")

    @pytest.mark.parametrize(("what", "name", "text"), PLAIN, ids=[case[0] for case in PLAIN])
    def test_plain(self, tmp_path: Path, what: str, name: str, text: str) -> None:
        """Values, words and classes of frameworks are no finding."""
        assert levels(tmp_path / name, text, "data-file-object") == set()
        assert levels(tmp_path / name, text, "model-file-unexamined") == set()

    def test_behind_what_is_broken(self, tmp_path: Path) -> None:
        """A tag that stands behind a fault of the YAML is no pass."""
        assert levels(tmp_path / "a.yaml", "a: @\nb: !!python/name:os.system\n", "model-file-unexamined") == {"warning"}

    def test_behind_what_is_read(self, tmp_path: Path) -> None:
        """A tag that stands further back than is read is no pass."""
        text = "a: 1\n" + "#" * (1 << 20) + "\nb: !!python/name:os.system\n"
        assert levels(tmp_path / "a.yaml", text, "model-file-unexamined") == {"warning"}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('{"model": "a/b", "trust_remote_code": true}', 1),
        ('{"model": "a/b", "trust-remote-code": "True"}', 1),
        ('{"model": "a/b", "trust_remote_code": false}', 0),
    ],
)
def test_arguments_of_the_engine(tmp_path: Path, text: str, count: int) -> None:
    """``model.json`` of the vLLM backend may let a downloaded model bring code."""
    assert len(levels(tmp_path / "model.json", text, "py-trust-remote-code")) == count
