"""The JSON model: a declared schema decides what reaches the author's code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.triton.test_models.asking import Asker, Reply, texts


def line(**changes: Any) -> dict[str, Any]:
    return {"article": "tea", "quantity": 2, "unit_price_cents": 350, **changes}


def order(**changes: Any) -> dict[str, Any]:
    return {"customer": "Ada", "lines": [line()], **changes}


def send(ask: Asker, *orders: Any) -> Reply:
    documents = [item if isinstance(item, (str, bytes)) else json.dumps(item) for item in orders]
    return ask("json_order", {"ORDER": texts(*documents, shape=(len(orders), 1))})


def test_receipts(ask: Asker) -> None:
    """Each order of a batch gets its own receipt."""
    reply = send(ask, order(), order(customer="Bo", lines=[line(), line(quantity=1, unit_price_cents=1)]))
    assert reply.code == "OK"
    receipts = [json.loads(receipt) for receipt in reply.outputs["RECEIPT"][:, 0]]
    assert receipts == [
        {"customer": "Ada", "articles": 1, "total_cents": 700},
        {"customer": "Bo", "articles": 2, "total_cents": 701},
    ]


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        (order(lines=[line(quantity=0)]), "lines.0.quantity: "),
        (order(lines=[line(), line(quantity=1001)]), "lines.1.quantity: "),
        (order(lines=[line(quantity="2")]), "lines.0.quantity: "),
        (order(lines=[line(quantity=True)]), "lines.0.quantity: "),
        (order(lines=[]), "lines: "),
        (order(lines=[line()] * 51), "lines: "),
        (order(customer=""), "customer: "),
        (order(discount=0.5), "discount: "),
        ({"customer": "Ada"}, "lines: "),
        ([], ""),
        ("{'customer': ", ""),
        ("", ""),
        (b"\xff", ""),
        ("[" * 5000, ""),
    ],
)
def test_what_breaks_the_schema(ask_once: Asker, broken: Any, where: str) -> None:
    """The first rule that an order breaks is named with its place; nothing else is told."""
    reply = send(ask_once, order(), broken)
    assert reply.code == "INVALID_ARG"
    assert reply.message.startswith(f"content.json: {where}")
    assert reply.message.endswith("at inputs['ORDER'][1][0]")
    assert "\n" not in reply.message
    assert "pydantic" not in reply.message


def test_bounds_are_accepted(ask_once: Asker) -> None:
    """Fifty lines of a thousand articles at the highest price add up."""
    reply = send(ask_once, order(lines=[line(quantity=1000, unit_price_cents=1_000_000)] * 50))
    assert json.loads(reply.outputs["RECEIPT"][0, 0])["total_cents"] == 50_000_000_000


def test_bytes_of_an_order(ask: Asker) -> None:
    """Above 16 KiB an order is not parsed; at 16 KiB it is."""
    padded = json.dumps(order()).ljust(16 << 10)
    assert send(ask, padded).code == "OK"
    reply = send(ask, padded + " ")
    assert reply.message == "limit.string_bytes: 16385 > 16384 at inputs['ORDER'][0][0]"
