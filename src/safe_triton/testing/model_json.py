"""A model's configuration as the server completes it and hands it to ``initialize``."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

_INPUT = {
    "name": "",
    "data_type": "TYPE_INVALID",
    "format": "FORMAT_NONE",
    "dims": [],
    "is_shape_tensor": False,
    "allow_ragged_batch": False,
    "optional": False,
    "is_non_linear_format_io": False,
}
_OUTPUT = {
    "name": "",
    "data_type": "TYPE_INVALID",
    "dims": [],
    "label_filename": "",
    "is_shape_tensor": False,
    "is_non_linear_format_io": False,
}
_GROUP: dict[str, Any] = {
    "name": "",
    "kind": "KIND_AUTO",
    "count": 1,
    "gpus": [],
    "secondary_devices": [],
    "profile": [],
    "passive": False,
    "host_policy": "",
}
_OPTIMIZATION: dict[str, Any] = {
    "priority": "PRIORITY_DEFAULT",
    "input_pinned_memory": {"enable": True},
    "output_pinned_memory": {"enable": True},
    "gather_kernel_buffer_threshold": 0,
    "eager_batching": False,
}
_DYNAMIC = {
    "preferred_batch_size": [],
    "max_queue_delay_microseconds": 0,
    "preserve_ordering": False,
    "priority_levels": 0,
    "default_priority_level": 0,
    "priority_queue_policy": {},
}
_MODEL: dict[str, Any] = {
    "name": "",
    "platform": "",
    "backend": "python",
    "runtime": "",
    "version_policy": {"latest": {"num_versions": 1}},
    "max_batch_size": 0,
    "input": [],
    "output": [],
    "batch_input": [],
    "batch_output": [],
    "optimization": _OPTIMIZATION,
    "dynamic_batching": None,
    "sequence_batching": None,
    "instance_group": [],
    "default_model_filename": "model.py",
    "cc_model_filenames": {},
    "metric_tags": {},
    "parameters": {},
    "model_warmup": [],
    "model_transaction_policy": None,
}


def complete(config: Mapping[str, Any], *, name: str, kind: str = "CPU") -> dict[str, Any]:
    """The configuration with what the server fills in.

    Args:
        config: fields of config.pbtxt under their own names; what is left out takes the server's default.
        name: the model's name where the configuration has none.
        kind: ``CPU`` or ``GPU``, for a configuration without instance groups.
    Returns:
        A new dict with the keys and the order of the JSON that the server hands to ``initialize``.
    Does not cover:
        Configurations that the server refuses. Ensembles.
    """
    given = copy.deepcopy(dict(config))
    full: dict[str, Any] = copy.deepcopy(_MODEL)
    full.update(given)
    full["name"] = full["name"] or name
    full["input"] = [_tensor(_INPUT, each) for each in full["input"]]
    full["output"] = [_tensor(_OUTPUT, each) for each in full["output"]]
    full["optimization"] = copy.deepcopy(_OPTIMIZATION) | full["optimization"]
    full["version_policy"] = full["version_policy"] or copy.deepcopy(_MODEL["version_policy"])
    full["default_model_filename"] = full["default_model_filename"] or _MODEL["default_model_filename"]
    if full["dynamic_batching"] is not None:
        full["dynamic_batching"] = copy.deepcopy(_DYNAMIC) | full["dynamic_batching"]
        if not full["dynamic_batching"]["preferred_batch_size"]:
            full["dynamic_batching"]["preferred_batch_size"] = [full["max_batch_size"]]
    if full["model_transaction_policy"] is not None:
        full["model_transaction_policy"] = {"decoupled": False} | full["model_transaction_policy"]
    groups = full["instance_group"] or [{"name": full["name"]}]  # without groups: one, named like the model
    full["instance_group"] = [_group(full["name"], kind, number, group) for number, group in enumerate(groups)]
    return {key: value for key, value in full.items() if value is not None}


def _group(name: str, kind: str, number: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """An instance group with what it leaves out."""
    full = copy.deepcopy(_GROUP) | dict(given)
    full["name"] = full["name"] or f"{name}_{number}"
    full["kind"] = f"KIND_{kind}" if full["kind"] == "KIND_AUTO" else full["kind"]
    full["count"] = max(full["count"], 1)
    return full


def _tensor(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """An input or output with what it leaves out; ``reshape`` may be there and empty."""
    full = copy.deepcopy(dict(defaults)) | dict(given)
    if full.get("reshape") is not None:
        full["reshape"] = {"shape": []} | full["reshape"]
    return full


def to_json(config: Mapping[str, Any]) -> str:
    """The text of ``args["model_config"]``."""
    return json.dumps(config, separators=(",", ":"), ensure_ascii=False)
