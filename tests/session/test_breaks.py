"""When one side breaks off, the other gets what had been said before, and then the same break."""

from __future__ import annotations

import errno
import socket
import ssl
import struct
from contextlib import suppress
from typing import Any

import pytest
import trio
import trustme

from mitml4.events import FlowError
from mitml4.net.listener import IncomingConnection
from mitml4.net.tcp import TcpStream
from mitml4.session.flows import flow

EARLY_RESPONSE = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("size", [2, 60_000])
async def test_an_answer_that_comes_with_a_reset_is_heard(lab, size: int) -> None:
    """A server that has heard enough answers and closes; what it has not read makes that a RST."""
    stuck = trio.Event()

    async def server(stream: trio.SocketStream) -> None:
        await stuck.wait()
        await stream.send_all(EARLY_RESPONSE + bytes(size))
        stream.socket.close()

    async with lab(server) as proxy:
        client = await proxy.connect()
        with trio.move_on_after(0.2):
            await client.send_all(
                b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n" + bytes(50_000_000)
            )
        stuck.set()
        heard = b""
        with trio.fail_after(5), suppress(trio.BrokenResourceError):
            while chunk := await client.receive_some():
                heard += chunk
            pytest.fail("it ends as if all were well")
        assert heard == EARLY_RESPONSE + bytes(size)
        assert (await proxy.wait_closed()).reason == "reset"


@pytest.mark.parametrize(
    "head", [b"PUT / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", b"\xc0\xff"]
)
async def test_an_answer_is_heard_though_who_sends_finds_the_reset_first(lab, head: bytes) -> None:
    async def server(stream: Any) -> None:
        received = 0
        while received < 1 << 20:
            received += len(await stream.receive_some())
        socket.socket.send(stream.socket._sock, EARLY_RESPONSE)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()

    rounds = 10  # which task runs first is left to chance
    async with lab(server) as proxy:
        for count in range(rounds):
            client = await proxy.connect()
            with trio.fail_after(5), suppress(trio.BrokenResourceError):
                await client.send_all(head + bytes(9_000_000))
            heard = b""
            with trio.fail_after(5), suppress(trio.BrokenResourceError):
                while chunk := await client.receive_some():
                    heard += chunk
            assert heard == EARLY_RESPONSE
            assert (await proxy.wait_closed(count + 1)).reason == "reset"


async def test_two_full_directions_inside_tls_inside_tls(lab, server_ca: trustme.CA) -> None:
    """Neither end reads before it has written: only the buffers between them are in their way."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)
    size = 8 << 20

    async def serve(stream: trio.SocketStream) -> None:
        outer = trio.SSLStream(stream, context, server_side=True)
        inner = trio.SSLStream(outer, context, server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inner.send_all, bytes(size))
            received = 0
            while received < size:
                received += len(await inner.receive_some(1 << 20))
        await trio.sleep_forever()

    async with lab(serve) as proxy:
        outer = trio.SSLStream(
            await proxy.connect(), proxy.client_context(), server_hostname="example.test"
        )
        inner = trio.SSLStream(outer, proxy.client_context(), server_hostname="example.test")
        with trio.fail_after(30):
            await inner.do_handshake()
            await inner.send_all(bytes(size))
            received = 0
            while received < size:
                received += len(await inner.receive_some(1 << 20))


NOT_CONNECTED = {
    errno.EMFILE: ("internal", "error"),
    errno.ENFILE: ("internal", "error"),
    errno.EADDRNOTAVAIL: ("internal", "error"),
    errno.ETIMEDOUT: ("timeout", "timeout"),  # as of a proxy that never answers
}


@pytest.mark.parametrize("code", NOT_CONNECTED)
async def test_what_keeps_us_from_connecting_is_not_called_refused(lab, code: int) -> None:
    kind, reason = NOT_CONNECTED[code]

    async def connect(_arrival: IncomingConnection, _name: str | None) -> TcpStream:
        raise OSError(code, "why")

    async with lab(None, connect=connect) as proxy:
        client = await proxy.connect()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
            await client.receive_some()
        assert (await proxy.wait_closed()).reason == reason
    (error,) = proxy.of(FlowError)
    assert (error.stage, error.kind, error.reason) == ("connect", kind, "why")


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_side_that_answers_no_more_is_named_and_the_other_is_reset(
    lab, monkeypatch, side: str
) -> None:
    """The kernel gives up one whose window stays closed, as one that acknowledges nothing."""
    carry = flow.Flow._run_layers

    async def bridge(self: flow.Flow, client_side: TcpStream, server_side: TcpStream) -> None:
        lost = client_side if side == "client" else server_side
        lost.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
        await carry(self, client_side, server_side)

    monkeypatch.setattr(flow.Flow, "_run_layers", bridge)

    async def server(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        if side == "client":
            await talk(stream)
        else:
            await trio.sleep_forever()

    async def talk(stream: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(bytes(50_000_000))

    async with lab(server) as proxy:
        client = await proxy.connect()
        with trio.fail_after(5):
            await client.send_all(b"\0")
            if side == "server":
                await talk(client)
            close = await proxy.wait_closed()
    assert close.reason == "timeout"
    (error,) = proxy.of(FlowError)
    assert (error.side, error.stage, error.kind) == (side, "relay", "timeout")


async def test_the_servers_alert_is_followed_by_its_end_and_not_by_a_reset(lab) -> None:
    """A reset would take the alert away from who has not read it yet (RFC 9112 §9.6)."""

    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"\x15\x03\x03\x00\x02\x02\x70")
        await stream.aclose()

    async with lab(refuse) as proxy:
        client = await proxy.connect()
        outgoing = ssl.MemoryBIO()
        tls = proxy.client_context().wrap_bio(
            ssl.MemoryBIO(), outgoing, server_hostname="example.test"
        )
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        await client.send_all(outgoing.read())
        assert (await proxy.wait_closed()).reason == "error"
        with trio.fail_after(5):
            assert await client.receive_some() == b"\x15\x03\x03\x00\x02\x02\x70"
            assert await client.receive_some() == b""
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


@pytest.mark.parametrize("said", [b"\0opaque", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_tls_that_breaks_on_one_side_ends_the_other_without_close_notify(
    lab, server_ca: trustme.CA, said: bytes
) -> None:
    """And what the other still says to it is lost, which is no fault of ours."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)
    context.num_tickets = 0  # trio would keep them back
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # some builds of Python set it
    how: list[str] = []

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        assert await tls.receive_some() == said
        answer = record_of(tls, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        try:
            await tls.receive_some()
            how.append("close_notify")
        except trio.BrokenResourceError:
            how.append("truncated")
        await stream.send_all(answer)
        await trio.aclose_forcefully(stream)

    async with lab(serve) as proxy:
        raw = await proxy.connect()
        client = trio.SSLStream(raw, proxy.client_context(), server_hostname="example.test")
        with trio.fail_after(5):
            await client.send_all(said)
            await raw.send_all(b"\x17\3\3\0\x20" + bytes(32))  # does not decrypt
            close = await proxy.wait_closed()
        assert close.reason == "reset"
    assert how == ["truncated"]
    assert [error.kind for error in proxy.of(FlowError)] == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("last", [b"\x17\3\3\0\x20" + bytes(32), b"\x15\3\3\0\2\2\x14", b"oops!"])
async def test_what_breaks_a_servers_tls_is_no_end_for_the_client(
    lab, server_ca: trustme.CA, version: ssl.TLSVersion, last: bytes
) -> None:
    """A client that reads to the end would take half of a page for all of it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)
    context.maximum_version = version
    half = b"HTTP/1.0 200 OK\r\n\r\nhalf of it"

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        await tls.receive_some()
        await tls.send_all(half)
        await stream.send_all(last)
        await stream.aclose()

    async with lab(serve) as proxy:
        raw = await proxy.connect()
        client = trio.SSLStream(raw, proxy.client_context(), server_hostname="example.test")
        got = b""
        with trio.fail_after(5):
            await client.send_all(b"GET / HTTP/1.0\r\n\r\n")
            while len(got) < len(half):
                got += await client.receive_some()
            with pytest.raises(trio.BrokenResourceError) as broken:
                await client.receive_some()
        assert got == half
        assert isinstance(broken.value.__cause__, ConnectionResetError)
        assert (await proxy.wait_closed()).reason == "error"
    (error,) = proxy.of(FlowError)
    assert (error.side, error.stage, error.kind) == ("server", "relay", "protocol")


def record_of(tls: trio.SSLStream, data: bytes) -> bytes:
    """To be sent when trio takes the stream for broken."""
    tls._ssl_object.write(data)
    return tls._outgoing.read()


async def test_a_cut_behind_a_request_for_a_certificate_is_no_fault_of_ours(
    lab, server_ca: trustme.CA
) -> None:
    outside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for context in (outside, inside):
        server_ca.issue_cert("example.test").configure_cert(context)
    inside.verify_mode = ssl.CERT_OPTIONAL
    inside.num_tickets = 0

    async def serve(stream: trio.SocketStream) -> None:
        outer = trio.SSLStream(stream, outside, server_side=True)
        await trio.SSLStream(outer, inside, server_side=True).do_handshake()
        await stream.send_eof()  # of TCP: without close_notify on either side
        await trio.sleep_forever()

    async with lab(serve, hold_s=5) as proxy:
        outer = trio.SSLStream(
            await proxy.connect(), proxy.client_context(), server_hostname="example.test"
        )
        inner = trio.SSLStream(outer, proxy.client_context(), server_hostname="example.test")
        with suppress(trio.BrokenResourceError), trio.fail_after(3):
            await inner.do_handshake()
            await inner.receive_some()
        await proxy.clients[0].aclose()
        await proxy.wait_closed()
    assert "internal" not in [error.kind for error in proxy.of(FlowError)]


async def test_a_cut_is_not_answered_and_what_comes_the_other_way_is_still_heard(
    lab, server_ca: trustme.CA
) -> None:
    """A FIN without close_notify ends one direction. OpenSSL by itself would send an alert, write
    nothing more, and have us reset by who has closed."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)
    context.num_tickets = 0
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # some builds of Python set it
    heard_end = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        await tls.receive_some()
        answer = record_of(tls, b"\0answer")
        with pytest.raises(trio.BrokenResourceError):
            await tls.receive_some()
        heard_end.set()
        await stream.send_all(answer)
        await trio.aclose_forcefully(stream)

    async with lab(serve) as proxy:
        raw = await proxy.connect()
        client = trio.SSLStream(raw, proxy.client_context(), server_hostname="example.test")
        with trio.fail_after(5):
            await client.send_all(b"\0opaque")
            await raw.send_eof()
            await heard_end.wait()
            assert await client.receive_some() == b"\0answer"
            await trio.aclose_forcefully(raw)
            close = await proxy.wait_closed()
    assert (close.reason, close.stack) == ("closed", ("tls", "unknown"))
