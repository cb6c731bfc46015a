"""The tables of TOML have the declarations' fields, words and values."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import ValidationError

from safe_triton import unsafe
from safe_triton._declared import Declaration, defaults_of
from safe_triton.policy import InputLimits, Limits, OutputLimits, ParameterLimits, ResourceLimits, SandboxPolicy
from safe_triton.policy.bls import BlsGrants
from safe_triton.policy.passed_on import to_plain
from safe_triton.policy.sequences import SequenceLimits
from safe_triton.policyfile.document import Document
from safe_triton.policyfile.mirror import NOT_IN_TOML, REASON_KEYS, ROWS, descriptions, table_of

DECLARATIONS: tuple[type[Declaration], ...] = (
    Limits, InputLimits, OutputLimits, ParameterLimits, SandboxPolicy, ResourceLimits, BlsGrants, SequenceLimits,
    unsafe.AllowNetwork, unsafe.AllowProcesses, unsafe.AllowAutoComplete, unsafe.AllowPublicAddress, unsafe.Unlimited,
)  # fmt: skip
TOKEN = unsafe.Unlimited(reason="bounded elsewhere")

# One value for each field that is not its default, as Python and TOML write it.
VALUES: tuple[tuple[type[Declaration], str, Any], ...] = (
    *((Limits, name, row.minimum + 1) for name, row in ROWS[Limits].items()),
    *((Limits, name, TOKEN) for name in ROWS[Limits]),
    (Limits, "max_batch_size", "config"),
    (Limits, "inputs", {"X": InputLimits(finite=True)}),
    (Limits, "outputs", {"Y": OutputLimits(max_bytes=9)}),
    (Limits, "parameters", {"t": ParameterLimits(type=float, maximum=2.0, choices=(1.0, 1.5), required=True)}),
    (Limits, "parameters", {}),
    (InputLimits, "sequence_axis", "none"),
    (InputLimits, "sequence_axis", 2),
    *((InputLimits, f"max_{name}", 7) for name in ("sequence_length", "bytes", "elements", "strings", "string_bytes")),
    (InputLimits, "max_bytes", TOKEN),
    (InputLimits, "minimum", -1.5),
    (InputLimits, "maximum", 3.0),
    (InputLimits, "finite", True),
    (InputLimits, "utf8", True),
    (OutputLimits, "max_bytes", "inherit"),
    (OutputLimits, "finite", True),
    (ParameterLimits, "type", bool),
    (ParameterLimits, "minimum", None),
    (ParameterLimits, "maximum", None),
    (ParameterLimits, "max_length", 9),
    (ParameterLimits, "choices", ("a", "b")),
    (ParameterLimits, "required", True),
    (SandboxPolicy, "read", ("/data", "{model}/words")),
    (SandboxPolicy, "write", ("/data",)),
    (SandboxPolicy, "network", unsafe.AllowNetwork(reason="asks", to=(443,))),
    (SandboxPolicy, "network", unsafe.AllowNetwork(reason="asks")),
    (SandboxPolicy, "processes", unsafe.AllowProcesses(reason="ffmpeg")),
    (SandboxPolicy, "executable_memory", False),
    (SandboxPolicy, "gpu_ids", (0, 1)),
    (SandboxPolicy, "scratch_bytes", 1 << 20),
    (SandboxPolicy, "resources", ResourceLimits(open_files=64)),
    (SandboxPolicy, "enforcement", "best-effort"),
    *((ResourceLimits, name, row.minimum + 1) for name, row in ROWS[ResourceLimits].items()),
    *((SequenceLimits, name, row.minimum + 1) for name, row in ROWS[SequenceLimits].items()),
    (BlsGrants, "allow", ("tokenizer",)),
    (BlsGrants, "allow", ()),
    (BlsGrants, "versions", {"tokenizer": (1, 2)}),
    (unsafe.AllowNetwork, "reason", "asks"),
    (unsafe.AllowNetwork, "to", None),
    (unsafe.AllowProcesses, "reason", "ffmpeg"),
    (unsafe.AllowAutoComplete, "reason", "old model"),
    (unsafe.AllowPublicAddress, "reason", "TLS in front"),
    (unsafe.Unlimited, "reason", "bounded elsewhere"),
)  # fmt: skip


def names_of(cls: type[Declaration]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def read(cls: type[Declaration], table: dict[str, Any]) -> Any:
    """A declaration as the file gives it."""
    tables: dict[type[Declaration], dict[str, Any]] = {
        Limits: {"limits": table},
        InputLimits: {"limits": {"inputs": {"X": table}}},
        OutputLimits: {"limits": {"outputs": {"X": table}}},
        ParameterLimits: {"limits": {"parameters": {"X": table}}},
        SandboxPolicy: {"sandbox": table},
        ResourceLimits: {"sandbox": {"resources": table}},
        BlsGrants: {"bls": table},
        SequenceLimits: {"sequences": table},
    }
    model = Document.model_validate({"models": {"m": tables[cls]}}).models["m"]
    rules = {InputLimits: model.limits.inputs, OutputLimits: model.limits.outputs}
    if cls in rules:
        return rules[cls]["X"]
    if cls is ParameterLimits:
        assert not isinstance(model.limits.parameters, str)
        return model.limits.parameters["X"]
    whole: dict[type[Declaration], Any] = {
        Limits: model.limits,
        SandboxPolicy: model.sandbox,
        ResourceLimits: model.sandbox.resources,
        BlsGrants: model.bls,
        SequenceLimits: model.sequences,
    }
    return whole[cls]


@pytest.mark.parametrize("cls", DECLARATIONS)
class TestFields:
    def test_the_table_has_the_fields(self, cls: type[Declaration]) -> None:
        """Every field of the declaration is a key, by the same name, and no other is."""
        expected = names_of(cls) - NOT_IN_TOML.get(cls, frozenset())
        if cls in REASON_KEYS:
            expected = expected - {"reason"} | {REASON_KEYS[cls]}
        assert set(table_of(cls).model_fields) == expected

    def test_every_key_is_described(self, cls: type[Declaration]) -> None:
        """By the row of the table of defaults, or by the docstring."""
        fields = table_of(cls).model_fields
        assert [name for name, field in fields.items() if not field.description] == []

    def test_every_field_is_tried_below(self, cls: type[Declaration]) -> None:
        """A field that is added needs a value in the table of this test."""
        tried = {name for declaration, name, _ in VALUES if declaration is cls}
        assert tried == names_of(cls) - NOT_IN_TOML.get(cls, frozenset())


class TestValues:
    @pytest.mark.parametrize(
        ("cls", "name", "value"),
        [row for row in VALUES if row[2] is not None and not issubclass(row[0], unsafe.Token)],
        ids=lambda part: getattr(part, "__name__", None),
    )
    def test_the_same_value_in_both(self, cls: type[Declaration], name: str, value: Any) -> None:
        """What TOML holds becomes the value that Python would have written, and only that is declared."""
        found = read(cls, {name: to_plain(value)})
        assert found == cls(**{name: value})
        assert found.declared == {name}

    @pytest.mark.parametrize("cls", [cls for cls in DECLARATIONS if not issubclass(cls, unsafe.Token)])
    def test_an_empty_table_declares_nothing(self, cls: type[Declaration]) -> None:
        """Every key has the declaration's default."""
        found = read(cls, {})
        assert found.declared == frozenset()
        assert {name: getattr(found, name) for name in names_of(cls)} == defaults_of(cls)

    def test_a_whole_number_is_a_number(self) -> None:
        """``minimum = 0`` needs no dot; a flag is none."""
        assert read(InputLimits, {"minimum": 0}).minimum == 0
        with pytest.raises(ValidationError):
            read(InputLimits, {"minimum": True})

    @pytest.mark.parametrize(
        ("cls", "name", "value"),
        [
            (Limits, "max_inputs", True),
            (Limits, "max_inputs", 3.0),
            (Limits, "max_inputs", "3"),
            (Limits, "max_inputs", 0),
            (Limits, "max_inputs", 1 << 70),
            (Limits, "max_inputs", {}),
            (Limits, "max_inputs", {"reason": "x"}),
            (Limits, "max_inputs", {"unlimited": ""}),
            (Limits, "max_inputs", {"unlimited": True}),
            (Limits, "max_batch_size", "cfg"),
            (Limits, "parameters", "none"),
            (Limits, "inputs", {"": {}}),
            (InputLimits, "schema", "Order"),
            (ParameterLimits, "type", "text"),
            (SandboxPolicy, "network", True),
            (SandboxPolicy, "network", 0),
            (SandboxPolicy, "network", {"to": [443]}),
            (SandboxPolicy, "network", {"reason": "x", "to": []}),
            (SandboxPolicy, "network", {"reason": "x", "to": 443}),
            (SandboxPolicy, "read", "/data"),
            (SandboxPolicy, "read", ["data"]),
            (SandboxPolicy, "read", ["{modle}/x"]),
            (SandboxPolicy, "executable_memory", "false"),
            (SandboxPolicy, "enforcement", "off"),
            (ResourceLimits, "open_files", 1),
        ],
    )  # fmt: skip
    def test_what_python_refuses_the_file_refuses(self, cls: type[Declaration], name: str, value: Any) -> None:
        """No value is converted: not a text to a number, not a flag to one."""
        with pytest.raises(ValidationError):
            read(cls, {name: value})


def test_descriptions_come_from_the_docstring() -> None:
    """Rows of ``Args:``, continued lines joined, those of a base class too."""
    assert descriptions(unsafe.AllowNetwork)["to"].startswith(
        "TCP ports that may be connected to, held by the kernel; "
    )
    assert descriptions(unsafe.AllowProcesses) == descriptions(unsafe.Token)
