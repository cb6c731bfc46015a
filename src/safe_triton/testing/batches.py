"""Which requests the server hands to one call of ``execute``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safe_triton.testing.outcomes import Request


def batches_of(config: Mapping[str, Any], requests: Sequence[Request], accepted: Sequence[int]) -> list[list[int]]:
    """Group requests that arrive together as the server's schedulers do.

    Args:
        config: the completed configuration.
        requests: all requests.
        accepted: the numbers of those that passed the server's checks.
    Returns:
        Lists of numbers, in order. One request each without dynamic batching; otherwise as many rows as fit in
        ``max_batch_size``, of the same inputs and, except for ragged ones, the same shapes.
    """
    if config["max_batch_size"] == 0 or "dynamic_batching" not in config:
        return [[number] for number in accepted]
    ragged = {each["name"] for each in config["input"] if each.get("allow_ragged_batch")}
    groups: list[list[int]] = []
    rows, last = 0, None
    for number in accepted:
        inputs = requests[number].inputs
        kind = {name: None if name in ragged else array.shape[1:] for name, array in inputs.items()}
        count = next((array.shape[0] for array in inputs.values() if array.ndim), 1)
        if groups and kind == last and rows + count <= config["max_batch_size"]:
            groups[-1].append(number)
            rows += count
        else:
            groups.append([number])
            rows, last = count, kind
    return groups
