"""A proxy on loopback that carries real flows without any rule of the kernel's."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trustme

from mitml4.address import Address
from mitml4.events import Event, FlowClose, FlowLayer, LayerEvent
from mitml4.layers.relay import Relay
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.dial import abort
from mitml4.net.listener import IncomingConnection
from mitml4.net.tcp import TcpStream
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.session.flows.flow import Flow
from mitml4.session.flows.services import Services
from mitml4.sinks.updates import Published
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.context import Contexts
from mitml4.tls.engine_memory import Engine
from mitml4.tls.forge import Forge
from mitml4.tls.pinning import PassthroughCache
from mitml4.tls.trust_store import certificates_in
from mitml4.tls.verify import Verifier
from tests.streams import tcp_stream

Handler = Callable[[trio.SocketStream], object]


@dataclass
class Arrived:
    """An arrival that the kernel has let in already: to refuse it is to reset it."""

    socket: Any  # of trio's or the standard library's
    client: Address
    destination: Address
    interface: str = "lo"
    local_ends: None = None

    @property
    def asked(self) -> Address:
        return self.destination

    @property
    def source(self) -> Address:
        return self.client

    async def accept(self) -> TcpStream:
        return tcp_stream(self.socket)

    def refuse(self, _reason: OSError | None) -> None:
        abort(self.socket)


@dataclass
class Lab:
    """A running proxy before one server, and what it said."""

    address: tuple[str, int]
    ca: CertificateAuthority
    services: Services
    events: list[Any] = field(default_factory=list)
    closed: trio.Event = field(default_factory=trio.Event)
    clients: list[trio.SocketStream] = field(default_factory=list)

    async def connect(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream(*self.address)
        self.clients.append(stream)
        return stream

    def client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=pem_of(self.ca))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    async def wait_closed(self, count: int = 1) -> FlowClose:
        """The `count`th flow that closed."""
        with trio.fail_after(10):
            while len(self.of(FlowClose)) < count:
                await self.closed.wait()
                self.closed = trio.Event()
        return self.of(FlowClose)[count - 1]

    def of(self, kind: type[Event] | type[ProtocolEvent]) -> list:
        """The events of a kind: ours, or the contents of a protocol's."""
        contents = (event.content for event in self.events if isinstance(event, LayerEvent))
        return [event for event in (*self.events, *contents) if isinstance(event, kind)]

    @property
    def stack(self) -> list[str]:
        return [layer.protocol for layer in self.of(FlowLayer)]


def pem_of(ca: CertificateAuthority) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return ca.certificate.public_bytes(Encoding.PEM).decode()


@pytest.fixture(scope="session")
def server_ca() -> trustme.CA:
    """The authority that test servers are signed by, and that the proxy trusts upstream."""
    return trustme.CA()


@pytest.fixture(scope="session")
def our_ca() -> CertificateAuthority:
    return CertificateAuthority.generate()


_WITH_EITHER_ENGINE = {
    "test_breaks",
    "test_channel_binding",
    "test_client_certificates",
    "test_holding",
    "test_kept",
    "test_pins",
    "test_scripted_servers",
    "test_tls",
    "test_together",
    "test_trust",
    "test_watching",
}
"""The modules about what TLS does whichever engine does it."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        either = metafunc.module.__name__.rpartition(".")[2] in _WITH_EITHER_ENGINE
        metafunc.parametrize("engine", ["auto", "openssl"] if either else ["auto"])


@pytest.fixture
def lab(
    server_ca: trustme.CA, our_ca: CertificateAuthority, engine: Engine
) -> Callable[..., AbstractAsyncContextManager[Lab]]:
    """`async with lab(server_handler) as proxy`: a TCP server, and the proxy before it."""
    verifier = Verifier(list(certificates_in(server_ca.cert_pem.bytes())))

    @asynccontextmanager
    async def run(handler: Handler | None, **settings) -> AsyncIterator[Lab]:
        async with trio.open_nursery() as nursery:
            port = await _start_server(nursery, handler)
            listener = trio.socket.socket()
            await listener.bind(("127.0.0.1", 0))
            listener.listen(128)

            async def connect(_arrival: IncomingConnection, _name: str | None) -> TcpStream:
                return tcp_stream((await trio.open_tcp_stream("127.0.0.1", port)).socket)

            interceptor = TlsInterceptor(
                forge=Forge(our_ca),
                contexts=Contexts(),
                verifier=verifier,
                passthrough_cache=PassthroughCache(trio.current_time),
                engine=engine,
            )
            proxy = Lab(listener.getsockname(), our_ca, None)

            def publish(event: Published) -> None:
                proxy.events.append(event)
                if isinstance(event, FlowClose):
                    proxy.closed.set()

            proxy.services = Services(
                publish=publish, connect=connect, relay=Relay(), tls=interceptor
            )
            for name, value in settings.items():
                owner = proxy.services if hasattr(proxy.services, name) else interceptor
                setattr(owner, name, value)
            nursery.start_soon(_accept, nursery, listener, proxy)
            try:
                yield proxy
            finally:
                nursery.cancel_scope.cancel()
                listener.close()
                for client in proxy.clients:
                    client.socket.close()
                proxy.services.relay.pipes.close()

    return run


async def _start_server(nursery: trio.Nursery, handler: Handler | None) -> int:
    if handler is None:  # nobody listens there
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return free.getsockname()[1]
    listeners = await nursery.start(trio.serve_tcp, handler, 0)
    return listeners[0].socket.getsockname()[1]


async def _accept(nursery: trio.Nursery, listener: trio.socket.SocketType, proxy: Lab) -> None:
    number = 0
    while True:
        sock, peer = await listener.accept()
        number += 1
        arrived = Arrived(sock, Address.of(peer), Address("127.0.0.1", 443))
        nursery.start_soon(Flow(number, arrived, proxy.services).run)
