"""Clients that do not take our certificate: what each way of leaving means for the next flows."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress

import pytest
import trio
import trustme

from mitml4.events import FlowClose, FlowError, FlowLayer

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
FATAL = 2


class Client:
    """TLS by hand over a socket: it may leave at any point of the handshake."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, source: str) -> None:
        self.socket = socket.create_connection(address, timeout=5, source_address=(source, 0))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="example.test")

    def say_hello(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.flush()

    def hear_certificate(self) -> None:
        self.say_hello()
        self.incoming.write(self.socket.recv(65536))

    def shake_hands(self) -> None:
        self.say_hello()
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                self.incoming.write(self.socket.recv(65536))
            else:
                return self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.outgoing.read())

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.socket.close()


def closes(client: Client) -> None:
    client.hear_certificate()
    client.socket.close()


def resets(client: Client) -> None:
    client.hear_certificate()
    client.reset()


def blames_something_else(client: Client) -> None:
    client.hear_certificate()
    internal_error = 80
    client.socket.sendall(bytes([21, 3, 3, 0, 2, FATAL, internal_error]))
    client.socket.close()


def finishes_and_closes(client: Client) -> None:
    client.shake_hands()
    client.socket.close()


def finishes_and_resets(client: Client) -> None:
    client.shake_hands()
    client.reset()


def finishes_and_takes_leave(client: Client) -> None:
    client.shake_hands()
    with suppress(ssl.SSLWantReadError):
        client.tls.unwrap()
    client.flush()
    client.socket.close()


def talks(client: Client) -> None:
    client.shake_hands()
    client.tls.write(b"\0hello")
    client.flush()
    client.socket.recv(1)
    client.socket.close()


LEAVES = [
    closes,
    resets,
    blames_something_else,
    finishes_and_closes,
    finishes_and_resets,
    finishes_and_takes_leave,
]


@pytest.fixture
def visit(server_ca):
    """One connection, to its end; the flow's layer."""

    async def run(proxy, behaviour, source="127.0.0.1") -> FlowLayer:
        context = proxy.client_context()
        server_ca.configure_trust(context)  # for when it is passed through

        def attempt() -> None:
            client = Client(proxy.address, context, source)
            with client.socket:
                behaviour(client)

        number = len(proxy.of(FlowClose)) + 1
        await trio.to_thread.run_sync(attempt)
        await proxy.wait_closed(number)
        return next(layer for layer in proxy.of(FlowLayer) if layer.flow == number)

    return run


@pytest.fixture
def server(server_ca):
    """Echoes, whatever its clients do."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            async for chunk in tls:
                await tls.send_all(chunk)
        await trio.aclose_forcefully(stream)

    return serve


@pytest.mark.parametrize("leaves", LEAVES)
async def test_who_leaves_twice_in_a_row_is_passed_through(lab, server, visit, leaves) -> None:
    async with lab(server) as proxy:
        assert (await visit(proxy, leaves)).action == "intercepted"
        assert (await visit(proxy, talks)).action == "intercepted"  # once is nothing
        for _ in range(2):
            assert (await visit(proxy, leaves)).action == "intercepted"
        assert {error.kind for error in proxy.of(FlowError)} <= {"certificate", "alert"}
        layer = await visit(proxy, talks)
        assert (layer.action, layer.details.passthrough) == ("passthrough", "pinned")
        assert (await visit(proxy, talks, "127.0.0.2")).action == "intercepted"


class AnswersOnceWithGarbage:
    """Its first answer to a hello is none; every other one is sound."""

    def __init__(self, ca: trustme.CA) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("example.test", "outer.test").configure_cert(self.context)
        self.is_first = True

    async def serve(self, stream: trio.abc.Stream) -> None:
        if self.is_first:
            self.is_first = False
            await stream.receive_some()
            await stream.send_all(b"\x16\3\3\0\4\2\0\0\0")
            await stream.aclose()
            return
        tls = trio.SSLStream(stream, self.context, server_side=True)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for chunk in tls:
                await tls.send_all(chunk)

    async def serve_inside(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.serve(trio.SSLStream(stream, self.context, server_side=True))


async def test_an_answer_of_garbage_costs_the_view_of_one_flow(lab, server_ca, visit) -> None:
    async with lab(AnswersOnceWithGarbage(server_ca).serve) as proxy:
        assert (await visit(proxy, talks)).action == "passthrough"  # dialled again
        assert (await visit(proxy, talks)).action == "intercepted"


async def test_inside_a_tunnel_garbage_is_held_against_the_client_that_got_it(
    lab, server_ca
) -> None:
    """Nobody can dial again there. The next one may be opened to any other client."""
    async with lab(AnswersOnceWithGarbage(server_ca).serve_inside) as proxy:
        context = proxy.client_context()
        server_ca.configure_trust(context)

        async def action(source: str) -> str:
            number = len(proxy.of(FlowClose)) + 1
            raw = await trio.open_tcp_stream(*proxy.address, local_address=source)
            proxy.clients.append(raw)
            outer = trio.SSLStream(raw, context, server_hostname="outer.test")
            inner = trio.SSLStream(outer, context, server_hostname="example.test")
            with trio.fail_after(10), suppress(trio.BrokenResourceError):
                await inner.send_all(b"\0hello")
                await inner.receive_some()
            await trio.aclose_forcefully(raw)
            await proxy.wait_closed(number)
            layers = [layer for layer in proxy.of(FlowLayer) if layer.flow == number]
            return layers[1].action

        visits = [await action(f"127.0.0.{host}") for host in (1, 1, 2, 1)]
        assert visits == ["intercepted", "passthrough", "intercepted", "passthrough"]
