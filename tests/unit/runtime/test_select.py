"""Which form a class has: from what it overrides and what config.pbtxt says."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from safe_triton import RequestInfo, SafeTritonPythonModel
from safe_triton.config import ModelConfig
from safe_triton.errors import PolicyError
from safe_triton.runtime.forms.select import FORMS, is_async, select_form
from safe_triton.testing import load_model
from tests.unit.runtime.models import CONFIG, X, model_config


def a_class(**methods: Any) -> Any:
    """An instance of a model class with these methods."""
    return type("TritonPythonModel", (SafeTritonPythonModel,), methods)()


def select(model: Any, *, batch: int = 8, decoupled: bool = False) -> str:
    config = model_config(batch=batch, decoupled=decoupled) | {"name": "m"}
    return select_form(model, SafeTritonPythonModel, ModelConfig.from_dict(config))


def answer(_self: Any, inputs: Any) -> Any:
    return {"Y": inputs["X"]}


async def answer_later(_self: Any, inputs: Any) -> Any:
    return {"Y": inputs["X"]}


def steps(_self: Any, inputs: Any) -> Any:
    yield {"Y": inputs["X"]}


async def steps_later(_self: Any, inputs: Any) -> Any:
    yield {"Y": inputs["X"]}


class TestSelect:
    """Exactly one form, and one that config.pbtxt allows."""

    @pytest.mark.parametrize(
        ("form", "method", "decoupled"),
        [("infer", answer, False), ("infer_batch", answer, False), ("stream", steps, True)],
    )
    def test_the_one_that_is_overridden(self, form: str, method: Any, decoupled: bool) -> None:
        """The overridden form is chosen."""
        model = a_class(**{form: method})
        assert select(model, decoupled=decoupled) == form
        assert not is_async(model, form)

    def test_an_inherited_override_counts(self) -> None:
        """A form that a base class of the author's overrides is found."""
        base = type("Base", (SafeTritonPythonModel,), {"infer": answer})
        assert select(type("TritonPythonModel", (base,), {})()) == "infer"

    def test_a_coroutine(self) -> None:
        """``async def infer`` is the asynchronous form of ``infer``."""
        model = a_class(infer=answer_later)
        assert select(model) == "infer"
        assert is_async(model, "infer")

    @pytest.mark.parametrize(
        ("methods", "batch", "decoupled", "text"),
        [
            ({}, 8, False, "overrides none of them"),
            ({"infer": answer, "stream": steps}, 8, True, "infer and stream"),
            (dict.fromkeys(FORMS, answer), 8, False, "infer and infer_batch and stream"),
            ({"infer": answer}, 8, True, "config.pbtxt is decoupled"),
            ({"stream": steps}, 8, False, "config.pbtxt is not decoupled"),
            ({"infer_batch": answer}, 0, False, "infer_batch needs a batch axis"),
            ({"infer_batch": answer_later}, 8, False, "infer_batch must not be async"),
            ({"stream": steps_later}, 8, True, "stream must not be async"),
            ({"infer": steps}, 8, False, "infer must return its outputs"),
            ({"infer": steps_later}, 8, False, "infer must return its outputs"),
            ({"infer_batch": steps}, 8, False, "infer_batch must return its outputs"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_anything_else_is_named(self, methods: Any, batch: int, decoupled: bool, text: str) -> None:
        """None, several, or one that does not fit is an error with what to do."""
        with pytest.raises(PolicyError, match=r"^policy\.form: ") as raised:
            select(a_class(**methods), batch=batch, decoupled=decoupled)
        assert text in raised.value.message


def seen_by(infer: Any) -> Any:
    """What ``infer`` put into ``seen`` when it was asked once."""
    with load_model(type("TritonPythonModel", (SafeTritonPythonModel,), {"infer": infer}), CONFIG) as fake:
        outcome = fake.infer({"X": X}, request_id="abc")
        assert outcome.error is None, outcome.error
        return fake.model.seen


class TestSecondParameter:
    """A second positional parameter receives the request's facts."""

    def test_one_parameter(self) -> None:
        """Without a second parameter only the inputs are passed."""

        def infer(self: Any, inputs: Any) -> Any:
            self.seen = list(inputs)
            return {"Y": inputs["X"]}

        assert seen_by(infer) == ["X"]

    def test_two_parameters(self) -> None:
        """The second parameter is a ``RequestInfo`` whatever its name."""

        def infer(self: Any, inputs: Any, facts: Any) -> Any:
            self.seen = facts
            return {"Y": inputs["X"]}

        info = seen_by(infer)
        assert isinstance(info, RequestInfo)
        assert info.id == "abc"

    def test_behind_a_decorator(self) -> None:
        """A decorator made with ``functools.wraps`` does not hide the second parameter."""

        def infer(self: Any, inputs: Any, facts: Any) -> Any:
            self.seen = facts.id
            return {"Y": inputs["X"]}

        @functools.wraps(infer)
        def wrapper(*args: Any) -> Any:
            return infer(*args)

        assert seen_by(wrapper) == "abc"

    def test_with_a_default(self) -> None:
        """A default, with which the same method can be called in a plain test, does not keep it from being passed."""

        def infer(self: Any, inputs: Any, facts: Any = None) -> Any:
            self.seen = facts.id
            return {"Y": inputs["X"]}

        assert seen_by(infer) == "abc"

    def test_by_keyword_only(self) -> None:
        """A parameter that cannot be passed by position keeps its default."""

        def infer(self: Any, inputs: Any, *, scale: float = 2.0) -> Any:
            self.seen = scale
            return {"Y": inputs["X"]}

        assert seen_by(infer) == 2.0
