"""An end is an end at the other side, and a reset a reset, wherever in the handshake it comes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from OpenSSL import SSL

from mitml4.net.stream import StreamTruncated, Transport
from mitml4.protocols.tls.hello import RETRY_RANDOM, Extension, parse_client_hello
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.messages import ServerHello
from mitml4.tls.bridge.wire import vector
from mitml4.tls.offer import prepare

from .conftest import HELLO, End

ENGINES = ("auto", "openssl")
POINTS = ("half a hello", "a hello", "half a flight", "a flight")
STEP_S = 0.2
"""What was sent arrives meanwhile, and nothing is held back for so long."""
WINDOW = 4096
BYTE_RECORD = 23
"""The length of a record with one byte. It is shorter than one with an alert."""


class Handshake:
    """A client's hello, and a server's flight, by OpenSSL."""

    def __init__(self, end: End, *, is_server: bool) -> None:
        contexts = end.contexts
        self.tls = SSL.Connection(contexts.server if is_server else contexts.client, None)
        if is_server:
            self.tls.set_accept_state()
        else:
            self.tls.set_connect_state()
            prepare(self.tls, HELLO)

    def answer(self, data: bytes = b"") -> bytes:
        """What it sends next, once it has read this."""
        if data:
            self.tls.bio_write(data)
        with pytest.raises(SSL.WantReadError):
            self.tls.do_handshake()
        return self.tls.bio_read(65536)


async def hear_end(end: Any) -> str:
    """How the far end has ended, whatever it has sent before."""
    try:
        while await end.receive(1):
            pass
        end.stream.transport.raise_if_reset()
        with trio.move_on_after(STEP_S):
            await end.stream.transport.wait_reset()
    except ConnectionResetError:
        return "end, and reset" if end.stream.transport._ended else "reset"
    return "end"


async def stop(end: End, how: str) -> None:
    await trio.sleep(STEP_S)
    if how == "reset":
        end.stream.abort()
    else:
        await end.send_eof()


async def receive_hello(end: End) -> bytes:
    head = await end.receive(5)
    return head + await end.receive(int.from_bytes(head[3:]))


async def speak_as_client(end: End, point: str) -> None:
    """Up to this point of the handshake."""
    hello = Handshake(end, is_server=False).answer()
    await end.send(hello[: len(hello) // 2] if point == "half a hello" else hello)
    if point == "a flight":
        assert await end.receive(100)


async def speak_as_server(end: End, point: str) -> None:
    if point != "half a hello":
        flight = Handshake(end, is_server=True).answer(await receive_hello(end))
        sent = {"a hello": 0, "half a flight": len(flight) // 2}.get(point, len(flight))
        await end.send(flight[:sent])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_client_ends_as_it_did(flow_lab, engine: str, how: str) -> None:
    heard = {}
    for point in POINTS:

        async def client(end: End, point: str = point) -> None:
            await speak_as_client(end, point)
            await stop(end, how)
            if how == "end":
                await hear_end(end)

        async def server(end: End, point: str = point) -> None:
            await speak_as_server(end, point)
            heard[point] = await hear_end(end)

        out = flow_lab.run(client, server, engine=engine)
        out.check()
        assert len(out.far_ends) == 2, f"{point}: the server was dialled again"
    assert set(heard.values()) == {how}, heard


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_server_ends_as_it_did(flow_lab, engine: str, how: str) -> None:
    heard = {}
    for point in POINTS:

        async def client(end: End, point: str = point) -> None:
            await speak_as_client(end, point)
            if point == "a flight":
                await trio.sleep(2 * STEP_S)
                await end.send_eof()
            heard[point] = await hear_end(end)

        async def server(end: End, point: str = point) -> None:
            await speak_as_server(end, point)
            await stop(end, how)
            if how == "end":
                await hear_end(end)

        flow_lab.run(client, server, engine=engine).check()
    assert set(heard.values()) == {how}, heard


@pytest.mark.parametrize("engine", ENGINES)
def test_a_close_notify_in_place_of_a_handshake_comes_through(flow_lab, engine: str) -> None:
    """A client may distinguish it from a FIN alone, as Python does."""
    close_notify = bytes([21, 3, 3, 0, 2, 1, 0])

    async def client(end: End) -> None:
        await speak_as_client(end, "a hello")
        await end.expect(close_notify)
        assert await hear_end(end) == "end"

    async def server(end: End) -> None:
        await receive_hello(end)
        await end.send(close_notify)
        await end.send_eof()
        await hear_end(end)

    out = flow_lab.run(client, server, engine=engine)
    out.check()
    assert out.met["client"] == "all"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_client_that_has_ended_cannot_answer_a_retry(flow_lab, engine: str) -> None:
    heard = {}

    async def client(end: End) -> None:
        await speak_as_client(end, "a hello")
        await end.send_eof()
        heard["client"] = await hear_end(end)

    async def server(end: End) -> None:
        hello = parse_client_hello(await receive_hello(end))
        assert hello
        wanted = (
            (int(Extension.SUPPORTED_VERSIONS), b"\x03\x04"),
            (int(Extension.KEY_SHARE), b"\0\x18"),
        )
        retry = ServerHello(
            random=RETRY_RANDOM,
            session_id=hello.session_id,
            cipher_suite=0x1301,
            extensions=RawExtensions(wanted),
        )
        await trio.sleep(STEP_S)
        await end.send(b"\x16\x03\x03" + vector(2, retry.encode()))
        heard["server"] = await hear_end(end)
        await end.send_eof()

    flow_lab.run(client, server, engine=engine).check()
    assert heard == {"client": "end", "server": "end"}


@pytest.mark.parametrize("has_ended", [False, True], ids=["open", "ended"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_reset_behind_close_notify_is_one_though_there_is_no_room_for_that(
    flow_lab, engine: str, has_ended: bool
) -> None:
    was_reset: list[bool] = []
    far: list[Transport] = []

    async def client(end: End) -> None:
        await end.start_tls()
        await end.send(b"?")
        if has_ended:
            await end.send_eof()
            await end.stream.transport.send_eof()
        far.append(end.stream.transport)
        await trio.sleep(100 * STEP_S)
        with suppress(StreamTruncated, ConnectionResetError):
            await end.receive(WINDOW)
        was_reset.append(end.was_reset)

    async def server(end: End) -> None:
        await end.start_tls(as_server=True)
        await end.expect(b"?")
        while WINDOW - far[0].unread_count() > BYTE_RECORD:
            await end.send(b"!")
            await trio.sleep(0.001)
        await end.send_eof()
        await trio.sleep(STEP_S)
        end.stream.abort()

    out = flow_lab.run(client, server, engine=engine, window=WINDOW)
    out.check()
    assert out.close.reason == "reset"
    assert was_reset == [True]
