"""The declarations of Python as tables of TOML: a pydantic model for each, made from its fields, so none can differ."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import re
import sys
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Tag, create_model
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from safe_triton._declared import Declaration, defaults_of
from safe_triton.errors import PolicyError
from safe_triton.policy.defaults import DEFAULTS, SEQUENCE_BY_NAME, DefaultLimit
from safe_triton.policy.limits import InputLimits, Limits, OutputLimits, ScalarType
from safe_triton.policy.passed_on import to_plain
from safe_triton.policy.sandbox import (
    GPU_PERCENT_DEFAULT,
    PLACEHOLDERS,
    RESOURCE_DEFAULTS,
    SCRATCH_DEFAULT,
    ResourceLimits,
    SandboxPolicy,
)
from safe_triton.policy.sequences import SequenceLimits
from safe_triton.unsafe import Unlimited

NOT_IN_TOML: Mapping[type, frozenset[str]] = {InputLimits: frozenset({"schema", "content"})}
"""Fields that only Python can hold: what the author's code receives depends on them."""

ROWS: Mapping[type, Mapping[str, DefaultLimit]] = {
    Limits: {row.name: row for row in DEFAULTS},
    ResourceLimits: {row.name: row for row in (*RESOURCE_DEFAULTS, GPU_PERCENT_DEFAULT)},
    SandboxPolicy: {SCRATCH_DEFAULT.name: SCRATCH_DEFAULT},
    SequenceLimits: SEQUENCE_BY_NAME,
}
"""The rows of the tables of defaults, by declaration and field."""

SCALARS: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
"""How the types of a parameter are written."""

REASON_KEYS: Mapping[type, str] = {Unlimited: "unlimited"}
"""Keys of a token's reason that differ from ``reason``: ``{ unlimited = "…" }`` has no other key to tell it by."""

_FIELD = re.compile(r"^(?:unsafe\.)?[A-Z]\w+(?:\.(\w+))? ?")
_KINDS = {bool: "#flag", int: "#number", float: "#number", str: "#word", list: "#list", dict: "#table"}


class Table(BaseModel):
    """A table whose keys are all known, and whose values have exactly the type that is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def to_plain(self) -> dict[str, Any]:
        """Return all values as JSON holds them, with the words of the file."""
        return {name: _as_json(getattr(self, name)) for name in type(self).model_fields}


class Mirrored:
    """Marks a declaration, or a choice of some: written as a table, read as the declaration itself.

    Args:
        without: fields that may not stand in this table.
    """

    def __init__(self, without: frozenset[str] = frozenset()) -> None:
        self._without = without

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate the table, then construct the declaration."""
        if not _is_declaration(source):
            return handler.generate_schema(form_of(source))
        key = REASON_KEYS.get(source)

        def build(table: Table) -> Any:
            written = {name: getattr(table, name) for name in table.model_fields_set}
            if key is not None:
                written = {"reason": written[key]}
            try:
                return source(**written)
            except PolicyError as error:
                raise custom_error(error) from None

        return core_schema.no_info_after_validator_function(
            build, handler.generate_schema(table_of(source, self._without))
        )


MIRRORED = Mirrored()


def custom_error(error: PolicyError) -> PydanticCustomError:
    """Return a declaration's own refusal as an error of its table, to which pydantic adds the place."""
    text = error.message.split(": ", 1)[-1]
    match = _FIELD.match(text)
    field = match[1] if match and match[1] else ""
    return PydanticCustomError("declaration", "{text}", {"text": text, "reason": error.reason, "field": field})


@cache
def table_of(cls: type[Declaration], without: frozenset[str] = frozenset()) -> type[Table]:
    """Return the pydantic model of a declaration's table.

    Args:
        cls: a frozen dataclass of the policy.
        without: fields that may not stand in this table.
    """
    hints, defaults, texts = get_type_hints(cls), defaults_of(cls), descriptions(cls)
    fields: dict[str, Any] = {}
    for name in (field.name for field in dataclasses.fields(cls)):  # type: ignore[arg-type]
        if name in without | NOT_IN_TOML.get(cls, frozenset()):
            continue
        row = ROWS.get(cls, {}).get(name)
        least = row.minimum if row else 1 if cls in (InputLimits, OutputLimits) and name.startswith("max_") else None
        about: dict[str, Any] = {"description": row.reason if row else texts.get(name, "")}
        extra: dict[str, Any] = {"x-unit": row.unit} if row else {}
        if name in defaults:
            value = defaults[name]
            about |= {"default": value} if _is_plain(value) else {"default_factory": lambda value=value: value}
            if value == () or isinstance(value, type):
                extra["default"] = to_plain(value)
        about["json_schema_extra"] = extra
        fields[REASON_KEYS.get(cls, name) if name == "reason" else name] = (form_of(hints[name], least), Field(**about))
    return create_model(
        f"{'Default' if without else ''}{cls.__name__}Table", __base__=Table, __doc__=first_line(cls), **fields
    )


def form_of(hint: Any, least: int | None = None) -> Any:
    """Return what pydantic validates for a type of Python: danger tokens as tables, tuples as lists, types by name.

    Args:
        hint: the type of a field.
        least: the least whole number allowed.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    form = hint
    if hint == ScalarType:
        form = Annotated[Literal[tuple(SCALARS)], _After(SCALARS.__getitem__)]
    elif _is_declaration(hint):
        form = Annotated[hint, MIRRORED]
    elif hint is int:
        form = Annotated[int, Field(ge=least, le=sys.maxsize)]
    elif origin is Annotated:
        form = form_of(arguments[0], least)
    elif origin in (Union, types.UnionType):
        form = _choice(arguments, least)
    elif origin in (Sequence, tuple):
        form = Annotated[list[form_of(arguments[0], least)], _After(tuple)]  # type: ignore[misc]
    elif origin is Mapping:
        form = dict[str, form_of(arguments[1], least)]  # type: ignore[misc]
    return form


def _choice(members: tuple[Any, ...], least: int | None) -> Any:
    """A choice that the value's own kind decides, so that an error speaks of what was meant."""
    kinds = [(member, *_kind_of(member)) for member in members]
    shown = [text for _, _, text in kinds]
    expected = f"{', '.join(shown[:-1])} or {shown[-1]}"
    literals = {tag: get_args(member) for member, tag, _ in kinds if get_origin(member) is Literal}
    tagged = tuple(Annotated[form_of(member, least), Tag(tag)] for member, tag, _ in kinds)

    def kind(value: object) -> str | None:
        tag = _KINDS.get(type(value))
        return tag if tag not in literals or value in literals[tag] else None

    chosen = Discriminator(
        kind,
        custom_error_type="choice",
        custom_error_message="must be {expected}",
        custom_error_context={"expected": expected},
    )
    return Annotated[Union[tagged], chosen]  # noqa: UP007 - a tuple of members


def _kind_of(member: Any) -> tuple[str, str]:
    """How a member of a choice is told from the others, and how it is written."""
    if member is Unlimited:
        return "#table", '{ unlimited = "reason" }'
    if _is_declaration(member):
        names = [name for name in table_of(member).model_fields if name != "reason"]
        more = "".join(f", {name} = …" for name in names)
        return "#table", f'{{ reason = "…"{more} }}'
    if get_origin(member) is Literal:
        (word,) = get_args(member)
        return ("#flag", str(word).lower()) if isinstance(word, bool) else ("#word", f'"{word}"')
    if get_origin(member) is Mapping:
        return "#table", "a table"
    if get_origin(member) in (Sequence, tuple):
        return "#list", "a list"
    return _KINDS[member], {bool: "true or false", int: "a whole number", str: "a text", float: "a number"}[member]


class _After:
    """Applies a function to what was validated; the JSON schema stays that of the form."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._function, handler(source))


def descriptions(cls: type) -> dict[str, str]:
    """Return what a declaration's docstring says under ``Args:``, and those of its bases, by field."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = inspect.cleandoc(vars(base).get("__doc__") or "")
        section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE)
        rows = re.finditer(
            r"^ {4}(\w+): (.*?)(?=^ {4}\w+:|\Z)", section[1] if section else "", re.DOTALL | re.MULTILINE
        )
        found |= {row[1]: _as_text(row[2]) for row in rows}
    return found


def first_line(cls: type) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(cls) or "").split("\n", 1)[0]


def _as_json(value: object) -> Any:
    if isinstance(value, Table):
        return value.to_plain()
    if isinstance(value, tuple):
        return [_as_json(each) for each in value]
    return value.isoformat() if isinstance(value, dt.date) else to_plain(value)


def _as_text(words: str) -> str:
    """A docstring's words for the readers of a file."""
    text = re.sub(r":\w+:`([^`]+)`", r"``\1``", re.sub(r"\s+", " ", words).strip().rstrip("."))
    names = ", ".join(f"``{{{name}}}``" for name in PLACEHOLDERS)
    return text.replace("``PLACEHOLDERS``", names).replace("``False``", "``false``")


def _is_declaration(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Declaration)


def _is_plain(value: object) -> bool:
    """Tell whether a default can stand in a JSON schema."""
    return type(value) in (int, str, bool)
