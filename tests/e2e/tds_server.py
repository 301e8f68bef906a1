"""As much of SQL Server as a client needs to log in and to ask for 42, and nothing of mitml4.

tds_server.py ADDRESS PORT CERTIFICATE KEY off|on
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import struct
import sys

BATCH, RESPONSE, LOGIN, PRELOGIN = 0x01, 0x04, 0x10, 0x12


class Wire:
    """Messages in packets; inside TLS once there is some."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.tls: ssl.SSLObject | None = None
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    def raw(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def read(self, count: int) -> bytes:
        if self.tls is None:
            return self.raw(count)
        data = b""
        while len(data) < count:
            try:
                more = self.tls.read(count - len(data))
            except ssl.SSLWantReadError:
                more = self.sock.recv(4096)
                if not more:
                    raise EOFError from None
                self.incoming.write(more)
                continue
            if not more:
                raise EOFError
            data += more
        return data

    def write(self, data: bytes) -> None:
        if self.tls:
            self.tls.write(data)
            data = self.outgoing.read()
        self.sock.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        message = b""
        while True:
            kind, status, length = struct.unpack(">BBHxxxx", self.read(8))
            message += self.read(length - 8)
            if status & 1:
                return kind, message

    def send(self, kind: int, message: bytes, most: int = 4088) -> None:
        while True:
            part, message = message[:most], message[most:]
            self.write(struct.pack(">BBHHBB", kind, not message, 8 + len(part), 0, 1, 0) + part)
            if not message:
                return

    def shake_hands(self, context: ssl.SSLContext) -> None:
        """Each flight is one message of the prelogin's type."""
        tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                kind, flight = self.receive()
                assert kind == PRELOGIN, kind
                self.incoming.write(flight)
            except ssl.SSLError:
                self.flush()
                raise
        self.flush()
        self.tls = tls

    def flush(self) -> None:
        if flight := self.outgoing.read():
            self.send(PRELOGIN, flight)


def text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode("utf-16-le")


def token(kind: int, body: bytes) -> bytes:
    return struct.pack("<BH", kind, len(body)) + body


def done(status: int, rows: int) -> bytes:
    return struct.pack("<BHHQ", 0xFD, status, 0xC1, rows)


ADDRESS, PORT, CERTIFICATE, KEY, ENCRYPTION = sys.argv[1:]
PACKET_SIZE = token(0xE3, b"\x04" + text("4096") + text("4096"))
LOGGED_IN = token(0xAD, b"\x01\x74\x00\x00\x04" + text("lab") + b"\x10\x00\x03\xe8")
FORTY_TWO = (
    b"\x81" + struct.pack("<HIHB", 1, 0, 0, 0x38) + text("n") + b"\xd1" + struct.pack("<i", 42)
)


class Session(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            self.talk(Wire(self.request))
        except (EOFError, OSError):
            return

    def talk(self, wire: Wire) -> None:
        kind, _ = wire.receive()
        assert kind == PRELOGIN
        wire.send(RESPONSE, OPTIONS)
        wire.shake_hands(CONTEXT)
        kind, _ = wire.receive()
        assert kind == LOGIN
        if ENCRYPTION == "off":
            wire.tls = None
        wire.send(RESPONSE, PACKET_SIZE + LOGGED_IN + done(0, 0))
        while True:
            kind, message = wire.receive()
            if kind == BATCH and "select 6 * 7" in message.decode("utf-16-le", "replace").lower():
                wire.send(RESPONSE, FORTY_TWO + done(0x10, 1))
            else:
                wire.send(RESPONSE, done(0, 0))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


OPTIONS = b"\x00\x00\x0b\x00\x06\x01\x00\x11\x00\x01\xff" + b"\x10\x00\x03\xe8\x00\x00"
OPTIONS += {"off": b"\0", "on": b"\1"}[ENCRYPTION]
CONTEXT = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
CONTEXT.load_cert_chain(CERTIFICATE, KEY)
CONTEXT.maximum_version = ssl.TLSVersion.TLSv1_2  # SQL Server's, in packets
Server((ADDRESS, int(PORT)), Session).serve_forever()
