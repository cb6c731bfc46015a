"""Texts of rendered files: YAML and TOML from plain values, the same for the same values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from safe_triton.policy.toml_text import toml_key, toml_value

if TYPE_CHECKING:
    import yaml

HEADER = "# Written by safe-triton render {form}. Change the policy and render again, or change it in an overlay."
COLUMNS = 120


def header(form: str, about: str) -> str:
    """The first lines of a rendered file."""
    return f"{HEADER.format(form=form)}\n# {about}\n"


def yaml_text(form: str, about: str, documents: Iterable[Mapping[str, Any]]) -> str:
    """Return documents as YAML.

    Args:
        form: the subcommand.
        about: one line for the reader.
        documents: plain values, in the order in which keys are written.

    Raises:
        EnvironmentMissingError: there is no PyYAML.
    """
    dumper = _dumper()
    parts = [
        _yaml().dump(
            document, Dumper=dumper, sort_keys=False, width=COLUMNS, allow_unicode=True, default_flow_style=False
        )
        for document in documents
    ]
    return header(form, about) + "---\n".join(parts)


def toml_text(values: Mapping[str, Any]) -> str:
    """Return what a policy's file holds as TOML: plain values first, then tables, as they come."""
    return "\n".join(_tables(values, ()))


def _tables(values: Mapping[str, Any], place: tuple[str, ...]) -> list[str]:
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping) or _is_small(value)}
    lines = [f"[{toml_key(*place)}]"] if place and (plain or not values) else []
    lines += [f"{toml_key(name)} = {_value(value)}" for name, value in plain.items()]
    if lines:
        lines.append("")
    for name, value in values.items():
        if name not in plain:
            lines += _tables(value, (*place, name))
    return lines


def _is_small(value: Mapping[str, Any]) -> bool:
    """Whether a table stands in one line: the danger tokens, which have a reason."""
    return "reason" in value or "unlimited" in value


def _value(value: Any) -> str:
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(name)} = {_value(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return toml_value(value)


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        from safe_triton.errors import EnvironmentMissingError

        raise EnvironmentMissingError(
            "writing YAML needs the package 'PyYAML': pip install 'safe-triton[audit]'"
        ) from None
    return yaml


def _dumper() -> type[yaml.SafeDumper]:
    class Dumper(_yaml().SafeDumper):  # type: ignore[misc]
        """Texts of many lines as such, and every value written out."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
            return True

    def represent(dumper: Any, text: str) -> Any:
        style = "|" if "\n" in text else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    return Dumper
