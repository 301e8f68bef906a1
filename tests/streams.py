"""Streams of sockets that the tests have connected themselves."""

from __future__ import annotations

import socket

import trio

from mitml4.net.tcp import TcpStream, prepare


def tcp_stream(sock: socket.socket | trio.socket.SocketType) -> TcpStream:
    """A stream, which owns the socket."""
    if not isinstance(sock, socket.socket):
        sock = socket.socket(fileno=sock.detach())
    prepare(sock)
    return TcpStream(sock)
