"""How proxies are asked, over a connection in memory: every answer whole, byte by byte, and with
the server's first bytes behind it."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.net.stream import StreamTruncated, Transport, UrgentAhead
from mitml4.via.asking import Destination, ask
from mitml4.via.proxy import Proxy

BOTH = Destination(443, "192.0.2.7", "www.example")
V6 = Destination(25, "2001:db8::7")
BEHIND = b"220 the server's own bytes"
GOT = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
CONNECT = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n"


def connect(authority: bytes) -> bytes:
    return CONNECT % (authority, authority)


async def converse(
    proxy: str, to: Destination, turns: list[tuple[bytes, bytes]], *, step: int, ends: bool
) -> bytes:
    """Ask a proxy which expects and answers these, `step` bytes at a time; returns what the stream
    still has. `ends`: it closes after its last answer."""
    near, far = memory_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, far, turns, step, ends)
        await ask(near, Proxy.parse(proxy), to)
        return await near.peek(len(BEHIND) - 1, 4096)


async def answer(far: MemoryStream, turns: list[tuple[bytes, bytes]], step: int, ends: bool):
    for number, (expected, said) in enumerate(turns, 1):
        assert await far.peek(len(expected) - 1, 4096) == expected
        far.discard(len(expected))
        said += BEHIND if number == len(turns) and not ends else b""
        for at in range(0, len(said), step):
            await far.send_all(memoryview(said[at : at + step]))
            await trio.testing.wait_all_tasks_blocked()
    if ends:
        await far.send_eof()


SOCKS4_OK = b"\x00\x5a\x00\x00\x00\x00\x00\x00"
ACCEPTED = [
    ("http://p", BOTH, [(connect(b"www.example:443"), b"HTTP/1.1 200 OK\r\n\r\n")]),
    ("http://p", V6, [(connect(b"[2001:db8::7]:25"), b"HTTP/1.0 200 \r\nVia: x\r\n\r\n")]),
    (
        "http://p",
        Destination(80, "192.0.2.7", "odd name\r\n"),
        [(connect(b"192.0.2.7:80"), b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 299 Fine\r\n\r\n")],
    ),
    (
        "https://alice:s%3Acret@p",
        BOTH,
        [
            (
                b"CONNECT www.example:443 HTTP/1.1\r\nHost: www.example:443\r\n"
                b"Proxy-Authorization: Basic YWxpY2U6czpjcmV0\r\n\r\n",
                b"HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\n\r\n",
            )
        ],
    ),
    (
        "socks4://p",
        BOTH,
        [(b"\x04\x01\x01\xbb\xc0\x00\x02\x07\x00", SOCKS4_OK)],
    ),
    (
        "socks4a://me@p",
        BOTH,
        [(b"\x04\x01\x01\xbb\x00\x00\x00\x01me\x00www.example\x00", SOCKS4_OK)],
    ),
    (
        "socks4a://p",
        V6,
        [(b"\x04\x01\x00\x19\x00\x00\x00\x01\x002001:db8::7\x00", SOCKS4_OK)],
    ),
    (
        "socks5://p",
        BOTH,
        [
            (b"\x05\x01\x00", b"\x05\x00"),
            (b"\x05\x01\x00\x01\xc0\x00\x02\x07\x01\xbb", GOT),
        ],
    ),
    (
        "socks5h://p",
        BOTH,
        [
            (b"\x05\x01\x00", b"\x05\x00"),
            (b"\x05\x01\x00\x03\x0bwww.example\x01\xbb", b"\x05\x00\x00\x03\x01x\x00\x00"),
        ],
    ),
    (
        "socks5h://alice:s3cret@p",
        V6,
        [
            (b"\x05\x02\x00\x02", b"\x05\x02"),
            (b"\x01\x05alice\x06s3cret", b"\x01\x00"),
            (
                b"\x05\x01\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x07\x00\x19",
                b"\x05\x00\x00\x04" + bytes(18),
            ),
        ],
    ),
    (
        "socks5h://alice:s3cret@p",
        Destination(443, None, "proxy.example"),
        [
            (b"\x05\x02\x00\x02", b"\x05\x00"),
            (b"\x05\x01\x00\x03\x0dproxy.example\x01\xbb", GOT),
        ],
    ),
]


@pytest.mark.parametrize(("proxy", "to", "turns"), ACCEPTED)
async def test_the_stream_is_the_server_s_after_the_answer(
    autojump_clock: trio.testing.MockClock,
    proxy: str,
    to: Destination,
    turns: list[tuple[bytes, bytes]],
) -> None:
    for step in (1, 3, 1000):
        assert await converse(proxy, to, turns, step=step, ends=False) == BEHIND


HELLO = (b"\x05\x01\x00", b"\x05\x00")
REQUEST = b"\x05\x01\x00\x03\x0bwww.example\x01\xbb"
LOGIN = [(b"\x05\x02\x00\x02", b"\x05\x02"), (b"\x01\x01a\x01b", b"\x01\x01")]
ASKED = connect(b"www.example:443")
ASKED4 = b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00www.example\x00"
REFUSED = errno.ECONNREFUSED
REFUSING = [
    ("http://p", [(ASKED, b"HTTP/1.1 407 Who\r\n\r\n")], REFUSED, "answers 407 Who"),
    ("http://p", [(ASKED, b"HTTP/1.1 403 \x1b[1m\r\n\r\n")], REFUSED, r"answers 403 \x1b[1m"),
    ("http://p", [(ASKED, b"HTTP/1.1 502 Bad Gateway\r\n\r\n<p>")], REFUSED, "answers 502 Bad G"),
    ("http://p", [(ASKED, b"HTTP/1.1 504 Late\r\n\r\n")], errno.ETIMEDOUT, "answers 504 Late"),
    ("http://p", [(ASKED, b"SSH-2.0-OpenSSH\r\n\r\n")], REFUSED, "not answer as a proxy for HTTP"),
    ("http://p", [(ASKED, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40000)], REFUSED, "not answer as a"),
    ("http://p", [(ASKED, b"HTTP/1.1 200 OK\r\n")], REFUSED, "closes the connection"),
    ("http://p", [(ASKED, b"")], REFUSED, "closes the connection"),
    ("socks4a://p", [(ASKED4, b"\x00\x5b" + bytes(6))], REFUSED, "answers 0x5b: request rejected"),
    ("socks4a://p", [(ASKED4, b"HTTP/1.1 400")], REFUSED, "not answer as a proxy for SOCKS"),
    ("socks4a://p", [(ASKED4, b"\x00\x5a\x00")], REFUSED, "closes the connection"),
    ("socks5h://p", [HELLO, (REQUEST, b"\x05\x01\x00\x01")], REFUSED, "1: general SOCKS server"),
    ("socks5h://p", [HELLO, (REQUEST, b"\x05\x02\x00\x01")], REFUSED, "2: connection not allowed"),
    ("socks5h://p", [HELLO, (REQUEST, b"\x05\x03\x00\x01")], errno.ENETUNREACH, "3: network unr"),
    ("socks5h://p", [HELLO, (REQUEST, b"\x05\x04\x00\x01")], errno.EHOSTUNREACH, "4: host unrea"),
    ("socks5h://p", [HELLO, (REQUEST, b"\x05\x05\x00\x01")], REFUSED, "5: connection refused"),
    ("socks5h://p", [HELLO, (REQUEST, b"\x05\x06\x00\x01")], errno.EHOSTUNREACH, "6: TTL expired"),
    ("socks5h://p", [HELLO, (REQUEST, b"\x05\xff\x00\x01")], REFUSED, "answers 255: unassigned"),
    ("socks5h://p", [HELLO, (REQUEST, b"\x05\x00\x00\x09")], REFUSED, "not answer as a proxy"),
    ("socks5h://p", [HELLO, (REQUEST, b"\x04\x00\x00\x01")], REFUSED, "not answer as a proxy"),
    ("socks5h://p", [HELLO, (REQUEST, b"\x05\x00\x00\x01\x7f")], REFUSED, "closes the connection"),
    ("socks5h://p", [(b"\x05\x01\x00", b"\x05\xff")], REFUSED, "wants a user"),
    ("socks5h://p", [(b"\x05\x01\x00", b"\x05\x02")], REFUSED, "wants a user"),
    ("socks5h://p", [(b"\x05\x01\x00", b"HTTP/1.1 400")], REFUSED, "not answer as a proxy"),
    ("socks5h://a:b@p", LOGIN, REFUSED, "refuses the user or the password"),
    ("socks5h://a:b@p", [(LOGIN[0][0], b"\x05\xff")], REFUSED, "accepts no user and password"),
]


@pytest.mark.parametrize(("proxy", "turns", "code", "text"), REFUSING)
async def test_a_refusal_is_the_error_that_the_client_would_have_seen(
    autojump_clock: trio.testing.MockClock,
    proxy: str,
    turns: list[tuple[bytes, bytes]],
    code: int,
    text: str,
) -> None:
    for step in (1, 1000):
        with pytest.RaisesGroup(pytest.RaisesExc(OSError), flatten_subgroups=True) as raised:
            await converse(
                proxy, BOTH, turns, step=step if len(turns[-1][1]) < 99 else 1000, ends=True
            )
        (error,) = raised.value.exceptions
        assert isinstance(error, OSError)
        assert error.errno == code
        assert text in error.strerror
        assert f"proxy {Proxy.parse(proxy)} " in error.strerror
        assert "s3cret" not in error.strerror


async def test_socks4_has_no_ipv6() -> None:
    near, _ = memory_pair()
    with pytest.raises(OSError, match="no IPv6") as raised:
        await ask(near, Proxy.parse("socks4://p"), V6)
    assert raised.value.errno == errno.ENETUNREACH


async def test_a_reset_before_the_answer_is_a_refusal() -> None:
    for proxy in ("http://p", "socks4a://p", "socks5h://p"):
        near, far = memory_pair()
        far.abort()
        with pytest.raises(ConnectionRefusedError, match="closes the connection"):
            await ask(near, Proxy.parse(proxy), BOTH)


class Failing(MemoryStream):
    """Of which one call fails."""

    def __init__(self, whole: MemoryStream, at: int, failure: Exception) -> None:
        self.__dict__.update(whole.__dict__)
        self.left = at
        self.failure = failure

    def _count(self) -> None:
        self.left -= 1
        if not self.left:
            raise self.failure

    async def peek(self, beyond: int, limit: int) -> bytes:
        self._count()
        return await super().peek(beyond, limit)

    async def send_all(self, data: memoryview, *, fed_by: Transport | None = None) -> None:
        self._count()
        await super().send_all(data, fed_by=fed_by)


@pytest.mark.parametrize(
    "failure",
    [
        *(OSError(code, os.strerror(code)) for code in (errno.ENOMEM, errno.ETIMEDOUT)),
        *(ConnectionResetError(errno.ECONNRESET, "reset"), BrokenPipeError(errno.EPIPE, "pipe")),
        *(StreamTruncated(), UrgentAhead(b"")),
    ],
    ids=repr,
)
async def test_wherever_it_breaks_the_client_sees_no_reset(failure) -> None:
    """That would mean that its own server has accepted the connection."""
    for proxy, to, turns in ACCEPTED:
        at, was_asked, codes = 1, False, set()
        while not was_asked:
            near, far = memory_pair()
            stream = Failing(near, at, failure)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer, far, turns, 4096, False)
                try:
                    await ask(stream, Proxy.parse(proxy), to)
                    was_asked = stream.left > 0
                except OSError as error:
                    codes.add(error.errno)
                nursery.cancel_scope.cancel()
            at += 1
        assert at > 3
        assert codes
        assert codes.isdisjoint((errno.ECONNRESET, errno.EPIPE))
