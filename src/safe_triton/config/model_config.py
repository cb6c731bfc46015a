"""``ModelConfig``: the part of Triton's model configuration that a model's process relies on, as frozen values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NoReturn

from safe_triton.config.dtypes import DTYPES, DType
from safe_triton.errors import ConfigError

MAX_DIMS = 64
"""Axes of one tensor: more than numpy 1.x can hold (32), so that only nonsense is refused."""

DEFAULT_SEQUENCE_IDLE_US = 1_000_000
"""``max_sequence_idle_microseconds`` where a configuration has none."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output of a model.

    Args:
        name: the tensor's name.
        dtype: its data type.
        dims: config.pbtxt's dims, without the batch axis; -1 is a variable axis.
        optional: whether a request may leave it out (inputs only).
        is_ragged: whether requests of one batch may differ in their dims (inputs only).
        reshape: the dims that the model sees instead of ``dims``, where config.pbtxt has a ``reshape``.
    """

    name: str
    dtype: DType
    dims: tuple[int, ...]
    optional: bool = False
    is_ragged: bool = False
    reshape: tuple[int, ...] | None = None

    @property
    def model_dims(self) -> tuple[int, ...]:
        """The dims of the array in ``execute``, without the batch axis."""
        return self.dims if self.reshape is None else self.reshape


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model's configuration, as Triton hands it to ``initialize``.

    Args:
        name: the model's name.
        max_batch_size: rows per request; 0 for a model without a batch axis.
        inputs: declared inputs, in config order.
        outputs: declared outputs, in config order.
        server_inputs: names of inputs that Triton adds itself: sequence controls, implicit state, batch inputs.
        server_outputs: names of outputs that Triton keeps for itself: a sequence's implicit state.
        is_decoupled: whether a request may have any number of responses.
        has_sequences: whether the sequence batcher is on.
        sequence_idle_us: microseconds after which it gives up on a sequence that sends nothing; 0 without it.
        parameters: config.pbtxt's ``parameters`` by key.
    """

    name: str
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    server_inputs: frozenset[str] = frozenset()
    server_outputs: frozenset[str] = frozenset()
    is_decoupled: bool = False
    has_sequences: bool = False
    sequence_idle_us: int = 0
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelConfig:
        """Parse ``args["model_config"]`` strictly.

        Args:
            text: the JSON object that Triton passes to ``initialize``.

        Raises:
            ConfigError: not JSON, a field of the wrong type, an unknown data type, a name twice.

        Source:
            Triton ``model_config.proto``; python_backend passes it as JSON with defaults filled in.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise ConfigError("model_config is not JSON", reason="config.json") from None
        return cls.from_dict(document)

    @classmethod
    def from_dict(cls, document: Any) -> ModelConfig:
        """Parse the same configuration from a mapping, as :meth:`from_json` does from its text."""
        top = _Reader(document, "model_config")
        name = top.text("name")
        max_batch_size = top.whole("max_batch_size", 0)
        if max_batch_size < 0:
            _refuse("config.batch_size", f"max_batch_size is {max_batch_size}, below 0")
        sequences = top.section("sequence_batching")
        config = cls(
            name=name,
            max_batch_size=max_batch_size,
            inputs=tuple(_tensor(item, is_input=True) for item in top.items("input")),
            outputs=tuple(_tensor(item, is_input=False) for item in top.items("output")),
            server_inputs=frozenset(_server_inputs(top, sequences)),
            server_outputs=frozenset(state.text("output_name") for state in sequences.items("state")),
            is_decoupled=top.section("model_transaction_policy").flag("decoupled"),
            has_sequences="sequence_batching" in top.values,
            sequence_idle_us=_idle_us(sequences) if "sequence_batching" in top.values else 0,
            parameters=_parameters(top.section("parameters")),
        )
        for kind, specs in (("input", config.inputs), ("output", config.outputs)):
            names = [spec.name for spec in specs]
            for spec_name in names:
                if names.count(spec_name) > 1:
                    _refuse("config.duplicate", f"{kind} '{spec_name}' is declared twice")
        return config

    def input(self, name: str) -> TensorSpec | None:
        """Return the input of that name, or ``None``."""
        return next((spec for spec in self.inputs if spec.name == name), None)

    def output(self, name: str) -> TensorSpec | None:
        """Return the output of that name, or ``None``."""
        return next((spec for spec in self.outputs if spec.name == name), None)


def _refuse(reason: str, message: str) -> NoReturn:
    raise ConfigError(f"{reason}: {message}", reason=reason)


class _Reader:
    """Typed access to one JSON object, with the dotted place in every error."""

    def __init__(self, values: Any, place: str) -> None:
        if not isinstance(values, dict):
            _refuse("config.type", f"{place} is no object")
        self.values: dict[str, Any] = values
        self.place = place

    def _get(self, key: str, kind: type, default: Any) -> Any:
        value = self.values.get(key, default)
        if type(value) is not kind:
            _refuse("config.type", f"{self.place}.{key} is no {kind.__name__}")
        return value

    def text(self, key: str) -> str:
        value: str = self._get(key, str, "")
        if not value:
            _refuse("config.missing", f"{self.place}.{key} is missing")
        return value

    def whole(self, key: str, default: int) -> int:
        return int(self._get(key, int, default))

    def flag(self, key: str) -> bool:
        return bool(self._get(key, bool, False))

    def section(self, key: str) -> _Reader:
        return _Reader(self.values.get(key, {}), f"{self.place}.{key}")

    def items(self, key: str) -> list[_Reader]:
        values = self._get(key, list, [])
        return [_Reader(value, f"{self.place}.{key}[{index}]") for index, value in enumerate(values)]

    def dims(self, key: str) -> tuple[int, ...]:
        values = self._get(key, list, [])
        if len(values) > MAX_DIMS:
            _refuse("config.dims", f"{self.place}.{key} has {len(values)} axes, above {MAX_DIMS}")
        for value in values:
            if type(value) is not int or value < -1:
                _refuse("config.dims", f"{self.place}.{key} holds {value!r}")
        return tuple(values)


def _tensor(reader: _Reader, *, is_input: bool) -> TensorSpec:
    name = reader.text("name")
    spelling = reader.text("data_type")
    if spelling not in DTYPES:
        _refuse("config.dtype", f"data_type {spelling!r} of '{name}' is unknown")
    reshape = reader.section("reshape").dims("shape") if "reshape" in reader.values else None
    return TensorSpec(
        name=name,
        dtype=DTYPES[spelling],
        dims=reader.dims("dims"),
        optional=is_input and reader.flag("optional"),
        is_ragged=is_input and reader.flag("allow_ragged_batch"),
        reshape=reshape,
    )


def _idle_us(sequences: _Reader) -> int:
    """Return Triton's own time for a silent sequence; JSON may write 64 bits as text, 0 stands for the default."""
    value = sequences.values.get("max_sequence_idle_microseconds", 0)
    number = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0
    return number or DEFAULT_SEQUENCE_IDLE_US


def _server_inputs(top: _Reader, sequences: _Reader) -> list[str]:
    names = [control.text("name") for control in sequences.items("control_input")]
    names += [state.text("input_name") for state in sequences.items("state")]
    for batch_input in top.items("batch_input"):
        names += [name for name in batch_input.values.get("target_name", []) if isinstance(name, str)]
    return names


def _parameters(section: _Reader) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for key, value in section.values.items():
        text = value.get("string_value") if isinstance(value, dict) else None
        if not isinstance(text, str):
            _refuse("config.type", f"{section.place}.{key} has no string_value")
        values[key] = text
    return MappingProxyType(values)
