"""A flow that is over leaves nothing behind that only the garbage collector could find: its pauses
grow with what there is to look at, and OpenSSL's memory would wait for them."""

from __future__ import annotations

import errno
import gc
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import product
from typing import NoReturn

import pytest
import trio
import trio.lowlevel

from mitml4.layers.bridge import Bridge
from mitml4.layers.lane import Lane
from mitml4.net.listener import IncomingConnection
from mitml4.net.stream import Stream
from mitml4.session.flows.flow import Flow

GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
Act = Callable[[trio.SocketStream], Awaitable[object]]


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    gc.freeze()  # what is there already is not looked at, and later tests' collections skip it too
    yield
    gc.enable()


def left() -> list[object]:
    return [each for each in gc.get_objects() if isinstance(each, Flow | Bridge | Lane | Stream)]


def reset(stream: trio.SocketStream) -> None:
    """Once it is closed."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def serve(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(OK * data.count(b"GET"))


async def reset_at_once(stream: trio.SocketStream) -> None:
    await stream.receive_some(1)
    reset(stream)


async def ask_and_end(client: trio.SocketStream) -> None:
    await client.send_all(GET)
    await client.send_eof()
    async for _ in client:
        pass


async def ask_and_reset(client: trio.SocketStream) -> None:
    await client.send_all(GET)
    await client.receive_some()
    reset(client)


async def say_something_broken(client: trio.SocketStream) -> None:
    await client.send_all(GET + b"\0\1\2" * 100)
    await client.send_eof()
    async for _ in client:
        pass


async def say_nothing(client: trio.SocketStream) -> None:
    await trio.lowlevel.checkpoint()


def quietly(act: Act) -> Act:
    async def run(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await act(stream)

    return run


async def refuse(_arrival: IncomingConnection, _name: str | None) -> NoReturn:
    raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")


async def run_flow(proxy, visit: Act) -> None:
    client = await proxy.connect()
    await quietly(visit)(client)
    await client.aclose()
    await proxy.wait_closed()
    await trio.testing.wait_all_tasks_blocked()


async def test_of_a_plain_flow_nothing_is_left(lab) -> None:
    visits = (ask_and_end, ask_and_reset, say_something_broken, say_nothing)
    for server, visit in product((serve, reset_at_once, None), visits):
        settings = {} if server else {"connect": refuse}
        async with lab(quietly(server or serve), **settings) as proxy:
            await run_flow(proxy, visit)
        assert left() == [], (server, visit)


async def test_of_tls_nothing_is_left(lab, server_ca) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_ca.issue_cert("a.test").configure_cert(context)

    async def speak(stream: trio.SocketStream, manner: str) -> None:
        if manner == "no tls":
            await stream.send_all(b"no TLS here\r\n")
            return
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        while data := await tls.receive_some():
            await tls.send_all(OK * data.count(b"GET"))
            if manner != "serves":
                break
        if manner == "resets":
            reset(stream)

    async def visit(client: trio.SocketStream, trusting: ssl.SSLContext, manner: str) -> None:
        tls = trio.SSLStream(client, trusting, server_hostname="a.test")
        await tls.send_all(GET)
        await tls.receive_some()
        if manner == "closes":
            await tls.aclose()
        elif manner == "resets":
            reset(client)

    servers = ("serves", "ends", "resets", "no tls")
    for server, client in product(servers, ("closes", "ends", "resets", "refuses")):

        async def handle(stream: trio.SocketStream, server: str = server) -> None:
            await speak(stream, server)

        async with lab(quietly(handle)) as proxy:
            trusting = (
                proxy.client_context() if client != "refuses" else ssl.create_default_context()
            )

            async def act(
                stream: trio.SocketStream,
                trusting: ssl.SSLContext = trusting,
                client: str = client,
            ) -> None:
                await visit(stream, trusting, client)

            await run_flow(proxy, act)
        assert left() == [], (server, client)
