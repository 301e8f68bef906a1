"""What is relayed while it is not yet known what it is."""

from __future__ import annotations

import math
import socket
import ssl

import pytest
import trio

from mitml4.events import FlowLayer
from mitml4.protocols.http.events import HttpRequest

HTTP_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Recorder:
    """A server that keeps what it got, and answers once it has seen enough."""

    def __init__(self, enough: bytes, answer: bytes) -> None:
        self.enough = enough
        self.answer = answer
        self.got = b""
        self.changed = trio.Event()

    async def __call__(self, stream: trio.SocketStream) -> None:
        async for chunk in stream:
            self.got += chunk
            self.changed.set()
            self.changed = trio.Event()
            if self.got.endswith(self.enough):
                await stream.send_all(self.answer)
        await stream.send_eof()

    async def wait_for(self, data: bytes) -> None:
        with trio.fail_after(5):
            while self.got != data:
                await self.changed.wait()


async def test_a_request_that_comes_with_a_pause_is_relayed_at_once_and_still_named(lab) -> None:
    server = Recorder(b"\r\n\r\n", HTTP_ANSWER)
    async with lab(server, hold_s=math.inf) as proxy:
        client = await proxy.connect()
        await client.send_all(b"GE")
        await server.wait_for(b"GE")  # nothing was held back
        await client.send_all(b"T /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await client.receive_some() == HTTP_ANSWER
        await client.aclose()
        close = await proxy.wait_closed()
    assert close.stack == ("http/1",)
    assert [request.url for request in proxy.of(HttpRequest)] == ["http://a/x"]


async def test_what_moved_ahead_is_read_without_waiting_for_more(lab) -> None:
    """MySQL: the greeting is relayed before anyone knows whose it is, and nothing follows it until
    the client's first packet has been let through."""
    greeting = (
        b"\x4a\0\0\0\n8.0.36\0" + bytes(4) + b"12345678\0" + b"\xff\xff\xff\2\0\xff\xdf\x15"
        + bytes(10) + b"123456789012\0caching_sha2_password\0"
    )  # fmt: skip
    greeting = len(greeting[4:]).to_bytes(3, "little") + greeting[3:]
    login = b"\x0d\xa2\x3a\0" + bytes(3) + b"\1\xff" + bytes(23) + b"me\0\0"
    packet = len(login).to_bytes(3, "little") + b"\1" + login

    async def server(stream: trio.SocketStream) -> None:
        await stream.send_all(greeting)
        got = b""
        while len(got) < len(packet):
            got += await stream.receive_some()
        await stream.send_all(b"\7\0\0\2\0\0\0\2\0\0\0")  # OK
        await stream.receive_some()

    async with lab(server, hold_s=math.inf) as proxy:
        client = await proxy.connect()
        with trio.fail_after(5):
            assert await client.receive_some() == greeting
            await client.send_all(packet)
            assert (await client.receive_some())[3:5] == b"\2\0"
        await client.aclose()
        assert (await proxy.wait_closed()).stack == ("mysql",)


async def test_silence_holds_back_half_a_head_no_longer_than_asked(lab) -> None:
    server = Recorder(b"HTTP/1.1\r\n", b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n")
    async with lab(server, hold_s=0.05) as proxy:
        client = await proxy.connect()
        await client.send_all(b"GET / HTTP/1.1\r\n")
        with trio.fail_after(5):
            assert (await client.receive_some()).startswith(b"HTTP/1.1 408")
        await client.send_all(b"Host: a\r\n\r\n")
        await client.aclose()
        assert (await proxy.wait_closed()).stack == ("http/1",)
    assert [request.url for request in proxy.of(HttpRequest)] == ["http://a/"]


async def test_silence_holds_back_a_piece_of_a_client_hello_no_longer_than_asked(lab) -> None:
    server = Recorder(b"!", b"\x00done")
    async with lab(server, hold_s=0.05) as proxy:
        client = await proxy.connect()
        await client.send_all(b"\x16\x03")
        await server.wait_for(b"\x16\x03")
        await client.send_all(b"\x00\x00\x00!")
        assert await client.receive_some() == b"\x00done"
        await client.aclose()
        assert (await proxy.wait_closed()).stack == ("unknown",)


async def test_a_client_hello_whose_beginning_was_let_go_is_passed_through(lab, server_ca) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)

    let_go = trio.Event()

    async def server(stream: trio.SocketStream) -> None:
        assert len(await stream.socket.recv(65536, socket.MSG_PEEK)) == 3
        let_go.set()
        tls = trio.SSLStream(stream, context, server_side=True)
        await tls.do_handshake()
        while await stream.receive_some():
            pass

    async with lab(server, hold_s=0.01) as proxy:
        trust = ssl.create_default_context()
        server_ca.configure_trust(trust)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trust.wrap_bio(incoming, outgoing, server_hostname="example.test")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        client = await proxy.connect()
        hello = outgoing.read()
        await client.send_all(hello[:3])
        with trio.fail_after(5):
            await let_go.wait()
            await client.send_all(hello[3:])
            while True:
                incoming.write(await client.receive_some())
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    continue
        await client.send_all(outgoing.read())
        await client.aclose()
        await proxy.wait_closed()
    (layer,) = proxy.of(FlowLayer)
    assert (layer.protocol, layer.action) == ("tls", "passthrough")
    assert layer.details.sni == "example.test"


@pytest.mark.parametrize("chunk", [1, 3, 1000])
async def test_every_split_of_the_bytes_gives_the_same_stack(lab, chunk: int) -> None:
    """SOCKS5, then HTTP through it, in pieces of any size."""
    socks = b"\x05\x01\x00" + b"\x05\x01\x00\x03\x05a.net\x00\x50"

    async def server(stream: trio.SocketStream) -> None:
        await read(stream, 3)
        await stream.send_all(b"\x05\x00")
        await read(stream, 12)
        await stream.send_all(b"\x05\x00\x00\x01\x7f\0\0\1\x00\x50")
        await read_until(stream, b"\r\n\r\n")
        await stream.send_all(HTTP_ANSWER)

    async def read(stream: trio.SocketStream, count: int) -> None:
        while count:
            count -= len(await stream.receive_some(count))

    async def read_until(stream: trio.SocketStream, end: bytes) -> None:
        got = b""
        while not got.endswith(end):
            got += await stream.receive_some()

    async def send(client: trio.SocketStream, data: bytes) -> None:
        for at in range(0, len(data), chunk):
            await client.send_all(data[at : at + chunk])
            await trio.sleep(0.001)

    async with lab(server) as proxy:
        client = await proxy.connect()
        await send(client, socks[:3])
        await read(client, 2)
        await send(client, socks[3:])
        await read(client, 10)
        await send(client, b"GET / HTTP/1.1\r\nHost: a.net\r\n\r\n")
        await read_until(client, b"ok")
        await client.aclose()
        close = await proxy.wait_closed()
    assert close.stack == ("socks5", "http/1")


async def test_a_client_that_sends_everything_at_once_gets_the_same_stack(lab) -> None:
    everything = (
        b"\x05\x01\x00\x05\x01\x00\x03\x05a.net\x00\x50GET / HTTP/1.1\r\nHost: a.net\r\n\r\n"
    )

    async def server(stream: trio.SocketStream) -> None:
        got = b""
        while len(got) < len(everything):
            got += await stream.receive_some()
            if len(got) == 3:
                await stream.send_all(b"\x05\x00")
            if len(got) == 15:
                await stream.send_all(b"\x05\x00\x00\x01\x7f\0\0\1\x00\x50")
        await stream.send_all(HTTP_ANSWER)

    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(everything)
        got = b""
        with trio.fail_after(5):
            while not got.endswith(HTTP_ANSWER):
                got += await client.receive_some()
        await client.aclose()
        assert (await proxy.wait_closed()).stack == ("socks5", "http/1")
