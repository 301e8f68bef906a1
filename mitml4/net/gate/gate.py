"""Connections are held at their first packet until the server has accepted or refused.

If we accepted first, a client would get a connection where the server refuses: it would not try the
next address of a name (IPv6 where only IPv4 is served, `localhost`), and it would see a reset
instead of a refusal. It would also get a connection that the rules of others forbid. So a rule that
runs after all rules of others drops each SYN and copies it to us. When the server has answered, the
SYN is sent again, this time to our listener; or the client gets the same refusal that we got.

A `SynChannel` receives the SYNs and sends them again: on the host (net/rules/channel.py), and in
the namespace of a command (net/namespace/channel.py).
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import suppress
from enum import Enum, auto
from typing import Final, Protocol, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import trio

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.net.dial import abort
from mitml4.net.gate.nflog import LoggedPacket, logged_packets
from mitml4.net.gate.syn import Syn
from mitml4.net.listener import Accepted, Arrived, Ends, IncomingConnection, Listener
from mitml4.net.netlink import receive_nowait
from mitml4.net.tcp import TcpStream

__all__ = ["HeldSyn", "PendingConnection", "Refusal", "SynChannel", "SynGate"]

_MAX_PENDING: Final = 12_288
_ACCEPTED_AT_ONCE: Final = 64
_AT_ONCE: Final = 1024
"""The number of messages that are read before other tasks run: usually all that are queued. With a
lower number the queue would grow while other tasks take long, and SYNs would be read too late."""
_ARRIVES_SOON_S: Final = 1.0
_ARRIVES_WITHIN_S: Final = 5.0
_POLL_INTERVAL_S: Final = 0.25
_UNREACHABLE: Final = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL)

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
_Pair: TypeAlias = tuple[str, str, int]


class Refusal(Enum):
    """The way in which a client is refused."""

    RESET = auto()
    """As by a closed port."""
    UNREACHABLE = auto()
    """As by a router without a route."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSyn:
    """A SYN that was dropped, and the addresses and marks of its connection."""

    syn: Syn
    """As the client sent it."""
    destination: Address
    """Its destination, after translation by others."""
    source: Address
    """The source that the server would see: the client's address, or its translation by others."""
    interface: str
    is_local: bool = True
    """Whether it was sent in this network namespace."""
    packet_mark: int = 0
    connection_mark: int = 0
    """The marks that others have given it."""


class SynChannel(Protocol):
    """Receives SYNs, and sends them again."""

    @property
    def log(self) -> socket.socket:
        """The socket on which dropped SYNs arrive (nflog.py)."""

    def held(self, packets: Iterator[LoggedPacket]) -> Iterator[HeldSyn]:
        """The SYNs in packets that were read from it."""

    def admit(self, held: HeldSyn) -> Ends:
        """Send it to the listener, where the connection then has these addresses.

        Raises OSError if the kernel does not accept it, FileExistsError if it has such a connection
        already; the client will retransmit.
        """

    def repeat(self, held: HeldSyn) -> None:
        """Send one that was admitted again, since the first may have been lost. Best effort."""

    def withdraw(self, held: HeldSyn) -> None:
        """Undo `admit` for a connection that has not arrived, or was reset from here: what its
        client sends next from the same port is a new one. Best effort."""

    def disown(self, own: Address, peer: Address) -> None:
        """The same for one that has arrived without being admitted, with these ends there."""

    def refuse(self, held: HeldSyn, refusal: Refusal) -> None:
        """Refuse its client. Best effort: the client will retransmit."""


class SynGate:
    """Connections that are held, and can be accepted or refused."""

    def __init__(self, listener: Listener, channel: SynChannel) -> None:
        """The caller closes both."""
        self._listener = listener
        self.channel = channel
        self.pending: dict[Ends, PendingConnection] = {}
        """By client and requested destination."""
        self.admitted: dict[Ends, PendingConnection] = {}
        """By their addresses at the listener."""
        self.latest: WeakValueDictionary[Ends, PendingConnection] = WeakValueDictionary()
        """The last one that was let in, by client and requested destination."""
        self._by_client: Counter[str] = Counter()
        self._by_client_and_server: Counter[_Pair] = Counter()
        self._send, self._receive = trio.open_memory_channel[PendingConnection](_MAX_PENDING)
        self._in_a_row = 0
        self.awaited: dict[PendingConnection, float] = {}
        """The accepted connections that have not arrived, since when, the oldest first."""
        self.awaits_some = trio.Event()
        self.missing_in_a_row = 0
        """How many accepted connections have not arrived since the last one that has."""
        self._missing = trio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hold_syns)
            nursery.start_soon(self._accept_admitted)
            nursery.start_soon(self._watch_awaited)

    async def accept(self) -> IncomingConnection:
        """The next new connection. Checkpoints every so often: those who share their turns between
        clients have to see the connections of all of them first."""
        if self._in_a_row < _ACCEPTED_AT_ONCE:
            with suppress(trio.WouldBlock):
                pending = self._receive.receive_nowait()
                self._in_a_row += 1
                return pending
        self._in_a_row = 0
        return await self._receive.receive()

    async def waiting(self) -> list[IncomingConnection]:
        """The connections that `accept` has not returned yet. Checkpoints every so often."""
        while self._read_some():
            await trio.lowlevel.checkpoint()
        found: list[IncomingConnection] = []
        with suppress(trio.WouldBlock):
            while True:
                found.append(self._receive.receive_nowait())
        return found

    async def wait_missing(self) -> None:
        """Wait until an accepted connection does not arrive soon."""
        await self._missing.wait()
        self._missing = trio.Event()

    def miss(self) -> None:
        """An accepted connection does not arrive soon: its client is slow or has gone, packets were
        lost, or a rule drops them."""
        self._missing.set()

    def give_up(self) -> None:
        """Wait no longer for the accepted connections that have not arrived."""
        self.take_arrived()
        for pending in list(self.admitted.values()):
            pending.give_up()

    async def _hold_syns(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.channel.log)
            self._read_some()

    def _read_some(self) -> bool:
        """Returns whether there may be more."""
        return all(self._read() for _ in range(_AT_ONCE))

    def _read(self) -> bool:
        """Read one message with dropped SYNs; returns whether there was one."""
        data = receive_nowait(self.channel.log)
        if data is None:
            return False
        # Where SYNs were lost, their clients send them again.
        for held in self.channel.held(logged_packets(data)):
            self._hold(held)
        return True

    def _hold(self, held: HeldSyn) -> None:
        asked = held.syn.client, held.syn.destination
        if pending := self.pending.get(asked):
            pending.ask_again()
        elif self._has_room(held):
            self.pending[asked] = pending = PendingConnection(held, self)
            self._by_client[held.syn.client.ip] += 1
            self._by_client_and_server[_pair(held)] += 1
            self._send.send_nowait(pending)

    def _has_room(self, held: HeldSyn) -> bool:
        """Whether one more connection may wait. A client may use as many places as it leaves free,
        and towards one server as many as it leaves free for its other servers. Its other SYNs are
        ignored, and those of other clients are not."""
        own = self._by_client[held.syn.client.ip]
        free = _MAX_PENDING - len(self.pending)
        towards_server = self._by_client_and_server[_pair(held)]
        return own < free and towards_server < free - own

    def forget(self, held: HeldSyn) -> None:
        """Remove a connection that no longer waits."""
        if self.pending.pop((held.syn.client, held.syn.destination), None):
            _count_down(self._by_client, held.syn.client.ip)
            _count_down(self._by_client_and_server, _pair(held))

    async def _watch_awaited(self) -> None:
        """Notice accepted connections that do not arrive. One task for all: nearly all arrive at
        once, and a timeout for each would cost more than all else that is done to wait."""
        while True:
            await self.awaits_some.wait()
            self.awaits_some = trio.Event()
            while self.awaited:
                await trio.sleep(_POLL_INTERVAL_S)
                self._look_for_missing(trio.current_time())

    def _look_for_missing(self, now: float) -> None:
        self.take_arrived()  # after a time in which this process did not run
        for pending, since in list(self.awaited.items()):
            if now - since < _ARRIVES_SOON_S:
                return
            if not pending.is_missed:
                pending.is_missed = True
                self.miss()
            if now - since >= _ARRIVES_WITHIN_S:
                pending.give_up()

    async def _accept_admitted(self) -> None:
        while True:
            self._take(await self._listener.accept())

    def take_arrived(self) -> None:
        """Take the connections that have arrived already: one that is withdrawn then would have a
        client that has been answered, and that no reset reaches any more."""
        for accepted in self._listener.arrived():
            self._take(accepted)

    def _take(self, accepted: Accepted) -> None:
        if pending := self.admitted.get((accepted.peer, accepted.own)):
            pending.arrive(accepted.socket)
        else:
            # Its client was too slow, or has used the port of a connection that was reset from
            # here, which the kernel has taken for the same: the next attempt is a new one.
            abort(accepted.socket)
            self.channel.disown(accepted.own, accepted.peer)


class PendingConnection:
    """A connection whose client waits for an answer to its SYN."""

    def __init__(self, held: HeldSyn, gate: SynGate) -> None:
        self.held = held
        self.client: Final = held.syn.client
        self.destination: Final = held.destination
        self.asked: Final = held.syn.destination
        self.source: Final = held.source
        self.interface: Final = held.interface
        self._gate = gate
        self._is_waiting = True
        """Whether it has neither arrived nor been refused or given up: then its client may have
        asked again, which is a connection of its own."""
        self._is_let_in = False
        self._is_known = False
        """Whether the kernel has such a connection already, which no asking changes."""
        self._ends: Ends | None = None
        self.is_missed = False
        """Whether it has been missed already."""
        self._arrived: Arrived | None = None

    @property
    def local_ends(self) -> Ends | None:
        held = self.held
        return (held.syn.client, held.syn.destination) if held.is_local else None

    async def accept(self) -> TcpStream:
        """Accept it. Raises ConnectionResetError if the client has gone. Checkpoints."""
        task = trio.lowlevel.current_task()
        found: list[socket.socket | None] = []

        def arrived(sock: socket.socket | None) -> None:
            found.append(sock)
            trio.lowlevel.reschedule(task)

        def stop_waiting(_: object) -> trio.lowlevel.Abort:
            self.refuse(None)
            return trio.lowlevel.Abort.SUCCEEDED

        self.let_in(arrived)
        await trio.lowlevel.wait_task_rescheduled(stop_waiting)
        (sock,) = found
        if sock is None:
            raise ConnectionResetError(errno.ECONNRESET, "the client has gone")
        return TcpStream(sock)

    def let_in(self, arrived: Arrived) -> None:
        """Accept it. `arrived` is called once, unless it is refused before."""
        self._is_let_in = True
        self._arrived = arrived
        self._gate.latest[self.held.syn.client, self.held.syn.destination] = self
        self._admit()
        self._gate.awaited[self] = trio.current_time()
        self._gate.awaits_some.set()

    def refuse(self, reason: OSError | None) -> None:
        """Refuse it with the error of the server's side; without an error, with a RST. One that was
        accepted gets a RST if it has arrived; otherwise no answer, so that its client asks again.
        """
        if not self._is_waiting:
            return
        if self._is_let_in:
            self._arrived = _reset
            self._gate.take_arrived()
            if self._is_waiting:
                self._leave()
                self._gate.channel.withdraw(self.held)
            return
        self._leave()
        if isinstance(reason, TimeoutError):
            return  # without mitml4, the client would get no answer either
        unreachable = reason is not None and reason.errno in _UNREACHABLE
        self._gate.channel.refuse(self.held, Refusal.UNREACHABLE if unreachable else Refusal.RESET)

    def was_reset(self) -> None:
        """It had arrived, and was reset from here, while none of its ends had ended.

        For seconds, the kernel takes a SYN with the same ends for one of the same connection. So
        a client that connects again from the same port, as NFS does, would not be held, and would
        arrive unexpectedly.
        """
        syn = self.held.syn
        if not self._is_waiting and self._gate.latest.get((syn.client, syn.destination)) is self:
            self._gate.take_arrived()  # while resets still reach their clients
            self._gate.channel.withdraw(self.held)

    def ask_again(self) -> None:
        """The client has retransmitted its SYN. It is admitted again only if it was not."""
        if self._ends is not None:
            self._gate.channel.repeat(self.held)
        elif self._is_let_in and not self._is_known:
            self._admit()

    def give_up(self) -> None:
        """It will not arrive."""
        self._gate.missing_in_a_row += 1
        self._gate.channel.withdraw(self.held)
        self._tell(None)

    def arrive(self, sock: socket.socket) -> None:
        """The connection has arrived at the listener."""
        self._gate.missing_in_a_row = 0
        self._tell(sock)

    def _tell(self, sock: socket.socket | None) -> None:
        arrived = self._arrived
        assert arrived  # or it would not be among those that are admitted
        self._leave()
        arrived(sock)

    def _admit(self) -> None:
        try:
            self._ends = self._gate.channel.admit(self.held)
        except OSError as error:
            self._is_known = isinstance(error, FileExistsError)
            log.info("cannot accept %s for %s", self.client, self.destination, exc_info=True)
            return
        self._gate.admitted[self._ends] = self

    def _leave(self) -> None:
        self._is_waiting = False
        self._arrived = None
        self._gate.forget(self.held)
        self._gate.awaited.pop(self, None)
        if self._ends is not None:
            self._gate.admitted.pop(self._ends, None)


def _reset(sock: socket.socket | None) -> None:
    if sock:
        abort(sock)


def _pair(held: HeldSyn) -> _Pair:
    """The client, and where it connects to: the hash of an Address is computed in Python."""
    return held.syn.client.ip, held.syn.destination.ip, held.syn.destination.port


def _count_down(counter: Counter[Key], key: Key) -> None:
    if count := counter.pop(key) - 1:
        counter[key] = count
