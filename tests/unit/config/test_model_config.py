"""``ModelConfig``: parsed strictly from what Triton hands to ``initialize``."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from safe_triton.config import DTYPES, ModelConfig
from safe_triton.errors import ConfigError

GOOD: dict[str, Any] = {
    "name": "m",
    "max_batch_size": 8,
    "input": [
        {"name": "X", "data_type": "TYPE_FP32", "dims": [-1, 3], "optional": True, "allow_ragged_batch": True},
        {"name": "R", "data_type": "TYPE_STRING", "dims": [1], "reshape": {"shape": []}},
    ],
    "output": [{"name": "Y", "data_type": "TYPE_INT64", "dims": [1]}],
    "model_transaction_policy": {"decoupled": True},
    "parameters": {"FORMULA": {"string_value": "x + 1"}},
    "sequence_batching": {
        "control_input": [{"name": "START", "control": []}],
        "state": [{"input_name": "STATE_IN", "output_name": "STATE_OUT"}],
    },
    "batch_input": [{"kind": "BATCH_ELEMENT_COUNT", "target_name": ["COUNTS"]}],
}


def test_reads_what_the_runtime_relies_on() -> None:
    """Every field that the request path uses is there, typed."""
    config = ModelConfig.from_json(json.dumps(GOOD))
    x = config.input("X")
    r = config.input("R")
    y = config.output("Y")
    assert x is not None
    assert r is not None
    assert y is not None
    assert (x.dims, x.optional, x.is_ragged, x.dtype.numpy) == ((-1, 3), True, True, "float32")
    assert (r.dims, r.model_dims, r.dtype.is_bytes) == ((1,), (), True)
    assert (y.optional, y.model_dims) == (False, (1,))
    assert config.server_inputs == {"START", "STATE_IN", "COUNTS"}
    assert (config.is_decoupled, config.has_sequences, config.max_batch_size) == (True, True, 8)
    assert config.parameters == {"FORMULA": "x + 1"}
    assert config.input("Y") is None
    assert config.output("X") is None


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"name": ""}, r"config\.missing: model_config\.name is missing"),
        ({"name": 3}, r"config\.type: model_config\.name is no str"),
        ({"max_batch_size": "8"}, r"config\.type: model_config\.max_batch_size is no int"),
        ({"max_batch_size": True}, r"config\.type: .*"),
        ({"max_batch_size": -1}, r"config\.batch_size: max_batch_size is -1, below 0"),
        ({"input": {}}, r"config\.type: model_config\.input is no list"),
        ({"input": [3]}, r"config\.type: model_config\.input\[0\] is no object"),
        ({"input": [{"name": "X", "data_type": "TYPE_FP8", "dims": [1]}]}, r"config\.dtype: data_type 'TYPE_FP8' of 'X' is unknown"),
        ({"input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-2]}]}, r"config\.dims: .* holds -2"),
        ({"input": [{"name": "X", "data_type": "TYPE_FP32", "dims": ["1"]}]}, r"config\.dims: .* holds '1'"),
        ({"input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [1] * 65}]}, r"config\.dims: .* has 65 axes, above 64"),
        ({"output": GOOD["output"] * 2}, r"config\.duplicate: output 'Y' is declared twice"),
        ({"parameters": {"A": 3}}, r"config\.type: model_config\.parameters\.A has no string_value"),
        ({"model_transaction_policy": {"decoupled": 1}}, r"config\.type: .*decoupled is no bool"),
    ],
)  # fmt: skip
def test_refuses_what_is_not_as_triton_writes_it(change: dict[str, Any], pattern: str) -> None:
    """One line with the dotted place."""
    with pytest.raises(ConfigError) as raised:
        ModelConfig.from_json(json.dumps({**GOOD, **change}))
    assert re.fullmatch(pattern, raised.value.message)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000])
def test_refuses_what_is_no_object(text: str) -> None:
    """Not JSON, or not an object."""
    with pytest.raises(ConfigError):
        ModelConfig.from_json(text)


def test_data_types_know_what_they_can_hold() -> None:
    """Only floats can be NaN; only numbers have an order; only BYTES has no element size."""
    assert {name for name, dtype in DTYPES.items() if dtype.is_float} == {
        "TYPE_FP16",
        "TYPE_FP32",
        "TYPE_FP64",
        "TYPE_BF16",
    }
    assert {name for name, dtype in DTYPES.items() if not dtype.is_number} == {"TYPE_BOOL", "TYPE_STRING"}
    assert {name for name, dtype in DTYPES.items() if not dtype.itemsize} == {"TYPE_STRING"}
