"""Settings from a file or from the environment, in the words of the arguments."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ValidationError

from safe_triton._declared import defaults_of
from safe_triton.client.credentials import FORBIDDEN_MODE, read_file
from safe_triton.client.settings import ClientSettings
from safe_triton.errors import ClientUsageError, PolicyError
from safe_triton.policyfile.load import line_of
from safe_triton.policyfile.mirror import MIRRORED, Table
from safe_triton.policyfile.positions import locate
from safe_triton.policyfile.problems import dotted, nearest, problem_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "SAFE_TRITON_CLIENT_"
"""Of every variable: ``SAFE_TRITON_CLIENT_URL`` is ``url``."""

FILE_VARIABLE = f"{PREFIX}FILE"
"""Names a file that is read first; the other variables change what it says."""


_EITHER = {"api_key": "api_key_file", "bearer_token": "bearer_token_file"}
"""A secret, and the file that it may stand in instead."""


class ClientFile(Table):
    """A client's file: one table."""

    client: Annotated[ClientSettings, MIRRORED]


def settings_of(values: Mapping[str, Any]) -> ClientSettings:
    """Build settings from arguments.

    Raises:
        ClientUsageError: the argument, what is wrong with it, and what is allowed.
    """
    if "models" not in values:
        raise _wrong(
            "client.usage",
            "models is missing: the names of the models that this client may call, as in models=['digits'], or 'any'",
        )
    try:
        return ClientSettings(**values)
    except PolicyError as error:
        raise _said(error) from None


def read_settings(path: str) -> dict[str, Any]:
    """Read the table ``[client]`` of a TOML file.

    Args:
        path: the file. If it holds a secret itself, only its owner and group may read it.

    Returns:
        The arguments that it stands for.

    Raises:
        ClientUsageError: reason ``client.file`` or ``policy.*``, with file, line and key.
    """
    try:
        text = read_file(path, "settings", is_secret=False).decode("utf-8")
        values = tomllib.loads(text)
    except UnicodeDecodeError:
        raise _wrong("client.file", f"{path}: not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _wrong("client.file", f"{path}: no TOML: {error}") from None
    lines = locate(text)
    try:
        settings = ClientFile.model_validate(values).client
    except ValidationError as error:
        # A key that is misspelt is the cause of one that is missing.
        first = min(error.errors(), key=lambda row: row["type"] != "extra_forbidden")
        problem = problem_of(first, values, ClientFile)
        where = f"{path}:{line_of(problem.place, lines)}: {dotted(problem.place)}"
        raise _wrong(problem.reason, f"{where}: {problem.text}") from None
    has_secret = settings.api_key or settings.bearer_token
    if has_secret and stat.S_IMODE(os.stat(path).st_mode) & FORBIDDEN_MODE:
        raise _wrong("client.file", f"{path} holds a secret, and others may read it: chmod 600")
    return {name: getattr(settings, name) for name in settings.declared}


def read_environment(variables: Mapping[str, str]) -> dict[str, Any]:
    """Read the settings that variables hold.

    Args:
        variables: the environment. ``SAFE_TRITON_CLIENT_MODELS`` is a list with commas, or ``any``.

    Raises:
        ClientUsageError: a variable that stands for no setting, or holds no number where one belongs.
    """
    values: dict[str, Any] = {}
    simple = _simple_settings()
    for variable, text in variables.items():
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in simple:
            known = [f"{PREFIX}{each.upper()}" for each in sorted(simple)]
            raise _wrong("client.usage", f"the environment variable {variable} is unknown{nearest(variable, known)}")
        try:
            values[name] = simple[name](text)
        except ValueError:
            raise _wrong("client.usage", f"the environment variable {variable} holds no number") from None
    file = variables.get(FILE_VARIABLE)
    return changed(read_settings(file), values) if file else values


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others in their place: a secret also stands instead of the file of one, and a file of it."""
    hidden = {name for pair in _EITHER.items() if any(map(changes.get, pair)) for name in pair}
    return {**{name: value for name, value in values.items() if name not in hidden}, **changes}


def environment_settings(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of this process's environment, with arguments that stand instead of some.

    Raises:
        ClientUsageError: a variable that is wrong, or nothing that says where the server is.
    """
    values = changed(read_environment(os.environ), changes)
    for name in ("url", "models"):
        if name not in values:
            variable = f"{PREFIX}{name.upper()}"
            raise _wrong(
                "client.usage", f"the environment variable {variable} is not set, nor {name} in {FILE_VARIABLE}"
            )
    return values


def _simple_settings() -> dict[str, Any]:
    """How the text of a variable becomes a setting, for every setting that is one text or number."""
    found: dict[str, Any] = {"url": str, "models": _listed}
    for name, default in defaults_of(ClientSettings).items():
        if isinstance(default, str | int | float) and not isinstance(default, bool):
            found[name] = type(default)
    return found


def _listed(text: str) -> Any:
    return "any" if text.strip() == "any" else [name.strip() for name in text.split(",") if name.strip()]


def _said(error: PolicyError) -> ClientUsageError:
    """The same refusal as one of the client."""
    text = error.message.replace(f"{ClientSettings.__name__} has no field", "a client has no argument")
    text = text.replace(f"{ClientSettings.__name__} needs", "a client needs")
    return ClientUsageError(text, reason=error.reason)


def _wrong(reason: str, message: str) -> ClientUsageError:
    return ClientUsageError(f"{reason}: {message}", reason=reason)
