"""The table of default limits: value, unit, reason. Where nothing is declared, these hold."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True)
class DefaultLimit:
    """One row: a field of ``Limits``, its default, the unit, the least value allowed, and why."""

    name: str
    value: int | str
    unit: str
    minimum: int
    reason: str


SCHEMA_STRING_BYTES = MIB
"""Default bytes of one JSON text of an input with a schema: parsing takes a multiple of it in memory."""

DEFAULTS: tuple[DefaultLimit, ...] = (
    DefaultLimit(
        "max_batch_size",
        "config",
        "rows per request",
        1,
        "config.pbtxt's max_batch_size; 1 for a model without batching",
    ),
    DefaultLimit(
        "max_sequence_length",
        1 << 28,
        "elements along the sequence axis",
        1,
        "no tighter than max_elements: only the author knows which axis is a sequence",
    ),
    DefaultLimit("max_inputs", 64, "tensors per request", 1, "real models have a handful; bounds the work per request"),
    DefaultLimit(
        "max_input_bytes", 256 * MIB, "bytes per input", 1, "a batch of large images fits, a memory bomb does not"
    ),
    DefaultLimit(
        "max_request_bytes", 256 * MIB, "bytes of all inputs", 1, "one request may not hold more than one large input"
    ),
    DefaultLimit("max_elements", 1 << 28, "elements per input", 1, "256 MiB of one-byte elements"),
    DefaultLimit(
        "max_strings", 1 << 20, "BYTES elements per input", 1, "each becomes a Python object of at least 33 bytes"
    ),
    DefaultLimit("max_string_bytes", 16 * MIB, "bytes per BYTES element", 1, "a document or an encoded image fits"),
    DefaultLimit("max_parameters", 64, "parameters per request", 0, "bounds the JSON that is parsed per request"),
    DefaultLimit(
        "max_parameter_bytes", 4 * KIB, "bytes per parameter, name and value", 1, "parameters are settings, not payload"
    ),
    DefaultLimit("max_id_length", 256, "characters of a request or correlation id", 1, "ids are written to logs"),
    DefaultLimit(
        "max_output_bytes",
        256 * MIB,
        "bytes of all outputs of one response",
        1,
        "shared memory is shared by all models",
    ),
    DefaultLimit("max_responses", 10_000, "responses of one streamed request", 1, "a stream may go on without an end"),
    DefaultLimit(
        "max_stream_bytes",
        256 * MIB,
        "bytes of all responses of one streamed request",
        1,
        "tritonserver keeps all that a slow client has not read",
    ),
    DefaultLimit(
        "stream_deadline_ms",
        600_000,
        "milliseconds of one streamed request",
        1,
        "an instance serves one stream at a time",
    ),
    DefaultLimit(
        "deadline_ms", 30_000, "milliseconds of the author's code per call", 1, "a client has given up by then"
    ),
    DefaultLimit(
        "hard_deadline_grace_ms",
        5_000,
        "milliseconds after deadline_ms",
        1,
        "time for finally blocks before the process ends",
    ),
    DefaultLimit(
        "load_deadline_ms", 600_000, "milliseconds of load()", 1, "large weights load in minutes, a hang never ends"
    ),
)

BY_NAME = {row.name: row for row in DEFAULTS}

BLS_DEFAULTS: tuple[DefaultLimit, ...] = (
    DefaultLimit("max_calls", 64, "calls to other models per request", 1, "one request may not become a flood"),
    DefaultLimit("max_bytes", 256 * MIB, "bytes of one request's calls", 1, "as much as one request may bring"),
    DefaultLimit("max_depth", 8, "models from the client to a called one", 2, "real pipelines have two or three"),
    DefaultLimit("max_parallel", 8, "calls of one gather at a time", 1, "each waits in a thread of its own"),
    DefaultLimit("max_responses", 10_000, "responses of one stream", 1, "a target may stream without an end"),
)
"""Bounds of calls to other models (``BlsPolicy``)."""

BLS_BY_NAME = {row.name: row for row in BLS_DEFAULTS}

CALL_PARAMETER = "safe_triton.bls"
"""Request parameter of a call from another guarded model: the time left, and the models that led to it."""

CONTENT_DEFAULTS: tuple[DefaultLimit, ...] = (
    DefaultLimit("max_pixels", 25_000_000, "pixels per image", 1, "a camera's photograph fits, a bomb does not"),
    DefaultLimit(
        "max_side", 16_384, "pixels of width or height", 1, "no camera has more; a strip of pixels is an attack"
    ),
    DefaultLimit("max_frames", 1, "frames per image", 1, "an animation is decoded frame by frame"),
    DefaultLimit(
        "max_duration_ms", 60_000, "milliseconds per sound", 1, "a minute of speech; longer ones are streamed"
    ),
    DefaultLimit("max_channels", 2, "channels per sound", 1, "mono or stereo"),
    DefaultLimit("max_sample_rate_hz", 192_000, "samples per second and channel", 1, "the most that recorders write"),
    DefaultLimit("max_characters", 1 << 18, "characters per text", 1, "a book's chapter fits"),
    DefaultLimit(
        "max_decoded_bytes",
        256 * MIB,
        "decoded bytes per input",
        1,
        "small files decode to large arrays: their sum counts",
    ),
)
"""Bounds of images, sounds and texts (``ImageInput``, ``AudioInput``, ``TextInput``)."""

CONTENT_BY_NAME = {row.name: row for row in CONTENT_DEFAULTS}

SEQUENCE_DEFAULTS: tuple[DefaultLimit, ...] = (
    DefaultLimit("max_sequences", 1024, "sequences at a time and instance", 1, "each keeps its state until it ends"),
    DefaultLimit("max_steps", 100_000, "requests per sequence", 1, "a sequence may go on without an end"),
    DefaultLimit(
        "max_state_bytes", 4 * MIB, "bytes of one sequence's state", 1, "times max_sequences is what all may keep"
    ),
    DefaultLimit(
        "max_idle_ms", 60_000, "milliseconds without a request", 1, "a client that is gone never ends its sequence"
    ),
)
"""Bounds of a model's sequences (``SequenceLimits``)."""

SEQUENCE_BY_NAME = {row.name: row for row in SEQUENCE_DEFAULTS}

TABLES: dict[str, tuple[DefaultLimit, ...]] = {
    "Limits": DEFAULTS,
    "BlsPolicy": BLS_DEFAULTS,
    "SequenceLimits": SEQUENCE_DEFAULTS,
    "ImageInput, AudioInput, TextInput": CONTENT_DEFAULTS,
}
"""All tables, by the declarations whose defaults they hold."""
