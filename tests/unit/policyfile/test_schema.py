"""The published JSON schema says what the reader says."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from safe_triton.errors import PolicyError
from safe_triton.policyfile import json_schema, load_policy
from safe_triton.policyfile.document import Document
from tests.unit.policyfile.test_load import PROBLEMS, WHOLE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").rglob("safe-triton.toml"))
# What depends on two keys together, or on what a text means.
BEYOND_A_SCHEMA = ("policy.conflict", "policy.path", "policy.token", "policy.toml")
BEYOND_TOO = ("address = 'localhost'", "window_s = inf")


def is_valid(text: str) -> bool:
    """Whether the schema accepts a document, dates as the texts that JSON has for them."""
    document = json.loads(json.dumps(tomllib.loads(text), default=dt.date.isoformat))
    validator = jsonschema.Draft202012Validator(json_schema())
    return bool(validator.is_valid(document))


def test_it_is_a_schema() -> None:
    """By the definition of its draft."""
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("text", ["", WHOLE, *(path.read_text(encoding="utf-8") for path in EXAMPLES)])
def test_what_is_read_is_valid(text: str, tmp_path: Path) -> None:
    """A file that is a policy, the examples among them."""
    path = tmp_path / "safe-triton.toml"
    path.write_text(text, encoding="utf-8")
    load_policy(path)
    assert is_valid(text)


@pytest.mark.parametrize(
    "text",
    [
        text
        for text, reason, _ in PROBLEMS
        if reason not in BEYOND_A_SCHEMA and not any(part in text for part in BEYOND_TOO)
    ],
)
def test_what_is_refused_is_not_valid(text: str, tmp_path: Path) -> None:
    """Unknown and missing keys, other types, numbers out of range."""
    path = tmp_path / "safe-triton.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PolicyError):
        load_policy(path)
    assert not is_valid(text)


def test_every_table_is_closed() -> None:
    """A table of names is open to names only; every other refuses keys that it does not know."""
    tables: list[Any] = [json_schema(), *json_schema()["$defs"].values()]
    assert [table["title"] for table in tables if table.get("additionalProperties") is not False] == []


def test_the_examples_are_there() -> None:
    """Without any the test above would prove less than it says."""
    assert EXAMPLES


def test_defaults_in_it_are_those_of_the_reader() -> None:
    """A program that fills the defaults in gets the policy that no file gives."""
    schema = json_schema()
    for name, table in (("server", "ServerPolicy"), ("supervision", "SupervisionPolicy"), ("audit", "AuditPolicy")):
        properties = schema["$defs"][table]["properties"]
        held = getattr(Document.model_validate({}), name).to_plain()
        assert {key: node.get("default") for key, node in properties.items()} == held
