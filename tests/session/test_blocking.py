"""What `--block` refuses never reaches the server, however a client asks for it."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
import trio
from hpack import Encoder

from mitml4.events import FlowClose
from mitml4.protocols.policy import Decide
from mitml4.session.destinations.policy import HostPattern, Policy

HOLD_S = 0.02


class Reply(bytes):
    """What the server answers, once the client has said all that stands before."""


SILENCE = None
"""Of the client's, and longer than any part of a message is held back."""
END = b""
"""Of what the client says."""

Piece = bytes | None


def blocking(*patterns: str) -> Decide:
    return Policy(block=tuple(map(HostPattern.parse, patterns)), tls="passthrough").decide


def hello(name: str) -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def in_small_records(hello: bytes) -> bytes:
    body = hello[5:]
    pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
    return b"".join(b"\x16\x03\x01" + len(each).to_bytes(2, "big") + each for each in pieces)


def with_version(hello: bytes, minor: int) -> bytes:
    return hello[:2] + bytes([minor]) + hello[3:]


def get(host: bytes, path: bytes = b"/") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"


def head(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def socks4a(name: bytes, user: bytes = b"") -> bytes:
    return b"\x04\x01\x00\x50\0\0\0\x01" + user + b"\0" + name + b"\0"


def http2(
    *heads: Iterable[tuple[str, str]], preface: bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
) -> bytes:
    encoder = Encoder()
    data = preface + b"\0\0\0\x04\0\0\0\0\0"
    for number, fields in enumerate(heads):
        block = encoder.encode(fields)
        stream = (2 * number + 1).to_bytes(4, "big")
        data += len(block).to_bytes(3, "big") + b"\x01\x05" + stream + block
    return data


def h2_get(authority: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", authority)]
    return fields + list(more)


BLOCKED = b"blocked.test"
HELLO = hello("blocked.test")
OK = Reply(b"\x05\x00")
SOCKS_REQUEST = b"\x05\x01\x00\x03\x0cblocked.test\x00\x50"
TUNNEL = Reply(b"HTTP/1.1 200 OK\r\n\r\n")

ATTACKS: dict[str, list[Piece]] = {
    "tls": [HELLO],
    "tls, in two pieces": [HELLO[:5], SILENCE, HELLO[5:]],
    "tls, the first byte alone": [HELLO[:1], SILENCE, HELLO[1:]],
    "tls, most of it first": [HELLO[:-1], SILENCE, HELLO[-1:]],
    "tls, in small records": [in_small_records(HELLO)],
    "tls, a record version of another day": [with_version(HELLO, 0x7F)],
    "tls, the same in pieces": [with_version(HELLO, 9)[:3], SILENCE, with_version(HELLO, 9)[3:]],
    "tls, upper case": [hello("BLOCKED.Test")],
    "tls, behind an empty record": [b"\x16\x03\x01\0\0" + HELLO],
    "tls, behind two empty records": [b"\x16\x03\x01\0\0\x16\x03\x03\0\0" + HELLO],
    "tls, an empty record, and then the rest": [b"\x16\x03\x01\0\0", SILENCE, HELLO],
    "tls, two names": [
        hello("ok.test-blocked.test").replace(b"\x17\0\0\x14ok.test-", b"\x17\0\0\x05ok.te\0\0\x0c")
    ],
    "tls, a hello that lies about its length": [HELLO.replace(b"\0\x0cblocked", b"\0\x99blocked")],
    "http/1": [get(BLOCKED)],
    "http/1, case, dot, port": [get(b"BLOCKED.test.:80")],
    "http/1, in pieces": [
        b"GET / HTTP/1.1\r\nHo",
        SILENCE,
        b"st: blocked.test\r\n\r",
        SILENCE,
        b"\n",
    ],
    "http/1, the second request": [get(b"ok.test"), SILENCE, get(BLOCKED)],
    "http/1, pipelined": [get(b"ok.test") + get(BLOCKED)],
    "http/1, behind a body": [
        head(b"POST / HTTP/1.1", b"Host: ok.test", b"Content-Length: 3") + b"abc" + get(BLOCKED)
    ],
    "http/1, two Hosts": [head(b"GET / HTTP/1.1", b"Host: ok.test", b"host: blocked.test")],
    "http/1, folded": [head(b"GET / HTTP/1.1", b"Host:", b" blocked.test")],
    "http/1, a field in disguise": [
        head(b"GET / HTTP/1.1", b"Host: ok.test", b"\x0bHost\x0b: blocked.test")
    ],
    "http/1, behind a bare CR": [
        head(b"GET / HTTP/1.1", b"Host: ok.test", b"A: b\rHost: blocked.test")
    ],
    "http/1, a bare CR for the end of a head": [
        b"GET / HTTP/1.1\r\nHost: ok.test\r\n\rGET http://blocked.test/ HTTP/1.1\r\n\r\n"
    ],
    "http/1, a bare CR for the end of trailers": [
        head(b"POST / HTTP/1.1", b"Host: ok.test", b"Transfer-Encoding: chunked")
        + b"0\r\n\r"
        + get(BLOCKED)
    ],
    "http/1, a bare CR for a blank": [head(b"GET / HTTP/1.1", b"Host:\r blocked.test")],
    "http/1, a method of any letters": [b"G{\xffT / HTTP/1.1\r\nHost: blocked.test\r\n\r\n"],
    "http/1, the same in pieces": [b"@GET /", SILENCE, b" HTTP/1.1\r\nHost: blocked.test\r\n\r\n"],
    "http/1, no host at all": [head(b"GET / HTTP/1.1", b"Host: ok.test,blocked.test")],
    "http/1, absolute": [head(b"GET http://blocked.test/ HTTP/1.1", b"Host: ok.test")],
    "http/1, absolute, user": [
        head(b"GET HTTP://a:b@Blocked.Test:8080/ HTTP/1.1", b"Host: ok.test")
    ],
    "http/1, absolute, two users": [head(b"GET http://a@blocked.test@ok.test/ HTTP/1.1")],
    "http/1, absolute, backslash": [head(b"GET http://ok.test\\@blocked.test/ HTTP/1.1")],
    "http/1, absolute, percent": [head(b"GET http://bl%6fcked.test/ HTTP/1.1", b"Host: ok.test")],
    "http/1, hardly absolute": [head(b"GET http:/blocked.test/ HTTP/1.1", b"Host: ok.test")],
    "http/1, no scheme": [head(b"GET blocked.test/ HTTP/1.1", b"Host: ok.test")],
    "http/1, proxies that know no end": [
        b"GET http://blocked.test/ HTTP/1.1\r\n",
        SILENCE,
        b"\r\n",
    ],
    "http/1, an end instead of an empty line": [b"GET / HTTP/1.1\r\nHost: blocked.test\r\n", END],
    "http/1, smuggled": [
        head(
            b"POST / HTTP/1.1",
            b"Host: ok.test",
            b"Content-Length: 9",
            b"Transfer-Encoding: chunked",
        )
        + b"0\r\n\r\n"
        + get(BLOCKED)
    ],
    "http/1, a head too long": [
        b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000 + b"\r\nHost: blocked.test\r\n\r\n"
    ],
    "http/1, blanks": [b"GET  /\t HTTP/1.1 \r\nHost: blocked.test\r\n\r\n"],
    "http/1, lower case": [b"get http://blocked.test/ http/1.1\r\n\r\n"],
    "http/1, tabs": [b"GET\thttp://blocked.test/\tHTTP/1.1\r\n\r\n"],
    "http/1, empty lines": [b"\r\n" * 9, SILENCE, b"GET  / HTTP/1.1\r\nHost: blocked.test\r\n\r\n"],
    "http/1, another version": [b"GET / HTTP/7\r\nHost: blocked.test\r\n\r\n"],
    "http/1, letter by letter": [
        *(bytes([each]) for each in b"get / http/1.1\r"),
        SILENCE,
        b"\nHost: x\r\n\r\n",
    ],
    "http/1, another kind of blank": [b"\x0bGET\x1c/\x85HTTP/1.1\nHost: blocked.test\n\n"],
    "http/1, a bare CR in the line": [b"GET\t/\r HTTP/1.1\nHost: blocked.test\n\n"],
    "http/1, a head that ends in CR": [
        b"GET / HTTP/1.1\r\nHost: blocked.test\r\n\r",
        SILENCE,
        b"*",
    ],
    "http/1, absolute, a user with #": [head(b"GET http://u:#p@blocked.test/ HTTP/1.1")],
    "http/1, absolute, two targets": [head(b"GET http://ok.test/ http://blocked.test/ HTTP/1.1")],
    "http/0.9 with fields": [b"GET http://ok.test/HTTP/1.1\nHost: blocked.test\n\n"],
    "http/0.9 with fields, tab": [b"GET\t/\r\nA: b\r\n", SILENCE, b"Host: blocked.test\r\n\r\n"],
    "http/0.9": [b"GET http://blocked.test/\r\n"],
    "http/0.9, lower case": [b"get http://blocked.test/\n"],
    "connect": [head(b"CONNECT blocked.test:443 HTTP/1.1")],
    "connect, no port": [head(b"CONNECT blocked.test HTTP/1.0")],
    "connect, a blank behind the version": [head(b"CONNECT blocked.test:443 HTTP/1.1 ")],
    "connect, two blanks": [head(b"CONNECT  blocked.test:443  HTTP/1.1")],
    "connect, lower case": [b"connect", SILENCE, b" blocked.test:443 HTTP/1.1\r\n\r\n"],
    "connect, no version": [b"CONNECT blocked.test:443\r\n\r\n"],
    "connect, a URL": [head(b"CONNECT http://blocked.test:443/ HTTP/1.1")],
    "connect, user": [head(b"CONNECT a@blocked.test:443 HTTP/1.1")],
    "connect, two hosts": [head(b"CONNECT ok.test blocked.test:443 HTTP/1.1")],
    "connect, a blank within": [head(b"CONNECT blocked.test :443 HTTP/1.1")],
    "connect, pieces": [b"CONNECT ", SILENCE, b"blocked.test:443 HTTP/1.1 ", SILENCE, b"\r\n\r\n"],
    "connect, as a number": [head(b"CONNECT 172163587:443 HTTP/1.1")],
    "connect, in three parts": [head(b"CONNECT 10.67.515:443 HTTP/1.1")],
    "connect, in hexadecimal": [head(b"CONNECT 0x0a.0x43.0x2.0x3:443 HTTP/1.1")],
    "connect, mapped": [head(b"CONNECT [::ffff:10.67.2.3]:443 HTTP/1.1")],
    "connect, an unknown method first": [
        head(b"OPTIONS * HTTP/1.1"),
        SILENCE,
        head(b"CONNECT blocked.test:1 HTTP/1.1 "),
    ],
    "upgrade": [head(b"GET / HTTP/1.1", b"Host: blocked.test", b"Upgrade: websocket")],
    "http/2": [http2(h2_get("blocked.test"))],
    "http/2, case, dot, port": [http2(h2_get("BLOCKED.test.:8080"))],
    "http/2, the second stream": [http2(h2_get("ok.test"), h2_get("blocked.test"))],
    "http/2, later": [
        http2(h2_get("ok.test")),
        SILENCE,
        http2(h2_get("blocked.test"), preface=b""),
    ],
    "http/2, host, upper case": [http2(h2_get("ok.test", ("Host", "blocked.test")))],
    "http/2, a URL for a path": [
        http2(
            [
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "http://blocked.test/"),
                (":authority", "ok.test"),
            ]
        )
    ],
    "http/2, host": [http2(h2_get("ok.test", ("host", "blocked.test")))],
    "http/2, twice": [http2(h2_get("blocked.test", (":authority", "ok.test")))],
    "http/2, connect": [http2([(":method", "CONNECT"), (":authority", "blocked.test:443")])],
    "http/2, no header block": [http2() + b"\0\0\x01\x01\x05\0\0\0\x01\xff"],
    "socks4": [b"\x04\x01\x00\x50\x0a\x43\x02\x03\x00"],
    "socks4, pieces": [b"\x04\x01\x00\x50\x0a\x43", SILENCE, b"\x02\x03\x00"],
    "socks4a": [socks4a(BLOCKED, b"me")],
    "socks4a, a name of numbers": [socks4a(b"10.67.515", b"me")],
    "socks4a, no text": [socks4a(b"stra\xc3\x9fe.test")],
    "socks4a, no user": [socks4a(BLOCKED, b"\xff\x01")],
    "socks4a, the same in pieces": [
        socks4a(BLOCKED, b"\xff")[:9],
        SILENCE,
        socks4a(BLOCKED, b"\xff")[9:],
    ],
    "socks5": [b"\x05\x01\x00", OK, b"\x05\x01\x00\x03\x0cblocked.test\x00\x50"],
    "socks5, dot": [b"\x05\x01\x00", OK, b"\x05\x01\x00\x03\x0dBLOCKED.test.\x00\x50"],
    "socks5, a number": [b"\x05\x01\x00", OK, b"\x05\x01\x00\x03\x09172163587\x00\x50"],
    "socks5, mapped": [
        b"\x05\x01\x00",
        OK,
        b"\x05\x01\x00\x04" + bytes(10) + b"\xff\xff\x0a\x43\x02\x03\x00\x50",
    ],
    "socks5, a port in the name": [
        b"\x05\x01\x00",
        OK,
        b"\x05\x01\x00\x03\x0fblocked.test:80\x00\x50",
    ],
    "socks5, no name": [b"\x05\x01\x00", OK, b"\x05\x01\x00\x03\x00\x00\x50"],
    "socks5, an unknown kind of address": [
        b"\x05\x01\x00",
        OK,
        b"\x05\x01\x00\x07\x0cblocked.test\x00\x50",
    ],
    "socks5, unassigned methods": [
        b"\x05\x02\x42\x00",
        OK,
        b"\x05\x01\x00\x03\x0cblocked.test\x00\x50",
    ],
    "socks5, private methods": [b"\x05\x01\x80\x05\x01\x00\x03\x0cblocked.test\x00\x50"],
    "socks5, fewer methods than it says": [b"\x05\x20\x00\x02", OK, SOCKS_REQUEST],
    "socks5, a method of its own": [
        b"\x05\x02\x00\x80",
        Reply(b"\x05\x80"),
        b"\x05\x01\x00\x03\x0cblocked.test\x00\x50",
    ],
    "socks5, all at once, to a slow server": [
        b"\x05\x01\x00\x05\x01\x00\x03\x0cblocked.test\x00\x50",
        SILENCE,
        OK,
    ],
    "socks5, behind a password, to a slow server": [
        b"\x05\x01\x02\x01\x02me\x00\x05\x01\x00\x03\x0cblocked.test\x00\x50",
        SILENCE,
        Reply(b"\x05\x02"),
    ],
    "connect and tls, to a slow server": [
        head(b"CONNECT ok.test:443 HTTP/1.1") + HELLO,
        SILENCE,
        TUNNEL,
    ],
    "a request behind an upgrade, to a slow server": [
        head(b"GET / HTTP/1.1", b"Host: ok.test", b"Upgrade: x") + get(BLOCKED),
        SILENCE,
        Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
    "a request behind an upgrade, and the end": [
        head(b"GET / HTTP/1.1", b"Host: ok.test", b"Upgrade: x") + get(BLOCKED),
        END,
    ],
    "socks5, something behind the methods": [
        b"\x05\x03\x00\x80\x42a",
        SILENCE,
        b"\x05\x01\x00\x03\x0cblocked.test\x00\x50",
    ],
    "socks5, all at once": [b"\x05\x01\x00\x05\x01\x00\x03\x0cblocked.test\x00\x50", OK],
    "proxy v1": [b"PROXY TCP4 1.2.3.4 10.67.2.3 1 443\r\n"],
    "proxy v1, broken": [b"PROXY  TCP4 1.2.3.4 10.67.2.3 1 443\r\n"],
    "proxy v2": [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\1\2\3\4\x0a\x43\2\3\0\1\1\xbb"],
    "proxy v2, by name": [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x1f\1\2\3\4\5\6\7\x08\0\1\1\xbb"
        b"\x04\0\1\0\x02\0\x0cBLOCKED.test"
    ],
    "proxy v2, a TLV too long": [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\1\2\3\4\5\6\7\x08\0\1\1\xbb\x02\0\x09x"
    ],
    "proxy v2, broken": [b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\1\2\3\4\x0a\x43\2\3\0\1\1\xbb"],
    "blanks without an end": [b" " * 70_000, b"GET / HTTP/1.1\r\nHost: blocked.test\r\n\r\n"],
    "inside socks5": [
        b"\x05\x01\x00",
        OK,
        b"\x05\x01\x00\x03\x07ok.test\x01\xbb",
        Reply(b"\x05\0\0\1\0\0\0\0\0\0"),
        HELLO,
    ],
    "inside connect": [head(b"CONNECT ok.test:443 HTTP/1.1"), TUNNEL, get(BLOCKED)],
    "inside connect, another": [
        head(b"CONNECT ok.test:443 HTTP/1.1"),
        TUNNEL,
        head(b"CONNECT blocked.test:443 HTTP/1.1 "),
    ],
    "connect behind a request": [
        get(b"ok.test") + head(b"CONNECT blocked.test:443 HTTP/1.1"),
        Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
    "inside proxy": [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 443\r\n" + HELLO],
    "behind STARTTLS": [
        b"EHLO x\r\nSTARTTLS\r\n",
        Reply(b"220 a ESMTP\r\n250 STARTTLS\r\n220 go\r\n"),
        HELLO,
    ],
    "a server that cannot be read": [
        get(b"ok.test"),
        Reply(b"HTTP/1.1 999999 OK\r\n\r\n"),
        get(BLOCKED),
    ],
}


@dataclass
class Script:
    """A conversation: plays the server's part, and the client's."""

    pieces: Sequence[Piece]
    heard: bytes = b""
    """By the server; an end counts as a byte."""
    _cue: trio.Event = field(default_factory=trio.Event)

    async def serve(self, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, stream)
            for piece in self.pieces:
                if isinstance(piece, Reply):
                    await self._cue.wait()
                    self._cue = trio.Event()
                    await stream.send_all(piece)

    async def _listen(self, stream: trio.SocketStream) -> None:
        try:
            while data := await stream.receive_some():
                self.heard += data
            self.heard += b"."
        except trio.BrokenResourceError:
            return

    @property
    def said(self) -> bytes:
        pieces = [each for each in self.pieces if each is not None and not isinstance(each, Reply)]
        return b"".join(each or b"." for each in pieces)

    async def play(self, client: trio.SocketStream) -> bool:
        """Whether the client got through to the end of it."""
        try:
            for piece in self.pieces:
                if isinstance(piece, Reply):
                    self._cue.set()
                    await read_exactly(client, len(piece))
                elif piece is None:
                    await trio.sleep(3 * HOLD_S)
                elif piece:
                    await client.send_all(piece)
                else:
                    await client.send_eof()
        except trio.BrokenResourceError:
            return False
        return True


async def read_exactly(stream: trio.SocketStream, count: int) -> None:
    while count:
        data = await stream.receive_some(count)
        if not data:
            raise trio.BrokenResourceError
        count -= len(data)


UNREADABLE = {
    "tls, a record version of another day",
    "tls, the same in pieces",
    "tls, a hello that lies about its length",
    "http/1, no host at all",
    "http/1, an end instead of an empty line",
    "http/1, smuggled",
    "http/1, a head too long",
    "http/1, blanks",
    "http/1, a bare CR for the end of trailers",
    "http/1, a method of any letters",
    "http/1, the same in pieces",
    "http/0.9 with fields, tab",
    "http/1, a bare CR in the line",
    "http/1, a head that ends in CR",
    "http/1, empty lines",
    "http/1, another version",
    "http/1, letter by letter",
    "http/2, no header block",
    "proxy v2, a TLV too long",
    "socks5, a port in the name",
    "socks5, no name",
    "a server that cannot be read",
}
"""Of the attacks: no host can be read in them, but it is at the port of the connection."""

UNREADABLE_ELSEWHERE = {
    "blanks without an end",
    "http/1, a bare CR for the end of a head",
    "http/1, another kind of blank",
    "http/1, absolute, two targets",
    "http/1, absolute, two users",
    "http/1, absolute, backslash",
    "http/1, hardly absolute",
    "http/1, no scheme",
    "http/1, lower case",
    "http/1, tabs",
    "http/0.9, lower case",
    "connect, two blanks",
    "connect, lower case",
    "connect, no version",
    "connect, a URL",
    "connect, user",
    "connect, two hosts",
    "connect, a blank within",
    "socks4a, no text",
    "socks4a, no user",
    "socks4a, the same in pieces",
    "socks5, an unknown kind of address",
    "socks5, something behind the methods",
    "socks5, unassigned methods",
    "socks5, private methods",
    "socks5, fewer methods than it says",
    "socks5, a method of its own",
    "proxy v1, broken",
    "proxy v2, broken",
}
"""No host can be read, and it may be at any port."""


async def play(lab, pieces: Sequence[Piece], policy: Decide) -> tuple[FlowClose, Script]:
    script = Script(pieces)
    async with lab(script.serve, policy=policy, hold_s=HOLD_S) as proxy:
        client = await proxy.connect()
        with trio.fail_after(30):
            if await script.play(client):
                with contextlib.suppress(trio.BrokenResourceError):
                    if END not in pieces:
                        await client.send_eof()
                    while await client.receive_some():
                        pass
        await client.aclose()
        return await proxy.wait_closed(), script


async def play_all(lab, policy: Decide) -> dict[str, tuple[FlowClose, Script]]:
    outcomes: dict[str, tuple[FlowClose, Script]] = {}

    async def play_one(name: str, pieces: Sequence[Piece]) -> None:
        outcomes[name] = await play(lab, pieces, policy)

    async with trio.open_nursery() as nursery:
        for name, pieces in ATTACKS.items():
            nursery.start_soon(play_one, name, pieces)
    return outcomes


async def test_what_is_blocked_never_reaches_the_server(lab) -> None:
    policy = blocking("other.test", "blocked.test", "10.67.2.3", "straße.test")
    for name, (close, script) in (await play_all(lab, policy)).items():
        assert close.reason == "blocked", name
        assert script.said.startswith(script.heard), name
        assert len(script.heard) <= close.bytes_up < len(script.said), name


def allowing(*patterns: str) -> Decide:
    return Policy(allow=tuple(map(HostPattern.parse, patterns)), tls="passthrough").decide


async def test_what_is_not_allowed_never_reaches_the_server(lab) -> None:
    policy = allowing("127.0.0.1", "ok.test", "*.ok.test", "5.6.7.8")
    for name, (close, script) in (await play_all(lab, policy)).items():
        assert close.reason == "denied", name
        assert script.said.startswith(script.heard), name
        assert len(script.heard) <= close.bytes_up < len(script.said), name


async def test_what_is_allowed_passes(lab) -> None:
    policy = allowing("127.0.0.1", "ok.test", "b.ok.test")
    for pieces in (
        [get(b"OK.test") + get(b"b.ok.test")],
        [http2(h2_get("ok.test"), h2_get("b.ok.test"))],
        [b"\x05\x01\x00", OK, b"\x05\x01\x00\x03\x07ok.test\x01\xbb"],
        [hello("ok.test")],
        [b"SSH-2.0-x\r\n"],
        [b"what nobody knows"],
        [END],
    ):
        close, script = await play(lab, pieces, policy)
        assert (close.reason, script.heard) == ("closed", script.said.rstrip(b".") + b"."), pieces


ANSWER = Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
IN_PARTS: list[tuple[bytes, list[Piece]]] = [
    (b"", [b"GET /", SILENCE, get(BLOCKED)[5:30], SILENCE, get(BLOCKED)[30:]]),
    (b"", [b"\r\nGET /", SILENCE, get(BLOCKED)[5:]]),
    (b"", [b"GET http://bl", SILENCE, b"ocked.test/ HT", SILENCE, b"TP/1.1\r\n\r\n"]),
    (b"", [b"CONNECT b", SILENCE, b"locked.test:443 HTTP/1.1\r\n\r\n"]),
    (
        get(b"ok.test"),
        [get(b"ok.test"), ANSWER, get(BLOCKED)[:20], SILENCE, get(BLOCKED)[20:]],
    ),
    (b"\x05\x01\x00", [b"\x05\x01\x00", OK, SOCKS_REQUEST[:8], SILENCE, SOCKS_REQUEST[8:]]),
]
"""What the server hears of a request that comes in parts: what came before it."""


async def test_no_part_of_a_request_moves_before_its_host_is_known(lab) -> None:
    for heard, pieces in IN_PARTS:
        close, script = await play(lab, pieces, blocking("blocked.test"))
        assert (close.reason, script.heard) == ("blocked", heard), pieces
        close, script = await play(lab, pieces, blocking("other.test"))
        assert (close.reason, script.heard) == ("closed", script.said + b"."), pieces


async def test_what_is_not_blocked_passes_and_what_cannot_be_read_does_not(lab) -> None:
    outcomes = await play_all(lab, blocking("other.test"))
    blocked = {name for name, (close, _) in outcomes.items() if close.reason == "blocked"}
    assert blocked == UNREADABLE | UNREADABLE_ELSEWHERE


async def test_a_block_at_another_port_concerns_what_may_be_asked_of_a_proxy_alone(lab) -> None:
    asked = [b"GET\t/ HTTP/1.1\r\nHost: blocked.test:25\r\n\r\n"]
    assert (await play(lab, asked, blocking("blocked.test:25")))[0].reason == "blocked"
    outcomes = await play_all(lab, blocking("blocked.test:25"))
    blocked = {name for name, (close, _) in outcomes.items() if close.reason == "blocked"}
    assert blocked == UNREADABLE_ELSEWHERE


async def test_where_nothing_is_blocked_all_is_relayed(lab) -> None:
    outcomes = await play_all(lab, blocking())
    for name, (close, script) in outcomes.items():
        assert close.reason != "blocked", name
        assert script.heard.rstrip(b".") == script.said.rstrip(b"."), name


async def test_an_urgent_byte_where_a_host_may_be_asked_for_ends_the_flow(lab) -> None:
    """A server that takes it out of the stream reads `blocked.test` here."""
    for patterns, reason in ((("blocked.test",), "blocked"), ((), "closed")):
        script = Script([END])
        async with lab(script.serve, policy=blocking(*patterns), hold_s=HOLD_S) as proxy:
            client = await proxy.connect()
            await client.send_all(b"GET / HTTP/1.1\r\nHost: blocked")
            await client.socket.send(b"X", socket.MSG_OOB)
            with contextlib.suppress(trio.BrokenResourceError):
                await client.send_all(b".test\r\n\r\n")
                await client.send_eof()
                while await client.receive_some():
                    pass
            assert (await proxy.wait_closed()).reason == reason
            assert (b".test" in script.heard) == (reason == "closed")
