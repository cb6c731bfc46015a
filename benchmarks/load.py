"""A client process: keep-alive HTTP connections that send one prepared request after the other.

Reads one JSON order per line and answers each with one line of latencies for every burst. Ends when its standard input
does. An order has the ``targets`` of its bursts in turn (the fields of :class:`Target`), ``start_ns`` of the first on the
monotonic clock that all processes share, ``burst_s`` in which to send, and ``period_s`` from one start to the next.
"""

from __future__ import annotations

import json
import selectors
import socket
import ssl
import struct
import sys
import time
from dataclasses import dataclass
from typing import IO, Any

HOST = "127.0.0.1"
ELEMENTS = 16
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Target:
    """Where a burst goes.

    Args:
        port: of the server's HTTP.
        model: its name there.
        ca: file of the authority that signed its certificate; empty: without TLS.
        headers: further lines of each request's head.
        generates: whether the model is decoupled, so that only the generate endpoint answers over HTTP.
    """

    port: int
    model: str
    ca: str = ""
    headers: tuple[str, ...] = ()
    generates: bool = False

    @property
    def request(self) -> bytes:
        """One whole HTTP request with one FP32 [1,16] input, without parameters and id."""
        return generating(self.model) if self.generates else message(self.model, self.headers)


def generating(model: str) -> bytes:
    """Return a request to the generate endpoint: JSON both ways."""
    body = json.dumps({"X": list(range(ELEMENTS))}).encode()
    lines = (
        f"POST /v2/models/{model}/generate HTTP/1.1",
        f"Host: {HOST}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def message(model: str, headers: tuple[str, ...] = ()) -> bytes:
    """Return a request to the infer endpoint: binary both ways.

    Args:
        model: to which it goes.
        headers: further lines of its head.
    """
    data = struct.pack(f"<{ELEMENTS}f", *range(ELEMENTS))
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "X",
                    "datatype": "FP32",
                    "shape": [1, ELEMENTS],
                    "parameters": {"binary_data_size": len(data)},
                }
            ],
            "outputs": [{"name": "Y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    lines = (
        f"POST /v2/models/{model}/infer HTTP/1.1",
        f"Host: {HOST}",
        "Content-Type: application/octet-stream",
        f"Inference-Header-Content-Length: {len(head)}",
        f"Content-Length: {len(head) + len(data)}",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode() + head + data


class Connection:
    """One keep-alive connection with at most one request on its way; with ``ca``, the file of an authority, over TLS."""

    def __init__(self, port: int, ca: str = "") -> None:
        self.socket = socket.create_connection((HOST, port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if ca:
            self.socket = ssl.create_default_context(cafile=ca).wrap_socket(self.socket, server_hostname=HOST)
        self.sent_ns = 0
        self._received = bytearray()

    def send(self, request: bytes) -> None:
        """Send one request."""
        self._received.clear()
        self.sent_ns = time.perf_counter_ns()
        self.socket.sendall(request)

    def is_answered(self) -> bool:
        """Take what has arrived and tell whether the answer is whole.

        Raises:
            ConnectionError: the server hung up, or answered with an error.
        """
        received = self.socket.recv(65536)
        if not received:
            raise ConnectionError("the server closed the connection")
        self._received += received
        while isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():  # no selector tells of these
            self._received += self.socket.recv(65536)
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._received[:end])
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(bytes(self._received).decode("utf-8", "replace"))
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if not length:  # in chunks, as the generate endpoint answers
            return self._received.endswith(b"\r\n0\r\n\r\n")
        return len(self._received) >= end + 4 + int(length)


def burst(connections: list[Connection], request: bytes, start_ns: int, seconds: float) -> list[int]:
    """Keep every connection busy until the time is over, and wait for the last answers.

    Args:
        connections: each with one request on its way at a time.
        request: the whole of it.
        start_ns: when to begin, on the monotonic clock.
        seconds: how long to send.

    Returns:
        Nanoseconds of each request that was answered within the time.

    Raises:
        OSError: the server does not answer, or answers with an error.
    """
    latencies: list[int] = []
    time.sleep(max(0.0, (start_ns - time.monotonic_ns()) / 1e9))
    end_ns = time.perf_counter_ns() + int(seconds * 1e9)
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.send(request)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        busy = len(connections)
        while busy:
            ready = selector.select(TIMEOUT_S)
            if not ready:
                raise TimeoutError(f"no answer within {TIMEOUT_S:g} s")
            for key, _ in ready:
                connection = key.data
                if not connection.is_answered():
                    continue
                now_ns = time.perf_counter_ns()
                if now_ns >= end_ns:
                    busy -= 1
                    continue
                latencies.append(now_ns - connection.sent_ns)
                connection.send(request)
    return latencies


class Sender:
    """One process's connections to every server that it was sent to.

    Args:
        count: connections to each.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._connections: dict[tuple[int, str], list[Connection]] = {}

    def connections_to(self, target: Target) -> list[Connection]:
        """Return the connections to a target's server, made when they are first asked for."""
        key = target.port, target.ca
        if key not in self._connections:
            self._connections[key] = [Connection(*key) for _ in range(self._count)]
        return self._connections[key]

    def carry_out(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send the bursts of one order and return the latencies of each."""
        period_ns = int(order["period_s"] * 1e9)
        targets = [Target(**{**fields, "headers": tuple(fields["headers"])}) for fields in order["targets"]]
        try:
            prepared = {target: (self.connections_to(target), target.request) for target in targets}
            bursts = [
                burst(*prepared[target], order["start_ns"] + turn * period_ns, order["burst_s"])
                for turn, target in enumerate(targets)
            ]
        except OSError as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return {"latencies_ns": bursts}

    def close(self) -> None:
        """Close every connection."""
        for connections in self._connections.values():
            for connection in connections:
                connection.socket.close()


def main(count: int, orders: IO[str], answers: IO[str]) -> None:
    """Carry out orders until there are no more."""
    sender = Sender(count)
    for line in orders:
        answers.write(json.dumps(sender.carry_out(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.stdin, sys.stdout)
