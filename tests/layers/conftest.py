"""Whole flows on connections in memory, in virtual time, with a hand on each step they take."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from mitml4.address import Address
from mitml4.edit.editor import Editor
from mitml4.edit.editors import Editors
from mitml4.edit.memory import EditMemory
from mitml4.engine.plaintext import PlaintextBegun, PlaintextMoved, PlaintextReset
from mitml4.events import FlowClose, FlowError, FlowLayer, LayerEvent
from mitml4.layers.relay import Relay
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.listener import IncomingConnection
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.net.stream import Stream, StreamTruncated
from mitml4.payload.budget import MAX_MEMORY, SessionPayload
from mitml4.protocols.payload import Shown
from mitml4.protocols.policy import Decide, PolicyDecision
from mitml4.protocols.tls.hello import ClientHello
from mitml4.session.flows.flow import Flow
from mitml4.session.flows.proof import Prover
from mitml4.session.flows.services import EditingServices, Services
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.context import Contexts, Outcome
from mitml4.tls.engine_memory import Engine
from mitml4.tls.forge import Forge, Leaf
from mitml4.tls.keys import KeyType
from mitml4.tls.offer import prepare
from mitml4.tls.pinning import PassthroughCache
from mitml4.tls.stream import tls_over
from mitml4.tls.verify import Verifier
from tests.steps import Steps

CLIENT = Address("192.0.2.1", 50000)
SERVER = Address("192.0.2.2", 443)
EDIT_LIMIT = 1 << 16
INTERCEPT = PolicyDecision("intercept")
HELLO = ClientHello(
    legacy_version=0x0303,
    random=bytes(32),
    cipher_suites=(0x1301, 0xC02B),
    supported_versions=(0x0304, 0x0303),
    sni="a.test",
)


@dataclass
class FarContexts:
    """What far ends make TLS with."""

    client: SSL.Context
    server: SSL.Context
    asking_server: SSL.Context
    """Asks for a client's certificate, and lets one in that has none."""

    @classmethod
    def of(cls, leaf: Leaf) -> FarContexts:
        outcome = Outcome(version=0x0304, cipher="", alpn=b"", extended_master_secret=True)
        asking = Contexts().client_side(leaf, outcome)
        asking.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        contexts = Contexts()
        client, server = contexts.server_side(HELLO).context, contexts.client_side(leaf, outcome)
        return cls(client, server, asking)


class End:
    """A far end of a flow, as a script speaks through it."""

    def __init__(self, stream: Stream, contexts: FarContexts) -> None:
        self.stream = stream
        self.contexts = contexts

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(memoryview(data))

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def receive(self, count: int) -> bytes:
        """So many bytes, or fewer at the end."""
        got = b""
        buffer = memoryview(bytearray(65536))
        while len(got) < count:
            size = self.stream.receive_nowait(buffer[: count - len(got)])
            if size is None:
                await self.stream.wait_receivable()
            elif size:
                got += bytes(buffer[:size])
            else:
                break
        return got

    async def receive_some(self) -> bytes:
        """What is there, once something is; nothing at the end."""
        buffer = bytearray(65536)
        while (size := self.stream.receive_nowait(memoryview(buffer))) is None:
            await self.stream.wait_receivable()
        return bytes(buffer[:size])

    async def expect(self, data: bytes) -> None:
        got = await self.receive(len(data))
        assert got == data, (got, data)

    async def expect_eof(self) -> None:
        assert await self.receive(1) == b""
        self.stream.transport.raise_if_reset()

    @property
    def was_reset(self) -> bool:
        stream = self.stream.transport
        assert isinstance(stream, MemoryStream)
        return stream.was_reset

    async def start_tls(
        self, *, as_server: bool = False, asks: bool = False, hello: ClientHello = HELLO
    ) -> None:
        context = self.contexts.server if as_server else self.contexts.client
        context = self.contexts.asking_server if asks else context
        stream = tls_over(self.stream, context, server_side=as_server)
        prepare(stream.connection, hello)
        await stream.handshake()
        self.stream = stream


def note_sent(end: MemoryStream, pieces: list[bytes]) -> None:
    """Keep what is sent from this end."""
    deliver = end._deliver

    def note(data: bytes) -> None:
        pieces.append(data)
        deliver(data)

    end._deliver = note


COPIES = (PlaintextBegun, PlaintextMoved, PlaintextReset)
Script = Callable[[End], Awaitable[None]]


@dataclass
class Arrived:
    """A connection that has come in; who refuses it resets it."""

    stream: MemoryStream
    client: Address = CLIENT
    destination: Address = SERVER
    interface: str = "mem"
    local_ends: None = None

    @property
    def asked(self) -> Address:
        return self.destination

    @property
    def source(self) -> Address:
        return self.client

    async def accept(self) -> MemoryStream:
        await trio.lowlevel.checkpoint()
        return self.stream

    def refuse(self, _reason: OSError | None) -> None:
        self.stream.abort()


@dataclass
class Outcomes:
    """What is left of a flow."""

    events: list[Any] = field(default_factory=list)
    near_ends: list[MemoryStream] = field(default_factory=list)
    """Those that the flow has been given."""
    far_ends: list[MemoryStream] = field(default_factory=list)
    """The client's first."""
    relay: Relay = field(default_factory=Relay)
    payload: SessionPayload = field(default_factory=SessionPayload)
    edit_memory: EditMemory = field(default_factory=lambda: EditMemory(2 * EDIT_LIMIT))
    steps: int = 0
    met: dict[str, str] = field(default_factory=dict)
    """What each script met: all that it expected, an end before that, a reset, or its own.
    Where a flow connects again, the last connection is the server's."""

    @property
    def close(self) -> FlowClose:
        (close,) = (event for event in self.events if isinstance(event, FlowClose))
        return close

    @property
    def stack(self) -> tuple[str, ...]:
        return tuple(event.protocol for event in self.events if isinstance(event, FlowLayer))

    @property
    def errors(self) -> list[FlowError]:
        return [event for event in self.events if isinstance(event, FlowError)]

    @property
    def shows_payload(self) -> bool:
        contents = [event.content for event in self.events if isinstance(event, LayerEvent)]
        return any(content.type in ("flow.data", "http.body") for content in contents)

    @property
    def copies_plaintext(self) -> bool:
        return any(isinstance(event, PlaintextMoved) for event in self.events)

    def check(self) -> None:
        """Of a flow that is over, however it ended: nothing is left, and everybody knows."""
        close = self.close
        assert self.events[-1] is close
        assert close.stack == self.stack
        assert all(end.is_closed for end in self.near_ends)
        assert not any(end._watches for end in self.near_ends + self.far_ends)
        assert self.payload.free == MAX_MEMORY
        assert self.edit_memory.free == 2 * EDIT_LIMIT


class FlowLab:
    """Runs flows between two scripts."""

    def __init__(self) -> None:
        self.server_authority = CertificateAuthority.generate()
        certificate = self.server_authority.certificate
        self.root = certificate.public_bytes(Encoding.DER)
        self.forge = Forge(CertificateAuthority.generate())
        self.contexts = Contexts()
        self.far_contexts = FarContexts.of(trio.run(self._warm_up))

    async def _warm_up(self) -> Leaf:
        """Keys are made in threads, for which virtual time does not wait."""
        await self.forge.leaf(None, issuer=frozenset((0,)), key_type=KeyType.EC_P256, name="a.test")
        return await Forge(self.server_authority).leaf(
            None, issuer=frozenset((0,)), key_type=KeyType.EC_P256, name="a.test"
        )

    def run(
        self,
        client: Script,
        server: Script | None,
        *,
        policy: Decide = lambda _ends: INTERCEPT,
        at: int | None = None,
        act: str = "",
        window: int = 65536,
        shows_payload: bool = False,
        copies_plaintext: bool = False,
        editor: Editor | None = None,
        elsewhere: Script | None = None,
        engine: Engine = "auto",
        addresses: Mapping[str, str] | None = None,
        names: tuple[str, ...] = (),
    ) -> Outcomes:
        """A flow between the two, to its end. `names`: for which the client has looked up the
        address. `addresses`: those of names, where the flow has to
        find out who its server is. Where `at` is given, at the flow's step of this
        number it is cancelled (`act` is `cancel`), or one far end resets (`client`, `server`)."""
        out = Outcomes()
        scope = trio.CancelScope()

        def interfere() -> None:
            if act == "cancel":
                scope.cancel()
            else:
                for end in out.far_ends[:1] if act == "client" else out.far_ends[1:]:
                    end.abort()

        steps = Steps(at, interfere)

        async def follow(name: str, script: Script, stream: MemoryStream) -> None:
            met = await meet(script, End(stream, self.far_contexts))
            if name != "server" or stream is out.far_ends[-1]:
                out.met[name] = met
            with suppress(OSError, trio.ClosedResourceError):
                stream.close()

        async def meet(script: Script, end: End) -> str:
            try:
                await script(end)
            except AssertionError:
                if at is None:
                    raise
                return "reset" if end.was_reset else "end"
            except (OSError, StreamTruncated):
                return "reset" if end.was_reset else "end"
            except trio.ClosedResourceError:
                return "its own reset"
            return "all"

        async def main() -> None:
            near_client, far_client = memory_pair(window)
            out.near_ends.append(near_client)
            out.far_ends.append(far_client)

            async def connect(connection: IncomingConnection, _name: str | None) -> MemoryStream:
                await trio.lowlevel.checkpoint()
                if elsewhere and connection.destination != SERVER:
                    near, far = memory_pair(window)
                    nursery.start_soon(follow, "elsewhere", elsewhere, far)
                    return near
                if not server:
                    raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
                near, far = memory_pair(window)
                out.near_ends.append(near)
                out.far_ends.append(far)
                nursery.start_soon(follow, "server", server, far)
                return near

            async def lookup(name: str) -> frozenset[str]:
                return frozenset(filter(None, [(addresses or {}).get(name)]))

            tools = TlsInterceptor(
                engine=engine,
                forge=self.forge,
                contexts=self.contexts,
                verifier=Verifier([self.root]),
                passthrough_cache=PassthroughCache(trio.current_time),
            )
            services = Services(
                publish=out.events.append,
                names_of=lambda _destination: names,
                wants=lambda kind: copies_plaintext or kind not in COPIES,
                connect=connect,
                relay=out.relay,
                shown=Shown(payload=out.payload.of_flow() if shows_payload else None),
                tls=tools,
                prover=None if addresses is None else Prover(tools, connect, lookup=lookup),
                policy=policy,
                editing=EditingServices(lambda: editor or Editors([]), EDIT_LIMIT, out.edit_memory),
            )
            with trio.fail_after(1000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(follow, "client", client, far_client)
                    await run_flow(Flow(1, Arrived(near_client), services))

        async def run_flow(flow: Flow) -> None:
            async with trio.open_nursery() as nursery:

                async def root() -> None:
                    steps.root = trio.lowlevel.current_task()
                    with scope:
                        await flow.run()
                    steps.root = None

                nursery.start_soon(root)

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[steps])
        out.steps = steps.count
        return out


@pytest.fixture(scope="module")
def flow_lab() -> FlowLab:
    return FlowLab()
