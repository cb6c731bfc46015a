"""Read a config.pbtxt by the server's own definition of a model configuration."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from safe_triton.errors import ConfigError, EnvironmentMissingError


def read_pbtxt(path: Path) -> dict[str, Any]:
    """The fields of a config.pbtxt under their own names.

    Args:
        path: the file.
    Returns:
        The fields as the server writes them: defaults included, except for messages that the file does not mention.
    Raises:
        EnvironmentMissingError: protobuf or tritonclient is not installed.
        ConfigError: the file cannot be read or is not a model configuration.
    Does not cover:
        Fields that are newer than the installed tritonclient.
    """
    try:
        from google.protobuf import text_format  # only with the extra
        from tritonclient.grpc import model_config_pb2
    except (ImportError, RuntimeError) as error:  # tritonclient without its grpc extra raises RuntimeError
        missing = getattr(error, "name", None) or "tritonclient[grpc]"
        raise EnvironmentMissingError(
            f"reading config.pbtxt needs the package {missing!r}: pip install 'safe-triton[audit]', or give the "
            "configuration as a dict"
        ) from None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config.pbtxt cannot be read: {type(error).__name__}") from None
    message = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise ConfigError(f"config.pbtxt is no model configuration: {error}") from None
    return _fields(message)


def _fields(message: Any) -> dict[str, Any]:
    """A message as a dict: scalars always unless they track presence, messages and choices only where they are set."""
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            values[field.name] = {str(key): _value(entry.fields_by_name["value"], value[key]) for key in value}
        elif isinstance(value, str | bytes) or not hasattr(value, "append"):
            if not field.has_presence or message.HasField(field.name):
                values[field.name] = _value(field, value)
        else:
            values[field.name] = [_value(field, each) for each in value]
    return values


def _value(field: Any, value: Any) -> Any:
    """One value of a field: enumerations by name, messages as dicts, 64-bit numbers as numbers."""
    if field.message_type is not None:
        return _fields(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
