"""``compile_plan``: from the declared limits and config.pbtxt to one immutable object that the request path uses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from safe_triton.config import ModelConfig
from safe_triton.errors import ConfigError, PolicyError
from safe_triton.policy import InputLimits, Limits, OutputLimits, bound
from safe_triton.validation.inputs import InputPlan, compile_input
from safe_triton.validation.outputs import OutputPlan, OutputRules, OutputsCheck, compile_output, compile_outputs_check
from safe_triton.validation.parameters import ParametersCheck, compile_parameters
from safe_triton.validation.reader import LimitsReader
from safe_triton.validation.requests import PlainSignature, RequestCheck, RequestRules, compile_request_check

DEFAULT_INPUT = InputLimits()
DEFAULT_OUTPUT = OutputLimits()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything the request path needs, compiled at load; nothing is looked up afterwards.

    Args:
        config: the model's configuration.
        inputs: the inputs' plans by name.
        outputs: the outputs' plans by name.
        check_request: one request to its arrays by name; raises :class:`RequestError`.
        plain: set where metadata alone decides; then a form may do both checks in its own loop.
        check_outputs: the author's outputs and the request's rows to ``(name, array)`` pairs; raises
            :class:`OutputError`.
        check_parameters: JSON text of the parameters to a dict; raises :class:`RequestError`.
        caller_due: one element, set by ``check_request``: when the guarded model that sent the request wants its
            answer, as ``monotonic()`` counts; 0.0 where none did. Whoever reads it sets it back.
        max_batch_rows: rows per request; 0 without a batch axis.
        max_output_bytes: bytes of all outputs of one response.
        max_responses: responses of one request of a decoupled model.
        max_stream_bytes: bytes of all responses of one request of a decoupled model.
        stream_deadline_s: seconds that all responses of one request of a decoupled model may take.
        deadline_s: soft deadline of one call of the author's code, in seconds.
        hard_deadline_s: seconds after which the process is ended.
        load_deadline_s: seconds that ``load()`` may take.
    """

    config: ModelConfig
    inputs: dict[str, InputPlan]
    outputs: dict[str, OutputPlan]
    check_request: RequestCheck
    plain: PlainSignature | None
    check_outputs: OutputsCheck
    check_parameters: ParametersCheck
    caller_due: list[float]
    max_batch_rows: int
    max_output_bytes: int
    max_responses: int
    max_stream_bytes: int
    stream_deadline_s: float
    deadline_s: float
    hard_deadline_s: float
    load_deadline_s: float


def compile_plan(limits: Limits, config: ModelConfig, *, allows_unseen: bool = False) -> Plan:
    """Compile the declared limits and the model's configuration into a plan. Pure: no side effect, no kernel.

    Args:
        limits: what the model declares; fields left out hold their finite defaults.
        config: the model's configuration.
        allows_unseen: whether tensors that numpy cannot have are planned by their shapes; only for a request path
            that reads none of their values.

    Raises:
        PolicyError: a declaration that is wrong, names what the model does not have, or that config.pbtxt
            contradicts; both numbers are in the message.
        ConfigError: a configuration that cannot be served.
    """
    if limits.problem is not None:
        raise limits.problem
    for kind, specs in (("inputs", config.inputs), ("outputs", config.outputs)):
        if not specs:
            raise ConfigError(f"config.missing: config.pbtxt declares no {kind}", reason="config.missing")
    reader = LimitsReader(limits)
    input_rules = reader.take("inputs")
    output_rules = reader.take("outputs")
    _check_named("inputs", input_rules, [spec.name for spec in config.inputs])
    _check_named("outputs", output_rules, [spec.name for spec in config.outputs])
    max_batch_rows = _batch_rows(reader.take("max_batch_size"), config)
    inputs = {
        spec.name: compile_input(
            spec,
            config,
            input_rules.get(spec.name, DEFAULT_INPUT),
            reader,
            max_batch_rows,
            allows_unseen=allows_unseen,
        )
        for spec in config.inputs
    }
    outputs = {
        spec.name: compile_output(
            spec, config, output_rules.get(spec.name, DEFAULT_OUTPUT), reader, allows_unseen=allows_unseen
        )
        for spec in config.outputs
    }
    reader.check_applied("max_sequence_length", "set InputLimits(sequence_axis=…) for the input that has one")
    for name in ("max_strings", "max_string_bytes"):
        reader.check_applied(name, "no input is BYTES")
    if not config.is_decoupled:
        for name in ("max_responses", "max_stream_bytes", "stream_deadline_ms"):
            reader.check_applied(name, "only a decoupled model has more than one response to a request")
    max_inputs = bound(reader.take("max_inputs"))
    required = sum(not plan.optional for plan in inputs.values())
    if required > max_inputs:
        raise PolicyError(
            f"policy.conflict: max_inputs {max_inputs} is below the {required} inputs that config.pbtxt requires",
            reason="policy.conflict",
        )
    max_request_bytes = bound(reader.take("max_request_bytes"))
    _check_request_bytes(config, max_request_bytes)
    parameters = reader.take("parameters")
    max_parameters = reader.take("max_parameters")
    reader.take("max_parameter_bytes")
    needed = 0 if isinstance(parameters, str) else sum(rule.required for rule in parameters.values())
    if needed > bound(max_parameters):
        raise PolicyError(
            f"policy.conflict: max_parameters {max_parameters} is below the {needed} parameters declared as required",
            reason="policy.conflict",
        )
    caller_due = [0.0]
    max_output_bytes = bound(reader.take("max_output_bytes"))
    deadline_s = bound(reader.take("deadline_ms")) / 1000
    _check_output_bytes(config, max_output_bytes)
    rules = RequestRules(
        plans=inputs,
        server_inputs=config.server_inputs,
        check_parameters=compile_parameters(limits, caller_due),
        parameters_required=needed > 0,
        max_inputs=max_inputs,
        max_request_bytes=max_request_bytes,
        max_id_length=bound(reader.take("max_id_length")),
    )
    plan = Plan(
        config=config,
        inputs=inputs,
        outputs=outputs,
        check_request=compile_request_check(rules),
        plain=_plain_signature(rules, outputs),
        check_outputs=compile_outputs_check(OutputRules(plans=outputs, max_output_bytes=max_output_bytes)),
        check_parameters=compile_parameters(limits),
        caller_due=caller_due,
        max_batch_rows=max_batch_rows,
        max_output_bytes=max_output_bytes,
        max_responses=bound(reader.take("max_responses")),
        max_stream_bytes=bound(reader.take("max_stream_bytes")),
        stream_deadline_s=bound(reader.take("stream_deadline_ms")) / 1000,
        deadline_s=deadline_s,
        hard_deadline_s=deadline_s + bound(reader.take("hard_deadline_grace_ms")) / 1000,
        load_deadline_s=bound(reader.take("load_deadline_ms")) / 1000,
    )
    reader.check_all_taken()
    return plan


def _plain_signature(rules: RequestRules, outputs: dict[str, OutputPlan]) -> PlainSignature | None:
    if len(rules.plans) != 1 or len(outputs) != 1 or rules.server_inputs or rules.reads_correlation_id:
        return None
    (given,), (returned,) = rules.plans.values(), outputs.values()
    if given.is_bytes or given.payload or returned.is_bytes or returned.finite:
        return None
    return PlainSignature(
        input_name=given.name,
        input_dtype=given.dtype,
        output_name=returned.name,
        output_dtype=returned.dtype,
        max_id_length=rules.max_id_length,
        trivial_parameters=rules.longest_trivial_parameters,
    )


def _check_named(kind: str, rules: Any, known: list[str]) -> None:
    for name in rules:
        if name not in known:
            raise PolicyError(
                f"policy.unknown_tensor: Limits.{kind} names '{name}'; config.pbtxt has {', '.join(known) or 'none'}",
                reason="policy.unknown_tensor",
            )


def _check_request_bytes(config: ModelConfig, max_request_bytes: int) -> None:
    least = sum(
        math.prod(spec.model_dims) * spec.dtype.itemsize
        for spec in config.inputs
        if not spec.optional and all(size >= 0 for size in spec.model_dims)
    )
    if least > max_request_bytes:
        raise PolicyError(
            f"policy.conflict: max_request_bytes {max_request_bytes} is below the {least} that config.pbtxt"
            " fixes for all inputs",
            reason="policy.conflict",
        )


def _check_output_bytes(config: ModelConfig, max_output_bytes: int) -> None:
    fixed = [spec for spec in config.outputs if all(size >= 0 for size in spec.model_dims)]
    least = sum(math.prod(spec.model_dims) * spec.dtype.itemsize for spec in fixed)
    if least > max_output_bytes:
        raise PolicyError(
            f"policy.conflict: max_output_bytes {max_output_bytes} is below the {least} that config.pbtxt"
            " fixes for all outputs",
            reason="policy.conflict",
        )


def _batch_rows(declared: Any, config: ModelConfig) -> int:
    """Return the rows per request, 0 without a batch axis; a declaration above config.pbtxt's can never be reached."""
    in_config = config.max_batch_size
    if declared == "config":
        return in_config
    rows = bound(declared)
    if isinstance(declared, int) and rows > max(in_config, 1):
        raise PolicyError(
            f"policy.conflict: max_batch_size {rows} is above config.pbtxt's max_batch_size {in_config}",
            reason="policy.conflict",
        )
    return min(rows, in_config)
