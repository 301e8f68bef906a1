"""`--allow`: requests of HTTP/1 for another host, on a connection to one that is allowed."""

from __future__ import annotations

import pytest

from mitml4.session.destinations.policy import HostPattern, Policy
from tests.layers.conftest import End, FlowLab, Outcomes

ALLOWED = tuple(map(HostPattern.parse, ("a.test", "b.test")))
CLEAN = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HIDDEN = b"GET /x HTTP/1.1\r\nHost: other.test\r\n\r\n"


def get(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"".join(each + b"\r\n" for each in (line, *fields)) + b"\r\n"


def post(*fields: bytes, body: bytes) -> bytes:
    return get(b"Host: a.test", *fields, line=b"POST / HTTP/1.1") + body


CHUNKED = b"Transfer-Encoding: chunked"
ESCAPES = {
    "another Host": get(b"Host: other.test"),
    "two Hosts": get(b"Host: a.test", b"Host: other.test"),
    "two Hosts, the other first": get(b"Host: other.test", b"Host: a.test"),
    "a folded Host": get(b"Host: a.test", b"X: y", b" Host: other.test"),
    "a Host behind a bare CR": get(b"Host: a.test\rHost: other.test"),
    "a Host behind a bare LF": get(b"Host: a.test\nHost: other.test"),
    "a Host with blanks before the colon": get(b"Host: a.test", b"Host : other.test"),
    "a Host with a control character": get(b"Host: a.test", b"\x0bHost: other.test"),
    "a Host in another case": get(b"hOsT: other.test"),
    "userinfo in Host": get(b"Host: a.test@other.test"),
    "userinfo after Host": get(b"Host: other.test:80@a.test"),
    "a list as Host": get(b"Host: a.test, other.test"),
    "a port that is none": get(b"Host: a.test:80@other.test:80"),
    "brackets": get(b"Host: [::ffff:10.0.0.1]"),
    "a decimal address": get(b"Host: 167772161"),
    "an octal address": get(b"Host: 012.0.0.1"),
    "a hexadecimal address": get(b"Host: 0x0a000001"),
    "a URL": get(b"Host: a.test", line=b"GET http://other.test/ HTTP/1.1"),
    "a URL with userinfo": get(b"Host: a.test", line=b"GET http://a.test@other.test/ HTTP/1.1"),
    "a URL with a backslash": get(
        b"Host: a.test", line=b"GET http://a.test\\@other.test/ HTTP/1.1"
    ),
    "a URL in another case": get(b"Host: a.test", line=b"GET HTTP://OTHER.test/ HTTP/1.1"),
    "a URL of another scheme": get(b"Host: a.test", line=b"GET ftp://other.test/ HTTP/1.1"),
    "an authority": get(b"Host: a.test", line=b"GET other.test:80 HTTP/1.1"),
    "CONNECT": get(b"Host: a.test", line=b"CONNECT other.test:443 HTTP/1.1"),
    "CONNECT with blanks": get(b"Host: a.test", line=b"CONNECT  other.test:443 HTTP/1.1"),
    "CONNECT in lower case": get(b"Host: a.test", line=b"connect other.test:443 HTTP/1.1"),
    "a tab in the line": get(b"Host: a.test", line=b"GET\thttp://other.test/\tHTTP/1.1"),
    "HTTP/0.9 with a URL": b"GET http://other.test/\r\n",
    "HTTP/1.0 with a URL": get(line=b"GET http://other.test/ HTTP/1.0"),
    "both lengths": post(CHUNKED, b"Content-Length: 4", body=b"0\r\n\r\n" + HIDDEN),
    "two lengths": post(b"Content-Length: 0", b"Content-Length: 40", body=HIDDEN),
    "a list of lengths": post(b"Content-Length: 0, 40", body=HIDDEN),
    "a signed length": post(b"Content-Length: +0", body=HIDDEN),
    "a length in HTTP/1.0": get(CHUNKED, b"Host: a.test", line=b"POST / HTTP/1.0") + HIDDEN,
    "chunked twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "not chunked last": post(b"Transfer-Encoding: chunked, x", body=b"0\r\n\r\n" + HIDDEN),
    "a coding with a control character": post(
        b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + HIDDEN
    ),
    "a coding with blanks before the colon": post(
        b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + HIDDEN
    ),
    "a chunk size with a sign": post(CHUNKED, body=b"+0\r\n\r\n" + HIDDEN),
    "a chunk size of hexadecimal": post(CHUNKED, body=b"0x0\r\n\r\n" + HIDDEN),
    "a chunk that ends with LF": post(CHUNKED, body=b"1\r\na\n0\r\n\r\n" + HIDDEN),
    "a request behind one": CLEAN + HIDDEN,
    "a request behind a body": post(b"Content-Length: 1", body=b"x" + HIDDEN),
    "a request behind chunks": post(CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "an upgrade that is not answered": get(
        b"Host: a.test", b"Connection: upgrade", b"Upgrade: websocket"
    )
    + HIDDEN,
    "an upgrade to HTTP/2": get(
        b"Host: other.test", b"Connection: upgrade, HTTP2-Settings", b"Upgrade: h2c"
    ),
}
NAMES = (b"other", b"OTHER", b"167772161", b"012.0", b"0x0a", b"::ffff")


def reaches(lab: FlowLab, data: bytes, answers: int = 100) -> tuple[bytes, Outcomes]:
    """What the server gets of it, before the client has so many answers."""
    got = bytearray()

    async def client(end: End) -> None:
        await end.send(data)
        await end.receive(answers * len(OK))

    async def server(end: End) -> None:
        answered = 0
        while piece := await end.receive(1):
            got.extend(piece)
            if got.count(b"\r\n\r\n") > answered:
                answered += 1
                await end.send(OK)

    out = lab.run(client, server, policy=Policy(allow=ALLOWED).decide, names=("a.test",))
    out.check()
    return bytes(got), out


@pytest.mark.parametrize("after", [b"", CLEAN], ids=["first", "later"])
@pytest.mark.parametrize("name", ESCAPES)
def test_no_request_for_another_host_reaches_the_server(
    flow_lab: FlowLab, name: str, after: bytes
) -> None:
    got, out = reaches(flow_lab, after + ESCAPES[name])
    assert not any(each in got for each in NAMES), got
    assert out.close.reason == "denied"


def test_what_is_for_the_host_reaches_it(flow_lab: FlowLab) -> None:
    for request in (
        CLEAN,
        get(line=b"GET / HTTP/1.0"),
        get(b"Host: A.TEST."),
        get(b"Host: a.test:443"),
        CLEAN + get(b"Host: b.test"),
        get(b"Host: a.test", line=b"OPTIONS * HTTP/1.1"),
        post(b"Content-Length: 3", body=b"abc"),
    ):
        got, out = reaches(flow_lab, request, request.count(b" HTTP/1"))
        assert got == request
        assert out.close.reason != "denied"
