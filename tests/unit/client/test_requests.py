"""What a request may be before it leaves: values by pydantic, the rest by the model's own signature and local limits."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from pydantic import ValidationError

from safe_triton import InputLimits, Limits
from safe_triton.client import InferRequest, SequenceStep
from safe_triton.client.fake import metadata_of
from safe_triton.client.request import build_request
from safe_triton.client.signature import Signature, signature_from_config, signature_from_metadata, unknown_tensors
from safe_triton.errors import AnswerError, ClientUsageError, LimitExceededError, RequestError, SafeTritonError
from tests.unit.client.parts import DOUBLE, WORDS, rows, texts

EVERYTHING: dict[str, Any] = {
    "name": "all",
    "max_batch_size": 0,
    "input": [
        {"name": name, "data_type": f"TYPE_{name}", "dims": [-1], "optional": True}
        for name in (
            "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
            "BF16", "STRING",
        )
    ],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [1]}],
}  # fmt: skip


def request(model: str = "double", **values: Any) -> InferRequest:
    return build_request(**{"model": model, "inputs": {"X": rows()}, **values})


def signature(config: Any = DOUBLE, limits: Limits | None = None, *, from_metadata: bool = False) -> Signature:
    if from_metadata:
        return signature_from_metadata(metadata_of(config), limits or Limits())
    return signature_from_config(config, limits or Limits())


class TestValues:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"model": ""}, "at model"),
            ({"model": 3}, "at model"),
            ({"model": "a/b"}, "is no name of a model at model"),
            ({"model": ".."}, "is no name of a model at model"),
            ({"model": "a\nb"}, "is no name of a model at model"),
            ({"model": "m" * 257}, "at model"),
            ({"inputs": {}}, "must hold at least one array at inputs"),
            ({"inputs": rows()}, "must be a dict of numpy arrays by input name at inputs"),
            (
                {"inputs": {"X": [[1.0, 2.0, 3.0]]}},
                "list, expected a numpy array: numpy.asarray(…, dtype=…) at inputs['X']",
            ),
            ({"inputs": {"X": 1.0}}, "float, expected a numpy array"),
            ({"inputs": {"X": rows().view(np.recarray)}}, "recarray, expected a plain numpy array at inputs['X']"),
            ({"inputs": {3: rows()}}, "at inputs"),
            ({"version": "1"}, "at version"),
            ({"version": 0}, "at version"),
            ({"version": True}, "at version"),
            ({"outputs": "Y"}, "must be a list of names at outputs"),
            ({"parameters": [1]}, "must be a dictionary at parameters"),
            ({"request_id": 3}, "at request_id"),
            ({"request_id": "me\nI am another line"}, "must be printable, in one line at request_id"),
            ({"parameters": {"x": [1]}}, "at parameters['x']"),
            ({"parameters": {"x": 1 << 63}}, "at parameters['x']"),
            ({"parameters": {"timeout": 1}}, "is reserved by Triton"),
            ({"parameters": {"triton_enable_empty_final_response": True}}, "is reserved by Triton"),
            ({"priority": -1}, "at priority"),
            ({"sequence": {"id": 0}}, "at sequence"),
            ({"sequence": {"id": "s" * 129}}, "at sequence"),
            ({"timeout": 3}, "at timeout"),
        ],
    )
    def test_a_wrong_one_is_said_in_one_line(self, values: dict[str, Any], said: str) -> None:
        """What is wrong and where, by pydantic, before anything is asked of a server."""
        with pytest.raises(RequestError, match=r"^request\.invalid: ") as raised:
            request(**values)
        assert said in raised.value.message
        assert "\n" not in raised.value.message

    def test_arrays_are_kept_as_they_are(self) -> None:
        """No copy is made, whatever the array's order, and nothing becomes a list."""
        array = np.asfortranarray(np.ones((4, 3), np.float32))
        assert request(inputs={"X": array}).inputs["X"] is array
        assert InferRequest(model="m", inputs={"X": array}).inputs["X"] is array

    def test_the_model_itself_is_public_pydantic(self) -> None:
        """Built directly, it raises pydantic's error, and refuses fields that it does not have."""
        with pytest.raises(ValidationError):
            InferRequest(model="m", inputs={"X": rows()}, timeout=3)  # type: ignore[call-arg]
        whole = InferRequest(model="m", inputs={"X": rows()}, outputs=("Y",), sequence=SequenceStep(id="a", start=True))
        assert whole.sequence is not None
        assert whole.sequence.id == "a"


class TestSignature:
    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"X": rows().astype(np.float64)}, "input.dtype: FP64, expected FP32 at inputs['X']"),
            (
                {"X": rows().astype(">f4")},
                "input.dtype: >f4 is not of this machine's byte order: array.astype('float32') at inputs['X']",
            ),
            ({"X": rows()[0]}, "input.rank: 1 axes, expected 2 at inputs['X'].shape"),
            ({"X": rows()[:, :2]}, "input.shape: 2, expected 3 at inputs['X'].shape[1]"),
            ({"X": rows(5)}, "limit.batch_size: 5 > 4 at inputs['X'].shape[0]"),
            ({"X": rows()[:0]}, "input.batch: no rows at inputs['X'].shape[0]"),
            ({"Z": rows()}, "input.unknown: 'Z' is no input of this model"),
            ({"X": rows(), "Z": rows()}, "input.unknown: 'Z' is no input of this model"),
        ],
    )
    def test_a_request_that_breaks_it(self, inputs: dict[str, Any], message: str) -> None:
        """The same words as the server's own: which rule, what came, what is allowed, where."""
        with pytest.raises(RequestError) as raised:
            signature().check_request(request(inputs=inputs))
        assert raised.value.message == message

    def test_the_bound_itself_passes(self) -> None:
        """As many rows as the model takes."""
        tensors = signature().check_request(request(inputs={"X": rows(4)}))
        assert tensors["X"][0] == "FP32"

    def test_an_unknown_output(self) -> None:
        """An output that the model does not have is not asked for."""
        with pytest.raises(RequestError, match="'Z' is no output of this model; it has Y"):
            signature().check_request(request(outputs=["Z"]))

    @pytest.mark.parametrize(
        ("limits", "options", "reason"),
        [
            (Limits(max_batch_size=2), {"inputs": {"X": rows(3)}}, "limit.batch_size"),
            (Limits(max_input_bytes=20), {"inputs": {"X": rows(2)}}, "limit.input_bytes"),
            (Limits(max_elements=5), {"inputs": {"X": rows(2)}}, "limit.elements"),
            (Limits(max_id_length=3), {"request_id": "long"}, "limit.id_length"),
            (Limits(max_parameters=1), {"parameters": {"a": 1, "b": 2}}, "limit.parameters"),
            (
                Limits(inputs={"X": InputLimits(finite=True)}),
                {"inputs": {"X": rows() * np.float32(np.nan)}},
                "content.not_finite",
            ),
            (Limits(inputs={"X": InputLimits(maximum=1.0)}), {"inputs": {"X": rows()}}, "content.range"),
        ],
    )
    def test_local_limits(self, limits: Limits, options: dict[str, Any], reason: str) -> None:
        """The words of ``Limits`` hold in the client too, whatever the server would accept."""
        with pytest.raises(RequestError) as raised:
            signature(limits=limits).check_request(request(**options))
        assert raised.value.reason == reason
        signature(limits=limits).check_request(request(inputs={"X": np.zeros((1, 3), np.float32)}))

    def test_a_limit_that_the_model_contradicts(self) -> None:
        """A limit that no request of the model could meet is an error of the client's own arguments."""
        with pytest.raises(
            ClientUsageError, match=r"^policy\.conflict: limits\['double'\]: max_elements 2 is below the 3"
        ):
            signature(limits=Limits(max_elements=2))

    def test_texts(self) -> None:
        """``str`` and ``bytes`` are sent as bytes; their lengths are counted in bytes, elsewhere in elements."""
        checks = signature(WORDS, Limits(max_string_bytes=3))
        tensors = checks.check_request(request("words", inputs={"TEXT": np.array(["é", "b"])}))
        assert tensors["TEXT"][1].tolist() == ["é".encode(), b"b"]
        array = texts(b"a", b"b")
        assert checks.check_request(request("words", inputs={"TEXT": array}))["TEXT"][1] is array
        with pytest.raises(LimitExceededError, match=r"limit\.string_bytes: 4 > 3"):
            checks.check_request(request("words", inputs={"TEXT": texts("éé")}))
        with pytest.raises(RequestError, match=r"an element is int, expected bytes or str at inputs\['TEXT'\]"):
            checks.check_request(request("words", inputs={"TEXT": texts(3)}))  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", [spec["name"] for spec in EVERYTHING["input"]])
    def test_every_data_type(self, name: str) -> None:
        """Each of Triton's types is accepted as the numpy type that it is, BF16 as that of ml_dtypes."""
        special = {"STRING": object, "BF16": ml_dtypes.bfloat16, "BOOL": bool}
        dtype = special.get(name) or name.lower().replace("fp", "float")
        array = texts(b"x") if name == "STRING" else np.zeros(1, dtype)
        (sent,) = signature(EVERYTHING).check_request(request("all", inputs={name: array})).values()
        assert sent[0] == ("BYTES" if name == "STRING" else name)
        assert sent[1] is array
        wrong = np.zeros(1, np.complex64)
        with pytest.raises(RequestError, match=r"^input\.dtype: "):
            signature(EVERYTHING).check_request(request("all", inputs={name: wrong}))

    def test_what_triton_adds_itself_is_not_sent(self) -> None:
        """Sequence controls and states are no inputs of a client; a reshape is between Triton and the model."""
        config = {
            **DOUBLE,
            "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [3], "reshape": {"shape": [3, 1]}}],
            "sequence_batching": {
                "control_input": [{"name": "START"}],
                "state": [{"input_name": "S", "output_name": "T"}],
            },
        }
        checks = signature(config)
        checks.check_request(request())
        for name in ("START", "S"):
            with pytest.raises(RequestError, match=f"'{name}' is no input"):
                checks.check_request(request(inputs={"X": rows(), name: rows()}))

    @pytest.mark.parametrize("config", [{}, {"name": "m"}, {**DOUBLE, "input": []}, {**DOUBLE, "max_batch_size": "4"}])
    def test_a_configuration_that_is_none(self, config: Any) -> None:
        """A server that answers nonsense is said to do so."""
        with pytest.raises(AnswerError, match=r"^client\.answer: the model's configuration cannot be"):
            signature(config)


class TestMetadataAlone:
    """Behind a gateway, or in front of ``safe-triton serve``, a client sees metadata and no configuration."""

    def test_names_types_and_fixed_sizes_are_checked(self) -> None:
        """What metadata says holds; how many rows there may be, and what may be left out, it does not say."""
        checks = signature(from_metadata=True)
        checks.check_request(request(inputs={"X": rows(1000)}))
        for inputs, reason in (({"X": rows()[:, :2]}, "input.shape"), ({"X": rows().astype(int)}, "input.dtype")):
            with pytest.raises(RequestError) as raised:
                checks.check_request(request(inputs=inputs))
            assert raised.value.reason == reason
        assert not checks.is_complete

    def test_a_limit_of_rows_makes_the_first_axis_one(self) -> None:
        """With ``max_batch_size`` declared, the variable first axis is the batch."""
        checks = signature(limits=Limits(max_batch_size=2), from_metadata=True)
        with pytest.raises(LimitExceededError, match=r"limit\.batch_size: 3 > 2"):
            checks.check_request(request(inputs={"X": rows(3)}))

    @pytest.mark.parametrize(
        "metadata",
        [
            {},
            {"name": "m", "inputs": [], "outputs": 3},
            {"name": "m", "inputs": [{"name": "X", "datatype": "FP99", "shape": [1]}], "outputs": []},
        ],
    )
    def test_metadata_that_is_none(self, metadata: Any) -> None:
        """A server that answers nonsense is said to do so."""
        with pytest.raises(AnswerError, match=r"^client\.answer: the model's (metadata|configuration) cannot be"):
            signature_from_metadata(metadata, Limits())

    def test_nothing_at_all_is_known(self) -> None:
        """Without metadata the types are numpy's own, and the limits hold."""
        tensors = unknown_tensors(
            request(inputs={"X": rows(), "T": texts("a"), "B": np.zeros(1, ml_dtypes.bfloat16)}), Limits()
        )
        assert {name: dtype for name, (dtype, _) in tensors.items()} == {"X": "FP32", "T": "BYTES", "B": "BF16"}
        with pytest.raises(LimitExceededError, match=r"limit\.input_bytes: 12 > 8"):
            unknown_tensors(request(), Limits(max_input_bytes=8))
        with pytest.raises(RequestError, match=r"Triton has no complex64 at inputs\['X'\]"):
            unknown_tensors(request(inputs={"X": np.zeros(1, np.complex64)}), Limits())


class TestShapesOverHttp:
    """A stream over HTTP has no shapes: they come from the signature."""

    @pytest.mark.parametrize(
        ("dims", "batch", "from_metadata", "array", "expected"),
        [
            ([3], 4, False, rows(), (1, 3)),
            ([-1, 2], 4, False, rows(), (1, -1, 2)),
            ([3], 0, False, rows()[0], (3,)),
            ([-1], 4, True, rows(), (1, -1)),
            ([3], 4, True, rows(), (-1, 3)),
            ([-1], 0, True, rows()[0], (-1,)),
            ([-1, -1], 0, True, rows(2), (-1, -1)),
        ],
    )
    def test_of_one_row(
        self, dims: list[int], batch: int, from_metadata: bool, array: Any, expected: tuple[int, ...]
    ) -> None:
        """The batch axis is one; of metadata alone, only where the request has one row."""
        config = {**DOUBLE, "max_batch_size": batch, "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": dims}]}
        found = signature(config, from_metadata=from_metadata).row_shapes(request(inputs={"X": array}))
        assert found == {"Y": ("FP32", expected)}


class TestAnswers:
    @pytest.mark.parametrize(
        ("outputs", "said"),
        [
            ({}, "'Y' is not in the answer"),
            ({"Z": ("FP32", rows())}, "'Z' was not asked for"),
            ({"Y": ("FP64", rows().astype(np.float64))}, "FP64, expected FP32 at outputs['Y']"),
            ({"Y": ("FP32", rows().astype(np.float64))}, "FP64, expected FP32 at outputs['Y']"),
            ({"Y": ("FP32", rows()[:, :2])}, "2 on axis 1, expected 3 at outputs['Y']"),
            ({"Y": ("FP32", rows(2))}, "2 rows, expected 1 at outputs['Y']"),
            ({"Y": ("FP32", rows()[0])}, "expected 2 at outputs['Y']"),
        ],
    )
    def test_one_that_the_model_does_not_declare(self, outputs: Any, said: str) -> None:
        """Names, types, shapes and rows of an answer are what the metadata says, or it is no answer."""
        with pytest.raises(AnswerError, match=r"^client\.answer: double: ") as raised:
            signature().check_answer(outputs, request())
        assert said in raised.value.message
        signature().check_answer({"Y": ("FP32", rows())}, request())

    def test_limits_of_outputs(self) -> None:
        """Bytes of all outputs, as in ``Limits``."""
        for limits in (Limits(max_output_bytes=12), Limits(max_output_bytes=23)):
            signature(limits=limits).check_answer({"Y": ("FP32", rows())}, request())
            with pytest.raises(SafeTritonError, match=r"^client\.answer: double: 24 >"):
                signature(limits=limits).check_answer({"Y": ("FP32", rows(2))}, request(inputs={"X": rows(2)}))
