"""Properties of the plan, whatever comes."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from safe_triton import InputLimits, Limits
from safe_triton._text import MAX_CLIENT_TEXT, client_text
from safe_triton.config import ModelConfig
from safe_triton.errors import ConfigError, RequestError
from safe_triton.policy import DEFAULTS, bound
from safe_triton.validation import compile_plan
from safe_triton.validation.elements import is_finite
from tests.unit.validation.test_plan import Request, Tensor, config, tensor_config

ANY_SHAPE = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12)
ANY_DTYPE = st.sampled_from(["?", "u1", "i8", "f2", "f4", "f8", ">f4"])


class TestPlan:
    """Quote: "From the model's own config.pbtxt alone it already checks names, dtypes, rank, fixed dims, batch, bytes"."""

    LIMITS = Limits(max_sequence_length=6, max_elements=60, max_input_bytes=200, max_batch_size=5)
    MODEL = config(tensor_config("X", [-1, 3]))

    @given(ANY_SHAPE, ANY_DTYPE, st.sampled_from(["X", "x", "Y", ""]))
    @settings(max_examples=400)
    def test_accepts_exactly_what_is_declared(self, shape: tuple[int, ...], dtype: str, name: str) -> None:
        """The compiled plan and the sentence above agree, the first time and from memory."""
        plan = compile_plan(self.LIMITS, self.MODEL)
        array = np.zeros(shape, dtype)
        right = (
            name == "X"
            and array.dtype == np.float32
            and len(shape) == 3
            and 1 <= shape[0] <= 5
            and shape[1] <= 6
            and shape[2] == 3
            and math.prod(shape) <= 60
            and array.nbytes <= 200
        )
        for _ in range(2):
            try:
                plan.check_request(Request(Tensor(name, array)))
            except RequestError:
                accepted = False
            else:
                accepted = True
            assert accepted == right

    @given(st.lists(st.binary(max_size=6), min_size=1, max_size=6))
    def test_utf8_is_judged_per_element(self, items: list[bytes]) -> None:
        """No element can complete another one's character."""
        model = config(tensor_config("X", [-1], "STRING"))
        plan = compile_plan(Limits(inputs={"X": InputLimits(utf8=True)}), model)
        array = np.empty((1, len(items)), object)
        array[0] = items

        def is_text(item: bytes) -> bool:
            try:
                item.decode()
            except UnicodeDecodeError:
                return False
            return True

        try:
            plan.check_request(Request(Tensor("X", array)))
        except RequestError:
            assert not all(map(is_text, items))
        else:
            assert all(map(is_text, items))


class TestFinite:
    """Quote: "A finite dot(x, x) proves every element finite; only if it is not, run the exact check"."""

    @given(
        arrays.arrays(st.sampled_from(["f2", "f4", "f8"]), ANY_SHAPE, elements=st.floats(width=16) | st.just(math.inf))
    )
    def test_agrees_with_numpy(self, array: Any) -> None:
        """The short cut never changes the verdict, not even by an overflow."""
        assert is_finite(array) == bool(np.isfinite(array).all())
        with np.errstate(over="ignore", invalid="ignore"):
            large = array * np.array(6e4, array.dtype)
        assert is_finite(large) == bool(np.isfinite(large).all())


def declared(values: dict[str, Any]) -> Limits:
    """A declaration with these numbers."""
    return Limits(**values)


NUMBERS = {row.name: st.integers(max(row.minimum, 1), 1 << 20) for row in DEFAULTS}
DECLARATIONS = st.fixed_dictionaries({}, optional=NUMBERS).map(declared)


class TestTighten:
    """Quote: "Between declarations the tighter one wins: limits take the smaller"."""

    @given(DECLARATIONS, DECLARATIONS)
    def test_never_widens(self, a: Limits, b: Limits) -> None:
        """The combination is no wider than either declaration, whatever the order."""
        combined = a.tighten(b)
        assert combined == b.tighten(a)
        for side in (a, b):
            for name in side.declared:
                assert bound(getattr(combined, name)) <= bound(getattr(side, name))

    @given(DECLARATIONS)
    def test_is_idempotent(self, limits: Limits) -> None:
        """Combining with itself, or with nothing, changes nothing."""
        assert limits.tighten(limits) == limits == limits.tighten(Limits())


class TestClientText:
    """Quote: "Text reaches the client, absolute paths removed, length capped"."""

    @given(
        st.text(max_size=300),
        st.sampled_from(["/etc/passwd", "/srv/models/a-b/1/model.py", "/opt/x", "file:///root/.ssh/id"]),
    )
    def test_no_path_survives(self, text: str, path: str) -> None:
        """A path between words is replaced, and the text is one printable line."""
        clean = client_text(f"{text} {path} rest")
        assert path not in clean
        assert clean.isprintable()
        assert len(client_text(text * 20)) <= MAX_CLIENT_TEXT

    @given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3))
    def test_any_config_is_parsed_or_refused(self, document: dict[str, Any]) -> None:
        """Nothing but this package's own error comes out of the parser."""
        with contextlib.suppress(ConfigError):
            ModelConfig.from_dict({"name": "m", **document})
