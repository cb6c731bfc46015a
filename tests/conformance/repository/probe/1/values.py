"""Arrays and objects that the probe model's cases try."""

from __future__ import annotations

import numpy as np

BASE = np.arange(6, dtype=np.float32).reshape(2, 3)


class Refuses:
    """An element whose text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Dlpack:
    """An object of the DLPack protocol that is no numpy array."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)


class Elsewhere(Dlpack):
    """One that says that it lies on an unknown device."""

    def __dlpack_device__(self):
        return (99, 0)


def read_only():
    array = np.zeros(2)
    array.setflags(write=False)
    return array


ARRAYS = {
    "float32": lambda: BASE,
    "transposed": lambda: BASE.T,
    "fortran": lambda: np.asfortranarray(BASE),
    "slice": lambda: np.arange(10)[::2],
    "broadcast": lambda: np.broadcast_to(np.float32(1), (2, 2)),
    "read_only": read_only,
    "zero_dims": lambda: np.array(3.0),
    "empty": lambda: np.zeros((0, 3), np.float32),
    "bool": lambda: np.array([True, False]),
    "float16": lambda: np.zeros(1, np.float16),
    "uint64": lambda: np.array([2**64 - 1], dtype=np.uint64),
    "object": lambda: np.array([1, None, "ä", b"x"], dtype=object),
    "object_nested": lambda: np.array([[b"a", 1.5], [{}, [1]]], dtype=object),
    "object_empty": lambda: np.zeros((0,), object),
    "object_refuses": lambda: np.array([Refuses()], dtype=object),
    "object_surrogate": lambda: np.array(["\ud800"], dtype=object),
    "object_transposed": lambda: np.array([[b"a", b"b"], [b"c", b"d"]], dtype=object).T,
    "object_zero_dims": lambda: np.array(b"a", dtype=object),
    "bytes": lambda: np.array([b"a", b"bc\0"]),
    "unicode": lambda: np.array(["a", "b"]),
    "complex": lambda: np.array([1j]),
    "datetime": lambda: np.array(["2020"], dtype="M8[D]"),
    "structured": lambda: np.zeros(2, dtype=[("a", "i4")]),
    "long_double": lambda: np.zeros(2, dtype=np.longdouble),
    "big_endian": lambda: np.arange(3, dtype=">f4"),
    "void": lambda: np.zeros(2, "V3"),
    "matrix": lambda: np.matrix([[1.0, 2.0]]),
    "masked": lambda: np.ma.masked_array([1.0, 2.0], [0, 1]),
    "list": lambda: [1, 2],
    "scalar": lambda: np.float32(3),
    "none": lambda: None,
}
