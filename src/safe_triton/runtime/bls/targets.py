"""One model that may be called, compiled: what is checked before a call leaves and when its answer comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from numpy import ndarray

from safe_triton.config import DTYPES, ModelConfig, TensorSpec
from safe_triton.errors import (
    BlsError,
    BlsOutputError,
    BlsUsageError,
    ConfigError,
    EnvironmentMissingError,
    OutputError,
)
from safe_triton.policy import Limits, OutputLimits, bound
from safe_triton.policy.bls import BlsPolicy, BlsTarget, BlsTensor
from safe_triton.validation.outputs import (
    OutputPlan,
    OutputRules,
    OutputsCheck,
    compile_output,
    compile_outputs_check,
    sent_bytes,
)
from safe_triton.validation.reader import LimitsReader
from safe_triton.validation.remembered import Remembered

MAX_REMEMBERED = 64
"""Combinations of names whose compiled check is kept."""

QUICK_S = 0.005
"""A call below that is a quick one: of a longer one, two switches of threads are half a hundredth."""

SETTLING_S = 20.0
"""After a start, no call is made in place for so long: a process that a late call ended cannot end so every moment."""

LONGEST_S = 1e9
"""A call without a time of its own; the caller's remaining time always bounds it."""

_BY_NAME = {dtype.name: dtype for dtype in DTYPES.values()}


class Side:
    """The inputs or the outputs of a target, and the checks of the combinations that were used.

    Args:
        specs: the declared tensors.
        config: the target's configuration; only its batch axis counts here.
        finite: names of tensors that may hold neither NaN nor infinity.
        max_bytes: bytes of all tensors of one call.

    Attributes:
        only: name and dtype, where there is but one and metadata alone decides; else ``None`` twice.
    """

    def __init__(
        self, specs: tuple[TensorSpec, ...], config: ModelConfig, finite: frozenset[str], max_bytes: int
    ) -> None:
        limits = LimitsReader(Limits(max_output_bytes=max_bytes))
        self._max_bytes = max_bytes
        self._is_batched = config.max_batch_size > 0
        self._checks: dict[tuple[str, ...], OutputsCheck] = {}
        self.plans: dict[str, OutputPlan] = {
            spec.name: compile_output(spec, config, OutputLimits(finite=spec.name in finite), limits) for spec in specs
        }
        self.required = tuple(spec.name for spec in specs if not spec.optional)
        self.find_dtype = (
            {}
            if any(plan.is_bytes or plan.finite for plan in self.plans.values())
            else {name: plan.dtype for name, plan in self.plans.items()}
        )
        self.only: tuple[str | None, Any] = (
            next(iter(self.find_dtype.items())) if len(self.find_dtype) == 1 else (None, None)
        )
        # From names and shapes that passed, where metadata alone decides, to rows and bytes.
        self.good: Remembered[tuple[Any, ...], tuple[int, int]] = Remembered()

    def check(self, arrays: dict[str, Any], rows: int) -> list[tuple[str, Any]]:
        """Check arrays against the plans of their names; presence is the caller's.

        Raises:
            OutputError: a name, dtype, shape, or too many bytes.
        """
        key = tuple(arrays)
        check = self._checks.get(key)
        if check is None:
            check = self._compile(key)
        return check(arrays, rows)

    def _compile(self, names: tuple[str, ...]) -> OutputsCheck:
        for name in names:
            if name not in self.plans:
                raise OutputError(f"output.unknown: '{str(name)[:64]}' is not declared")
        plans = {name: self.plans[name] for name in names}
        check = compile_outputs_check(OutputRules(plans=plans, max_output_bytes=self._max_bytes))
        if len(self._checks) < MAX_REMEMBERED:
            self._checks[names] = check
        return check

    def rows_of(self, arrays: Mapping[str, Any]) -> int:
        """Return the rows of the first array; 0 without a batch axis."""
        if not self._is_batched:
            return 0
        for array in arrays.values():
            shape = getattr(array, "shape", ())
            return int(shape[0]) if shape else 0
        return 0


class Target:
    """A compiled :class:`BlsTarget`.

    Args:
        name: the model's name.
        declared: its declaration.
        policy: bounds that all targets share.
        repository: the folder of all models, where ``"config"`` looks.
        tensor_class: ``pb_utils.Tensor``.
        spent: calls and seconds, for the metrics.

    Attributes:
        spent: calls and seconds so far.
        quick_calls: calls in a row that were quick.
        in_place_from_s: from when on calls may be made in place, as ``monotonic()`` counts.

    Raises:
        ConfigError: reason ``config.target``; the target's config.pbtxt cannot be read from this process.
    """

    def __init__(
        self,
        name: str,
        declared: BlsTarget,
        policy: BlsPolicy,
        repository: Path,
        tensor_class: Callable[..., Any],
        spent: list[float],
    ) -> None:
        config, finite = _config_of(name, declared, repository)
        max_bytes = bound(policy.max_bytes)
        self.name, self.version = name, declared.version
        self.key = f"{name}:{declared.version}"
        self.timeout_s = LONGEST_S if isinstance(declared.timeout_ms, str) else declared.timeout_ms / 1000
        self.max_rows = config.max_batch_size
        self.inputs = Side(config.inputs, config, finite, max_bytes)
        self.outputs = Side(config.outputs, config, finite, max_bytes)
        self.output_names = list(self.outputs.plans)
        self.find_input_dtype, self.find_output_dtype = self.inputs.find_dtype.get, self.outputs.find_dtype.get
        self.find_good_inputs, self.find_good_outputs = self.inputs.good.get, self.outputs.good.get
        self.spent = spent
        self._tensor_class = tensor_class
        self.quick_calls = 0
        self.in_place_from_s = inf if self.timeout_s < LONGEST_S else monotonic() + SETTLING_S

    def note_call(self, took_s: float) -> None:
        """Count a call and its seconds."""
        self.spent[0] += 1
        self.spent[1] += took_s
        self.quick_calls = self.quick_calls + 1 if took_s < QUICK_S else 0

    def tensors_of(self, inputs: Any) -> tuple[list[Any], int, int]:
        """Turn what the author sends into Triton's tensors.

        Args:
            inputs: arrays, or tensors of Triton's that stay as they are, by name.

        Returns:
            The tensors, the rows of the call, and its bytes.

        Raises:
            BlsUsageError: it is not what this target's declaration says.
        """
        if type(inputs) is not dict:
            raise BlsUsageError(f"bls.usage: inputs of '{self.name}' are a dict of arrays, not {type(inputs).__name__}")
        tensor_class = self._tensor_class
        find_dtype = self.find_input_dtype
        key: list[Any] = []
        for name, array in inputs.items():
            if type(array) is not ndarray or array.dtype is not find_dtype(name):
                break
            key += name, array.shape
        else:
            known = self.find_good_inputs(tuple(key))
            if known is not None:
                return [tensor_class(name, array) for name, array in inputs.items()], *known
        kept = {} if tensor_class not in set(map(type, inputs.values())) else self._kept(inputs)
        arrays = inputs if not kept else {name: value for name, value in inputs.items() if name not in kept}
        for name, value in kept.items():
            if value.is_cpu():
                arrays[name] = value.as_numpy()
        rows = self.inputs.rows_of(arrays)
        if rows > self.max_rows:
            raise BlsUsageError(f"bls.usage: {rows} rows for '{self.name}', which takes {self.max_rows}")
        try:
            checked = self.inputs.check(arrays, rows)
        except OutputError as error:
            raise self._reworded(error, BlsUsageError, "inputs") from None
        for name in self.inputs.required:
            if name not in inputs:
                raise BlsUsageError(f"bls.usage: input '{name}' of '{self.name}' is missing")
        tensors = [kept[name] if name in kept else tensor_class(name, array) for name, array in checked]
        tensors += [value for name, value in kept.items() if name not in arrays]
        sent = sum([sent_bytes(array) for _, array in checked])
        if len(key) == 2 * len(inputs):
            self.inputs.good.note(tuple(key), (rows, sent))
        return tensors, rows, sent

    def _kept(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the values that are Triton's own tensors, which stay as they are, on a GPU too."""
        kept = {name: value for name, value in inputs.items() if type(value) is self._tensor_class}
        for name, value in kept.items():
            if name not in self.inputs.plans or value.name() != name:
                raise BlsUsageError(f"bls.usage: '{str(name)[:64]}' is no input of '{self.name}', or has another name")
        return kept

    def outputs_of(self, response: Any, rows: int, wanted: list[str]) -> tuple[dict[str, Any], int]:
        """Turn an answer into arrays by name; a tensor in a GPU's memory stays Triton's own.

        Raises:
            BlsOutputError: it is not what this target's declaration says.
        """
        outputs: dict[str, Any] = {}
        on_gpu: dict[str, Any] = {}
        find_dtype = self.find_output_dtype
        key: list[Any] = [rows]
        tensors = response.output_tensors()
        for tensor in tensors:
            name = tensor.name()
            if not tensor.is_cpu():
                on_gpu[name] = tensor
                continue
            array = outputs[name] = tensor.as_numpy()
            if array.dtype is find_dtype(name):
                key += name, array.shape
        is_plain = wanted is self.output_names and len(key) == 1 + 2 * len(tensors) == 1 + 2 * len(outputs)
        if is_plain and len(outputs) == len(wanted):
            known = self.find_good_outputs(tuple(key))
            if known is not None:
                return outputs, known[1]
        if len(outputs) + len(on_gpu) != len(tensors):
            raise BlsOutputError(f"bls.output: '{self.name}' returned an output twice")
        for name in wanted:
            if name not in outputs and name not in on_gpu:
                raise BlsOutputError(f"bls.output: '{self.name}' did not return '{name}'")
        if len(tensors) != len(wanted):
            raise BlsOutputError(f"bls.output: '{self.name}' returned {len(tensors)} outputs, not {len(wanted)}")
        try:
            checked = self.outputs.check(outputs, rows) if outputs else []
        except OutputError as error:
            raise self._reworded(error, BlsOutputError, "outputs") from None
        received = sum([sent_bytes(array) for _, array in checked])
        if is_plain:
            self.outputs.good.note(tuple(key), (rows, received))
        return {**dict(checked), **on_gpu}, received

    def wanted(self, outputs: Any) -> list[str]:
        """Return the names that a call asks for.

        Raises:
            BlsUsageError: a name that the declaration does not have, or none at all.
        """
        names = list(dict.fromkeys(outputs))
        for name in names:
            if name not in self.outputs.plans:
                raise BlsUsageError(f"bls.usage: '{str(name)[:64]}' is no declared output of '{self.name}'")
        if not names or isinstance(outputs, str):
            raise BlsUsageError(f"bls.usage: outputs of '{self.name}' are a list of names")
        return names

    def _reworded(self, error: OutputError, kind: type[BlsError], side: str) -> BlsError:
        """Return what the check of tensors found, as what it means for a call."""
        _, _, detail = error.message.partition(": ")
        detail, _, place = detail.partition(" at outputs")
        return kind(f"{kind.default_reason}: {detail} at {side}{place} of '{self.name}'")


def _config_of(name: str, declared: BlsTarget, repository: Path) -> tuple[ModelConfig, frozenset[str]]:
    if declared.is_from_config:
        return _read_config(name, repository), frozenset()
    inputs, outputs = dict(declared.inputs), dict(declared.outputs)  # type: ignore[arg-type]  # no "config" here
    config = ModelConfig(
        name=name,
        max_batch_size=declared.max_batch_size,
        inputs=tuple(_spec(key, tensor) for key, tensor in inputs.items()),
        outputs=tuple(_spec(key, tensor) for key, tensor in outputs.items()),
    )
    both = [*inputs.items(), *outputs.items()]
    return config, frozenset(key for key, tensor in both if tensor.finite)


def _spec(name: str, tensor: BlsTensor) -> TensorSpec:
    return TensorSpec(name=name, dtype=_BY_NAME[tensor.dtype], dims=tensor.dims, optional=tensor.optional)


def _read_config(name: str, repository: Path) -> ModelConfig:
    from dataclasses import replace

    from safe_triton.config.pbtxt import read_pbtxt  # needs protobuf

    try:
        values = {**read_pbtxt(repository / name / "config.pbtxt"), "name": name}
    except (ConfigError, EnvironmentMissingError):
        raise ConfigError(
            f"config.target: config.pbtxt of '{name}' cannot be read by this model; declare the inputs and outputs in"
            f' BlsTarget, or let the operator grant read = ["{{repository}}/{name}/config.pbtxt"]',
            reason="config.target",
        ) from None
    config = ModelConfig.from_dict(values)
    # What travels between models has config.pbtxt's dims; a reshape is the called model's own view.
    outside = {
        kind: tuple(replace(spec, reshape=None) for spec in getattr(config, kind)) for kind in ("inputs", "outputs")
    }
    return replace(config, inputs=outside["inputs"], outputs=outside["outputs"])
