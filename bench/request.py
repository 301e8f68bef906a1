"""`python -m bench.request`: what a kept-alive request costs by the bridge, and what is not ours.

Connections of HTTP/1.1 in TLS 1.3, whose far ends are a process that has sealed its records before,
so that all CPU time is that of the middle. It is measured twice, in turn: as mitml4 relays it, with
events as JSON lines; and as a loop that waits, receives, opens, seals and sends with the same
primitives, and writes one JSON line a request.

--calls   counts the calls of functions in the main thread instead (`bench.calls`)
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import resource
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio

from bench.calls import show_calls
from mitml4.crypto.records import Protection, protection_1_3
from mitml4.crypto.suites import suite_of
from mitml4.layers.bridge import Bridge
from mitml4.layers.converse import Follower
from mitml4.layers.relay import Relay
from mitml4.layers.report import Report
from mitml4.net.tcp import TcpStream, prepare
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Target
from mitml4.protocols.policy import FlowPolicy
from mitml4.session.reporting.hub import Hub
from mitml4.sinks.background import Background
from mitml4.sinks.files import OutputFile
from mitml4.sinks.jsonl import JsonLines
from mitml4.tls.bridge.connection import Connection
from mitml4.tls.bridge.records import RecordsIn, RecordsOut
from mitml4.tls.bridged_stream import BridgedStream

REQUEST: Final = b"GET /small HTTP/1.1\r\nHost: server.bench.test\r\n\r\n"
RESPONSE: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 29 Nov 2026 08:18:07 GMT\r\n"
    b"Content-Type: application/octet-stream\r\nContent-Length: 1024\r\n"
    b"Last-Modified: Sun, 29 Nov 2026 08:17:07 GMT\r\nConnection: keep-alive\r\n"
    b'ETag: "6564-400"\r\nAccept-Ranges: bytes\r\n\r\n' + bytes(1024)
)
_BUFFER_BYTES: Final = 32768
_DATA: Final = 23  # RFC 8446 §5.1: application_data
_CLIENT, _TO_CLIENT, _TO_SERVER, _SERVER = range(1, 5)
"""Numbers of keys: those of the client, ours to it, ours to the server, the server's."""

Sides: TypeAlias = list[tuple[socket.socket, socket.socket]]
"""Those of the middle: to the client, to the server."""
Work: TypeAlias = Callable[[Sides, trio.Nursery], Awaitable[None]]


def protection(key: int) -> Protection:
    suite = suite_of(0x1302)
    assert suite
    return protection_1_3(suite, bytes([key]) * 48)


def connection(opens: int, seals: int, *, is_client: bool) -> Connection:
    records_in, records_out = RecordsIn(), RecordsOut()
    records_in.protection, records_out.protection = protection(opens), protection(seals)
    return Connection(records_in, records_out, is_client=is_client)


def legs() -> tuple[Connection, Connection]:
    return (
        connection(_CLIENT, _TO_CLIENT, is_client=False),
        connection(_SERVER, _TO_SERVER, is_client=True),
    )


async def relayed(sides: Sides, nursery: trio.Nursery) -> None:
    """As mitml4 does it."""
    null = OutputFile(os.open(os.devnull, os.O_WRONLY), os.devnull)
    sink = Background(JsonLines(null))
    await nursery.start(sink.run)
    hub, relay = Hub([sink]), Relay()
    context = LayerContext(
        clock=trio.lowlevel.current_clock().current_time,
        secure=True,
        stack=("tls",),
        target=Target("server.bench.test", 443),
    )
    for number, (to_client, to_server) in enumerate(sides, 1):
        for sock in (to_client, to_server):
            prepare(sock)
        client, server = legs()
        report = Report(flow=number, publish=hub.publish, wants=hub.wants)
        report.enter(0, "tls")
        bridge = Bridge.between(
            BridgedStream(TcpStream(to_client), client),
            BridgedStream(TcpStream(to_server), server),
            relay=relay,
            report=report,
            policy=FlowPolicy(),
        )
        nursery.start_soon(Follower(bridge, context).detect)


async def bare(sides: Sides, nursery: trio.Nursery) -> None:
    """Nothing but what any program has to do."""
    out = os.open(os.devnull, os.O_WRONLY)
    encode = json.JSONEncoder(separators=(",", ":")).encode

    def tell() -> None:
        event = {"type": "http.request", "time": time.time(), "v": 1, "url": "https://x/small"}
        os.write(out, f"{encode(event)}\n".encode())

    async def lane(
        source: socket.socket,
        sink: socket.socket,
        opens: Connection,
        seals: Connection,
        tell: Callable[[], None] | None,
    ) -> None:
        sealed, content = (memoryview(bytearray(_BUFFER_BYTES)) for _ in range(2))
        while True:
            await trio.lowlevel.wait_readable(source)
            if not (count := source.recv_into(sealed)):
                return
            count = opens.open(sealed[:count], content)
            if tell:
                tell()
            _, length = seals.seal(content[:count], sealed)
            sink.send(sealed[:length])

    for to_client, to_server in sides:
        to_client.setblocking(False)
        to_server.setblocking(False)
        client, server = legs()
        nursery.start_soon(lane, to_client, to_server, client, server, tell)
        nursery.start_soon(lane, to_server, to_client, server, client, None)


def far_ends(clients: list[socket.socket], servers: list[socket.socket], rounds: int) -> None:
    """Every client sends a request, every server its response, and so on."""
    of_client, of_server = protection(_CLIENT), protection(_SERVER)
    for _ in range(rounds):
        request, response = of_client.seal(_DATA, REQUEST), of_server.seal(_DATA, RESPONSE)
        for senders, message, receivers in (
            (clients, request, servers),
            (servers, response, clients),
        ):
            for each in senders:
                each.sendall(message)
            for each in receivers:
                each.recv(len(message), socket.MSG_WAITALL)


def measure(work: Work, count: int, rounds: int) -> float:
    """CPU seconds of the middle for each request."""
    pairs = [(_pair(), _pair()) for _ in range(count)]
    if not (child := os.fork()):
        far_ends([client for (client, _), _ in pairs], [far for _, (_, far) in pairs], rounds)
        os._exit(0)
    for (client, _), (_, far) in pairs:
        client.close()
        far.close()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await work([(near, own) for (_, near), (own, _) in pairs], nursery)
            await trio.to_thread.run_sync(os.waitpid, child, 0)
            nursery.cancel_scope.cancel()

    before = resource.getrusage(resource.RUSAGE_SELF)
    trio.run(main)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used / (count * rounds)


def _pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection: who connects, and who accepts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, listener.accept()[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--requests", type=int, default=200, help="on each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", action="store_true")
    given = parser.parse_args()
    if given.calls:
        with cProfile.Profile() as profile:
            measure(relayed, given.connections, given.requests)
        show_calls(profile, given.connections * given.requests)
        return
    for _ in range(given.rounds):
        for name, work in (("mitml4", relayed), ("the loop alone", bare)):
            seconds = measure(work, given.connections, given.requests)
            print(f"{name}: {seconds * 1e6:.0f} µs of CPU for each request", flush=True)


if __name__ == "__main__":
    main()
