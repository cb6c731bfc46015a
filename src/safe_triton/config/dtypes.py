"""Triton's data types as numpy sees them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DType:
    """One Triton data type.

    Args:
        name: as in config.pbtxt without ``TYPE_``; the v2 protocol's name, except that BYTES is ``STRING`` there.
        numpy: name of the numpy dtype that ``as_numpy()`` gives, or ``""`` where numpy has none.
        itemsize: bytes per element; 0 for BYTES, whose elements differ.
    """

    name: str
    numpy: str
    itemsize: int

    @property
    def is_bytes(self) -> bool:
        """Whether elements are byte strings of any length."""
        return self.name == "BYTES"

    @property
    def is_float(self) -> bool:
        """Whether elements can be NaN or infinite."""
        return self.name in ("FP16", "FP32", "FP64", "BF16")

    @property
    def is_number(self) -> bool:
        """Whether elements have an order, so that a value range makes sense."""
        return self.name not in ("BYTES", "BOOL")


DTYPES: dict[str, DType] = {
    f"TYPE_{spelling}": DType(name, numpy, itemsize)
    for spelling, name, numpy, itemsize in (
        ("BOOL", "BOOL", "bool", 1),
        ("UINT8", "UINT8", "uint8", 1),
        ("UINT16", "UINT16", "uint16", 2),
        ("UINT32", "UINT32", "uint32", 4),
        ("UINT64", "UINT64", "uint64", 8),
        ("INT8", "INT8", "int8", 1),
        ("INT16", "INT16", "int16", 2),
        ("INT32", "INT32", "int32", 4),
        ("INT64", "INT64", "int64", 8),
        ("FP16", "FP16", "float16", 2),
        ("FP32", "FP32", "float32", 4),
        ("FP64", "FP64", "float64", 8),
        ("BF16", "BF16", "", 2),
        ("STRING", "BYTES", "object", 0),
    )
}
"""By config.pbtxt's spelling. Source: Triton ``model_config.proto``, enum DataType."""

BY_NUMPY = {dtype.numpy: dtype for dtype in DTYPES.values() if dtype.numpy}
