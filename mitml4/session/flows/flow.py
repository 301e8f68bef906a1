"""One intercepted TCP connection, from accept to close. The file to read first.

The flow connects to the server first: if the server refuses, the client is refused. Then it loops
over layers (`layers/choice.py`). Each layer leaves what is inside it to the next one, until nothing
is left.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import trio

from mitml4.address import CA_PAGE
from mitml4.engine.plaintext import Plaintext, PlaintextMoved
from mitml4.events import CloseReason, now
from mitml4.layers.bridge import Bridge
from mitml4.layers.ca_page import AnswerByPages, Pages
from mitml4.layers.choice import LayerChoice
from mitml4.layers.claim import claimed
from mitml4.layers.editing.deferred import Deferred
from mitml4.layers.editing.flow import FlowEditing
from mitml4.layers.lane import BrokenTlsError
from mitml4.layers.layer import HandshakeError, Inner
from mitml4.layers.proxy.onward import Opened
from mitml4.layers.proxy.server import ProxyServer
from mitml4.layers.redial import Redial
from mitml4.layers.report import Report, Side
from mitml4.model import flow as model
from mitml4.net.listener import IncomingConnection
from mitml4.net.memory import memory_pair
from mitml4.net.stream import Stream, Transport
from mitml4.process import RunningProcess
from mitml4.protocols.context import LayerContext
from mitml4.protocols.expected import Announcement
from mitml4.protocols.policy import (
    NOT_ALLOWED,
    Blocked,
    Closed,
    FlowPolicy,
    Target,
    Unreadable,
)
from mitml4.session.flows.dialled import FlowServers, NotConnected, kind_of, reason_of
from mitml4.session.flows.proxied import Asking, ProxyServices
from mitml4.session.flows.services import Services
from mitml4.sinks.updates import BytesMoved
from mitml4.tasks import first_of

__all__ = ["Flow"]

_DRAIN_BEFORE_RESET_S: Final = 2.0
_PROXY_HOLD_S: Final = 120.0
"""What a client sends behind a request for a tunnel is held back until the proxy has answered."""

log = logging.getLogger(__name__)


class Flow:
    """One connection: publishes flow.open when it is made, so that flows open in the order of their
    numbers; then runs, and publishes its layers and exactly one flow.close."""

    def __init__(
        self,
        number: int,
        connection: IncomingConnection,
        services: Services,
        process: RunningProcess | None = None,
    ) -> None:
        """`process`: which one has connected, if that is known."""
        self.number = number
        self.connection = connection
        self.services = services
        self._process = process
        self.report = Report(number, services.publish, services.wants)
        names = services.names_of(connection.destination)
        name = names[0] if names else None
        destination = Target(connection.destination.ip, connection.destination.port)
        called = [Target(each, destination.port) for each in names]
        self.context = LayerContext(
            clock=services.clock,
            target=destination,
            policy=FlowPolicy.of_flow(services.policy, destination, called),
            shown=services.shown.of_flow(),
            hold_s=services.hold_s,
            announced=services.expectations.take(
                "tcp", destination.host, destination.port, services.clock()
            ),
            # Methods of this flow would keep it until the garbage collector runs.
            announced_for=partial(_announced_for, services),
            on_announced=partial(_announce, services, connection),
        )
        self.opened_at = services.clock()
        self._servers = FlowServers(connection, services, self.report, name)
        self._tunnel: Callable[[], Opened] | None = None
        """Gives the tunnel that the client has asked for, where mitml4 is its proxy."""
        self._client_side: Transport | None = None
        self._server_side: Stream | None = None
        """One of the connections to servers, or what stands for one."""
        self._refusal: OSError | None = None
        """Why the server's side did not take it."""
        self._until_reset = trio.CancelScope()
        self._editing = self._begin_editing(name)
        self.report.open(connection, name, services.container, process.process if process else None)

    @property
    def wire_bytes(self) -> tuple[int, int]:
        """Bytes (up, down) so far."""
        return self._client_side.wire_bytes if self._client_side else (0, 0)

    @property
    def is_delivered(self) -> bool:
        """Whether the server has acknowledged all that the client has sent."""
        if self._client_side is None or self._server_side is None:
            return True
        return not (self._client_side.unread_count() or self._server_side.transport.unsent_count())

    def measure(self) -> None:
        """Publish how many bytes it has moved so far."""
        up, down = self.wire_bytes
        moved = BytesMoved(flow=self.number, up=up, down=down, at_s=trio.current_time())
        self.services.publish(moved)

    def reset(self) -> None:
        """End it: both sides get a reset."""
        self._until_reset.cancel()

    def start(self, nursery: trio.Nursery, on_end: Callable[[], None]) -> None:
        """See `flows.Carried`."""
        nursery.start_soon(self._run_to, on_end)

    async def _run_to(self, on_end: Callable[[], None]) -> None:
        try:
            await self.run()
        finally:
            on_end()

    async def run(self) -> None:
        """Run the flow to its end. Raises nothing but cancellation."""
        reason: CloseReason = "shutdown"
        try:
            with self._until_reset:
                reason = await self._carry()
            if self._until_reset.cancelled_caught:
                reason = "reset"
        finally:
            if self._client_side is None:
                self.connection.refuse(self._refusal)
            for stream in (self._client_side, *self._servers.connections):
                if stream:
                    stream.abort() if reason in ("shutdown", "reset") else stream.close()
            self.context.shown.close()
            if self._editing and self._editing.was_denied and reason in ("closed", "reset"):
                reason = "denied"
            up, down = self.wire_bytes
            if reason in ("blocked", "denied"):  # count only what the server was sent
                up = self._server_side.transport.wire_bytes[1] if self._server_side else 0
            duration_s = self.services.clock() - self.opened_at
            self.report.close(reason, up=up, down=down, duration_s=duration_s)

    async def _carry(self) -> CloseReason:
        """Everything between open and close. Returns why it ended."""
        try:
            if self.services.proxy:
                return await self._carry_as_proxy(self.services.proxy)
            if self.services.ca_page and self.connection.destination == CA_PAGE:
                self.context.policy.check_block()
                await self._answer(self.services.ca_page)
                return "closed"
            await self._check_destination()
            if await self._carry_without_server():
                return "closed"
            server_side = await self._servers.connect()
            if isinstance(server_side, NotConnected):
                return await self._refuse(server_side)
            self._server_side = server_side
            self.report.connect_s = self.services.clock() - self.opened_at
            self._client_side = self._client_side or await self.connection.accept()
            await self._run_layers(self._client_side, server_side)
        except Blocked as blocked:
            if blocked.is_denied:
                self.report.error("client", "relay", "refused", str(blocked))
            elif isinstance(blocked.end, Unreadable) and blocked.end.why:
                self.report.error("client", "relay", "protocol", blocked.end.why)
            self._abort()
            return "denied" if blocked.is_denied else "blocked"
        except HandshakeError:
            return "error"
        except OSError as error:
            return await self._broken(error)
        except Exception as error:  # a fault of ours ends this flow and no other
            log.exception("flow %d", self.number)
            self.report.error("client", "relay", "internal", f"{type(error).__name__}: {error}")
            self._abort()
            return "error"
        return "closed"

    async def _check_destination(self) -> None:
        """Raises Blocked if the flow may not go to its destination. Where only names are allowed,
        the client has to say which one it means, and the server has to be that."""
        prover, policy = self.services.prover, self.context.policy
        destination = self.connection.destination
        if prover is None or not policy.needs_name:
            policy.check_destination()
            return
        self._client_side = await self.connection.accept()
        placeholder, _ = memory_pair()
        claim = await claimed(self._bridge(self._client_side, placeholder), self.context)
        names = [Target(host, destination.port) for host in claim.hosts]
        policy = FlowPolicy.of_flow(policy.policy, policy.known[0], names)
        policy.check_destination()
        for host in claim.hosts:
            if not await prover.is_host(self.connection, host, by_tls=claim.by_tls):
                why = f"{policy.known[0]} is not known to be {host}"
                raise Blocked(NOT_ALLOWED, Closed(why))
        self.context = replace(self.context, policy=policy)
        self._servers.name = claim.hosts[0]

    async def _refuse(self, refused: NotConnected) -> CloseReason:
        """Give the client the answer that the server gave."""
        if self._client_side:  # it was accepted before the server was needed
            self._abort()
        elif refused.had_accepted:
            self._client_side = await self.connection.accept()
        self._refusal = refused.error
        return refused.reason

    def _adopt(self, server_side: Stream) -> None:
        self._server_side = server_side

    async def _run_layers(self, client_side: Transport, server_side: Stream) -> None:
        """Take the connection from one depth to the next, as long as there is one."""
        layers = self._layers()
        bridge = self._bridge(client_side, server_side)
        inner: Inner | None = Inner(bridge, self.context)
        try:
            while inner:
                bridge = inner.bridge
                layer = layers.next_layer(inner.context)
                inner = await layer.run(bridge, inner.context)
        finally:
            bridge.flush_copies()

    async def _answer(self, pages: Pages) -> None:
        """Carry a flow that is for us."""
        self._client_side = await self.connection.accept()
        unused, _ = memory_pair()
        context = self.context
        if context.policy.is_default_deny:  # no request goes anywhere
            context = replace(context, policy=FlowPolicy())
        await AnswerByPages(pages).run(self._bridge(self._client_side, unused), context)

    def _layers(self) -> LayerChoice:
        return LayerChoice(
            tls=self.services.tls,
            client=self.connection.client.ip,
            process=self._process,
            redial=Redial(self._servers.dial, self._adopt, depth=1 if self._tunnel else 0),
            unseen=self.services.unseen,
            editing=self._editing,
            tunnel=self._tunnel,
        )

    def _bridge(self, client_side: Transport, server_side: Stream) -> Bridge:
        wants_copies = self.services.wants(PlaintextMoved)
        return Bridge.between(
            client_side,
            server_side,
            relay=self.services.relay,
            report=self.report,
            policy=self.context.policy,
            copies=partial(_copies, self.services, self.number) if wants_copies else None,
        )

    async def _carry_as_proxy(self, proxy: ProxyServices) -> CloseReason:
        """Carry a flow whose client asks us for servers. What is in a tunnel obeys the policy of
        its server; what the client says to us is ours to refuse."""
        self._client_side = await self.connection.accept()
        near, far = memory_pair()
        self._server_side = near
        policy, hold_s = FlowPolicy(), self.context.hold_s
        self.context = replace(self.context, policy=policy, hold_s=_PROXY_HOLD_S)
        asking = Asking(
            client=self.connection.client,
            services=proxy,
            decide=self.services.policy,
            connect=self._servers.connect_asked,
            connect_by_name=self._servers.connect_by_name,
            pages=self.services.ca_page,
            report=self.report,
        )
        server = ProxyServer(far=far, open=asking.open, credentials=proxy.credentials)

        def take_tunnel() -> Opened:
            stream, sent = server.take_tunnel()
            self._server_side = stream
            self._servers.again = asking.again
            if asking.again is None:
                self._servers.keep(stream)  # the pages'
            return Opened(stream, sent, asking.policy or policy, hold_s)

        async def serve() -> None:
            try:  # noqa: SIM105  # `suppress` would keep what a nursery raises alive
                await server.run()
            except OSError:  # which the layers find, too
                pass
            await trio.sleep_forever()

        self._tunnel = take_tunnel
        run_layers = partial(self._run_layers, self._client_side, near)
        try:
            await first_of(run_layers, serve, asking.serve_pages)
        except OSError:
            if asking.reason == "closed":
                raise
            self._abort()  # the client has left with the answer
        return asking.reason

    # Editing

    def _begin_editing(self, name: str | None) -> FlowEditing | None:
        """None: no rule can match this flow."""
        services = self.services.editing
        if services is None or self.services.unseen:
            return None
        connection = self.connection
        editing = FlowEditing(
            editor=services.editor,
            limit=services.limit,
            memory=services.memory,
            hold_s=self.services.hold_s,
            flow=model.Flow(
                number=self.number,
                client=connection.client,
                destination=connection.destination,
                opened_at=now(),
                name=name,
                interface=connection.interface,
            ),
            report=self.report,
            connect=self._servers.connect_for_rule,
            guards=self.context.policy.is_default_deny,
        )
        return editing if editing.guards or editing.may_match(self.context) else None

    async def _carry_without_server(self) -> bool:
        """Carry a flow whose requests rules may answer. Returns False, with nothing consumed, if it
        is none, or needs its server from the beginning."""
        editing = self._editing
        if not editing or not editing.may_answer(self.context):
            return False
        self._client_side = self._client_side or await self.connection.accept()
        placeholder, _ = memory_pair()
        bridge = self._bridge(self._client_side, placeholder)
        layers = self._layers()
        deferred = Deferred(
            editing=editing,
            tls=layers.intercept_tls(),
            next_layer=layers.next_layer,
            observe=layers.observe(),
            dial=self._dial_late,
            hold_s=self.services.hold_s,
        )
        try:
            return await deferred.run(bridge, self.context)
        finally:
            bridge.flush_copies()

    async def _dial_late(self, name: str | None) -> Stream:
        """Connect to the server for a client that was accepted already."""
        server_side = await self._servers.connect(name)
        if isinstance(server_side, NotConnected):
            raise server_side.error or ConnectionResetError(errno.ECONNRESET, "reset")
        self._server_side = server_side
        return server_side

    def _abort(self) -> None:
        for stream in (self._client_side, self._server_side):
            if stream:
                stream.abort()

    async def _broken(self, error: OSError) -> CloseReason:
        """A side was lost: the other one gets what was on its way, then a reset."""
        kind = kind_of(error, "reset")
        if kind == "reset" and not isinstance(error, BrokenTlsError):
            self.report.reset(self._side_lost())
        if isinstance(error, BrokenTlsError):
            self.report.error("server", "relay", "protocol", f"TLS: {error}")
        elif not isinstance(error, ConnectionError):
            self.report.error(self._side_lost(), "relay", kind, reason_of(error))
        sides = [side.transport for side in (self._client_side, self._server_side) if side]
        if any(side.is_delivering for side in sides):
            with trio.move_on_after(_DRAIN_BEFORE_RESET_S):
                while any(side.is_delivering for side in sides):  # noqa: ASYNC110 - no event tells
                    await trio.sleep(0.005)
        is_over = kind == "reset" and self._has_client_closed()
        self._abort()
        if kind == "internal" or isinstance(error, BrokenTlsError):
            return "error"
        return "closed" if is_over else kind

    def _has_client_closed(self) -> bool:
        """Whether the client has reset a connection that the server had ended. So do programs that
        close without reading the end of TLS: it is no failure."""
        client = self._client_side
        return client is not None and client.is_gone and client.may_have_all

    def _side_lost(self) -> Side:
        return "client" if self._client_side and self._client_side.is_gone else "server"


def _announce(
    services: Services, connection: IncomingConnection, announcement: Announcement
) -> None:
    client, server = connection.client, connection.destination
    services.expectations.add(announcement, client.ip, server.ip, services.clock())


def _announced_for(services: Services, target: Target) -> str | None:
    return services.expectations.take_in_tunnel(target.host, target.port, services.clock())


def _copies(services: Services, flow: int, port: int | None) -> Plaintext:
    return Plaintext(services.publish, time.time_ns, flow=flow, port=port)
