"""Add up an order: the JSON is validated against a pydantic model before this code sees it."""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from safe_triton import InputLimits, Limits, SafeTritonPythonModel


class Line(BaseModel):
    """One article of an order; every number is bounded, so no sum can surprise."""

    model_config = ConfigDict(extra="forbid", strict=True)

    article: Annotated[str, Field(min_length=1, max_length=40)]
    quantity: Annotated[int, Field(ge=1, le=1_000)]
    unit_price_cents: Annotated[int, Field(ge=0, le=1_000_000)]


class Order(BaseModel):
    """What a client may send; `extra="forbid"` refuses unknown fields, `strict` refuses "3" for 3."""

    model_config = ConfigDict(extra="forbid", strict=True)

    customer: Annotated[str, Field(min_length=1, max_length=80)]
    lines: Annotated[list[Line], Field(min_length=1, max_length=50)]


class TritonPythonModel(SafeTritonPythonModel):
    """`schema=Order`: the input arrives as an array of `Order` objects."""

    limits = Limits(
        deadline_ms=500,
        inputs={"ORDER": InputLimits(max_string_bytes=16 << 10, schema=Order)},
        parameters={},
    )

    def infer(self, inputs):
        """Return one receipt for each order of the batch."""
        receipts = [[json.dumps(self.receipt(order))] for order in inputs["ORDER"][:, 0]]
        return {"RECEIPT": np.array(receipts, object)}

    @staticmethod
    def receipt(order):
        """Add up one order, in cents."""
        total_cents = sum(line.quantity * line.unit_price_cents for line in order.lines)
        return {"customer": order.customer, "articles": len(order.lines), "total_cents": total_cents}
