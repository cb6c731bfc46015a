"""What can be wrong with a request before its content is looked at: who sends it, and how HTTP frames it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

from tests.fuzz.server.sites import KEY, NARROW_KEY, credential
from tests.fuzz.server.wire import Sent

CREDENTIALS = (
    None,
    "",
    "Basic",
    "Basic ====",
    "Basic " + "A" * 4000,
    credential("fuzz", KEY + "x"),
    credential("fuzz", ""),
    credential("", KEY),
    credential("nobody", KEY),
    credential("narrow", KEY),
    credential("fuzz", NARROW_KEY),
    credential("fuzz:fuzz", KEY),
    credential("FUZZ", KEY),
    "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJmdXp6In0.",
    "Negotiate x",
)
"""None of them is anybody's."""

SPOOFED = ("x-safe-triton-identity", "x-safe-triton-model", "x-safe-triton-cluster", "x-forwarded-client-cert")


def _credential(rng: random.Random, sent: Sent) -> Sent:
    """Show no credential, or one that is nobody's, and say inside what only the gateway may say."""
    shown = rng.choice(CREDENTIALS)
    headers = {**sent.headers, **({} if shown is None else {"authorization": shown})}
    if rng.random() < 0.5:
        headers[rng.choice(SPOOFED)] = rng.choice(("fuzz", "digits", "http-digits"))
    return dataclasses.replace(sent, headers=headers, is_stranger=True, is_forbidden=True)


def _narrow(_: random.Random, sent: Sent) -> Sent:
    """Ask as somebody whose role has one model, which is not there."""
    headers = {**sent.headers, "authorization": credential("narrow", NARROW_KEY)}
    return dataclasses.replace(sent, headers=headers, is_stranger=True, is_forbidden=True)


def _framing(rng: random.Random, sent: Sent) -> Sent:
    """Claim two lengths, or a length and chunks, or hide one of them."""
    length = str(len(sent.body))
    headers = rng.choice(
        (
            {"Transfer-Encoding": "chunked", "Content-Length": length},
            {"Transfer-Encoding": "chunked"},
            {"Transfer-Encoding": "identity, chunked", "Content-Length": length},
            {"Transfer-Encoding": "xchunked", "Content-Length": length},
            {"Transfer-Encoding ": "chunked", "Content-Length": length},
            {"Content-Length": length + "\r\nContent-Length: 0"},
            {"Content-Length": length + ", 0"},
            {"Content-Length": "+" + length},
            {"Content-Length": "0x10"},
            {"Content-Length": length, "X": "a\r\n b"},
            {"Content-Length": length, "Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"},
            {"Content-Length": length, "Host": "a\r\nHost: b"},
        )
    )
    tail = rng.choice((b"", b"0\r\n\r\nGET /v2 HTTP/1.1\r\nHost: x\r\n\r\n", b"ffffffffffffffff\r\n"))
    return dataclasses.replace(
        sent, headers={**sent.headers, **headers}, body=tail + sent.body, length=None, is_short=True, is_broken=True
    )


def _headers(rng: random.Random, sent: Sent) -> Sent:
    """Send more headers, or larger or stranger ones, than anybody needs."""
    added = rng.choice(
        (
            {f"x-{number}": "v" for number in range(rng.choice((70, 2000)))},
            {"x-large": "v" * rng.choice((9_000, 40_000, 200_000))},
            {"x_under_score": "v"},
            {"content-length": "7"},
            {"x-nul": "a\x00b"},
            {"x-high": "\xff\xfe"},
            {"": "nameless"},
            {"x y": "v"},
            {":authority": "x"},
        )
    )
    return dataclasses.replace(sent, headers={**sent.headers, **added}, is_broken=True)


def _first_line(rng: random.Random, sent: Sent) -> Sent:
    """Bend the first line of HTTP."""
    target = rng.choice(
        (
            sent.target + " HTTP/1.1\r\nX: y",
            "//" + sent.target.lstrip("/"),
            sent.target.replace("/", "%2f", 1),
            sent.target.replace("/v2/", "/v2/../v2/", 1),
            sent.target.replace("/v2/", "/V2/", 1),
            "http://other" + sent.target,
            sent.target + "%00",
            sent.target + "\\x",
            sent.target + "?" + "x" * 60_000,
            "*",
            "",
        )
    )
    method = rng.choice((sent.method, "post", "PRI", "CONNECT", "TRACE", "P\x00ST", "M" * 5000))
    return dataclasses.replace(sent, target=target, method=method, is_broken=True)


HTTP_GATE: tuple[Callable[[random.Random, Sent], Sent], ...] = (_credential, _narrow, _framing, _headers, _first_line)
GRPC_GATE: tuple[Callable[[random.Random, Sent], Sent], ...] = (_credential, _narrow)


def at_the_gate(rng: random.Random, sent: Sent) -> tuple[Sent, str]:
    """Return the request, wrong in one more way, and the way's name."""
    way = rng.choice(GRPC_GATE if sent.protocol == "grpc" else HTTP_GATE)
    return way(rng, sent), way.__name__.removeprefix("_")
