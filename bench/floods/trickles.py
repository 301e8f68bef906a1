"""Floods of many small items: segments of one byte, messages of one line, empty connections."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Final

from bench.floods.catalogue import CHUNK, Connect, Flood, client_pours, drain, holds

__all__ = ["FLOODS"]

_HEAD: Final = b"GET / HTTP/1.1\r\nHost: flood.bench.test\r\nX: "
_LINES: Final = b"NOOP\r\n" * (CHUNK // 6)


def _by_bytes(opening: bytes, most: int) -> Callable[[Connect, Path], None]:
    """Segments of one byte, on connections that each send `most` of them."""

    def run(connect: Connect, _where: Path) -> None:
        while True:
            with connect() as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(opening)
                for each in repeat(b"x", most):
                    sock.sendall(each)

    return run


def _mail(connect: Connect, _where: Path) -> None:
    sock = connect()
    sock.recv(CHUNK)
    sock.sendall(b"EHLO flood.bench.test\r\n")
    sock.recv(CHUNK)
    for lines in repeat(_LINES):
        sock.sendall(lines)


def _take_mail(sock: socket.socket, where: Path) -> None:
    sock.sendall(b"220 flood.bench.test ESMTP\r\n")
    sock.recv(CHUNK)
    sock.sendall(b"250 flood.bench.test\r\n")
    drain(sock, where)


def _connect_for_nothing(connect: Connect, _where: Path) -> None:
    while True:
        connect().close()


_AT_ONCE: Final = 500


def _connect_at_once(connect: Connect, _where: Path) -> None:
    """Start many connections without waiting for them, repeatedly."""
    with connect() as first:
        server = first.getpeername()
    while True:
        begun = []
        for _ in range(_AT_ONCE):
            begun.append(socket.socket())
            begun[-1].setblocking(False)
            begun[-1].connect_ex(server)
        time.sleep(0.05)
        for sock in begun:
            sock.close()


FLOODS: Final[tuple[Flood, ...]] = (
    Flood(
        name="head-by-bytes",
        title="HTTP/1: a request head, a byte a segment",
        client=_by_bytes(_HEAD, 60_000),
    ),
    Flood(
        name="opening-by-bytes",
        title="what nothing recognises, a byte a segment",
        client=_by_bytes(b"x", 60_000),
    ),
    Flood(
        name="hello-by-bytes",
        title="a ClientHello, a byte a segment",
        client=_by_bytes(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03", 16_000),
    ),
    Flood(name="mail", title="SMTP: NOOP, pipelined", client=_mail, server=_take_mail),
    Flood(
        name="connections",
        title="connections that say nothing and end, one after the other",
        client=_connect_for_nothing,
    ),
    Flood(
        name="connections-at-once",
        title=f"{_AT_ONCE} connections at once that say nothing and end, again and again",
        client=_connect_at_once,
    ),
    Flood(
        name="half-heads-64k",
        title="1,000 connections with 60 KB of a request head each",
        client=holds(1000, _HEAD + b"x" * 60_000),
    ),
    Flood(
        name="early",
        title="what a client says behind a CONNECT that is not answered",
        client=client_pours(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"x" * CHUNK),
    ),
)
