"""Attempts on the network and on sockets of other processes."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
import urllib.request

from tests.attacks.confined.table import LIBC, attempt, call
from tests.attacks.confined.world import World


@attempt("contact")
def tcp(world: World) -> object:
    return socket.create_connection(("127.0.0.1", world.tcp), 1)


@attempt("contact")
def tcp_not_blocking(world: World) -> object:
    made = socket.socket()
    made.setblocking(False)
    return made.connect_ex(("127.0.0.1", world.tcp))


@attempt("contact")
def tcp_by_libc(world: World) -> object:
    made = LIBC.socket(2, 1, 0)
    address = struct.pack("=H", 2) + struct.pack("!H", world.tcp) + socket.inet_aton("127.0.0.1") + bytes(8)
    return LIBC.connect(made, address, len(address))


@attempt("contact")
def tcp_mapped_address(world: World) -> object:
    return socket.create_connection(("::ffff:127.0.0.1", world.tcp), 1)


@attempt("contact")
def tcp_fast_open(world: World) -> object:
    made = socket.socket()
    return made.sendto(b"x", 0x20000000, ("127.0.0.1", world.tcp))


@attempt("contact")
def tcp_asyncio(world: World) -> object:
    return asyncio.run(asyncio.wait_for(asyncio.open_connection("127.0.0.1", world.tcp), 1))


@attempt("contact")
def http(world: World) -> object:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(f"http://127.0.0.1:{world.tcp}/", timeout=0.2)


@attempt("contact")
def udp(world: World) -> object:
    return socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", world.udp))


@attempt("contact")
def udp_connected(world: World) -> object:
    made = socket.socket(type=socket.SOCK_DGRAM)
    made.connect(("127.0.0.1", world.udp))
    return made.send(b"x")


@attempt("contact")
def udp_message(world: World) -> object:
    return socket.socket(type=socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, ("127.0.0.1", world.udp))


@attempt("contact")
def udp_inherited(world: World) -> object:
    return socket.socket(fileno=world.socket_descriptor).sendto(b"x", ("127.0.0.1", world.udp))


@attempt("contact")
def unix_stream(world: World) -> object:
    return socket.socket(socket.AF_UNIX).connect(world.stream)


@attempt("contact")
def unix_datagram(world: World) -> object:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", world.datagram)


@attempt("contact")
def unix_abstract(world: World) -> object:
    return socket.socket(socket.AF_UNIX).connect(f"\0{world.abstract}")


@attempt("contact")
def datagram_pair(world: World) -> object:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", world.datagram)


@attempt("contact")
def datagram_pair_message(world: World) -> object:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendmsg([b"x"], [], 0, world.datagram)


@attempt("contact")
def datagram_pair_reconnected(world: World) -> object:
    one = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]
    one.connect(world.datagram)
    return one.send(b"x")


@attempt("contact")
def datagram_pair_high_bits(world: World) -> object:
    pair = (ctypes.c_int * 2)()
    LIBC.syscall(ctypes.c_long(53 if os.uname().machine == "x86_64" else 199), 1, ctypes.c_long(2 | 1 << 40), 0, pair)
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, fileno=pair[0]).sendto(b"x", world.datagram)


@attempt("true")
def listen(world: World) -> object:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen()
    return made.getsockname()[1]


@attempt("true")
def listen_unbound(world: World) -> object:
    made = socket.socket()
    made.listen()
    return made.getsockname()[1]


@attempt("true")
def listen_abstract(world: World) -> object:
    made = socket.socket(socket.AF_UNIX)
    made.bind(f"\0mine-{os.getpid()}")
    made.listen()
    return True


@attempt("true")
def netlink(world: World) -> object:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).fileno() > 0


@attempt("true")
def interfaces(world: World) -> object:
    return socket.if_nameindex()


@attempt("true", needs="root")
def raw_socket(world: World) -> object:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno() > 0


@attempt("true", needs="root")
def packet_socket(world: World) -> object:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).fileno() > 0


@attempt("true")
def any_socket(world: World) -> object:
    return call_socket(2, 1, 0) >= 0


@attempt("true")
def socket_ring(world: World) -> object:
    return call("io_uring_setup", 1, ctypes.create_string_buffer(120)) >= 0


def call_socket(family: int, kind: int, protocol: int) -> int:
    result: int = LIBC.socket(family, kind, protocol)
    if result < 0:
        raise PermissionError(ctypes.get_errno(), "socket")
    return result
