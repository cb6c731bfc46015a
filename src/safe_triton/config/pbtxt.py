"""Read a config.pbtxt by the server's own definition of a model configuration."""

from __future__ import annotations

import base64
import functools
import importlib.util
from pathlib import Path
from typing import Any

from safe_triton.errors import ConfigError, EnvironmentMissingError


@functools.cache
def model_config_class() -> Any:
    """Triton's ``ModelConfig`` message, from the file that tritonclient ships.

    The file is loaded by itself: importing the package around it starts grpc, which takes ten times as long.

    Returns:
        The message class of the real definition.
    Raises:
        EnvironmentMissingError: protobuf or tritonclient is not installed.
    """
    try:
        import google.protobuf  # noqa: F401  # named first, so that its absence is told from the file's

        package = importlib.util.find_spec("tritonclient")
        folders = package.submodule_search_locations if package else None
        file = Path(next(iter(folders or ("",)))) / "grpc" / "model_config_pb2.py"
        spec = importlib.util.spec_from_file_location("safe_triton_model_config_pb2", file)
        if not file.is_file() or spec is None or spec.loader is None:
            raise ImportError("no definition", name="tritonclient[grpc]")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, RuntimeError) as error:  # a protobuf that is older than the file raises RuntimeError
        missing = getattr(error, "name", None) or "protobuf"
        raise EnvironmentMissingError(
            f"reading config.pbtxt needs the package {missing!r}: pip install 'safe-triton[audit]', or give the "
            "configuration as a dict"
        ) from None
    return module.ModelConfig


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
    definition = model_config_class()
    from google.protobuf import text_format

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"config.pbtxt cannot be read: {why}") from None
    message = definition()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise ConfigError(f"config.pbtxt is no model configuration: {error}") from None
    return message_fields(message)


def change_pbtxt(path: Path, **values: str) -> None:
    """Write texts into fields of a config.pbtxt that can be read; an empty one takes the field away."""
    from google.protobuf import text_format

    message = text_format.Parse(path.read_text(encoding="utf-8"), model_config_class()())
    for name, value in values.items():
        setattr(message, name, value)
    path.write_text(text_format.MessageToString(message), encoding="utf-8")


def message_fields(message: Any) -> dict[str, Any]:
    """Return a message as a dict: scalars unless they track presence and are unset, messages where they are set."""
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
        return message_fields(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
