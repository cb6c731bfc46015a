"""Limits to copy into a model class, one declaration for each usual kind of model.

Every field that is left out keeps its finite default. Numbers here are starting points: measure your own traffic.
"""

from __future__ import annotations

from safe_triton import InputLimits, Limits, LoadConditions, OutputLimits, ParameterLimits, unsafe

TABLE = Limits(
    max_batch_size=64,
    deadline_ms=100,
    inputs={"FEATURES": InputLimits(finite=True, minimum=-1e6, maximum=1e6)},
    outputs={"SCORES": OutputLimits(finite=True)},
    parameters={},
)
"""Tabular features: finite numbers in a known range, no request parameters, an answer within 100 ms."""

IMAGES = Limits(
    max_batch_size=4,
    max_request_bytes=64 << 20,
    deadline_ms=2_000,
    inputs={"IMAGES": InputLimits(max_elements=4 * 3 * 2048 * 2048)},
    parameters={},
)
"""Decoded images of variable size: a bound on pixels keeps one request from taking all memory."""

ENCODED_IMAGES = Limits(
    max_batch_size=4,
    deadline_ms=2_000,
    inputs={"FILES": InputLimits(max_string_bytes=8 << 20, max_bytes=16 << 20)},
    parameters={},
)
"""JPEG or PNG files as BYTES: bytes are bounded here; bound the decoded size in the model as well."""

TOKENS = Limits(
    max_sequence_length=512,
    deadline_ms=1_000,
    inputs={
        "TOKEN_IDS": InputLimits(minimum=0, maximum=30_521),
        "ATTENTION_MASK": InputLimits(minimum=0, maximum=1),
    },
    parameters={},
)
"""Token ids of a vocabulary of 30,522: an id outside it would index past the end of the embedding table."""

PROMPTS = Limits(
    max_batch_size=1,
    deadline_ms=60_000,
    inputs={"PROMPT": InputLimits(max_string_bytes=16 << 10, utf8=True)},
    parameters={
        "temperature": ParameterLimits(type=float, minimum=0.0, maximum=2.0),
        "max_tokens": ParameterLimits(type=int, minimum=1, maximum=1_024),
        "mode": ParameterLimits(type=str, choices=("chat", "complete")),
    },
)
"""Text generation: settings come as request parameters; any other parameter is refused."""

ARCHIVE = Limits(
    max_input_bytes=unsafe.Unlimited(reason="bounded at 1 GiB by the gateway; only the nightly job may call it"),
    max_request_bytes=unsafe.Unlimited(reason="bounded at 1 GiB by the gateway; only the nightly job may call it"),
    deadline_ms=600_000,
)
"""A weakening is a token with a reason: it can be searched for, and it is logged when the model loads."""

ONLY_ON_CPU = LoadConditions(model_root="/models", instance_kinds=("CPU",))
"""`conditions = ONLY_ON_CPU` in the class: the model does not load from anywhere else, nor on a GPU."""
