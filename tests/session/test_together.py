"""What came together leaves together: also where a layer ends between two bytes.

Each end sends at once and receives once, so that a piece that leaves alone shows.
"""

from __future__ import annotations

import ssl

import pytest
import trio

UP, DOWN = "up", "down"
SSH = b"SSH-2.0-a\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n300\r\n" + b"c" * 0x300
CHUNKED += b"\r\n0\r\nA: b\r\n\r\n"
UPGRADE = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: "
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "
MASKED = b"\x81\x82mask\x05\x08"
CONNECT = b"CONNECT b.test:22 HTTP/1.1\r\nHost: b.test\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"

TURNS: dict[str, list[tuple[str, bytes]]] = {
    "http/1": [
        (UP, GET),
        (DOWN, OK),
        (UP, POST + GET),
        (DOWN, OK + OK),
        (UP, GET),
        (DOWN, b"HTTP/1.1 103 Early Hints\r\n\r\n" + CHUNKED),
        (UP, GET),
        (DOWN, b"HTTP/1.1 200 OK\r\n\r\nto the end"),
    ],
    "http/1 › websocket": [
        (UP, UPGRADE + b"websocket\r\n\r\n"),
        (DOWN, SWITCHING + b"websocket\r\n\r\n" + b"\x81\x02hi\x89\x00"),
        (UP, MASKED + MASKED),
    ],
    "http/1 › http/2": [
        (UP, UPGRADE + b"h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
        (DOWN, SWITCHING + b"h2c\r\n\r\n" + SETTINGS),
        (UP, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS),
    ],
    "http-connect › ssh": [
        (UP, CONNECT),
        (DOWN, b"HTTP/1.1 200 OK\r\n\r\n" + SSH),
        (UP, SSH),
    ],
    "http-connect › unknown": [
        (UP, CONNECT),
        (DOWN, b"HTTP/1.1 200 OK\r\n\r\n\0\1\2"),
        (UP, b"\0\1\2"),
    ],
    "socks5 › ssh": [
        (UP, b"\x05\x01\x00"),
        (DOWN, b"\x05\x00"),
        (UP, b"\x05\x01\x00\x03\x05a.net\x00\x16"),
        (DOWN, b"\x05\x00\x00\x01\x7f\0\0\1\x00\x16" + SSH),
        (UP, SSH),
    ],
    "proxy-protocol › http/1": [
        (UP, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n" + POST),
        (DOWN, OK),
    ],
    "smtp": [
        (DOWN, b"220 a.test ESMTP\r\n"),
        (UP, b"EHLO b.test\r\n"),
        (DOWN, b"250-a.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"),
        (UP, b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@a.test>\r\nDATA\r\n"),
        (DOWN, b"250 ok\r\n250 ok\r\n354 go on\r\n"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("inside_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("stack", TURNS)
async def test_what_came_together_leaves_together(
    lab, server_ca, stack: str, inside_tls: bool
) -> None:
    turns = TURNS[stack]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)

    async def play(stream, side: str) -> None:
        for direction, data in turns:
            if direction == side:
                await stream.send_all(data)
            else:
                assert await stream.receive_some(65536) == data

    async def server(stream) -> None:
        if inside_tls:
            stream = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await play(stream, DOWN)
        await stream.receive_some(1)

    async with lab(server) as proxy:
        client = await proxy.connect()
        if inside_tls:
            client = trio.SSLStream(client, proxy.client_context(), server_hostname="example.test")
        with trio.fail_after(5):
            await play(client, UP)
        await trio.aclose_forcefully(client)
        close = await proxy.wait_closed()
    assert " › ".join(close.stack) == ("tls › " if inside_tls else "") + stack
