"""``Limits`` and its parts: what a model accepts, declared once, checked by the compiled plan."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from safe_triton._declared import Declaration, combining, wrong
from safe_triton.policy import _checks as rules
from safe_triton.policy.defaults import BY_NAME, DEFAULTS
from safe_triton.unsafe import Unlimited

Limit: TypeAlias = int | Unlimited
Inherited: TypeAlias = int | Unlimited | Literal["inherit"]
ScalarType: TypeAlias = type[str] | type[int] | type[float] | type[bool]


MAX_PARAMETER_LENGTH = 4096
"""Default characters of a string parameter: no tighter than the default ``max_parameter_bytes``."""


def bound(limit: int | str | Unlimited) -> int:
    """Return a limit as a number: ``sys.maxsize`` for :class:`unsafe.Unlimited`."""
    return limit if isinstance(limit, int) else sys.maxsize


def _default(name: str) -> Any:
    return BY_NAME[name].value


@dataclass(frozen=True, kw_only=True)
class InputLimits(Declaration):
    """Rules for one input, on top of the model's :class:`Limits`; ``"inherit"`` takes the model-wide value.

    Args:
        sequence_axis: axis that ``max_sequence_length`` counts, with the batch as axis 0 in a batching model;
            ``"none"`` for an input that is no sequence.
        max_sequence_length: elements along that axis.
        max_bytes: bytes of this input; of BYTES elements, the sum of their lengths.
        max_elements: elements of this input.
        max_strings: BYTES elements of this input.
        max_string_bytes: bytes of each BYTES element; 1 MiB where a ``schema`` is declared and this is not.
        minimum: least value of any element (numbers only).
        maximum: greatest value of any element (numbers only).
        finite: refuse NaN and infinities (floats only).
        utf8: refuse BYTES elements that are not UTF-8.
        schema: a pydantic model; each BYTES element is a JSON text of it, and the author receives the
            validated instances in an object array of the same shape.
        content: an :class:`ImageInput`, :class:`AudioInput`, :class:`TextInput` or :class:`TokenInput`: what the
            input stands for. What is decoded reaches the author in an object array of the same shape.

    Raises:
        PolicyError: a value of the wrong type, out of range, or rules that exclude each other.
    """

    sequence_axis: int | Literal["none"] = 1
    max_sequence_length: Inherited = "inherit"
    max_bytes: Inherited = "inherit"
    max_elements: Inherited = "inherit"
    max_strings: Inherited = "inherit"
    max_string_bytes: Inherited = "inherit"
    minimum: float = -math.inf
    maximum: float = math.inf
    finite: bool = False
    utf8: bool = False
    schema: type | None = None
    content: Declaration | None = None

    def __post_init__(self) -> None:
        if self.sequence_axis != "none":
            rules.check_whole("InputLimits.sequence_axis", self.sequence_axis, 0)
        for name in INHERITED:
            rules.check_limit(f"InputLimits.{name}", getattr(self, name), 1, "inherit")
        _check_range("InputLimits", self.minimum, self.maximum)
        rules.check_flag("InputLimits.finite", self.finite)
        rules.check_flag("InputLimits.utf8", self.utf8)
        if self.sequence_axis == "none" and self.max_sequence_length != "inherit":
            raise wrong("policy.conflict", 'InputLimits has max_sequence_length and sequence_axis="none"')
        if self.schema is not None and not isinstance(self.schema, type):
            raise wrong("policy.type", "InputLimits.schema must be a pydantic model class")
        if self.content is not None:
            self._check_content(self.content)

    def _check_content(self, content: Declaration) -> None:
        from safe_triton.policy.content import Content  # most models declare none

        if not isinstance(content, Content):
            raise wrong("policy.type", "InputLimits.content must be an ImageInput, AudioInput, TextInput or TokenInput")
        rules.check_sound(content)
        if self.schema is not None:
            raise wrong("policy.conflict", "InputLimits has both a schema and a content")

    @combining
    def tighten(self, other: InputLimits) -> InputLimits:
        """Combine two declarations for one input; the tighter of each wins.

        Raises:
            PolicyError: reason ``policy.conflict``; two axes, two schemas or two contents were declared.
        """
        both = self.declared & other.declared
        for mine, theirs in ((self, other), (other, self)):
            counts = "max_sequence_length" in mine.declared and "sequence_axis" in theirs.declared
            if counts and mine.sequence_axis != theirs.sequence_axis:
                raise wrong("policy.conflict", "InputLimits.max_sequence_length is declared for another sequence_axis")
        for name in ("sequence_axis", "schema", "content"):
            if name in both and getattr(self, name) != getattr(other, name):
                raise wrong("policy.conflict", f"InputLimits.{name} is declared twice with different values")
        values = {name: _tighter(name, self, other) for name in INHERITED if name in self.declared | other.declared}
        for name in ("sequence_axis", "schema", "content"):
            for side in (self, other):
                if name in side.declared:
                    values[name] = getattr(side, name)
        return InputLimits(
            minimum=max(self.minimum, other.minimum),
            maximum=min(self.maximum, other.maximum),
            finite=self.finite or other.finite,
            utf8=self.utf8 or other.utf8,
            **values,
        )


INHERITED = ("max_sequence_length", "max_bytes", "max_elements", "max_strings", "max_string_bytes")


@dataclass(frozen=True, kw_only=True)
class OutputLimits(Declaration):
    """Rules for one output, on top of the model's :class:`Limits`.

    Args:
        max_bytes: bytes of this output, as ``size * itemsize``; of BYTES elements, the sum of their lengths.
        finite: NaN or infinity in this output is a failure of the model (floats only).

    Raises:
        PolicyError: a value of the wrong type or out of range.
    """

    max_bytes: Inherited = "inherit"
    finite: bool = False

    def __post_init__(self) -> None:
        rules.check_limit("OutputLimits.max_bytes", self.max_bytes, 1, "inherit")
        rules.check_flag("OutputLimits.finite", self.finite)

    @combining
    def tighten(self, other: OutputLimits) -> OutputLimits:
        """Combine two declarations for one output; the tighter of each wins."""
        values: dict[str, Any] = {"finite": self.finite or other.finite}
        if "max_bytes" in self.declared | other.declared:
            values["max_bytes"] = _tighter("max_bytes", self, other)
        return OutputLimits(**values)


@dataclass(frozen=True, kw_only=True)
class ParameterLimits(Declaration):
    """Rules for one request parameter.

    Args:
        type: ``str``, ``int``, ``float`` (accepts whole numbers) or ``bool``.
        minimum: least value (numbers).
        maximum: greatest value (numbers).
        max_length: characters of a string.
        choices: the values allowed; empty allows all of the type.
        required: refuse a request without it.

    Raises:
        PolicyError: a value of the wrong type or out of range.
    """

    type: ScalarType = str
    minimum: float = -math.inf
    maximum: float = math.inf
    max_length: int = MAX_PARAMETER_LENGTH
    choices: tuple[str | int | float | bool, ...] = ()
    required: bool = False

    def __post_init__(self) -> None:
        if self.type not in (str, int, float, bool):
            raise wrong("policy.type", "ParameterLimits.type must be str, int, float or bool")
        _check_range("ParameterLimits", self.minimum, self.maximum)
        rules.check_whole("ParameterLimits.max_length", self.max_length, 0)
        has_range = self.minimum > -math.inf or self.maximum < math.inf
        if has_range and self.type not in (int, float):
            raise wrong("policy.conflict", f"ParameterLimits has a range, and type {self.type.__name__}")
        if self.max_length != MAX_PARAMETER_LENGTH and self.type is not str:
            raise wrong("policy.conflict", f"ParameterLimits has max_length, and type {self.type.__name__}")
        rules.check_flag("ParameterLimits.required", self.required)
        if not isinstance(self.choices, (tuple, list)):
            raise wrong("policy.type", "ParameterLimits.choices must be a tuple of values")
        object.__setattr__(self, "choices", tuple(self.choices))
        for choice in self.choices:
            if type(choice) is not self.type:
                raise wrong("policy.type", f"ParameterLimits.choices holds {choice!r}, no {self.type.__name__}")

    @combining
    def tighten(self, other: ParameterLimits) -> ParameterLimits:
        """Combine two declarations for one parameter; the tighter of each wins.

        Raises:
            PolicyError: reason ``policy.conflict``; the types differ, or no choice is left.
        """
        if self.type is not other.type:
            raise wrong("policy.conflict", "ParameterLimits.type is declared twice with different types")
        choices = self.choices or other.choices
        if self.choices and other.choices:
            choices = tuple(choice for choice in self.choices if choice in other.choices)
            if not choices:
                raise wrong("policy.conflict", "ParameterLimits.choices have no value in common")
        return ParameterLimits(
            type=self.type,
            minimum=max(self.minimum, other.minimum),
            maximum=min(self.maximum, other.maximum),
            max_length=min(self.max_length, other.max_length),
            choices=choices,
            required=self.required or other.required,
        )


@dataclass(frozen=True, kw_only=True)
class Limits(Declaration):
    """What a model accepts and how long it may take. Every field has a finite default; see the table of defaults.

    Args:
        max_batch_size: rows per request along axis 0; ``"config"`` takes config.pbtxt's, and 1 without batching.
        max_sequence_length: elements along each input's sequence axis (axis 1 unless ``InputLimits`` says otherwise).
        max_inputs: tensors per request.
        max_input_bytes: bytes of each input.
        max_request_bytes: bytes of all inputs together.
        max_elements: elements of each input.
        max_strings: BYTES elements of each input.
        max_string_bytes: bytes of each BYTES element.
        max_parameters: parameters per request.
        max_parameter_bytes: bytes of each parameter, name and value together.
        max_id_length: characters of the request id and of a correlation id.
        max_output_bytes: bytes of all outputs of one response.
        max_responses: responses of one request of a decoupled model.
        max_stream_bytes: bytes of all responses of one request of a decoupled model.
        stream_deadline_ms: milliseconds that all responses of one request of a decoupled model may take.
        deadline_ms: soft deadline of one call of the author's code, in milliseconds.
        hard_deadline_grace_ms: milliseconds after the soft deadline until the process is ended.
        load_deadline_ms: milliseconds that ``load()`` may take.
        inputs: rules by input name.
        outputs: rules by output name.
        parameters: ``"any"`` (bounded by the two limits above), or the parameters allowed, by name.

    Raises:
        PolicyError: an unknown field, a value of the wrong type or out of range.

    Does not cover:
        What Triton does before ``execute``: it receives the request and decodes BYTES first. Bound that in front
        of the server.
    """

    max_batch_size: int | Unlimited | Literal["config"] = _default("max_batch_size")
    max_sequence_length: Limit = _default("max_sequence_length")
    max_inputs: Limit = _default("max_inputs")
    max_input_bytes: Limit = _default("max_input_bytes")
    max_request_bytes: Limit = _default("max_request_bytes")
    max_elements: Limit = _default("max_elements")
    max_strings: Limit = _default("max_strings")
    max_string_bytes: Limit = _default("max_string_bytes")
    max_parameters: Limit = _default("max_parameters")
    max_parameter_bytes: Limit = _default("max_parameter_bytes")
    max_id_length: Limit = _default("max_id_length")
    max_output_bytes: Limit = _default("max_output_bytes")
    max_responses: Limit = _default("max_responses")
    max_stream_bytes: Limit = _default("max_stream_bytes")
    stream_deadline_ms: Limit = _default("stream_deadline_ms")
    deadline_ms: Limit = _default("deadline_ms")
    hard_deadline_grace_ms: Limit = _default("hard_deadline_grace_ms")
    load_deadline_ms: Limit = _default("load_deadline_ms")
    inputs: Mapping[str, InputLimits] = field(default_factory=dict)
    outputs: Mapping[str, OutputLimits] = field(default_factory=dict)
    parameters: Mapping[str, ParameterLimits] | Literal["any"] = "any"

    def __post_init__(self) -> None:
        for row in DEFAULTS:
            words = (row.value,) if isinstance(row.value, str) else ()
            rules.check_limit(f"Limits.{row.name}", getattr(self, row.name), row.minimum, *words)
        rules.check_mapping("Limits.inputs", self.inputs, InputLimits)
        rules.check_mapping("Limits.outputs", self.outputs, OutputLimits)
        object.__setattr__(self, "inputs", rules.frozen_mapping(self.inputs))
        object.__setattr__(self, "outputs", rules.frozen_mapping(self.outputs))
        if self.parameters != "any":
            rules.check_mapping("Limits.parameters", self.parameters, ParameterLimits)
            object.__setattr__(self, "parameters", rules.frozen_mapping(self.parameters))

    @combining
    def tighten(self, other: Limits) -> Limits:
        """Combine two declarations: the smaller number wins; a default holds only where neither declares.

        Args:
            other: another source, such as the operator's policy.

        Returns:
            Limits whose ``declared`` is the union of both.

        Raises:
            PolicyError: reason ``policy.conflict``; rules that cannot both hold.
        """
        names = self.declared | other.declared
        values: dict[str, Any] = {row.name: _tighter(row.name, self, other) for row in DEFAULTS if row.name in names}
        for name in ("inputs", "outputs"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine or theirs:
                values[name] = _merge(mine, theirs)
        if self.parameters == "any" or other.parameters == "any":
            if names & {"parameters"}:
                values["parameters"] = other.parameters if self.parameters == "any" else self.parameters
        else:
            # Both list what is allowed: only what both allow stays.
            for listed, others in ((self.parameters, other.parameters), (other.parameters, self.parameters)):
                lost = [name for name, rule in listed.items() if rule.required and name not in others]
                if lost:
                    raise wrong(
                        "policy.conflict", f"parameter '{lost[0]}' is required, and not allowed by the other side"
                    )
            common = [name for name in self.parameters if name in other.parameters]
            values["parameters"] = {name: self.parameters[name].tighten(other.parameters[name]) for name in common}
        return Limits(**values)

    def tokens(self) -> dict[str, Unlimited]:
        """Return the danger tokens in this declaration by dotted place, for the log and the audit."""
        found: dict[str, Unlimited] = {}
        for prefix, part in (("", self), *_parts("inputs", self.inputs), *_parts("outputs", self.outputs)):
            for item in dataclasses.fields(part):
                value = getattr(part, item.name)
                if isinstance(value, Unlimited):
                    found[prefix + item.name] = value
        return found


def _parts(name: str, mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(f"{name}[{key!r}].", value) for key, value in mapping.items()]


def _merge(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**theirs, **mine}
    for name in mine.keys() & theirs.keys():
        merged[name] = mine[name].tighten(theirs[name])
    return merged


def _tighter(name: str, mine: Declaration, theirs: Declaration) -> Any:
    values = [getattr(side, name) for side in (mine, theirs) if name in side.declared]
    return min(values, key=lambda value: (bound(value), isinstance(value, str)))


def _check_range(where: str, minimum: float, maximum: float) -> None:
    rules.check_number(f"{where}.minimum", minimum)
    rules.check_number(f"{where}.maximum", maximum)
    if minimum > maximum:
        raise wrong("policy.conflict", f"{where}: minimum {minimum} > maximum {maximum}")
