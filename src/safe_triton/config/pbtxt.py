"""Read a config.pbtxt by the server's own definition of a model configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safe_triton.errors import ConfigError, EnvironmentMissingError

# protobuf's JSON has 64-bit numbers as text; the server turns these back into numbers.
_NUMBERS = frozenset({
    "count", "default_queue_policy_max_queue_delay_microseconds", "default_timeout_microseconds", "dims",
    "max_queue_delay_microseconds", "max_sequence_idle_microseconds", "shape", "versions",
})  # fmt: skip


def read_pbtxt(path: Path) -> dict[str, Any]:
    """The fields of a config.pbtxt under their own names.

    Args:
        path: the file.
    Returns:
        What the file sets; defaults are not filled in.
    Raises:
        EnvironmentMissingError: protobuf or tritonclient is not installed.
        ConfigError: the file cannot be read or is not a model configuration.
    Does not cover:
        Fields that are newer than the installed tritonclient.
    """
    try:
        from google.protobuf import json_format, text_format  # only with the extra
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise EnvironmentMissingError(
            f"reading config.pbtxt needs the package {error.name!r}: pip install 'safe-triton[audit]', or give the "
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
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return {name: _with_numbers(value, name) for name, value in fields.items()}


def _with_numbers(value: Any, key: str = "") -> Any:
    """The same value with 64-bit numbers as numbers."""
    if isinstance(value, dict):
        return {name: _with_numbers(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_numbers(each, key) for each in value]
    return int(value) if key in _NUMBERS and isinstance(value, str) else value
