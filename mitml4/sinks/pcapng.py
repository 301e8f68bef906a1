"""The packets of a session's flows as pcapng, with the TLS secrets that decrypt them.

Theory of operation: taps give every TCP packet of their interfaces as it is on the wire. Packets of
our flows are kept, identified by addresses and ports. A packet is held for a second before it is
written: by then its flow, the flow's stack and the TLS secrets are known, and a reader of the file
needs secrets before the packets. On a bridge, br_netfilter translates a client's packets to the
address of the session's listener before a tap sees them: they are written as the client has sent
them. Packets that come faster than they can be written are missing and counted, as in the kernel.
Flows never wait.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

import trio
from cachetools import FIFOCache

from mitml4 import __version__
from mitml4.address import Address
from mitml4.capture.files import writer
from mitml4.capture.files.comments import CaptureSide, Side
from mitml4.dataclass import dataclass
from mitml4.events import FlowClose, FlowLayer, FlowOpen, SessionStart
from mitml4.net.tap import Seen, Tap
from mitml4.sinks.files import OutputFile, begin_file
from mitml4.sinks.last_user import LastUser
from mitml4.sinks.updates import ClientAsked, Published, ServerConnected, TlsSecret
from mitml4.turn import Turn
from mitml4.whole_writes import write_parts

__all__ = ["PacketFile"]

_HELD_S: Final = 1.0
_STEP_S: Final = 0.1
_SOFT_LIMIT: Final = 16 << 20
"""Bytes. Beyond them, packets are written at once."""
_HARD_LIMIT: Final = 128 << 20
"""Bytes. Beyond them, packets are missing in the file."""
_REMEMBERED_S: Final = 5.0
"""How long packets of a closed flow may still arrive."""
_MAX_PENDING_SYNS: Final = 65_536
_MAX_ENDED: Final = 65_536
"""Closed flows whose packets may still be held."""
_MAX_SECRETS: Final = 65_536
"""Lines of the key log that wait to be written; the oldest are dropped first."""
_LAST_BLOCK_S: Final = 0.1
_DRAIN_TIMEOUT_S: Final = 5.0

_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16


@dataclass(slots=True)
class _Flow:
    opened: FlowOpen
    stack: list[str] = field(default_factory=list)
    name: str | None = None
    reason: str | None = None
    keys: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Leg:
    """A flow's connection on one side of us."""

    flow: _Flow
    side: Side
    introduced: bool = False

    def comment(self, flags: int) -> str | None:
        """The comment at the first packet of the leg, and at its last."""
        if self.introduced and not flags & (_FIN | _RST):
            return None
        self.introduced = True
        flow = self.flow
        side = CaptureSide(flow.opened.flow, self.side)
        said = f"{side}: {' › '.join(flow.stack) or '–'}"
        details = ", ".join(each for each in (flow.name, flow.reason) if each)
        return f"{said} ({details})" if details else said


@dataclass(frozen=True, slots=True)
class _Held:
    since: float
    interface: int
    key: bytes
    flags: int
    seen: Seen


class PacketFile:
    """A sink that writes packets. Events tell it which packets are of which flow."""

    wants = (
        SessionStart,
        ClientAsked,
        FlowOpen,
        FlowLayer,
        FlowClose,
        ServerConnected,
        TlsSecret,
    )

    def __init__(self, descriptor: int, name: str, taps: Sequence[Tap]) -> None:
        """The descriptor and the taps become ours. The file's first blocks have been written."""
        self.name = name
        self.dropped = 0
        self.missing = 0
        """Packets of flows that are not in the file."""
        self._file = OutputFile(descriptor, name)
        self._taps = taps
        self._flows: dict[int, _Flow] = {}
        self._legs: dict[bytes, _Leg] = {}
        self._asked: FIFOCache[bytes, Address] = FIFOCache(_MAX_PENDING_SYNS)
        """What clients of coming flows have connected to, by the keys of the flows."""
        self._of_clients: dict[bytes, bytes] = {}
        """The keys of the clients' packets, by their address and port."""
        self._listening: frozenset[int] = frozenset()
        """The ports of the session's listeners."""
        self._ended: deque[tuple[float, _Flow]] = deque()
        self._pending_syns: FIFOCache[bytes, None] = FIFOCache(_MAX_PENDING_SYNS)
        """Connections that have begun and may turn out to be our flows."""
        self._held: deque[_Held] = deque()
        self._held_bytes = 0
        self._secrets: deque[bytes] = deque(maxlen=_MAX_SECRETS)
        self._news = trio.Event()
        self._closing = False
        self._timeout = trio.CancelScope()
        self._use = LastUser(self._close)
        self._not_closed: OSError | None = None

    @classmethod
    def to_file(cls, path: Path, taps: Sequence[Tap]) -> PacketFile:
        """To a file, replacing its content. Raises MitmError."""
        return cls(begin_file(path, _introduction(taps)), str(path), taps)

    def publish(self, event: Published) -> None:
        match event:
            case SessionStart():
                self._listening = frozenset(each.port for each in event.listeners)
            case TlsSecret():  # from any thread
                self._secrets.append(event.line)
            case ClientAsked():
                self._asked[_key(event.client, event.destination)] = event.asked
            case ServerConnected():
                if leg := self._legs.get(_key(event.client, event.wanted)):
                    self._add_leg(leg.flow, "server", event.source, event.destination)
            case FlowOpen():
                flow = self._flows[event.flow] = _Flow(event, name=event.name)
                key = self._add_leg(flow, "client", event.client, event.destination)
                if asked := self._asked.pop(key, None):
                    key = self._add_leg(flow, "client", event.client, asked)
                self._of_clients[_source(key)] = key
            case FlowLayer():
                flow = self._flows[event.flow]
                flow.stack.append(event.protocol)
                flow.name = getattr(event.details, "sni", None) or flow.name
            case FlowClose():
                flow = self._flows.pop(event.flow)
                flow.reason = event.reason
                self._ended.append((trio.current_time(), flow))
                if len(self._ended) > _MAX_ENDED:
                    self._forget_first()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        failure: OSError | None = None
        try:
            async with trio.open_nursery() as nursery:
                for number, tap in enumerate(self._taps):
                    nursery.start_soon(self._watch, number, tap)
                with self._timeout:
                    try:
                        await self._write_what_comes()
                    except OSError as error:
                        failure = error
                nursery.cancel_scope.cancel()
        finally:
            self._use.close()
            for tap in self._taps:
                tap.close()
        failure = failure or self._not_closed
        if isinstance(failure, BrokenPipeError):
            raise failure
        if failure:
            raise self._file.failure(failure) from failure

    async def aclose(self) -> None:
        """Write what is held, for some seconds at most: the reader of a pipe may not read."""
        self._closing = True
        self._timeout.deadline = trio.current_time() + _DRAIN_TIMEOUT_S
        self._news.set()

    async def _watch(self, number: int, tap: Tap) -> None:
        turn = Turn()
        while True:
            await tap.wait()
            turn.begin()
            now = trio.current_time()
            for seen in tap.take():
                self._take(number, seen, now)
                await turn.rest()

    def _take(self, interface: int, seen: Seen, now: float) -> None:
        """Hold a packet that may be of one of our flows."""
        key, flags = _tcp(seen)
        is_known = key in self._legs or key in self._pending_syns
        if not (is_known or self._is_translated(key, seen)):
            if flags & (_SYN | _ACK) != _SYN:
                return
            self._pending_syns[key] = self._pending_syns[_reversed(key)] = None
        if self._held_bytes > _HARD_LIMIT:
            self.missing += 1
            return
        self._held.append(_Held(now, interface, key, flags, seen))
        self._held_bytes += len(seen.frame)
        self._news.set()

    async def _write_what_comes(self) -> None:
        """Until `aclose`, and until nothing is held. Raises OSError."""
        while not self._closing:
            await self._news.wait()
            self._news = trio.Event()
            while self._held and not self._closing:
                await trio.sleep(0 if self._held_bytes > _SOFT_LIMIT else _STEP_S)
                await self._write(await self._due(trio.current_time() - _HELD_S))
            self._forget()
        await trio.sleep(_LAST_BLOCK_S)
        while self._held:
            await self._write(await self._due(math.inf))
        await self._write(self._statistics())

    async def _due(self, since: float) -> list[bytes]:
        """New secrets, then the packets that have been held since that time or are too many."""
        secrets = [self._secrets.popleft() for _ in range(len(self._secrets))]
        parts = [writer.secrets(dict.fromkeys(secrets))] if secrets else []
        size = 0
        turn = Turn()
        while self._held and (self._held[0].since <= since or self._held_bytes > _SOFT_LIMIT):
            held = self._held.popleft()
            self._held_bytes -= len(held.seen.frame)
            key, seen = held.key, held.seen
            if key not in self._legs and self._is_translated(key, seen):
                key = self._of_clients.get(_source(key), key)
                seen = _readdressed(seen, key)
            if leg := self._legs.get(key):
                parts.append(_packet(held.interface, seen, leg.comment(held.flags)))
                size += len(held.seen.frame)
            if size > _SOFT_LIMIT:
                break
            await turn.rest()
        return parts

    def _add_leg(self, flow: _Flow, side: Side, source: Address, destination: Address) -> bytes:
        """Returns the key of the packets from the source."""
        leg = _Leg(flow, side)
        for key in (_key(source, destination), _key(destination, source)):
            self._legs[key] = leg
            flow.keys.append(key)
        return flow.keys[-2]

    def _is_translated(self, key: bytes, seen: Seen) -> bool:
        """Whether a packet is on its way to a listener of the session: one of a client."""
        return not seen.outgoing and int.from_bytes(key[-2:]) in self._listening

    def _forget(self) -> None:
        """Forget closed flows, unless new ones have the same addresses and ports."""
        past = trio.current_time() - _REMEMBERED_S
        while self._ended and self._ended[0][0] < past:
            self._forget_first()

    def _forget_first(self) -> None:
        _, flow = self._ended.popleft()
        for key in flow.keys:
            if (leg := self._legs.get(key)) and leg.flow is flow:
                del self._legs[key]
                if self._of_clients.get(_source(key)) == key:
                    del self._of_clients[_source(key)]

    def _statistics(self) -> list[bytes]:
        now_ns = time.time_ns()
        blocks = []
        for number, tap in enumerate(self._taps):
            received, missing = tap.statistics()
            self.missing += missing
            blocks.append(writer.statistics(number, now_ns, received=received, dropped=missing))
        return blocks

    async def _write(self, parts: Sequence[bytes]) -> None:
        """Write in a thread, which is abandoned if it blocks too long. Raises OSError."""
        if parts:
            await trio.to_thread.run_sync(self._write_here, parts, abandon_on_cancel=True)

    def _write_here(self, parts: Sequence[bytes]) -> None:
        if not self._use.begin():
            return
        try:
            write_parts(self._file.descriptor, parts)
        finally:
            self._use.end()

    def _close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self._not_closed = error


def _introduction(taps: Sequence[Tap]) -> bytes:
    interfaces = (writer.interface(tap.link_type, tap.name) for tap in taps)
    return b"".join([writer.section(f"mitml4 {__version__}"), *interfaces])


def _packet(interface: int, seen: Seen, comment: str | None) -> bytes:
    """The block of a packet."""
    return b"".join(
        writer.packet(
            interface,
            seen.time_ns,
            seen.frame,
            seen.length,
            outbound=seen.outgoing,
            comment=comment,
        )
    )


def _tcp(seen: Seen) -> tuple[bytes, int]:
    """The addresses and ports of a packet, source first, and the TCP flags."""
    frame, ip = seen.frame, seen.network
    if frame[ip] >> 4 == 4:
        tcp = ip + (frame[ip] & 15) * 4
        ends = frame[ip + 12 : ip + 20]
    else:
        tcp = ip + 40
        ends = frame[ip + 8 : tcp]
    return ends + frame[tcp : tcp + 4], frame[tcp + 13] if len(frame) > tcp + 13 else 0


def _key(source: Address, destination: Address) -> bytes:
    """The same key for a connection."""
    family = AF_INET6 if source.is_v6 else AF_INET
    ends = (inet_pton(family, each.ip) for each in (source, destination))
    return b"".join([*ends, source.port.to_bytes(2), destination.port.to_bytes(2)])


def _source(key: bytes) -> bytes:
    """The address and port that packets of a key come from."""
    return key[: len(key) // 2 - 2] + key[-4:-2]


def _readdressed(seen: Seen, key: bytes) -> Seen:
    """A packet with the destination of a key, which it had before that was translated. A checksum
    that the sender has left to its interface is as wrong as it was."""
    frame, ip = bytearray(seen.frame), seen.network
    size = len(key) // 2 - 2
    is_v4 = size == 4
    tcp = ip + (frame[ip] & 15) * 4 if is_v4 else ip + 40
    address = slice(ip + 16, ip + 20) if is_v4 else slice(ip + 24, tcp)
    port = slice(tcp + 2, tcp + 4)
    changes = [(frame[address], key[size : 2 * size]), (frame[port], key[-2:])]
    frame[address], frame[port] = key[size : 2 * size], key[-2:]
    if is_v4:
        _correct(frame, ip + 10, changes[:1])
    _correct(frame, tcp + 16, changes)
    return replace(seen, frame=bytes(frame))


def _correct(frame: bytearray, at: int, changes: Iterable[tuple[bytearray, bytes]]) -> None:
    """A checksum, after the bytes that it covers have changed (RFC 1624 §3)."""
    total = ~int.from_bytes(frame[at : at + 2]) & 0xFFFF
    for before, after in changes:
        for word in range(0, len(before), 2):
            total += ~int.from_bytes(before[word : word + 2]) & 0xFFFF
            total += int.from_bytes(after[word : word + 2])
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    frame[at : at + 2] = (~total & 0xFFFF).to_bytes(2)


def _reversed(key: bytes) -> bytes:
    size = len(key) // 2 - 2
    return key[size : 2 * size] + key[:size] + key[-2:] + key[-4:-2]
