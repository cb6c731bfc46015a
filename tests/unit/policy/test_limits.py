"""Declarations: strict, frozen, finite by default, combined to the tighter."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from safe_triton import InputLimits, Limits, LoadConditions, OutputLimits, ParameterLimits, _declared, unsafe
from safe_triton._declared import Declaration
from safe_triton.errors import PolicyError
from safe_triton.policy import DEFAULTS, bound
from safe_triton.policy.defaults import TABLES

DOCS = Path(__file__).parents[3] / "docs" / "reference" / "limits.md"


class Order(BaseModel):
    item: str


class TestDefaults:
    """Absent is never unlimited."""

    @pytest.mark.parametrize("row", DEFAULTS, ids=lambda row: row.name)
    def test_are_finite_and_explained(self, row: Any) -> None:
        """Every default has a value, a unit and a reason, and is what the field holds."""
        assert getattr(Limits(), row.name) == row.value
        assert row.unit
        assert row.reason
        assert row.value == "config" or (isinstance(row.value, int) and 0 < row.value < 1 << 40)

    def test_table_and_fields_are_the_same(self) -> None:
        """No limit is missing in the table, and none in the table is unknown."""
        fields = {field.name for field in dataclasses.fields(Limits)} - {"inputs", "outputs", "parameters"}
        assert fields == {row.name for row in DEFAULTS}

    def test_documentation_shows_the_table(self) -> None:
        """The page holds exactly the rows of the code."""
        rows = re.findall(
            r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert rows == [(row.name, str(row.value), row.unit, row.reason) for table in TABLES.values() for row in table]

    def test_nothing_is_declared(self) -> None:
        """A default is no declaration."""
        assert Limits().declared == frozenset()
        assert Limits(max_inputs=3).declared == {"max_inputs"}


def wrongly(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """Construct without a type checker's objection."""
    return cls(*args, **kwargs)


class TestStrict:
    """A wrong declaration is one clear line that names the field and what came."""

    @pytest.mark.parametrize(
        ("make", "pattern"),
        [
            (lambda: wrongly(Limits, max_bach_size=3), r"policy\.unknown_field: Limits has no field 'max_bach_size'; did you mean 'max_batch_size'\?"),
            (lambda: wrongly(Limits, colour=3), r"policy\.unknown_field: Limits has no field 'colour'; known: deadline_ms, .*"),
            (lambda: wrongly(Limits, 8), r"policy\.argument: Limits takes keyword arguments only: .*"),
            (lambda: wrongly(Limits, max_batch_size=-1), r"policy\.range: Limits\.max_batch_size must be at least 1, not -1"),
            (lambda: wrongly(Limits, max_batch_size=0), r"policy\.range: Limits\.max_batch_size must be at least 1, not 0"),
            (lambda: wrongly(Limits, max_inputs=True), r"policy\.type: Limits\.max_inputs must be a whole number or .*, not True"),
            (lambda: wrongly(Limits, max_inputs=1.5), r"policy\.type: .* not 1\.5"),
            (lambda: wrongly(Limits, max_inputs="many"), r"policy\.type: .* not 'many'"),
            (lambda: wrongly(Limits, max_inputs="config"), r"policy\.type: .* not 'config'"),
            (lambda: wrongly(Limits, deadline_ms=None), r"policy\.type: Limits\.deadline_ms is None: write a number or unsafe\.Unlimited.*"),
            (lambda: wrongly(Limits, inputs=[]), r"policy\.type: Limits\.inputs must be a mapping .*, not list"),
            (lambda: wrongly(Limits, inputs={"X": 3}), r"policy\.type: Limits\.inputs\['X'\] must be InputLimits, not 3"),
            (lambda: wrongly(Limits, inputs={3: InputLimits()}), r"policy\.type: Limits\.inputs has a key that is no name: 3"),
            (lambda: wrongly(Limits, parameters={"t": 1}), r"policy\.type: Limits\.parameters\['t'\] must be ParameterLimits, not 1"),
            (lambda: wrongly(InputLimits, max_bytes=0), r"policy\.range: InputLimits\.max_bytes must be at least 1, not 0"),
            (lambda: wrongly(InputLimits, sequence_axis=-1), r"policy\.range: InputLimits\.sequence_axis must be at least 0, not -1"),
            (lambda: wrongly(InputLimits, minimum=2, maximum=1), r"policy\.conflict: InputLimits: minimum 2 > maximum 1"),
            (lambda: wrongly(InputLimits, minimum=math.nan), r"policy\.range: InputLimits\.minimum must not be NaN"),
            (lambda: wrongly(InputLimits, minimum="0"), r"policy\.type: InputLimits\.minimum must be a number, not '0'"),
            (lambda: wrongly(InputLimits, finite=1), r"policy\.type: InputLimits\.finite must be True or False, not 1"),
            (lambda: wrongly(InputLimits, schema="Order"), r"policy\.type: InputLimits\.schema must be a pydantic model class"),
            (lambda: wrongly(OutputLimits, max_bytes="lots"), r"policy\.type: .* not 'lots'"),
            (lambda: wrongly(ParameterLimits, type=list), r"policy\.type: ParameterLimits\.type must be str, int, float or bool"),
            (lambda: wrongly(ParameterLimits, choices="ab"), r"policy\.type: ParameterLimits\.choices must be a tuple of values"),
            (lambda: wrongly(ParameterLimits, type=int, choices=("a",)), r"policy\.type: ParameterLimits\.choices holds 'a', no int"),
            (lambda: wrongly(ParameterLimits, max_length=-1), r"policy\.range: .* not -1"),
            (lambda: wrongly(LoadConditions, model_root="models"), r"policy\.type: LoadConditions\.model_root must be an absolute path"),
            (lambda: wrongly(LoadConditions, instance_kinds=("TPU",)), r"policy\.range: .*'TPU'; known: CPU, GPU, MODEL"),
            (lambda: wrongly(LoadConditions, instance_kinds=()), r"policy\.range: .* nothing could load"),
            (lambda: wrongly(LoadConditions, instance_kinds="CPU"), r"policy\.type: LoadConditions\.instance_kinds must be a tuple"),
            (lambda: wrongly(LoadConditions, gpu_ids=(True,)), r"policy\.type: LoadConditions\.gpu_ids must be a whole number, not True"),
            (lambda: wrongly(LoadConditions, environment={"A": 1}), r"policy\.type: LoadConditions\.environment\['A'\] must be str, not 1"),
            (lambda: wrongly(InputLimits, sequence_axis="none", max_sequence_length=5), r"policy\.conflict: InputLimits has max_sequence_length and .*"),
            (lambda: wrongly(InputLimits, maximum=10**400), r"policy\.range: InputLimits\.maximum must be between .*"),
            (lambda: wrongly(Limits, deadline_ms=10**400), r"policy\.range: Limits\.deadline_ms must be at most \d+"),
            (lambda: wrongly(ParameterLimits, minimum=1), r"policy\.conflict: ParameterLimits has a range, and type str"),
            (lambda: wrongly(ParameterLimits, type=int, max_length=3), r"policy\.conflict: ParameterLimits has max_length, and type int"),
            (lambda: wrongly(unsafe.Unlimited), r"policy\.argument: Unlimited needs reason"),
            (lambda: unsafe.Unlimited(reason=" "), r"policy\.token: unsafe\.Unlimited needs a reason"),
        ],
    )  # fmt: skip
    def test_says_what_is_wrong(self, make: Any, pattern: str) -> None:
        """One line, with the field, what came and what is allowed."""
        with pytest.raises(PolicyError) as raised:
            make()
        assert re.fullmatch(pattern, raised.value.message)

    @pytest.mark.parametrize("value", [Limits(), InputLimits(), OutputLimits(), ParameterLimits(), LoadConditions()])
    def test_is_frozen(self, value: Any) -> None:
        """A declaration cannot be changed afterwards."""
        name = dataclasses.fields(value)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, 1)

    def test_mappings_are_copied(self) -> None:
        """Changing the dict afterwards changes nothing, nor does the value allow it."""
        inputs = {"X": InputLimits()}
        limits = Limits(inputs=inputs)
        inputs["Y"] = InputLimits()
        assert set(limits.inputs) == {"X"}
        with pytest.raises(TypeError):
            limits.inputs["Z"] = InputLimits()  # type: ignore[index]


@pytest.mark.parametrize("value", [Limits(max_batch_size=3, inputs={"X": InputLimits()}), unsafe.Unlimited(reason="x")])
def test_a_copy_is_the_value_itself(value: Any) -> None:
    """It is frozen, mappings included; what was written down stays written down."""
    assert copy.copy(value) is value
    assert copy.deepcopy([value])[0] is value


class TestInsideTheStub:
    """In Triton's stub nothing may raise at import: the problem waits for ``initialize``."""

    @pytest.fixture(autouse=True)
    def stub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_declared, "is_triton_stub", lambda: True)

    def test_the_problem_is_kept(self) -> None:
        """The value holds defaults and the reason why it is wrong."""
        limits = Limits(max_batch_size=-1)
        assert limits.problem is not None
        assert "max_batch_size must be at least 1" in limits.problem.message
        assert limits.max_batch_size == "config"

    def test_a_problem_survives_a_combination(self) -> None:
        """A wrong declaration never becomes the defaults by being combined."""
        wrong = Limits(max_batch_size=-1)
        for a, b in ((wrong, Limits()), (Limits(), wrong)):
            assert a.tighten(b).problem is not None

    def test_a_nested_problem_surfaces(self) -> None:
        """A wrong part makes the whole wrong."""
        limits = Limits(inputs={"X": InputLimits(finite=3)})  # type: ignore[arg-type]
        assert limits.problem is not None
        assert "InputLimits.finite" in limits.problem.message

    def test_a_sound_declaration_has_no_problem(self) -> None:
        """Nothing else changes."""
        assert Limits(max_batch_size=3).problem is None


class TestTighten:
    """Between two declarations the tighter one wins; a default holds only where neither declares."""

    def test_the_smaller_number_wins(self) -> None:
        """Both ways round."""
        a, b = Limits(max_inputs=3, deadline_ms=90_000), Limits(max_inputs=5, max_elements=7)
        for combined in (a.tighten(b), b.tighten(a)):
            assert (combined.max_inputs, combined.deadline_ms, combined.max_elements) == (3, 90_000, 7)
            assert combined.declared == a.declared | b.declared

    def test_a_number_is_tighter_than_a_word_or_a_token(self) -> None:
        """``config``, ``inherit`` and ``Unlimited`` give way."""
        token = unsafe.Unlimited(reason="bounded elsewhere")
        assert Limits(max_batch_size="config").tighten(Limits(max_batch_size=4)).max_batch_size == 4
        assert Limits(max_inputs=token).tighten(Limits(max_inputs=9)).max_inputs == 9
        assert Limits(max_inputs=token).tighten(Limits()).max_inputs == token

    def test_rules_of_one_input_combine(self) -> None:
        """Ranges intersect, flags add up, what only one side says stays."""
        a = Limits(inputs={"X": InputLimits(minimum=0, maximum=9, max_bytes=64), "A": InputLimits(utf8=True)})
        b = Limits(inputs={"X": InputLimits(minimum=-5, maximum=5, finite=True, sequence_axis=2, schema=Order)})
        x = a.tighten(b).inputs["X"]
        assert (x.minimum, x.maximum, x.finite, x.max_bytes, x.sequence_axis, x.schema) == (0, 5, True, 64, 2, Order)
        assert b.tighten(a).inputs["A"].utf8

    def test_outputs_combine(self) -> None:
        """The smaller bytes, and finite if either says so."""
        a, b = OutputLimits(max_bytes=9), OutputLimits(max_bytes=8, finite=True)
        assert a.tighten(b) == OutputLimits(max_bytes=8, finite=True)
        assert OutputLimits().tighten(OutputLimits()) == OutputLimits()

    def test_parameters_intersect(self) -> None:
        """Only what both sides allow stays; ``any`` gives way to a list."""
        a = Limits(parameters={"t": ParameterLimits(type=float, maximum=2.0), "s": ParameterLimits()})
        b = Limits(parameters={"t": ParameterLimits(type=float, minimum=1.0, required=True)})
        combined = a.tighten(b)
        assert not isinstance(combined.parameters, str)
        assert set(combined.parameters) == {"t"}
        rule = combined.parameters["t"]
        assert (rule.minimum, rule.maximum, rule.required) == (1.0, 2.0, True)
        assert a.tighten(Limits()).parameters == a.parameters
        assert Limits(parameters="any").tighten(b).parameters == b.parameters
        assert Limits().tighten(Limits()).parameters == "any"

    def test_choices_intersect(self) -> None:
        """A value has to be allowed by both."""
        a, b = ParameterLimits(choices=("x", "y")), ParameterLimits(choices=("y", "z"))
        assert a.tighten(b).choices == ("y",)
        assert a.tighten(ParameterLimits()).choices == ("x", "y")

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            (InputLimits(sequence_axis=1), InputLimits(sequence_axis=2)),
            (InputLimits(schema=Order), InputLimits(schema=BaseModel)),
            (InputLimits(maximum=1), InputLimits(minimum=2)),
            (ParameterLimits(type=int), ParameterLimits(type=str)),
            (ParameterLimits(choices=("x",)), ParameterLimits(choices=("y",))),
            (InputLimits(max_sequence_length=5), InputLimits(sequence_axis="none")),
            (Limits(parameters={"t": ParameterLimits(required=True)}), Limits(parameters={})),
        ],
    )
    def test_what_cannot_both_hold_is_a_conflict(self, a: Any, b: Any) -> None:
        """No silent choice between two contradicting declarations."""
        with pytest.raises(PolicyError) as raised:
            a.tighten(b)
        assert raised.value.reason == "policy.conflict"


def test_tokens_are_found_with_their_place() -> None:
    """Every weakening can be listed for the log and the audit."""
    token = unsafe.Unlimited(reason="the gateway bounds it")
    limits = Limits(
        max_inputs=token, inputs={"X": InputLimits(max_bytes=token)}, outputs={"Y": OutputLimits(max_bytes=token)}
    )
    assert set(limits.tokens()) == {"max_inputs", "inputs['X'].max_bytes", "outputs['Y'].max_bytes"}


def test_bound_of_a_token_is_the_largest_number() -> None:
    """Nothing else is without a bound."""
    assert bound(3) == 3
    assert bound(unsafe.Unlimited(reason="test")) > 1 << 62


@pytest.mark.parametrize("cls", Declaration.__subclasses__())
def test_every_declaration_is_a_frozen_dataclass(cls: Any) -> None:
    """One way to declare."""
    assert cls.__dataclass_params__.frozen
