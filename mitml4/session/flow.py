"""One intercepted TCP connection, from accept to close. The file to read first.

The server is asked first: what it refuses, the client is refused. Then, again and again: what is
it now, and who takes it from here? Each answer is a bridge to the protocol inside, until there is
none.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass
from typing import Final, Literal

import trio

from mitml4.address import Address
from mitml4.events import Action, CloseReason, Event, FlowClose, FlowOpen
from mitml4.layers.bridge import MAX_DEPTH, Bridge, BrokenSourceError
from mitml4.layers.converse import converse
from mitml4.layers.dispatch import dispatch
from mitml4.layers.guard import Blocked, Guard
from mitml4.layers.handshake import Failed
from mitml4.layers.redial import Redial
from mitml4.layers.relay import Relay
from mitml4.layers.report import Report, Side
from mitml4.layers.tls import TlsOpener
from mitml4.net.egress import EXHAUSTED
from mitml4.net.listener import Arrival
from mitml4.net.stream import TcpStream
from mitml4.protocols.conversation import (
    PASS_ALL,
    Conversation,
    Facts,
    Surroundings,
    Target,
    Unreadable,
    Want,
)
from mitml4.protocols.tls.protocol import TlsConversation

__all__ = ["Flow", "Services", "unsent"]

Loss = Literal["refused", "reset", "timeout", "internal"]

_CONNECT_S: Final = 30.0
_DRAIN_BEFORE_RESET_S: Final = 2.0
_TCP_CLOSE: Final = 7  # include/net/tcp_states.h

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Services:
    """What flows need of their session."""

    publish: Callable[[Event], None]
    connect: Callable[[Arrival], Awaitable[TcpStream]]
    """The connection to its server; raises OSError."""
    relay: Relay
    tls: TlsOpener
    hold_s: float = 0.5
    with_headers: bool = False
    name_of: Callable[[Address], str | None] = lambda _destination: None
    """What a destination was called when the client asked for its address, where that is known."""
    unseen: str | None = None
    """Why flows are relayed without a look, where they are and the policy does not mind."""
    clock: Callable[[], float] = trio.current_time


@dataclass(frozen=True, slots=True, kw_only=True)
class UnseenFacts(Facts):
    """Why nobody has looked."""

    passthrough: str


@dataclass(slots=True)
class Opaque(Conversation):
    """Relayed unseen: what nothing recognised, what is named and no more, or what nobody has looked
    at, and why."""

    label: str = "unknown"
    unseen: str | None = None
    up: Want = PASS_ALL
    down: Want = PASS_ALL
    settled: bool = True

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.label

    def facts(self) -> Facts | None:  # type: ignore[override]
        return UnseenFacts(passthrough=self.unseen) if self.unseen else None


class Flow:
    """One connection: publishes flow.open when it is made, so that flows open in the order of their
    numbers; then runs, and publishes its layers and exactly one flow.close."""

    def __init__(self, number: int, arrival: Arrival, services: Services) -> None:
        self.number = number
        self.arrival = arrival
        self.services = services
        self.destination = Target(arrival.destination.ip, arrival.destination.port)
        self.report = Report(number, services.publish, with_headers=services.with_headers)
        name = services.name_of(arrival.destination)
        known = [self.destination, *([Target(name, self.destination.port)] if name else [])]
        self.guard = Guard(services.tls.judge, tuple(known))
        self.opened_at = services.clock()
        self._ingress: TcpStream | None = None
        self._egress: TcpStream | None = None
        self._refusal: OSError | None = None
        """Why the server's side did not take it."""
        services.publish(
            FlowOpen(
                flow=number,
                client=arrival.client,
                destination=arrival.destination,
                interface=arrival.interface,
                name=name,
            )
        )

    @property
    def wire_bytes(self) -> tuple[int, int]:
        """Bytes (up, down) so far."""
        return self._ingress.wire_bytes if self._ingress else (0, 0)

    @property
    def is_delivered(self) -> bool:
        """Whether the server has acknowledged all that the client has sent."""
        if self._ingress is None or self._egress is None:
            return True
        return not (self._ingress.unread_count() or unsent(self._egress))

    async def run(self) -> None:
        """Carry it to its end. Raises nothing but cancellation."""
        reason: CloseReason = "shutdown"
        try:
            reason = await self._carry()
        finally:
            if self._ingress is None:
                self.arrival.refuse(self._refusal)
            for stream in (self._ingress, self._egress):
                if stream:
                    stream.abort() if reason in ("shutdown", "reset") else stream.close()
            up, down = self.wire_bytes
            if reason == "blocked":  # what the server never got is nobody's traffic
                up = self._egress.wire_bytes[1] if self._egress else 0
            self.services.publish(
                FlowClose(
                    flow=self.number,
                    stack=tuple(self.report.stack),
                    reason=reason,
                    bytes_up=up,
                    bytes_down=down,
                    duration_s=self.services.clock() - self.opened_at,
                )
            )

    async def _carry(self) -> CloseReason:
        """Everything between open and close; says why it ended."""
        try:
            self.guard.check(*self.guard.known)
            egress = await self._connect()
            if isinstance(egress, str) and egress != "reset":
                return egress
            self._ingress = TcpStream(await self.arrival.accept())
            if isinstance(egress, str):  # the server had taken it before it reset it
                return egress
            await self._bridge(self._ingress, egress)
        except Blocked as blocked:
            if isinstance(blocked.end, Unreadable) and blocked.end.why:
                self.report.error("ingress", "relay", "protocol", blocked.end.why)
            self._abort()
            return "blocked"
        except Failed:
            return "error"
        except OSError as error:
            return await self._broken(error)
        except Exception as error:  # a fault of ours ends this flow and no other
            log.exception("flow %d", self.number)
            self.report.error("ingress", "relay", "internal", f"{type(error).__name__}: {error}")
            self._abort()
            return "error"
        return "closed"

    async def _connect(self) -> TcpStream | CloseReason:
        """The egress connection, or how the server's side refused it."""
        try:
            with trio.fail_after(_CONNECT_S):
                self._egress = await self._dial()
                return self._egress
        except trio.TooSlowError:
            self._refusal = TimeoutError()
            self.report.error("egress", "connect", "timeout", "no answer")
            return "timeout"
        except (ConnectionResetError, BrokenPipeError):
            return "reset"  # the server's, right after it had accepted
        except OSError as error:
            self._refusal = copy(error)  # what was raised knows the frames that it came through
            kind = _kind_of(error, "refused")
            self.report.error("egress", "connect", kind, _reason(error))
            return "error" if kind == "internal" else kind

    async def _dial(self) -> TcpStream:
        return await self.services.connect(self.arrival)

    def _adopt(self, egress: TcpStream) -> None:
        self._egress = egress

    async def _bridge(self, ingress: TcpStream, egress: TcpStream) -> None:
        bridge: Bridge | None
        bridge = Bridge.between(
            ingress,
            egress,
            relay=self.services.relay,
            report=self.report,
            target=self.destination,
            hold_s=self.services.hold_s,
            guard=self.guard,
        )
        if self.services.unseen and not self.guard.is_strict:
            await converse(bridge, Opaque(unseen=self.services.unseen), "client", "passthrough")
            return
        while bridge:
            bridge = await self._step(bridge)

    async def _step(self, bridge: Bridge) -> Bridge | None:
        """One layer: find out what it is, and hand it to whoever takes it."""
        if bridge.depth >= MAX_DEPTH:
            self.guard.check(Unreadable("more layers than are followed"))
            return await converse(bridge, Opaque(), "client")
        found = await dispatch(bridge)
        protocol, speaker = found.protocol, found.speaker
        if found.broken:
            depth = self.report.push(protocol.name if protocol else Opaque().name)
            self.report.layer(depth, speaker, "relayed", None)
            raise found.broken
        if protocol is None and found.silent:  # both have ended
            await bridge.follow(lambda direction: bridge.lane(direction).end())
            return None
        if protocol is None:
            return await converse(bridge, Opaque(), speaker)
        if protocol.terminates:
            redial = Redial(self._dial, self._adopt) if bridge.depth == 0 else None
            return await self.services.tls.open(bridge, speaker, self.arrival.client.ip, redial)
        if protocol.converse is None:
            return await converse(bridge, Opaque(label=protocol.name), speaker)
        around = Surroundings(
            clock=self.services.clock,
            secure=bridge.secure,
            target=bridge.target,
            within=tuple(bridge.report.stack),
        )
        stays_closed = protocol.name == TlsConversation.name
        action: Action = "passthrough" if stays_closed else "relayed"
        return await converse(bridge, protocol.converse(around), speaker, action)

    def _abort(self) -> None:
        for stream in (self._ingress, self._egress):
            if stream:
                stream.abort()

    async def _broken(self, error: OSError) -> CloseReason:
        """A side was lost: the other gets what was on its way, then a reset."""
        kind = _kind_of(error, "reset")
        if isinstance(error, BrokenSourceError):
            self.report.error("egress", "relay", "protocol", f"TLS: {error}")
        elif not isinstance(error, ConnectionError):
            self.report.error(self._side_lost(), "relay", kind, _reason(error))
        with trio.move_on_after(_DRAIN_BEFORE_RESET_S):
            for stream in (self._ingress, self._egress):
                while stream and stream.is_delivering:  # noqa: ASYNC110 - the kernel tells nobody
                    await trio.sleep(0.005)
        self._abort()
        if kind == "internal" or isinstance(error, BrokenSourceError):
            return "error"
        return kind

    def _side_lost(self) -> Side:
        return "ingress" if self._ingress and self._ingress.is_gone else "egress"


def _kind_of(error: OSError, usual: Loss) -> Loss:
    if error.errno in EXHAUSTED:
        return "internal"
    return "timeout" if isinstance(error, TimeoutError) else usual


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def unsent(stream: TcpStream) -> int:
    """Bytes that the far side has not acknowledged; none once a connection is reset.

    A connection that was reset still counts what it had not sent, so its state is asked first.
    """
    try:
        state = stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state == _TCP_CLOSE:
            return 0
        queued = fcntl.ioctl(stream.socket, termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("i", queued)[0])
    except OSError:
        return 0
