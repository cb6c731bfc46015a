"""``SafeExpression``: what a formula may say, and that it cannot get out, grow or go on for ever."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from safe_triton import SafeTritonPythonModel
from safe_triton.errors import ExpressionError, ExpressionFailedError, LoadError, PolicyError
from safe_triton.expressions import SafeExpression
from safe_triton.testing import load_model
from tests.docs.blocks import ROOT
from tests.unit.expressions.attempts import BENIGN, GROWTH, REACH
from tests.unit.expressions.formulas import TEXTBOOK
from tests.unit.expressions.published import PUBLISHED

NAMES = ("x", "y", "gain", "mode")
LONGEST_S = 20.0


def values() -> dict[str, Any]:
    return {"x": np.arange(3.0), "y": np.arange(1.0, 4.0), "gain": 2.0, "mode": "high"}


def evaluate(source: str) -> Any:
    return SafeExpression(source, NAMES)(**values())


@pytest.mark.parametrize(("source", "expected"), BENIGN, ids=[source for source, _ in BENIGN])
def test_what_formulas_are_for(source: str, expected: Any) -> None:
    """Ordinary formulas give what Python and numpy give."""
    found = evaluate(source)
    found = found.tolist() if isinstance(found, (np.ndarray, np.generic)) else found
    assert found == pytest.approx(expected) if isinstance(expected, (float, list)) else found == expected


@pytest.mark.parametrize(("name", "source"), TEXTBOOK, ids=[name for name, _ in TEXTBOOK])
def test_what_textbooks_have(name: str, source: str) -> None:
    """They give what plain ``eval`` gives; the two that are refused are known, and say so."""
    if name in REFUSED:
        with pytest.raises(ExpressionError, match="is not for formulas"):
            evaluate(source)
        return
    expected = eval(source, {"np": np, "math": math, **values()})
    np.testing.assert_array_equal(evaluate(source), expected)


REFUSED = {"levels by bounds", "a polynomial"}
"""Of the textbooks' formulas: ``np.digitize`` and ``np.polyval`` are no functions of the language."""


def test_the_page_states_these_figures() -> None:
    """What the page says of attempts and formulas is the length of the lists that are tried."""
    page = " ".join((ROOT / "docs" / "how-to" / "expressions.md").read_text(encoding="utf-8").split())
    hostile, fine = len(REACH) + len(GROWTH) + len(PUBLISHED), len(BENIGN) + len(TEXTBOOK) - len(REFUSED)
    assert len({*REACH, *(source for source, _, _ in GROWTH), *(source for _, source in PUBLISHED)}) == hostile >= 164
    assert f"0 of {hostile} attempts get through" in page
    assert f"{len(REACH)} to reach something, {len(GROWTH)} to grow, {len(PUBLISHED)} that were published" in page
    assert f"{fine} of {len(BENIGN) + len(TEXTBOOK)} formulas work" in page
    assert f"{len(TEXTBOOK) - len(REFUSED)} of {len(TEXTBOOK)} from textbooks" in page
    assert fine >= (len(BENIGN) + len(TEXTBOOK)) * 43 / 45


@pytest.mark.attack
@pytest.mark.parametrize("source", [*REACH, *(source for _, source in PUBLISHED)])
def test_nothing_outside_is_reached(source: str) -> None:
    """Modules, types, functions, frames, memory and files stay out of reach; refused when compiled or evaluated."""
    with pytest.raises((ExpressionError, ExpressionFailedError)) as raised:
        evaluate(source)
    assert "0x" not in raised.value.message


@pytest.mark.attack
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", [*REACH, *(source for _, source in PUBLISHED)])
def test_each_attempt_is_alive(source: str) -> None:
    """The control: plain ``eval`` with numpy gets something for nearly all; the rest asks for what is refused too."""
    try:
        eval(source, {"np": np, **values()})
    except (TypeError, ValueError, AttributeError, NameError, SyntaxError):
        assert source in DEAD


DEAD = {
    "'{!r:>5}'.format('a')",
    "(i for i in [1]).gi_frame.f_back",
    "np.f2py",
    "max(*[1, 2], **{'key': abs})",
    "x.newbyteorder",
    "x.itemset",
    "x.__class__.__init_subclass__",
    "x.view('O')",
    "np.add(x, 1, x)",
    "np.sum.__globals__",
    "np.sum.__wrapped__",
    "np.exp(x, dtype=object)",
    "x.sum(out=x)",
    "np.sum(x, 0, None, x)",
}
"""Attempts that some numpy refuses itself."""


@pytest.mark.attack
@pytest.mark.parametrize(("source", "small", "large"), GROWTH, ids=[source for source, _, _ in GROWTH])
def test_nothing_grows(source: str, small: int, large: int) -> None:
    """What would take gigabytes or minutes is refused before; the control is the same formula in small."""
    if small:
        eval(source.replace("N", str(small)), {"np": np, **values()})
    began = time.process_time()
    with pytest.raises((ExpressionError, ExpressionFailedError)):
        evaluate(source.replace("N", str(large)))
    assert time.process_time() - began < LONGEST_S


def test_memory_stays_where_it_was() -> None:
    """All bombs one after the other stay below what one of them would take."""
    code = (
        "import re\n"
        "from pathlib import Path\n"
        "from safe_triton.errors import SafeTritonError\n"
        "from safe_triton.expressions import SafeExpression\n"
        "from tests.unit.expressions.attempts import GROWTH\n"
        "import numpy as np\n"
        "given = {'x': np.arange(3.0), 'y': np.arange(3.0), 'gain': 2.0, 'mode': 'a'}\n"
        "for source, _, large in GROWTH:\n"
        "    try:\n"
        "        SafeExpression(source.replace('N', str(large)), tuple(given))(**given)\n"
        "    except SafeTritonError:\n"
        "        pass\n"
        # Not ru_maxrss, which begins at the memory of whoever started the process.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 700


@pytest.mark.parametrize(
    ("source", "reason", "place"),
    [
        ("x +", "expression.syntax", "line 1, column"),
        ("x +\n  import_me", "expression.syntax", ""),
        ("x.__class__", "expression.refused", "line 1, column 1: attribute '__class__'"),
        ("1 + unknown", "expression.refused", "line 1, column 5: unknown name 'unknown'"),
        ("lambda: 1", "expression.refused", "Lambda is not for formulas"),
        ("1" + "+1" * 400, "expression.size", "> 500 parts"),
        ("-" * 60 + "1", "expression.refused", "inside each other"),
        (" " * 5000, "expression.size", "4096 characters"),
        ("(" * 3000, "expression.syntax", ""),
        ("x\0", "expression.syntax", ""),
        ("9" * 4090, "", ""),
        ("await x", "expression", ""),
        ("", "expression.syntax", ""),
    ],
)
def test_a_wrong_formula_is_named(source: str, reason: str, place: str) -> None:
    """With its reason and its place."""
    with pytest.raises((ExpressionError, ExpressionFailedError)) as raised:
        evaluate(source)
    assert raised.value.reason.startswith(reason)
    assert place in raised.value.message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x + 1 / (gain - 2)", "expression.value: line 1, column 5: ZeroDivisionError: float division by zero"),
        ("(x +\n mode)", "expression.value: line 1, column 2: no operator for an array and str"),
        ("[v for v in\n gain]", "expression.value: line 1, column 1: no items of float"),
        ("max(x, np.norm(x, order=1))", "expression.value: line 1, column 8: TypeError: got an unexpected keyword"),
        ("1 + len(range(10 ** 9))", "expression.value: line 1, column 9: a range of more than"),
        ("1 + x.max(initial=3)", "expression.value: line 1, column 5: no option 'initial'"),
        ("gain + np.zeros(10 ** 9)", "expression.work: line 1, column 8: more elements"),
    ],
)
def test_a_value_that_does_not_fit_is_placed(source: str, message: str) -> None:
    """Where the innermost part is that failed, in the language's own words."""
    with pytest.raises(ExpressionFailedError) as raised:
        evaluate(source)
    assert raised.value.message.startswith(message)
    assert raised.value.place in message


def test_values_that_are_nested_without_an_end() -> None:
    """They are a wrong value like any other."""
    nested: list[Any] = []
    for _ in range(sys.getrecursionlimit()):
        nested = [nested]
    with pytest.raises(ExpressionFailedError, match="nested too deeply"):
        SafeExpression("v", ("v",))(v=nested)


def test_math_of_arrays() -> None:
    """Functions of ``math`` go element by element, whatever numpy calls them, or where it has none."""
    part = np.array([[0.25, -0.5]], np.float32)
    for source, expected in (
        ("asin(p) + acos(p)", np.arcsin(part) + np.arccos(part)),
        ("atan(p) + math.atan2(p, 2)", np.arctan(part) + np.arctan2(part, np.float32(2))),
        ("erf(p)", np.array([[math.erf(value) for value in part[0]]], np.float32)),
        ("p / np.linalg.norm(p, axis=1, keepdims=True)", part / np.linalg.norm(part, axis=1, keepdims=True)),
    ):
        found = SafeExpression(source, ("p",))(p=part)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert (found.shape, found.dtype) == ((1, 2), np.float32)


def test_arrays_are_not_changed() -> None:
    """A formula sees a view that cannot be written, and the caller's array keeps its flags."""
    array = np.arange(3.0)
    seen = SafeExpression("x", ("x",))(x=array)
    with pytest.raises(ValueError, match="read-only"):
        seen[0] = 1
    assert array.flags.writeable


@pytest.mark.parametrize("value", [object(), np.array([None]), b"a", np.array(["a"]), [object()], lambda: 0])
def test_other_values_are_refused(value: Any) -> None:
    """Only numbers, texts, lists, dicts and arrays of numbers go in."""
    with pytest.raises(ExpressionFailedError):
        SafeExpression("x", ("x",))(x=value)


@pytest.mark.parametrize("names", [("_x",), ("x y",), ("if",), (3,)])
def test_names_are_plain(names: Any) -> None:
    """A name that could mean something else is refused."""
    with pytest.raises(ExpressionError):
        SafeExpression("1", names)


def test_bounds_are_numbers() -> None:
    """A bound that is none, or one text as names, is a mistake of the author's."""
    with pytest.raises(PolicyError):
        SafeExpression("1", (), max_work=0)
    with pytest.raises(PolicyError):
        SafeExpression("1", "x")


def test_missing_and_unknown_names() -> None:
    """A call gives every name and no other."""
    formula = SafeExpression("x", ("x",))
    for given in ({}, {"x": 1, "y": 2}):
        with pytest.raises(ExpressionFailedError, match="missing or unknown"):
            formula(**given)


def test_work_and_time_are_bounded() -> None:
    """Both sides of ``max_work``; and time ends what work alone would allow."""
    assert SafeExpression("x + 1", ("x",), max_work=64)(x=np.zeros(8)).size == 8
    with pytest.raises(ExpressionFailedError, match=r"expression\.work"):
        SafeExpression("x + 1", ("x",), max_work=64)(x=np.zeros(80))
    slow = SafeExpression("[i + j for i in range(1000) for j in range(1000)]", (), max_work=1 << 40, max_time_ms=20)
    with pytest.raises(ExpressionFailedError, match=r"expression\.(time|value)"):
        slow()


def test_it_can_be_used_by_threads() -> None:
    """No state is shared between evaluations."""
    from concurrent.futures import ThreadPoolExecutor

    formula = SafeExpression("[v * g for v in range(50)][49]", ("g",))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda g: formula(g=g), range(200))) == [49 * g for g in range(200)]


def test_importing_it_is_cheap() -> None:
    """RestrictedPython is imported by the first formula."""
    code = "import sys, safe_triton.expressions; print('RestrictedPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class Scaled(SafeTritonPythonModel):
    def load(self, context: Any) -> None:
        self.formula = SafeExpression(context.config.parameters["formula"], names=("x",))

    def infer(self, inputs: dict[str, Any]) -> Any:
        return {"Y": np.asarray(self.formula(x=inputs["X"]), np.float32)}


def scaled_config(formula: str) -> dict[str, Any]:
    return {
        "max_batch_size": 4,
        "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
        "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
        "parameters": {"formula": {"string_value": formula}},
    }


class TestInAModel:
    """The formula comes from config.pbtxt's parameters."""

    X = np.array([[-1.0, 0.5, 3.0]], np.float32)

    def test_it_computes(self) -> None:
        """What a client gets is the formula's."""
        with load_model(Scaled, scaled_config("clip(x, 0, 1) * 2")) as model:
            assert model.infer({"X": self.X}).outputs["Y"].tolist() == [[0.0, 1.0, 2.0]]

    def test_a_wrong_one_does_not_load(self) -> None:
        """The operator reads reason and place."""
        wrong = load_model(Scaled, scaled_config("x.__class__"))
        with pytest.raises(LoadError, match=r"expression\.refused: line 1, column 1"), wrong:
            pass

    def test_one_that_fails_says_nothing_to_a_client(self) -> None:
        """The text stays in the log."""
        with load_model(Scaled, scaled_config("x[7, 7]")) as model:
            assert str(model.infer({"X": self.X}).error).startswith("model failed (id ")
