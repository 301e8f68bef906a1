"""What a session is asked while its system calls fail: requests within TLS, bytes that nobody
knows, and a port that is closed."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from mitml4.lab.network import SERVER_V4

from .servers import HOST

__all__ = ["VISITS", "visit_all"]

_TIMEOUT_S: Final = 8.0


def _request(roots: Path) -> None:
    context = ssl.create_default_context(cafile=roots)
    with (
        socket.create_connection((SERVER_V4, 443), _TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        for _ in range(2):
            connection.sendall(f"GET /1400 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            answer = b""
            while len(answer.partition(b"\r\n\r\n")[2]) < 1400:
                if not (data := connection.recv(65536)):
                    raise ConnectionError("the answer is not whole")
                answer += data


def _echo(_roots: Path) -> None:
    said = b"\xc0\xff" + bytes(300_000)
    with socket.create_connection((SERVER_V4, 7777), _TIMEOUT_S) as connection:
        heard = 0
        for start in range(0, len(said), 100_000):
            connection.sendall(said[start : start + 100_000])
            while heard < min(start + 100_000, len(said)):
                if not (data := connection.recv(1 << 20)):
                    raise ConnectionError("the answer is not whole")
                heard += len(data)
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1):
            raise ConnectionError("more than was sent")


def _refused(_roots: Path) -> None:
    with suppress(ConnectionRefusedError), socket.create_connection((SERVER_V4, 1), _TIMEOUT_S):
        pass


VISITS: Final[Sequence[Callable[[Path], None]]] = (_request, _echo, _refused)


def visit_all(roots: Path) -> list[str]:
    """From the calling thread's namespace; `roots`: what is trusted. Returns what has failed."""
    failed = []
    for each in VISITS:
        try:
            each(roots)
        except OSError as error:
            failed.append(f"{each.__name__.strip('_')}: {error}")
    return failed
