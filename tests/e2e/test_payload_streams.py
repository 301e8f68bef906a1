"""What --payload shows of protocols without bodies: put together, it is what the two ends said."""

from __future__ import annotations

import random
import socket
import ssl
from base64 import b64decode

import pytest

from mitml4.lab.network import SERVER_V4

from .conftest import HOST
from .exim import serve_exim

REDIS, REDIS_TLS, SOCKS, SMTP = 6379, 6380, 1080, 25026
PASSWORD = b"s3cret-pass"
VALUE = random.Random(3).randbytes(50_000)


@pytest.fixture(scope="module", autouse=True)
def servers(serve, files, identity) -> None:
    serve(
        *("redis-server", "--port", str(REDIS), "--tls-port", str(REDIS_TLS), "--bind", SERVER_V4),
        *("--save", "", "--dir", str(files), "--requirepass", PASSWORD.decode()),
        *("--tls-cert-file", str(identity.certificate), "--tls-key-file", str(identity.key)),
        *("--tls-ca-cert-file", str(identity.certificate), "--tls-auth-clients", "no"),
        port=REDIS_TLS,
    )
    serve("microsocks", "-i", SERVER_V4, "-p", str(SOCKS), port=SOCKS)
    serve_exim(serve, files, identity, SMTP)


def streams(
    events: list[dict], flow: int, depth: int, *, redacted: bool = False
) -> dict[str, bytes]:
    """Both directions of a layer, put together. The offsets are those of the bytes that were
    sent, also after what is redacted."""
    found = {"up": b"", "down": b""}
    for event in events:
        if event["type"] == "flow.data" and (event["flow"], event["depth"]) == (flow, depth):
            text = event["text"]
            data = b64decode(event["base64"]) if text is None else text.encode()
            assert redacted or event["offset"] == len(found[event["direction"]])
            found[event["direction"]] += data
    return found


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def talk(sock: socket.socket) -> dict[str, bytes]:
    """A conversation with Redis: what was sent, and what came."""
    asked = (
        (command(b"AUTH", PASSWORD), b"+OK\r\n"),
        (command(b"SET", b"k", VALUE), b"+OK\r\n"),
        (command(b"GET", b"k") + command(b"INCR", "zähler".encode()), None),
    )
    sent = received = b""
    for request, answer in asked:
        sock.sendall(request)
        sent += request
        end = b":1\r\n" if answer is None else answer
        part = b""
        while not part.endswith(end):
            part += sock.recv(65536)
        received += part
    sock.sendall(command(b"DEL", "zähler".encode()))
    sent += command(b"DEL", "zähler".encode())
    received += sock.recv(100)
    return {"up": sent, "down": received}


def connect(client, ca, *, port: int, through: int | None, tls: bool) -> socket.socket:
    sock = client.connect(SERVER_V4, through or port)
    if through:
        sock.sendall(b"\x05\x01\x00")
        assert sock.recv(2) == b"\x05\x00"
        target = socket.inet_aton(SERVER_V4) + port.to_bytes(2, "big")
        sock.sendall(b"\x05\x01\x00\x01" + target)
        assert sock.recv(10)[:2] == b"\x05\x00"
    if tls:
        context = ssl.create_default_context(cafile=str(ca))
        return context.wrap_socket(sock, server_hostname=HOST)
    return sock


CASES = (
    (REDIS, None, False, ["redis"]),
    (REDIS_TLS, None, True, ["tls", "redis"]),
    (REDIS_TLS, SOCKS, True, ["socks5", "tls", "redis"]),
)


@pytest.mark.parametrize("shows_secrets", [True, False])
def test_redis_at_any_depth(intercept, client, shows_secrets: bool) -> None:
    options = ("--payload", "--payload-limit", "1MiB")
    session = intercept(*options, *(["--show-secrets"] if shows_secrets else []))
    said = []
    for port, through, tls, _ in CASES:
        with connect(client, session.ca, port=port, through=through, tls=tls) as sock:
            said.append(talk(sock))
    assert session.stop() == 0
    for flow, spoken, (*_, stack) in zip(session.flows(), said, CASES, strict=True):
        assert flow.stack == stack
        number, depth = flow.opened["flow"], len(stack) - 1
        shown = streams(session.events, number, depth, redacted=not shows_secrets)
        assert PASSWORD in spoken["up"]
        if not shows_secrets:
            spoken["up"] = spoken["up"].replace(PASSWORD, b"<redacted, 11 bytes>")
        assert shown == spoken
        assert VALUE in shown["up"]
        assert VALUE in shown["down"]


def test_mail_after_starttls(intercept, client, files) -> None:
    session = intercept("--payload", "--payload-limit", "1MiB")
    mail = files / "mail.txt"
    lines = "".join(f"line {number}: grüße\r\n" for number in range(500))
    mail.write_text(f"From: a@www.example\r\nSubject: hello\r\n\r\n{lines}", newline="")
    outcome = client.run(
        *("curl", "-sS", "--ssl-reqd", "--cacert", str(session.ca)),
        *("--resolve", f"{HOST}:{SMTP}:{SERVER_V4}", f"smtp://{HOST}:{SMTP}/client.example"),
        *("--mail-from", "a@www.example", "--mail-rcpt", "root@www.example", "-T", str(mail)),
    )
    assert outcome.code == 0, outcome.err
    assert session.stop() == 0
    (flow,) = session.flows()
    assert flow.stack == ["smtp", "tls", "smtp"]
    shown = streams(session.events, flow.opened["flow"], 2)
    assert shown["up"].startswith(b"EHLO client.example\r\nMAIL FROM:<a@www.example>")
    assert mail.read_bytes() in shown["up"]
    assert shown["up"].endswith(b"\r\n.\r\nQUIT\r\n")
    assert b"\r\n221 www.example closing connection\r\n" in shown["down"]
    assert not [e for e in session.of_type("flow.data") if e["depth"] != 2]
