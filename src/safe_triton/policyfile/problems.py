"""What pydantic found wrong, in words: the place in the document, the reason slug, the nearest known key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from safe_triton.policy.toml_text import toml_key
from safe_triton.policyfile.positions import Place

_KNOWN_SHOWN = 12
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Args:
        place: keys and indices from the top of the document.
        reason: the slug.
        text: what is wrong and what is allowed.
    """

    place: Place
    reason: str
    text: str


def problem_of(error: ErrorDetails, values: Mapping[str, Any], model: type[BaseModel]) -> Problem:
    """Return a problem in this package's words.

    Args:
        error: one of ``ValidationError.errors()``.
        values: the document.
        model: what it was validated against.
    """
    place, value = _resolve(error["loc"], values)
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return Problem(place=place, reason="policy.unknown_field", text=_unknown(error["loc"], model))
    if kind in ("model_type", "dict_type"):
        return Problem(place=place, reason="policy.type", text=f"must be a table, not {_shown(value)}")
    if kind == "missing":
        return Problem(place=(*place, error["loc"][-1]), reason="policy.missing", text="is missing")
    if kind == "declaration":
        field = context["field"]  # one key, or the way to it
        inner = (*place, *(field if isinstance(field, tuple) else (field,) * bool(field)))
        return Problem(place=inner, reason=context.get("reason", "policy.conflict"), text=context["text"])
    text = re.sub(r"^(Input|String|Value) should (be|have|match)", r"must \2", error["msg"])
    text = text.replace("a valid ", "a ").replace("a integer", "a whole number").replace("a string", "a text")
    shown = f", not {_shown(value)}" if _shown(value) else ""
    is_range = kind.startswith(("greater", "less", "literal", "string_too", "string_pattern", "value"))
    return Problem(place=place, reason="policy.range" if is_range else "policy.type", text=text + shown)


def dotted(place: Place) -> str:
    """Return a place as a dotted key of TOML, elements of a list by their index."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{toml_key(part)}" if text else toml_key(part)
    return text


def nearest(name: str, known: list[str]) -> str:
    """Return a hint at the known name that a name was probably meant to be, or at all of a few."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    more = ", …" if len(known) > _KNOWN_SHOWN else ""
    return f"; known: {', '.join(known[:_KNOWN_SHOWN])}{more}" if known else ""


def _resolve(location: tuple[int | str, ...], values: Any) -> tuple[Place, Any]:
    """The part of pydantic's location that leads somewhere in the document: names of branches do not."""
    place: Place = ()
    for part in location:
        inside = isinstance(values, dict) and part in values
        if inside or (isinstance(values, list) and isinstance(part, int) and part < len(values)):
            values = values[part]
            place += (part,)
    return place, values


def _unknown(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    if location[:2] == ("defaults", "limits") and location[2:] in (("inputs",), ("outputs",)):
        return f"is of one model only: write it as models.NAME.limits.{location[-1]}"
    schema = model.model_json_schema(by_alias=True)
    node: Any = schema
    for part in location[:-1]:
        node = _follow(_table(_deref(node, schema), schema), part)
    known = _table(_deref(node, schema), schema).get("properties", {})
    return f"is unknown{nearest(str(location[-1]), sorted(known))}"


def _follow(node: dict[str, Any], part: int | str) -> Any:
    """The schema of one step of pydantic's location."""
    if isinstance(part, int):
        return node.get("items", {})
    if part in node.get("properties", {}):
        return node["properties"][part]
    if "oneOf" in node:  # a branch: only tables have keys
        return next((one for one in node["oneOf"] if one.get("type") == "object" or "$ref" in one), {})
    forms = node.get("patternProperties", {}).values()  # names of one form
    return next(iter(forms), node.get("additionalProperties", {}))


def _table(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The table of what may be left out: ``anyOf`` it and null."""
    return _deref(node["anyOf"][0], schema) if "anyOf" in node else node


def _deref(node: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """What a reference stands for; pydantic before 2.9 wraps one that has a description in ``allOf``."""
    while isinstance(node, dict) and ("$ref" in node or "allOf" in node):
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node["allOf"][0]
    return node if isinstance(node, dict) else {}


def _shown(value: object) -> str:
    if isinstance(value, int | float | str):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= _SHOWN_CHARACTERS else ""
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else ""
