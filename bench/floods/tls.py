"""Floods inside TLS: records with one byte or none, tickets, key updates, renegotiation."""

from __future__ import annotations

import os
import select
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterable
from itertools import count, cycle, repeat
from pathlib import Path
from typing import Final

from OpenSSL import SSL

from bench.floods.catalogue import CHUNK, Connect, Flood, drain
from bench.tls_records import HANDSHAKE, RecordWriter, logged_secret, ticket

__all__ = ["FLOODS"]

Records = Callable[[RecordWriter], Iterable[bytes]]
"""The records that a side sends after the handshake."""

_A_RECORD_OF_TICKETS: Final = b"".join(map(ticket, range(850)))
_HEAD: Final = b"GET / HTTP/1.1\r\nHost: flood.bench.test\r\nX: "


def _tickets(writer: RecordWriter) -> Iterable[bytes]:
    return (writer.record(HANDSHAKE, _A_RECORD_OF_TICKETS) for _ in count())


def _single_tickets(writer: RecordWriter) -> Iterable[bytes]:
    return (writer.record(HANDSHAKE, ticket(number & 0xFFFF)) for number in count())


def _key_updates(writer: RecordWriter) -> Iterable[bytes]:
    return (writer.key_update() for _ in count())


def _bytes(writer: RecordWriter) -> Iterable[bytes]:
    return map(writer.data, repeat(b"\0"))


def _head_by_bytes(writer: RecordWriter) -> Iterable[bytes]:
    """60,000 bytes of a request head, which still fit into a peek."""
    yield from (writer.data(bytes([byte])) for byte in _HEAD + b"x" * 60_000)


def _empty(writer: RecordWriter) -> Iterable[bytes]:
    """OpenSSL accepts 32 empty records in a row."""
    return (writer.data(b"" if n else b"\0") for n in cycle(range(31)))


class _Handshake:
    """A handshake over a socket, after which records are written directly."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> None:
        with tempfile.NamedTemporaryFile() as log:
            context.keylog_filename = log.name
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            name = None if server_side else "flood.bench.test"
            tls = context.wrap_bio(incoming, outgoing, server_side, name)
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    if not (data := sock.recv(CHUNK)):
                        raise EOFError from None
                    incoming.write(data)
            sock.sendall(outgoing.read())
            side = "SERVER" if server_side else "CLIENT"
            self.writer = RecordWriter(logged_secret(Path(log.name), f"{side}_TRAFFIC_SECRET_0"))


def _pour(sock: socket.socket, handshake: _Handshake, records: Records) -> None:
    chunk = bytearray()
    for record in records(handshake.writer):
        chunk += record
        if len(chunk) >= CHUNK:
            sock.sendall(chunk)
            chunk.clear()
    sock.sendall(chunk)
    drain(sock, Path())


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _server_context(where: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(where / "server.pem", where / "server.key")
    context.num_tickets = 0
    return context


def _greets(connect: Connect, _where: Path) -> None:
    """Complete the handshake, send an unknown protocol's bytes, and read."""
    sock = connect()
    handshake = _Handshake(sock, _client_context(), server_side=False)
    sock.sendall(handshake.writer.data(b"\xf5\xe1bench\x9c"))
    drain(sock, Path())


def _listens(sock: socket.socket, where: Path) -> None:
    _Handshake(sock, _server_context(where), server_side=True)
    drain(sock, where)


def _client_writes(records: Records) -> Callable[[Connect, Path], None]:
    def run(connect: Connect, _where: Path) -> None:
        sock = connect()
        _pour(sock, _Handshake(sock, _client_context(), server_side=False), records)

    return run


def _server_writes(records: Records) -> Callable[[socket.socket, Path], None]:
    def run(sock: socket.socket, where: Path) -> None:
        _pour(sock, _Handshake(sock, _server_context(where), server_side=True), records)

    return run


def _renegotiates(sock: socket.socket, where: Path) -> None:
    """A TLS 1.2 server that renegotiates repeatedly."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate_chain_file(os.fspath(where / "server.pem"))
    context.use_privatekey_file(os.fspath(where / "server.key"))
    sock.setblocking(False)
    connection = SSL.Connection(context, sock)
    connection.set_accept_state()

    def until_done(step: Callable[[], object]) -> None:
        while True:
            try:
                step()
                return
            except SSL.WantReadError:
                select.select([sock], [], [])

    until_done(connection.do_handshake)
    until_done(lambda: connection.recv(CHUNK))
    while True:
        connection.renegotiate()
        until_done(connection.do_handshake)
        while connection.renegotiate_pending():
            try:
                connection.recv(CHUNK)
            except SSL.WantReadError:
                select.select([sock], [], [], 0.1)


def _greets_in_any_version(connect: Connect, where: Path) -> None:
    tls = _client_context().wrap_socket(connect())
    tls.sendall(b"\xf5\xe1bench\x9c")
    drain(tls, where)


def _shakes_hands(connect: Connect, _where: Path) -> None:
    """Consecutive connections, each with a full handshake."""
    context = _client_context()
    while True:
        with connect() as sock:
            _Handshake(sock, context, server_side=False)


FLOODS: Final[tuple[Flood, ...]] = (
    Flood(
        name="tls-tickets",
        title="TLS: records of 850 tickets each",
        client=_greets,
        server=_server_writes(_tickets),
    ),
    Flood(
        name="tls-single-tickets",
        title="TLS: a ticket a record",
        client=_greets,
        server=_server_writes(_single_tickets),
    ),
    Flood(
        name="tls-key-updates-up",
        title="TLS: key updates of the client",
        client=_client_writes(_key_updates),
        server=_listens,
    ),
    Flood(
        name="tls-key-updates-down",
        title="TLS: key updates of the server",
        client=_greets,
        server=_server_writes(_key_updates),
    ),
    Flood(
        name="tls-bytes-up",
        title="TLS: records of a byte, of the client",
        client=_client_writes(_bytes),
        server=_listens,
    ),
    Flood(
        name="tls-bytes-down",
        title="TLS: records of a byte, of the server",
        client=_greets,
        server=_server_writes(_bytes),
    ),
    Flood(
        name="tls-head-by-bytes",
        title="TLS: a request head in records of a byte, again and again",
        client=_client_writes(_head_by_bytes),
        server=_listens,
    ),
    Flood(
        name="tls-empty",
        title="TLS: records without a byte",
        client=_client_writes(_empty),
        server=_listens,
    ),
    Flood(
        name="tls-renegotiation",
        title="TLS 1.2: a server that renegotiates again and again",
        client=_greets_in_any_version,
        server=_renegotiates,
    ),
    Flood(
        name="tls-handshakes",
        title="TLS: one handshake after the other",
        client=_shakes_hands,
        server=_listens,
    ),
)
