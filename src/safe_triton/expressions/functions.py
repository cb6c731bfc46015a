"""The functions that a formula may call; there are no others."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from safe_triton.expressions import operators
from safe_triton.expressions.operators import COSTLY, as_array, broadcast_size
from safe_triton.expressions.work import CONTAINERS, MAX_ITEMS, NUMBERS, Work, failed, keyed

Function = Callable[..., Any]
"""Called with the work first, then with what the formula gives."""

DTYPES = ("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "float16", "float32")
DTYPES += ("float64", "int", "float", "complex64", "complex128")

ELEMENTWISE = {
    1: "abs absolute fabs sign sqrt square cbrt exp exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan "
    "sinh cosh tanh arcsinh arccosh arctanh floor ceil trunc rint isnan isinf isfinite logical_not invert negative "
    "positive reciprocal degrees radians deg2rad rad2deg real imag conj nan_to_num signbit sinc",
    2: "add subtract multiply divide true_divide floor_divide mod remainder fmod power float_power maximum minimum "
    "fmax fmin hypot arctan2 copysign logaddexp greater greater_equal less less_equal equal not_equal logical_and "
    "logical_or logical_xor bitwise_and bitwise_or bitwise_xor isclose heaviside",
    3: "where clip",
}
REDUCTIONS = (
    "sum mean prod min max amin amax std var median any all argmin argmax ptp nansum nanmean nanmin nanmax nanstd "
    "nanvar nanprod count_nonzero cumsum cumprod sort argsort"
)
OPTIONS = {"axis", "keepdims", "ddof", "dtype"}
SHAPING = "reshape ravel transpose squeeze expand_dims flip roll swapaxes diff take repeat"
JOINING = "concatenate stack hstack vstack"


def named_type(value: Any) -> Any:
    """Return a numpy type by its name."""
    if type(value) is not str or value not in DTYPES:
        raise failed("expression.value", f"a type other than {', '.join(DTYPES)}")
    return np.dtype(value)


def plain_option(name: str, value: Any) -> Any:
    """Return an option of a numpy function that is no array of its own."""
    if name == "dtype":
        return named_type(value)
    parts = value if type(value) in (tuple, list) else (value,)
    if not all(part is None or isinstance(part, (bool, int, np.integer)) for part in parts):
        raise failed("expression.value", f"{name} is no whole number")
    return tuple(value) if type(value) is list else value


def elementwise(function: Any, count: int) -> Function:
    """Return a checked numpy function of ``count`` operands."""

    def call(work: Work, *given: Any, **named: Any) -> Any:
        if function is np.clip:
            given = (*given, *[named.get(name, named.get(f"a_{name}")) for name in ("min", "max")][len(given) - 1 :])
            named = {name: value for name, value in named.items() if name not in ("min", "max", "a_min", "a_max")}
        if named:
            raise failed("expression.value", f"no option {min(named)!r}")
        most = 1 if function is np.where else 2 if count == 3 else count
        if not most <= len(given) <= count:
            raise failed("expression.value", f"{len(given)} arguments, expected {count}")
        operands = [None if value is None and count == 3 else as_array(value, work) for value in given]
        work.spend(COSTLY * broadcast_size(*[value for value in operands if value is not None]))
        return function(*operands)

    return call


def reduction(function: Any) -> Function:
    """Return a checked numpy function of one array and an axis."""

    def call(work: Work, array: Any, axis: Any = None, **options: Any) -> Any:
        unknown = options.keys() - OPTIONS
        if unknown:
            raise failed("expression.value", f"no option {min(unknown)!r}")
        array = np.asarray(as_array(array, work))
        work.spend(array.size * COSTLY)
        if axis is not None:
            options["axis"] = axis
        return function(array, **{name: plain_option(name, value) for name, value in options.items()})

    return call


def shaping(function: Any) -> Function:
    """Return a checked numpy function of one array and of whole numbers."""

    def call(work: Work, array: Any, *given: Any, axis: Any = None) -> Any:
        array = np.asarray(as_array(array, work))
        if function is np.reshape and len(given) > 1:
            given = (given,)
        if function is np.transpose and len(given) > 1:
            given = (given,)
        if len(given) > 2:
            raise failed("expression.value", f"{len(given)} arguments")
        if function is np.repeat:
            work.spend(array.size * int(given[0]))
        elif function is np.take:
            index = np.asarray(as_array(given[0], work))
            work.spend(index.size * max(array.size // max(min(array.shape, default=1), 1), 1))
            return np.take(array, index, axis=plain_option("axis", axis))
        work.spend(array.size)
        named = {} if axis is None else {"axis": plain_option("axis", axis)}
        return function(array, *[plain_option("shape", value) for value in given], **named)

    return call


def joining(function: Any) -> Function:
    """Return a checked numpy function of several arrays."""

    def call(work: Work, arrays: Any, axis: Any = None) -> Any:
        if type(arrays) not in (list, tuple):
            raise failed("expression.value", "a list of arrays is expected")
        parts = [np.asarray(as_array(value, work)) for value in arrays]
        work.spend(sum(part.size for part in parts))
        named = {} if axis is None else {"axis": plain_option("axis", axis)}
        return function(parts, **named)

    return call


def making(function: Any, *, values: int = 0) -> Function:
    """Return a checked function that makes an array of a shape."""

    def call(work: Work, shape: Any, *given: Any, dtype: Any = "float64") -> Any:
        if len(given) != values:
            raise failed("expression.value", f"{1 + len(given)} arguments, expected {1 + values}")
        sizes = [int(size) for size in (shape if type(shape) in (list, tuple) else (shape,))]
        if any(size < 0 for size in sizes):
            raise failed("expression.value", "a negative size")
        work.spend(math.prod(sizes) * (sizes[0] if function is np.eye else 1))
        given = tuple(_number(value) for value in given)
        return function(*sizes if function is np.eye else (tuple(sizes),), *given, dtype=named_type(dtype))

    return call


def like(value: Any) -> Function:
    """Return a function that makes an array of another one's shape."""

    def call(work: Work, array: Any, *given: Any) -> Any:
        array = np.asarray(as_array(array, work))
        work.spend(array.size)
        return np.full_like(array, _number(given[0]) if value is None else value)

    return call


def _arange(work: Work, *given: Any) -> Any:
    if not 1 <= len(given) <= 3 or not all(isinstance(value, (int, float, np.number)) for value in given):
        raise failed("expression.value", "arange takes one to three numbers")
    start, stop, step = (0, given[0], 1) if len(given) == 1 else (*given, 1)[:3]
    work.spend(int(max((stop - start) / step, 0)) + 1)
    return np.arange(start, stop, step)


def _linspace(work: Work, start: Any, stop: Any, num: Any = 50) -> Any:
    work.spend(int(num))
    return np.linspace(_number(start), _number(stop), int(num))


def _number(value: Any) -> Any:
    if not isinstance(value, NUMBERS):
        raise failed("expression.value", f"{type(value).__name__} where a number is expected")
    return value


def _array(work: Work, value: Any, dtype: Any = None) -> Any:
    value = np.asarray(as_array(value, work))
    work.spend(value.size)
    return value.copy() if dtype is None else value.astype(named_type(dtype))


def _dot(work: Work, left: Any, right: Any) -> Any:
    left, right = as_array(left, work), as_array(right, work)
    if not np.ndim(left) or not np.ndim(right):
        work.spend(broadcast_size(left, right))
        return np.multiply(left, right)
    return operators.matmul(left, right, work)


def _outer(work: Work, left: Any, right: Any) -> Any:
    left, right = np.asarray(as_array(left, work)), np.asarray(as_array(right, work))
    work.spend(left.size * right.size)
    return np.outer(left, right)


def _quantile(function: Any) -> Function:
    def call(work: Work, array: Any, at: Any, axis: Any = None) -> Any:
        array, at = np.asarray(as_array(array, work)), np.asarray(as_array(at, work))
        work.spend(array.size * COSTLY + at.size * max(array.size, 1))
        return function(array, at, axis=plain_option("axis", axis))

    return call


def _interp(work: Work, x: Any, xp: Any, fp: Any) -> Any:
    parts = [np.asarray(as_array(value, work)) for value in (x, xp, fp)]
    work.spend(sum(part.size for part in parts) * COSTLY)
    return np.interp(parts[0], parts[1], parts[2])


def _average(work: Work, array: Any, axis: Any = None, weights: Any = None) -> Any:
    array = np.asarray(as_array(array, work))
    weights = None if weights is None else np.asarray(as_array(weights, work))
    work.spend(array.size * COSTLY)
    return np.average(array, axis=plain_option("axis", axis), weights=weights)


def _isin(work: Work, array: Any, among: Any) -> Any:
    array, among = (np.asarray(as_array(value, work)) for value in (array, among))
    work.spend((array.size + among.size) * COSTLY)
    return np.isin(array, among)


def _tile(work: Work, array: Any, times: Any) -> Any:
    array, times = np.asarray(as_array(array, work)), plain_option("reps", times)
    counts = [max(int(each), 0) for each in (times if type(times) is tuple else (times,))]
    work.spend(array.size * math.prod(counts))
    return np.tile(array, times)


def as_type(name: str) -> Function:
    """Return a function that makes a number, or an array's numbers, of one numpy type."""
    kind = named_type(name)

    def call(work: Work, value: Any = 0) -> Any:
        value = as_array(value, work)
        work.spend(np.size(value))
        return value.astype(kind) if isinstance(value, np.ndarray) else kind.type(_number(value))

    return call


def _unique(work: Work, array: Any) -> Any:
    array = np.asarray(as_array(array, work))
    work.spend(array.size * COSTLY)
    return np.unique(array)


def _norm(work: Work, array: Any, axis: Any = None, keepdims: Any = False) -> Any:
    array = np.asarray(as_array(array, work))
    work.spend(array.size * COSTLY)
    return np.linalg.norm(array, axis=plain_option("axis", axis), keepdims=truth(keepdims))


def _softmax(work: Work, array: Any, axis: Any = -1) -> Any:
    array = np.asarray(as_array(array, work), dtype=float)
    work.spend(array.size * COSTLY)
    powers = np.exp(array - array.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _sigmoid(work: Work, array: Any) -> Any:
    array = as_array(array, work)
    work.spend(np.size(array) * COSTLY)
    return 1 / (1 + np.exp(-array))


# -- Python's own -------------------------------------------------------------------------------------------------


def iterated(work: Work, value: Any) -> list[Any]:
    """Return what a loop goes over, paid for."""
    if isinstance(value, np.ndarray):
        if not value.ndim:
            raise failed("expression.value", "no items of a single number")
        if len(value) > MAX_ITEMS:
            raise failed("expression.value", f"more than {MAX_ITEMS} items")
        work.spend(value.size)
        return list(value)
    if type(value) in CONTAINERS:
        work.weigh(value)
    elif type(value) in (range, str):
        if len(value) > MAX_ITEMS:
            raise failed("expression.value", f"more than {MAX_ITEMS} items")
        work.spend(len(value))
    else:
        raise failed("expression.value", f"no items of {type(value).__name__}")
    return list(value)


def _of_items(function: Any) -> Function:
    def call(work: Work, *given: Any, reverse: Any = False, key: Any = None) -> Any:
        if key is not None:
            return _by_key(work, function, given, key, truth(reverse))
        if len(given) == 1 and isinstance(given[0], np.ndarray) and function in (min, max, sum, any, all):
            work.spend(given[0].size)
            return getattr(np, function.__name__)(given[0])
        if function in (min, max) and len(given) > 1:
            return function(*[_number(value) for value in given])
        items = iterated(work, given[0])
        if function is sum:
            total = given[1] if len(given) > 1 else 0
            for value in items:
                total = operators.binary(ast.Add, total, value, work)
            return total
        if function in (any, all):
            return function(items)
        if function in (min, max, sorted) and any(type(value) in CONTAINERS for value in items):
            work.spend(len(items) * 1000)
        if function is set:
            return keyed(set, items)
        return sorted(items, reverse=truth(reverse)) if function is sorted else function(items, *given[1:])

    return call


def _by_key(work: Work, function: Any, given: Any, key: Function, reverse: bool) -> Any:
    """Return the least, the greatest or all items in order, by what a function of each gives."""
    if function not in (min, max, sorted):
        raise failed("expression.value", "no option 'key'")
    items = list(given) if len(given) > 1 and function is not sorted else iterated(work, *given)
    keys = [key(value) for value in items]
    work.spend(len(items) * (1000 if any(type(value) in CONTAINERS for value in keys) else COSTLY))
    if function is sorted:
        return [items[place] for place in sorted(range(len(items)), key=keys.__getitem__, reverse=reverse)]
    return items[function(range(len(items)), key=keys.__getitem__)]


def _map(work: Work, function: Function, *given: Any) -> Any:
    return [function(*values) for values in zip(*[iterated(work, value) for value in given], strict=False)]


def _filter(work: Work, function: Function, value: Any) -> Any:
    return [each for each in iterated(work, value) if truth(function(each))]


def _zip(work: Work, *given: Any) -> Any:
    return list(zip(*[iterated(work, value) for value in given], strict=False))


def _range(work: Work, *given: Any) -> Any:
    made = range(*given)
    if len(made) > MAX_ITEMS:
        raise failed("expression.value", f"a range of more than {MAX_ITEMS} numbers")
    return made


def _cast(kind: Any) -> Function:
    def call(work: Work, value: Any = 0) -> Any:
        if type(value) is str and len(value) > 100:
            raise failed("expression.value", "a long text as a number")
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()
        if type(value) is not str and not isinstance(value, NUMBERS):
            raise failed("expression.value", f"{kind.__name__} of {type(value).__name__}")
        return kind(value)

    return call


def truth(value: Any) -> bool:
    """Return whether a value counts as true."""
    return bool(value)


def _str(work: Work, value: Any = "") -> str:
    if type(value) is not str and not isinstance(value, NUMBERS):
        raise failed("expression.value", f"a text of {type(value).__name__}")
    return str(value)


def _len(work: Work, value: Any) -> int:
    return len(value)


def _round(work: Work, value: Any, digits: Any = None) -> Any:
    if isinstance(value, np.ndarray):
        work.spend(value.size)
        return np.round(value, int(digits or 0))
    if digits is None:
        return round(_number(value))
    if not -400 <= digits <= 400:
        raise failed("expression.value", "digits beyond 400")
    return round(_number(value), digits)


def _abs(work: Work, value: Any) -> Any:
    value = as_array(value, work)
    work.spend(np.size(value))
    return abs(value)


def _pow(work: Work, base: Any, exponent: Any) -> Any:
    return operators.binary(ast.Pow, base, exponent, work)


def _math(function: Any) -> Function:
    name = function.__name__
    of_arrays = _erf if name == "erf" else NUMPY[IN_NUMPY.get(name, name)]

    def call(work: Work, *given: Any) -> Any:
        if any(isinstance(value, np.ndarray) for value in given):
            return of_arrays(work, *given)
        return function(*[_number(value) for value in given])

    return call


def _erf(work: Work, array: Any) -> Any:
    work.spend(array.size * COSTLY * 8)  # one by one: numpy has none
    made = np.array([math.erf(value) for value in array.ravel().tolist()])
    return made.reshape(array.shape).astype(array.dtype if array.dtype.kind == "f" else float)


def _arrays() -> dict[str, Function]:
    named: dict[str, Function] = {
        name: elementwise(getattr(np, name), count) for count, names in ELEMENTWISE.items() for name in names.split()
    }
    named |= {name: reduction(getattr(np, name)) for name in REDUCTIONS.split()}
    named |= {name: shaping(getattr(np, name)) for name in SHAPING.split()}
    named |= {name: joining(getattr(np, name)) for name in JOINING.split()}
    named |= {"zeros": making(np.zeros), "ones": making(np.ones), "full": making(np.full, values=1)}
    named |= {"eye": making(np.eye), "zeros_like": like(0), "ones_like": like(1), "full_like": like(None)}
    named |= {"percentile": _quantile(np.percentile), "quantile": _quantile(np.quantile)}
    named |= {"arange": _arange, "linspace": _linspace, "array": _array, "asarray": _array, "interp": _interp}
    named |= {"dot": _dot, "matmul": _dot, "outer": _outer, "unique": _unique, "norm": _norm, "round": _round}
    named |= {"average": _average, "isin": _isin, "tile": _tile}
    return named


NUMPY = _arrays()
IN_NUMPY = {"pow": "power", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2"}
"""What numpy calls a function of ``math``, where it has another word."""

MATH = {
    name: _math(getattr(math, name))
    for name in (
        "sqrt exp log log2 log10 log1p expm1 sin cos tan asin acos atan atan2 sinh cosh tanh floor ceil trunc fabs "
        "pow hypot degrees radians isnan isinf isfinite copysign fmod erf"
    ).split()
}
FUNCTIONS: dict[str, Function] = {
    **MATH,
    **NUMPY,
    **{function.__name__: _of_items(function) for function in (min, max, sum, any, all, sorted, list, tuple, set)},
    **{kind.__name__: _cast(kind) for kind in (int, float, complex)},
    "abs": _abs,
    "bool": lambda work, value=False: truth(value),
    "chr": lambda work, value: chr(value),
    "divmod": lambda work, value, by: divmod(_number(value), _number(by)),
    "ord": lambda work, value: ord(value),
    "filter": _filter,
    "map": _map,
    "enumerate": lambda work, value: list(enumerate(iterated(work, value))),
    "len": _len,
    "pow": _pow,
    "range": _range,
    "reversed": lambda work, value: iterated(work, value)[::-1],
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "str": _str,
    "zip": _zip,
}
"""By their names in a formula."""

OF_FUNCTIONS = ("map", "filter")
"""Those whose first argument is a function."""

KEYED = ("min", "max", "sorted")
"""Those that take one as ``key``."""

CONSTANTS: dict[str, Any] = {"pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan}
MODULES: dict[str, dict[str, Any]] = {
    "np": {**NUMPY, "abs": _abs, **CONSTANTS, "newaxis": None, **{name: name for name in DTYPES}},
    "math": {**MATH, **CONSTANTS, "tau": math.tau},
}
MODULES["np.linalg"] = {"norm": _norm}
MODULES |= {name.replace("np", "numpy"): words for name, words in MODULES.items() if name.startswith("np")}
"""What ``np.`` and ``math.`` may be followed by; no module is behind them."""
