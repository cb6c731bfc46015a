"""The Python half of ``triton_python_backend_utils``: helpers and ``ModelConfig``, by behaviour.

Everything here exists while ``model.py`` is imported; the classes of `fake_values` and its neighbours are added
afterwards.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
TRITONSERVER_REQUEST_RELEASE_ALL = 1
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = 2

TRITON_STRING_TO_NUMPY: dict[str, Any] = {
    "TYPE_BOOL": bool,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    "TYPE_STRING": np.object_,
}

# TRITONSERVER_DataType counts from BOOL = 1; 0 is INVALID and 14, BF16, has no numpy type.
_NUMPY_BY_NUMBER: dict[int, Any] = dict(enumerate([np.bool_, *list(TRITON_STRING_TO_NUMPY.values())[1:]], start=1))


def triton_string_to_numpy(triton_type_string: str) -> Any:
    """The numpy type of a config.pbtxt type such as ``TYPE_FP32``; KeyError for others, BF16 among them."""
    return TRITON_STRING_TO_NUMPY[triton_type_string]


def triton_to_numpy_type(data_type: int) -> Any:
    """The numpy type of a TRITONSERVER_DataType number, None for others."""
    return _NUMPY_BY_NUMBER.get(data_type)


def numpy_to_triton_type(data_type: Any) -> int | None:
    """The TRITONSERVER_DataType number of a numpy type, None where there is none."""
    for number, candidate in _NUMPY_BY_NUMBER.items():
        if data_type == candidate:
            return number
    return 13 if data_type == np.bytes_ else None


def serialize_byte_tensor(input_tensor: np.ndarray[Any, Any]) -> Any:
    """The elements, each behind its length: bytes as they are, others as the UTF-8 of their ``str``.

    Returns:
        ``bytes``; an empty tuple for an array without elements; None for an array that holds no strings.
    """
    if input_tensor.size == 0:
        return ()
    if input_tensor.dtype != np.object_ and input_tensor.dtype.type != np.bytes_:
        return None
    parts: list[bytes] = []
    for element in input_tensor.ravel(order="C").tolist():
        item = element
        if input_tensor.dtype == np.object_ and type(item) is not bytes:
            item = str(item).encode("utf-8")
        parts += [struct.pack("<I", len(item)), item]
    return b"".join(parts)


def deserialize_bytes_tensor(encoded_tensor: bytes) -> np.ndarray[Any, Any]:
    """The flat object array of the byte strings that `serialize_byte_tensor` wrote."""
    elements: list[bytes] = []
    offset = 0
    while offset < len(encoded_tensor):
        (length,) = struct.unpack_from("<I", encoded_tensor, offset)
        (element,) = struct.unpack_from(f"<{length}s", encoded_tensor, offset + 4)
        offset += 4 + length
        elements.append(element)
    return np.array(elements, dtype=np.object_)


def _by_name(objects: Any, name: str) -> Any:
    """The first object whose ``name()`` is this one."""
    return next((each for each in objects if each.name() == name), None)


def get_input_tensor_by_name(inference_request: Any, name: str) -> Any:
    """The request's input of that name, or None."""
    return _by_name(inference_request.inputs(), name)


def get_output_tensor_by_name(inference_response: Any, name: str) -> Any:
    """The response's output of that name, or None."""
    return _by_name(inference_response.output_tensors(), name)


def _config_by_name(model_config: dict[str, Any], kind: str, name: str) -> Any:
    """The declaration of that name."""
    return next((each for each in model_config.get(kind, ()) if each["name"] == name), None)


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> Any:
    """The declaration of the input of that name, or None."""
    return _config_by_name(model_config, "input", name)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> Any:
    """The declaration of the output of that name, or None."""
    return _config_by_name(model_config, "output", name)


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> Any:
    """Whether a model's configuration is decoupled."""
    if "model_transaction_policy" in model_config:
        return model_config["model_transaction_policy"]["decoupled"]
    return False


class ModelConfig:
    """What ``auto_complete_config`` is handed, and gives back changed."""

    def __init__(self, model_config: str) -> None:
        self._model_config = json.loads(model_config)

    def as_dict(self) -> Any:
        """The configuration itself, not a copy."""
        return self._model_config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Raise the batch size; ValueError when config.pbtxt has a larger one."""
        declared = self._model_config["max_batch_size"]
        if declared > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {declared}, but in auto-complete-config function for model "
                f"'{self._name}' specified max_batch_size {max_batch_size}"
            )
        self._model_config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Choose the dynamic batcher; ValueError when another scheduler is chosen."""
        for scheduler in ("sequence_batching", "ensemble_scheduling"):
            if scheduler in self._model_config:
                raise ValueError(
                    f"Configuration specified scheduling_choice as '{scheduler}', but auto-complete-config function "
                    f"for model '{self._name}' tries to set scheduling_choice as 'dynamic_batching'"
                )
        self._model_config.setdefault("dynamic_batching", {})

    def add_input(self, input: dict[str, Any]) -> None:  # noqa: A002  # the real one's argument name
        """Declare an input, or complete the one of that name; ValueError when they differ."""
        self._add(
            "input", input, ("name", "data_type", "dims", "optional"), "'name', 'data_type', 'dims' and 'optional'"
        )

    def add_output(self, output: dict[str, Any]) -> None:
        """Declare an output, or complete the one of that name; ValueError when they differ."""
        self._add("output", output, ("name", "data_type", "dims"), "'name', 'data_type' and 'dims'")

    def set_model_transaction_policy(self, transaction_policy_dict: dict[str, Any]) -> None:
        """Set ``decoupled``; ValueError when config.pbtxt says otherwise, or for another property."""
        if any(key != "decoupled" for key in transaction_policy_dict):
            raise ValueError(
                f"model transaction property in auto-complete-config function for model '{self._name}' contains "
                "property other than 'decoupled'."
            )
        policy = self._model_config.setdefault("model_transaction_policy", {})
        if "decoupled" in transaction_policy_dict:
            wanted = transaction_policy_dict["decoupled"]
            if policy.get("decoupled", wanted) != wanted:
                raise ValueError(
                    f"trying to change decoupled property in auto-complete-config for model '{self._name}', which is "
                    f"already set to '{policy['decoupled']}'."
                )
            policy["decoupled"] = wanted

    @property
    def _name(self) -> Any:
        """The model's name."""
        return self._model_config["name"]

    def _add(self, kind: str, new: dict[str, Any], allowed: tuple[str, ...], listed: str) -> None:
        """Check a declaration and add it."""
        where = f"in auto-complete-config function for model '{self._name}'"
        if any(key not in allowed for key in new):
            raise ValueError(f"{kind} '{new['name']}' {where} contains property other than {listed}.")
        if "name" not in new:
            raise ValueError(f"{kind} {where} is missing 'name' property.")
        for key in ("data_type", "dims"):
            if key not in new:
                raise ValueError(f"{kind} '{new['name']}' {where} is missing '{key}' property.")
        for old in self._model_config[kind]:
            if old["name"] == new["name"]:
                self._check_same(kind, old, new)
                old.update({key: new[key] for key in ("data_type", "dims", "optional") if key in new})
                return
        self._model_config[kind].append(new)

    def _check_same(self, kind: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        """Refuse a declaration that differs from config.pbtxt's."""
        if old["data_type"] not in ("TYPE_INVALID", new["data_type"]):
            raise ValueError(
                f"unable to load model '{self._name}', configuration expects datatype {old['data_type']} for {kind} "
                f"'{new['name']}', model provides {new['data_type']}"
            )
        for key in ("dims", "optional") if kind == "input" else ("dims",):
            known = old["dims"] if key == "dims" else "optional" in old and "optional" in new
            if known and old[key] != new[key]:
                raise ValueError(
                    f"model '{self._name}', tensor '{new['name']}': the model expects {key} {new[key]} but the model "
                    f"configuration specifies {key} {old[key]}"
                )
