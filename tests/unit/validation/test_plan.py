"""``compile_plan``: pure, complete, and in agreement with config.pbtxt or refused."""

from __future__ import annotations

import collections
import dataclasses
import re
import sys
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from safe_triton import InputLimits, Limits, OutputLimits, ParameterLimits, unsafe
from safe_triton.config import ModelConfig
from safe_triton.errors import (
    ConfigError,
    EnvironmentMissingError,
    OutputError,
    PolicyError,
    RequestError,
    SafeTritonError,
)
from safe_triton.validation import Plan, compile_plan
from safe_triton.validation.reader import LimitsReader
from safe_triton.validation.remembered import MAX_REMEMBERED

Array = np.ndarray[Any, Any]


class Tensor:
    """What the plan uses of a tensor; counts how often the payload could have been read."""

    def __init__(self, name: str, array: Array) -> None:
        self._name = name
        self._array = array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Array:
        return self._array


class Request:
    """What the plan uses of a request."""

    def __init__(self, *tensors: Tensor, parameters: str = "{}", request_id: str = "", correlation_id: Any = 0) -> None:
        self._values = (list(tensors), parameters, request_id, correlation_id)

    def inputs(self) -> list[Tensor]:
        return self._values[0]

    def parameters(self) -> str:
        return self._values[1]

    def request_id(self) -> str:
        return self._values[2]

    def correlation_id(self) -> Any:
        return self._values[3]


class Unreadable(np.ndarray[Any, Any]):
    """An array whose metadata can be asked for and whose payload cannot."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the payload was read")

    __array_ufunc__ = __array_function__ = __getitem__ = __iter__ = tobytes = tolist = ravel = min = max = _refuse


def tensor_config(name: str, dims: list[int], dtype: str = "FP32", **extra: Any) -> dict[str, Any]:
    return {"name": name, "data_type": f"TYPE_{dtype}", "dims": dims, **extra}


def config(*inputs: dict[str, Any], outputs: Any = None, batch: int = 8, **extra: Any) -> ModelConfig:
    return ModelConfig.from_dict(
        {
            "name": "m",
            "max_batch_size": batch,
            "input": list(inputs or [tensor_config("X", [-1])]),
            "output": outputs or [tensor_config("Y", [-1])],
            **extra,
        }
    )


def refusal(plan: Plan, *tensors: Tensor, **options: Any) -> str:
    with pytest.raises(RequestError) as raised:
        plan.check_request(Request(*tensors, **options))
    assert raised.value.code == "INVALID_ARG"
    return raised.value.message


def zeros(*shape: int, dtype: str = "f4") -> Array:
    return np.zeros(shape, dtype)


class TestCompletePlan:
    """A declared limit cannot go unchecked."""

    def test_every_field_is_consumed(self) -> None:
        """The compiler reads every field of the declaration."""
        reader = LimitsReader(Limits())
        for field in dataclasses.fields(Limits)[1:]:
            reader.take(field.name)
        with pytest.raises(PolicyError, match="nothing enforces max_batch_size"):
            reader.check_all_taken()

    def test_a_new_field_without_a_check_fails_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A field that the compiler does not know is an error, not a silent default."""
        extended = dataclasses.make_dataclass(
            "Limits", [("max_colours", int, 3)], bases=(Limits,), frozen=True, kw_only=True
        )
        with pytest.raises(PolicyError, match="nothing enforces max_colours"):
            compile_plan(extended(), config())

    def test_a_limit_that_bounds_nothing_is_refused(self) -> None:
        """``max_sequence_length`` on a model without such an axis says what to set."""
        with pytest.raises(PolicyError, match=r"policy\.unused: max_sequence_length .*sequence_axis"):
            compile_plan(Limits(max_sequence_length=8), config(tensor_config("X", [])))
        with pytest.raises(PolicyError, match=r"policy\.conflict: max_sequence_length .*sequence_axis=0"):
            compile_plan(Limits(max_sequence_length=8), config(batch=0))
        with pytest.raises(PolicyError, match=r"policy\.unused: max_strings .* no input is BYTES"):
            compile_plan(Limits(max_strings=8), config())
        limits = Limits(max_sequence_length=8, inputs={"X": InputLimits(sequence_axis=0)})
        assert compile_plan(limits, config(batch=0)).inputs["X"].sequence_axis == 0

    def test_without_a_declaration_config_alone_is_checked(self) -> None:
        """Names, dtypes, rank, fixed dims, optional inputs and batch come from config.pbtxt."""
        plan = compile_plan(Limits(), config(tensor_config("X", [-1, 3]), tensor_config("Z", [2], optional=True)))
        good = Tensor("X", zeros(8, 5, 3))
        assert list(plan.check_request(Request(good))) == ["X"]
        assert refusal(plan) == "input.missing: 'X' is required"
        assert refusal(plan, good, Tensor("Q", zeros(1))) == "input.unknown: 'Q' is no input of this model"
        assert refusal(plan, good, good) == "input.duplicate: 'X' came twice"
        assert (
            refusal(plan, Tensor("X", zeros(1, 5, 3, dtype="f8"))) == "input.dtype: FP64, expected FP32 at inputs['X']"
        )
        assert refusal(plan, Tensor("X", zeros(1, 5))) == "input.rank: 2 axes, expected 3 at inputs['X'].shape"
        assert refusal(plan, Tensor("X", zeros(1, 5, 4))) == "input.shape: 4, expected 3 at inputs['X'].shape[2]"
        assert refusal(plan, Tensor("X", zeros(9, 5, 3))) == "limit.batch_size: 9 > 8 at inputs['X'].shape[0]"
        assert refusal(plan, Tensor("X", zeros(0, 5, 3))) == "input.batch: no rows at inputs['X'].shape[0]"
        assert refusal(plan, good, Tensor("Z", zeros(7, 2))).startswith("input.batch: 7 rows, other inputs have 8")

    def test_server_inputs_pass(self) -> None:
        """Sequence controls are Triton's own inputs."""
        sequences = {"control_input": [{"name": "START"}]}
        plan = compile_plan(Limits(), config(sequence_batching=sequences))
        arrays = plan.check_request(Request(Tensor("X", zeros(1, 2)), Tensor("START", zeros(1, 1))))
        assert list(arrays) == ["X", "START"]


class TestConflicts:
    """Limits in conflict with config.pbtxt are an error at load that names both numbers."""

    @pytest.mark.parametrize(
        ("limits", "model", "pattern"),
        [
            (Limits(max_batch_size=16), config(), r"policy\.conflict: max_batch_size 16 is above config\.pbtxt's max_batch_size 8"),
            (Limits(max_batch_size=2), config(batch=0), r".* 2 is above config\.pbtxt's max_batch_size 0"),
            (Limits(max_input_bytes=8), config(tensor_config("X", [4])), r".*max_input_bytes 8 is below the 16 .*in one row"),
            (Limits(max_elements=3), config(tensor_config("X", [4])), r".*max_elements 3 is below the 4 that config\.pbtxt fixes.*"),
            (Limits(max_strings=3), config(tensor_config("X", [4], "STRING")), r".*max_strings 3 is below the 4 .*"),
            (Limits(max_request_bytes=20), config(tensor_config("A", [4]), tensor_config("B", [4])),
             r".*max_request_bytes 20 is below the 32 .*"),
            (Limits(max_sequence_length=3), config(tensor_config("X", [4])), r".*max_sequence_length 3 is below the 4 .* axis 1 .*"),
            (Limits(max_inputs=1), config(tensor_config("A", [1]), tensor_config("B", [1])), r".*max_inputs 1 is below the 2 .*"),
            (Limits(max_output_bytes=8), config(outputs=[tensor_config("Y", [4])]), r".*max_output_bytes 8 is below the 16 .*"),
            (Limits(inputs={"Q": InputLimits()}), config(), r"policy\.unknown_tensor: Limits\.inputs names 'Q'; config\.pbtxt has X"),
            (Limits(outputs={"Q": OutputLimits()}), config(), r"policy\.unknown_tensor: Limits\.outputs names 'Q'.* has Y"),
            (Limits(inputs={"X": InputLimits(finite=True)}), config(tensor_config("X", [1], "INT32")), r".*finite is declared .* INT32"),
            (Limits(inputs={"X": InputLimits(minimum=0)}), config(tensor_config("X", [1], "STRING")), r".*minimum/maximum .* BYTES"),
            (Limits(inputs={"X": InputLimits(utf8=True)}), config(), r".*utf8 is declared .* FP32"),
            (Limits(inputs={"X": InputLimits(schema=BaseModel)}), config(), r".*schema is declared .* FP32"),
            (Limits(inputs={"X": InputLimits(schema=int)}), config(tensor_config("X", [1], "STRING")), r".*must be a pydantic model.*"),
            (Limits(inputs={"X": InputLimits(sequence_axis=5)}), config(), r".*sequence_axis 5 .* which has 2 axes"),
            (Limits(outputs={"Y": OutputLimits(finite=True)}), config(outputs=[tensor_config("Y", [1], "INT8")]), r".*INT8"),
            (Limits(max_output_bytes=20), config(outputs=[tensor_config("Y", [4]), tensor_config("Z", [4])]), r".*20 is below the 32 .* all outputs"),
            (Limits(inputs={"X": InputLimits(max_strings=3)}), config(), r".*max_strings is declared .* FP32"),
            (Limits(max_parameters=0, parameters={"t": ParameterLimits(required=True)}), config(), r".*max_parameters 0 .* 1 .*"),
        ],
    )  # fmt: skip
    def test_names_both_sides(self, limits: Limits, model: ModelConfig, pattern: str) -> None:
        """One line with the declared and the configured number."""
        with pytest.raises(PolicyError) as raised:
            compile_plan(limits, model)
        assert re.fullmatch(pattern, raised.value.message)

    @pytest.mark.parametrize(
        "model",
        [
            config(tensor_config("X", [1], "BF16")),
            config(outputs=[tensor_config("Y", [1], "BF16")]),
            ModelConfig.from_dict({"name": "m", "output": [tensor_config("Y", [1])]}),
            ModelConfig.from_dict({"name": "m", "input": [tensor_config("X", [1])]}),
        ],
    )
    def test_what_cannot_be_served_is_refused(self, model: ModelConfig) -> None:
        """Types that numpy cannot hold, and models without inputs or outputs."""
        with pytest.raises(ConfigError):
            compile_plan(Limits(), model)

    def test_an_axis_that_is_no_sequence_can_say_so(self) -> None:
        """A fixed axis 1 beside a declared sequence length is a word away from loading."""
        model = config(tensor_config("X", [-1]), tensor_config("F", [1024]))
        limits = Limits(max_sequence_length=16, inputs={"F": InputLimits(sequence_axis="none")})
        assert compile_plan(limits, model).inputs["F"].sequence_axis == -1


class TestMetadataFirst:
    """A refused request's payload is never read."""

    @pytest.mark.parametrize(
        "array",
        [zeros(9, 2), zeros(1, 2, dtype="f8"), zeros(1, 2, 2), zeros(1, 9), zeros(2, 8)],
        ids=lambda array: str(array.shape),
    )
    def test_metadata_refuses_without_a_look_at_the_payload(self, array: Array) -> None:
        """Checks that metadata decides come before those that need content."""
        limits = Limits(max_sequence_length=8, max_elements=12, inputs={"X": InputLimits(finite=True, minimum=0)})
        plan = compile_plan(limits, config())
        refusal(plan, Tensor("X", array.view(Unreadable)))

    def test_an_accepted_shape_is_remembered_within_bounds(self) -> None:
        """No traffic can make the memory of accepted shapes grow."""
        plan = compile_plan(Limits(), config(batch=0))
        for length in range(MAX_REMEMBERED * 3):
            plan.check_request(Request(Tensor("X", zeros(length + 1))))
        held = [cell.cell_contents for cell in plan.check_request.__closure__ or ()]
        assert max(len(value) for value in held if isinstance(value, dict)) <= MAX_REMEMBERED

    def test_a_request_without_its_only_input(self) -> None:
        """An optional input that was left out is no shape to remember."""
        plan = compile_plan(Limits(), config(tensor_config("X", [-1], optional=True)))
        for _ in range(2):
            assert plan.check_request(Request()) == {}

    def test_inputs_count_together(self) -> None:
        """Each is within its own bound, and one more byte of both is above the request's."""
        plan = compile_plan(Limits(max_request_bytes=64), config(tensor_config("X", [-1]), tensor_config("Z", [-1])))
        assert plan.check_request(Request(Tensor("X", zeros(1, 8)), Tensor("Z", zeros(1, 8))))
        message = refusal(plan, Tensor("X", zeros(1, 8)), Tensor("Z", zeros(1, 9)))
        assert message == "limit.request_bytes: 68 > 64 at inputs"

    def test_a_remembered_shape_is_not_remembered_for_another_type(self) -> None:
        """The same shape with another dtype or name is checked anew."""
        for model in (config(), config(tensor_config("X", [-1]), tensor_config("Z", [-1], optional=True))):
            plan = compile_plan(Limits(), model)
            plan.check_request(Request(Tensor("X", zeros(1, 2))))
            assert refusal(plan, Tensor("X", zeros(1, 2, dtype="i4"))).startswith("input.dtype")
            assert refusal(plan, Tensor("Q", zeros(1, 2))).startswith("input.unknown")

    def test_byte_order_is_part_of_the_type(self) -> None:
        """Big-endian floats are another type."""
        plan = compile_plan(Limits(), config())
        assert refusal(plan, Tensor("X", np.zeros((1, 2), ">f4"))).startswith("input.dtype")


class TestSchemas:
    """JSON texts are bounded in size and in the number of errors that are described."""

    class Numbers(BaseModel):
        numbers: list[int]

    def plan(self, **rules: Any) -> Plan:
        limits = Limits(inputs={"X": InputLimits(schema=self.Numbers, **rules)})
        return compile_plan(limits, config(tensor_config("X", [1], "STRING")))

    def text(self, body: str) -> Tensor:
        array = np.empty((1, 1), object)
        array[0, 0] = body.encode()
        return Tensor("X", array)

    def test_many_errors_are_only_counted(self) -> None:
        """A client chooses how many there are; describing each would take memory."""
        message = refusal(self.plan(), self.text('{"numbers": [' + ",".join(['""'] * 500) + "]}"))
        assert message == "content.json: 500 errors at inputs['X'][0][0]"

    def test_a_text_has_a_smaller_default(self) -> None:
        """1 MiB, unless the declaration says otherwise."""
        long = self.text('{"numbers": [' + "1," * 600_000 + "1]}")
        assert refusal(self.plan(), long).startswith("limit.string_bytes: 12000")
        assert self.plan(max_string_bytes=1 << 21).check_request(Request(long))

    def test_without_pydantic(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A schema that nothing could check fails at load."""
        monkeypatch.setitem(sys.modules, "pydantic", None)
        with pytest.raises(EnvironmentMissingError, match="a schema needs the package pydantic"):
            self.plan()


class TestRanges:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (0.0, ""),
            (1.0, ""),
            (1.5, "content.range: a value outside [0.0, 1.0] at inputs['X']"),
            (np.nan, "content.not_finite: NaN at inputs['X']"),
        ],
    )
    def test_at_the_bounds_and_beyond(self, value: float, message: str) -> None:
        """NaN lies nowhere, and is called by its name."""
        plan = compile_plan(Limits(inputs={"X": InputLimits(minimum=0.0, maximum=1.0)}), config())
        tensor = Tensor("X", np.array([[0.5, value]], "f4"))
        if message:
            assert refusal(plan, tensor) == message
        else:
            assert plan.check_request(Request(tensor))


class TestParameters:
    """Request parameters are bounded before they are parsed."""

    def test_bytes_that_are_no_text(self) -> None:
        """Triton hands over whatever the client sent: reading it fails, which is the client's mistake."""

        class Undecodable(Request):
            def request_id(self) -> str:
                return b"\xff".decode()

        plan = compile_plan(Limits(), config(tensor_config("X", [-1]), tensor_config("Z", [-1], optional=True)))
        with pytest.raises(RequestError, match=r"^request\.utf8: no UTF-8 in an id or a parameter"):
            plan.check_request(Undecodable(Tensor("X", zeros(1, 1))))

    def test_an_endless_text_is_not_parsed(self) -> None:
        """A text that cannot be within the limits is refused by its length."""
        plan = compile_plan(Limits(max_parameters=1, max_parameter_bytes=16), config())
        message = refusal(plan, Tensor("X", zeros(1, 1)), parameters="[" * 10_000)
        assert message.startswith("limit.parameter_bytes: 10000 >")

    def test_a_name_that_comes_twice_is_counted_twice(self) -> None:
        """Merged into a dict, any number of parameters would be one."""
        plan = compile_plan(Limits(max_parameters=2), config())
        many = "{" + ",".join(['"a": 1'] * 3) + "}"
        assert refusal(plan, Tensor("X", zeros(1, 1)), parameters=many) == "limit.parameters: 3 > 2 at parameters"
        assert refusal(plan, Tensor("X", zeros(1, 1)), parameters='{"a": 1, "a": 2}').startswith("parameter.duplicate")

    def test_half_a_character_is_counted(self) -> None:
        """JSON can hold a lone surrogate, which is no UTF-8."""
        assert compile_plan(Limits(), config()).check_parameters('{"a": "\\ud800"}') == {"a": "\ud800"}

    def test_required_parameters_are_missed(self) -> None:
        """Also in a request without any parameter."""
        plan = compile_plan(Limits(parameters={"t": ParameterLimits(type=float, required=True)}), config())
        tensor = Tensor("X", zeros(1, 1))
        assert refusal(plan, tensor) == "parameter.missing: required at parameters['t']"
        assert refusal(plan, tensor, parameters="") == "parameter.missing: required at parameters['t']"
        assert plan.check_parameters('{"t": 1}') == {"t": 1}

    def test_a_long_name_is_cut(self) -> None:
        """A client's own name comes back bounded."""
        plan = compile_plan(Limits(parameters={}), config())
        name = "n" * 500
        message = refusal(plan, Tensor("X", zeros(1, 1)), parameters=f'{{"{name}": 1}}')
        assert len(message) < 200


class TestOutputs:
    """What the author returned is checked as strictly, and blamed on the model."""

    def reason(self, plan: Plan, outputs: Any, rows: int = 1) -> str:
        with pytest.raises(OutputError) as raised:
            plan.check_outputs(outputs, rows)
        return raised.value.reason

    @pytest.mark.parametrize("count", [1, 2])
    def test_every_break_has_a_reason(self, count: int) -> None:
        """Type, names, presence, dtype, rank, fixed dims, batch."""
        outputs = [tensor_config("Y", [-1, 2]), tensor_config("Z", [1])][:count]
        plan = compile_plan(Limits(), config(outputs=outputs))
        good = {"Y": zeros(1, 3, 2), "Z": zeros(1, 1)}
        good = {name: good[name] for name in ("Y", "Z")[:count]}
        for _ in range(2):  # the second time from memory
            assert [name for name, _ in plan.check_outputs(good, 1)] == list(good)
        assert self.reason(plan, None) == "output.type"
        assert self.reason(plan, {}) == "output.missing"
        assert self.reason(plan, {**good, "Q": 1}) == "output.unknown"
        assert self.reason(plan, {**good, "Y": [1.0]}) == "output.type"
        assert self.reason(plan, {**good, "Y": zeros(1, 3, 2, dtype="f8")}) == "output.dtype"
        assert self.reason(plan, {**good, "Y": zeros(1, 3)}) == "output.shape"
        assert self.reason(plan, {**good, "Y": zeros(1, 3, 4)}) == "output.shape"
        assert self.reason(plan, {**good, "Y": zeros(2, 3, 2)}) == "output.batch"
        assert self.reason(plan, good, rows=2) == "output.batch"

    def test_bytes_count_what_is_sent(self) -> None:
        """A broadcast view counts with its size on the wire, several outputs count together."""
        plan = compile_plan(
            Limits(max_output_bytes=64), config(outputs=[tensor_config("Y", [-1]), tensor_config("Z", [-1])])
        )
        view = np.broadcast_to(np.float32(1), (1, 17))
        assert self.reason(plan, {"Y": view, "Z": zeros(1, 0)}) == "output.bytes"
        assert self.reason(plan, {"Y": zeros(1, 9), "Z": zeros(1, 8)}) == "output.bytes"
        assert plan.check_outputs({"Y": zeros(1, 8), "Z": zeros(1, 8)}, 1)

    def test_bytes_count_in_a_remembered_shape_too(self) -> None:
        """An output's shape says nothing about its strings: the second response is measured as the first."""
        plan = compile_plan(Limits(max_output_bytes=64), config(outputs=[tensor_config("Y", [-1], "STRING")]))
        assert plan.check_outputs({"Y": np.array([[b"a"]], object)}, 1)
        assert self.reason(plan, {"Y": np.array([[b"a" * 65]], object)}) == "output.bytes"

    def test_subclasses_of_arrays(self) -> None:
        """They are sent as what they hold: their own methods are never called."""

        class Hostile(np.ndarray[Any, Any]):
            @property  # type: ignore[misc]
            def shape(self) -> Any:
                raise AssertionError("the author's code ran inside the check")

        plan = compile_plan(Limits(), config())
        ((_, array),) = plan.check_outputs({"Y": zeros(1, 2).view(Hostile)}, 1)
        assert type(array) is np.ndarray

    def test_empty_strings_have_a_size_too(self) -> None:
        """Triton writes four bytes before each; a broadcast of them is refused before it is written out."""
        plan = compile_plan(Limits(max_output_bytes=400), config(outputs=[tensor_config("Y", [-1], "STRING")]))
        assert self.reason(plan, {"Y": np.broadcast_to(np.array([b""], object), (1, 1 << 40))}) == "output.bytes"

    def test_what_is_no_plain_value_is_refused(self) -> None:
        """Mappings, arrays and texts with methods of their own would run the author's code inside the check."""
        plan = compile_plan(Limits(), config(outputs=[tensor_config("Y", [-1], "STRING")]))
        text = type("Text", (str,), {})("a")
        assert self.reason(plan, {"Y": np.array([[text]], dtype=object)}) == "output.type"
        assert self.reason(plan, collections.UserDict(Y=zeros(1, 1))) == "output.type"

    def test_text_becomes_objects(self) -> None:
        """Arrays of str are what Triton's own serialiser does not take."""
        plan = compile_plan(Limits(), config(outputs=[tensor_config("Y", [-1], "STRING")]))
        ((_, array),) = plan.check_outputs({"Y": np.array([["ä", "b"]])}, 1)
        assert array.dtype == object
        assert self.reason(plan, {"Y": np.array([[1, "a"]], dtype=object)}) == "output.type"

    def test_not_finite(self) -> None:
        """A declared output rule reads the payload."""
        plan = compile_plan(Limits(outputs={"Y": OutputLimits(finite=True)}), config())
        assert plan.check_outputs({"Y": np.array([[3e38, 3e38]], np.float32)}, 1)
        assert self.reason(plan, {"Y": np.array([[np.inf]], np.float32)}) == "output.not_finite"


def test_a_problem_kept_in_the_stub_is_raised() -> None:
    """A declaration that could not raise at import raises when it is compiled."""
    limits = Limits()
    object.__setattr__(limits, "problem", PolicyError("policy.range: wrong"))
    with pytest.raises(PolicyError, match=r"policy\.range: wrong"):
        compile_plan(limits, config())


def test_a_token_takes_one_limit_away() -> None:
    """The named limit and no other."""
    limits = Limits(max_input_bytes=unsafe.Unlimited(reason="test"), max_elements=10)
    plan = compile_plan(limits, config())
    assert refusal(plan, Tensor("X", zeros(1, 11))).startswith("limit.elements")


def test_errors_are_this_packages() -> None:
    """Whatever a request holds, a refusal is a ``SafeTritonError``."""
    assert issubclass(RequestError, SafeTritonError)
