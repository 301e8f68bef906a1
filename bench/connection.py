"""`python -m bench.connection`: what a new TLS connection with one request costs in a flow.

The clients and the server are other processes on the loopback, so that all CPU time is that of the
middle: flows, with their events as JSON lines. The kernel's redirection, the SYN that is held, and
the queue of connections are left out.

--calls   counts the calls of functions in the main thread instead (`bench.calls`)
"""

from __future__ import annotations

import argparse
import cProfile
import os
import resource
import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio
import trustme
from cryptography.hazmat.primitives.serialization import Encoding

from bench import fresh
from bench.calls import show_calls
from mitml4.address import Address
from mitml4.layers.relay import Relay
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.dial import connect
from mitml4.net.listener import Accepted, IncomingConnection
from mitml4.net.tcp import TcpStream, prepare
from mitml4.session.flows.flow import Flow
from mitml4.session.flows.services import Services
from mitml4.session.process import prepare_process
from mitml4.session.reporting.hub import Hub
from mitml4.session.sources.proxy import ProxyClient
from mitml4.sinks.background import Background
from mitml4.sinks.files import OutputFile
from mitml4.sinks.jsonl import JsonLines
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.context import Contexts
from mitml4.tls.engine_memory import Engine
from mitml4.tls.forge import Forge
from mitml4.tls.pinning import PassthroughCache
from mitml4.tls.trust_store import certificates_in
from mitml4.tls.verify import Verifier

_NAME: Final = "server.bench.test"
_RESPONSE: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 29 Nov 2026 08:18:07 GMT\r\n"
    b"Content-Type: application/octet-stream\r\nContent-Length: 1024\r\n"
    b"Connection: close\r\n\r\n" + bytes(1024)
)
_SHOWN: Final = 40


def serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        plain, _ = listener.accept()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_side=True) as connection:
            connection.recv(4096)
            connection.sendall(_RESPONSE)


@contextmanager
def server(concurrency: int, context: ssl.SSLContext) -> Iterator[Address]:
    """A process that answers each connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        if not (child := os.fork()):
            for _ in range(concurrency):
                threading.Thread(target=serve, args=(listener, context)).start()
            signal.pause()
        try:
            yield Address.of(listener.getsockname())
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


class Middle:
    """Flows of a session in this process."""

    def __init__(self, upstream: Address, roots: bytes, engine: Engine) -> None:
        self.upstream = upstream
        self.ca = CertificateAuthority.generate()
        self.tls = TlsInterceptor(
            forge=Forge(self.ca),
            contexts=Contexts(),
            verifier=Verifier(list(certificates_in(roots))),
            passthrough_cache=PassthroughCache(trio.current_time),
            engine=engine,
        )

    async def carry(self, clients: int, listener: socket.socket) -> None:
        """Until the process of the clients has ended."""
        null = OutputFile(os.open(os.devnull, os.O_WRONLY), os.devnull)
        sink = Background(JsonLines(null))
        hub, relay = Hub([sink]), Relay()

        async def connect_to_server(_: IncomingConnection, _name: str | None) -> TcpStream:
            return TcpStream(await connect(self.upstream))

        services = Services(
            publish=hub.publish,
            wants=hub.wants,
            connect=connect_to_server,
            relay=relay,
            tls=self.tls,
            names_of=lambda _: (_NAME,),
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(sink.run)
            nursery.start_soon(self._accept, nursery, listener, services)
            _, status = await trio.to_thread.run_sync(os.waitpid, clients, 0)
            nursery.cancel_scope.cancel()
        relay.pipes.close()
        if status:
            raise SystemExit("a client has failed")

    async def _accept(
        self, nursery: trio.Nursery, listener: socket.socket, services: Services
    ) -> None:
        number = 0
        while True:
            await trio.lowlevel.wait_readable(listener)
            plain, peer = listener.accept()
            number += 1
            client = ProxyClient(Accepted(plain, Address.of(peer), self.upstream), "lo")
            nursery.start_soon(Flow(number, client, services).run)


def carry(middle: Middle, context: ssl.SSLContext, count: int, concurrency: int) -> None:
    """Carry so many connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        listener.setblocking(False)
        prepare(listener)
        if not (child := os.fork()):
            ip, port = listener.getsockname()
            to = fresh.Server(ip, port, _NAME, context)
            try:
                fresh.load(to, "/small", count, concurrency)
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        trio.run(middle.carry, child, listener)


def used_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=("auto", "openssl"), default="auto")
    parser.add_argument("--calls", action="store_true")
    given = parser.parse_args()
    authority = trustme.CA()
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(_NAME).configure_cert(of_server)
    with server(given.concurrency, of_server) as upstream, tempfile.TemporaryDirectory() as where:
        middle = Middle(upstream, authority.cert_pem.bytes(), given.engine)
        pem = Path(where, "ca.pem")
        pem.write_bytes(middle.ca.certificate.public_bytes(Encoding.PEM))
        context = ssl.create_default_context(cafile=pem)
        context.set_alpn_protocols(["http/1.1"])
        carry(middle, context, 2 * given.concurrency, given.concurrency)
        prepare_process()
        if given.calls:
            with cProfile.Profile() as profile:
                carry(middle, context, given.count, given.concurrency)
            show_calls(profile, given.count)
            return
        for _ in range(given.rounds):
            before = used_s()
            carry(middle, context, given.count, given.concurrency)
            spent_ms = (used_s() - before) * 1000 / given.count
            print(f"{spent_ms:.2f} ms of CPU for each connection", flush=True)


if __name__ == "__main__":
    main()
