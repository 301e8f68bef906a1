"""The demo's clients: curl through all kinds of proxies, and a few protocols in plain Python.

A `Visit` is one client, from connect to close, with the expected stack.
"""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.lab.network import SERVER_V4, SERVER_V6
from mitml4.lab.servers import Port

__all__ = ["VISITS", "Trust", "Visit"]

_TIMEOUT_S: Final = 5.0
_HOST: Final = "www.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The roots that clients may trust: mitml4's, as a user installs it, and the lab's."""

    mitml4: Path
    lab: Path


Client: TypeAlias = Callable[[Trust], str]
"""Makes its connections from the calling thread's network namespace, and returns the result as
text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One client's connection, and its expected stack."""

    title: str
    stack: tuple[str, ...]
    client: Client


def _curl(*options: str, address: str = SERVER_V4) -> Client:
    names = [f"{_HOST}:{port}:{address}" for port in Port]

    def visit(trust: Trust) -> str:
        result = subprocess.run(
            [
                *("curl", "--silent", "--show-error", "--output", os.devnull),
                *("--write-out", "%{http_version} %{http_code}"),
                *("--max-time", str(_TIMEOUT_S)),
                *("--cacert", str(trust.mitml4), "--proxy-cacert", str(trust.mitml4)),
                *(option for name in names for option in ("--resolve", name)),
                *(option.format(root=trust.lab) for option in options),
            ],
            env={"PATH": os.environ.get("PATH", os.defpath)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if result.returncode != 0:
            return result.stderr.partition("\n")[0].rpartition(": ")[2]
        return f"HTTP/{result.stdout}"

    return visit


def _connect(port: Port) -> socket.socket:
    return socket.create_connection((SERVER_V4, int(port)), timeout=_TIMEOUT_S)


def _encrypted(trust: Trust, port: Port) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=trust.mitml4)
    return context.wrap_socket(_connect(port), server_hostname=_HOST)


def _websocket(trust: Trust) -> str:
    with _encrypted(trust, Port.HTTPS) as sock:
        sock.sendall(
            f"GET /socket HTTP/1.1\r\nHost: {_HOST}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        with sock.makefile("rb") as answer:
            while answer.readline() not in (b"\r\n", b""):
                pass
            sock.sendall(b"\x81\x85" + bytes(4) + b"hello")  # text, masked by zeros
            message = answer.read(7)
            sock.sendall(b"\x88\x80" + bytes(4))  # close
            answer.read()
    return f"echoed {message[2:].decode()}"


def _smtp(trust: Trust) -> str:
    with smtplib.SMTP(SERVER_V4, int(Port.SMTP), timeout=_TIMEOUT_S) as mail:
        # The name in the server's certificate; smtplib has no other way to set it.
        mail._host = _HOST  # type: ignore[attr-defined]
        mail.starttls(context=ssl.create_default_context(cafile=trust.mitml4))
        mail.ehlo()
    return "STARTTLS done"


def _ssh(_: Trust) -> str:
    with _connect(Port.SSH) as sock, sock.makefile("rb") as lines:
        greeting = lines.readline()
        sock.sendall(b"SSH-2.0-LabClient_1.0\r\n")
        lines.read()
    return greeting.decode().strip()


def _unknown(_: Trust) -> str:
    question = b"\xc0\xff\xee\x00 is this anything?"
    with _connect(Port.UNKNOWN) as sock:
        sock.sendall(question)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as answer:
            echo = answer.read()
    return "echoed" if echo == question else f"got {echo!r}"


_URL: Final = f"https://{_HOST}/"

VISITS: Final = (
    Visit(
        title="curl, plain HTTP",
        stack=("http/1",),
        client=_curl(f"http://{_HOST}/"),
    ),
    Visit(
        title="curl --http1.1",
        stack=("tls", "http/1"),
        client=_curl("--http1.1", _URL),
    ),
    Visit(
        title="curl --http2, over IPv6",
        stack=("tls", "http/2"),
        client=_curl("--http2", _URL, address=f"[{SERVER_V6}]"),
    ),
    Visit(
        title="curl, SOCKS5 proxy",
        stack=("socks5", "tls", "http/2"),
        client=_curl("--proxy", f"socks5h://{SERVER_V4}:{Port.SOCKS}", _URL),
    ),
    Visit(
        title="curl, HTTP proxy",
        stack=("http-connect", "tls", "http/2"),
        client=_curl("--proxy", f"http://{SERVER_V4}:{Port.PROXY}", _URL),
    ),
    Visit(
        title="curl, HTTPS proxy",
        stack=("tls", "http-connect", "tls", "http/2"),
        client=_curl("--proxy", f"https://{_HOST}:{Port.TLS_PROXY}", _URL),
    ),
    Visit(
        title="curl, SOCKS5 then HTTP proxy",
        stack=("socks5", "http-connect", "tls", "http/2"),
        client=_curl(
            *("--preproxy", f"socks5h://{SERVER_V4}:{Port.SOCKS}"),
            *("--proxy", f"http://{SERVER_V4}:{Port.PROXY}", _URL),
        ),
    ),
    Visit(title="WebSocket", stack=("tls", "http/1", "websocket"), client=_websocket),
    Visit(title="SMTP with STARTTLS", stack=("smtp", "tls", "smtp"), client=_smtp),
    Visit(title="SSH, server speaks first", stack=("ssh",), client=_ssh),
    Visit(title="bytes that nobody knows", stack=("unknown",), client=_unknown),
    Visit(
        title="curl, expired certificate",
        stack=("tls",),
        client=_curl(f"https://{_HOST}:{Port.EXPIRED}/"),
    ),
    Visit(
        title="curl, trusts its own roots",
        stack=("tls",),
        client=_curl("--cacert", "{root}", _URL),
    ),
    Visit(
        title="the same: passed through",
        stack=("tls",),
        client=_curl("--cacert", "{root}", _URL),
    ),
)
"""In the order of presentation: each shows one thing more than the one before."""
