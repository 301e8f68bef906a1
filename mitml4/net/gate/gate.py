"""Connections are held at their first packet until it is known whether the server takes them.

Had we accepted first, a client would be connected to what refuses it: it would not try the next
address of a name (IPv6 where only IPv4 is served, `localhost`), and be told of a reset, not of a
refusal. And it would be connected to what the rules of others keep it from. So a rule drops each
SYN, after all rules of others, and shows it to us. Once the server has answered, the SYN is sent
again, this time to our listener; or the client is refused as the server's side has refused us.

How a SYN comes to us, and how it goes on, is the part of a `SynChannel`: on the host
(net/rules/channel.py), and in the namespace of a command (net/namespace/channel.py).
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol, TypeAlias

import trio

from mitml4.address import Address
from mitml4.net.dial import abort
from mitml4.net.gate.nflog import LoggedPacket, logged_packets
from mitml4.net.gate.syn import Syn
from mitml4.net.listener import IncomingConnection, Listener
from mitml4.net.tcp import TcpStream

__all__ = ["Ends", "HeldSyn", "PendingConnection", "Refusal", "SynChannel", "SynGate"]

_MAX_PENDING: Final = 4096
_MAX_MESSAGE: Final = 1 << 16
_AT_ONCE: Final = 64
"""So many messages are read before others get their turn."""
_ARRIVES_WITHIN_S: Final = 5.0
_UNREACHABLE: Final = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL)

log = logging.getLogger(__name__)

Ends: TypeAlias = tuple[Address, Address]
"""Of a connection: who opened it, and where it was accepted."""


class Refusal(Enum):
    """How a client is refused."""

    RESET = auto()
    """As by a closed port."""
    UNREACHABLE = auto()
    """As by a router that knows no way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSyn:
    """A SYN that was dropped, and what is to become of its connection."""

    syn: Syn
    """As the client has sent it."""
    destination: Address
    """Where it goes. Others may have translated what the client has sent."""
    source: Address
    """Who the server would see: the client, or what others translate it to."""
    interface: str
    packet_mark: int = 0
    connection_mark: int = 0
    """The marks that others have given it."""


class SynChannel(Protocol):
    """Where SYNs come from, and go to."""

    @property
    def log(self) -> socket.socket:
        """Where the rules show those that they have dropped (nflog.py)."""

    def held(self, packets: Iterator[LoggedPacket]) -> Iterator[HeldSyn]:
        """The SYNs in what was read there."""

    def admit(self, held: HeldSyn) -> Ends:
        """Send it on to the listener, where the connection then has these ends.

        Raises OSError where the kernel does not take it: the client will ask again.
        """

    def refuse(self, held: HeldSyn, refusal: Refusal) -> None:
        """Have its client refused. Best effort: it will ask again."""


class SynGate:
    """A source of connections that are held, and can be accepted or refused."""

    def __init__(self, listener: Listener, channel: SynChannel) -> None:
        """Both stay the caller's."""
        self._listener = listener
        self.channel = channel
        self.pending: dict[Ends, PendingConnection] = {}
        """By the client and what it has asked for."""
        self.admitted: dict[Ends, PendingConnection] = {}
        """By the ends that they have at the listener."""
        self._send, self._receive = trio.open_memory_channel[PendingConnection](_MAX_PENDING)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hold_syns)
            nursery.start_soon(self._accept_admitted)

    async def accept(self) -> IncomingConnection:
        """The next connection that asks to come in. Checkpoints."""
        return await self._receive.receive()

    async def waiting(self) -> list[IncomingConnection]:
        """Those that nobody has asked for yet. Checkpoints every so often."""
        while self._read_some():
            await trio.lowlevel.checkpoint()
        found: list[IncomingConnection] = []
        with suppress(trio.WouldBlock):
            while True:
                found.append(self._receive.receive_nowait())
        return found

    async def _hold_syns(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.channel.log)
            self._read_some()

    def _read_some(self) -> bool:
        """Whether there may be more."""
        return all(self._read() for _ in range(_AT_ONCE))

    def _read(self) -> bool:
        """Take in what the rules have shown, a message; whether there was any."""
        try:
            data = self.channel.log.recv(_MAX_MESSAGE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return True  # there were more than it has room for: their clients will ask again
        for held in self.channel.held(logged_packets(data)):
            self._hold(held)
        return True

    def _hold(self, held: HeldSyn) -> None:
        asked = held.syn.client, held.syn.destination
        if pending := self.pending.get(asked):
            pending.ask_again()
        elif len(self.pending) < _MAX_PENDING:
            self.pending[asked] = pending = PendingConnection(held, self)
            self._send.send_nowait(pending)

    async def _accept_admitted(self) -> None:
        while True:
            accepted = await self._listener.accept()
            if pending := self.admitted.get((accepted.peer, accepted.own)):
                pending.arrive(accepted.socket)
            else:  # its client was too slow, or came to the listener itself
                abort(accepted.socket)


class PendingConnection:
    """A connection whose client waits for an answer to its SYN."""

    def __init__(self, held: HeldSyn, gate: SynGate) -> None:
        self.held = held
        self._gate = gate
        self._is_let_in = False
        self._ends: Ends | None = None
        self._has_arrived = trio.Event()
        self._socket: trio.socket.SocketType | None = None

    @property
    def client(self) -> Address:
        return self.held.syn.client

    @property
    def destination(self) -> Address:
        return self.held.destination

    @property
    def source(self) -> Address:
        return self.held.source

    @property
    def interface(self) -> str:
        return self.held.interface

    async def accept(self) -> TcpStream:
        """Let it in. Raises ConnectionResetError if the client has gone. Checkpoints."""
        self._is_let_in = True
        self._admit()
        try:
            with trio.move_on_after(_ARRIVES_WITHIN_S):
                await self._has_arrived.wait()
        except BaseException:
            if self._socket is not None:
                abort(self._socket)
            raise
        finally:
            self._leave()
        if self._socket is None:
            raise ConnectionResetError(errno.ECONNRESET, "the client has gone")
        return TcpStream(self._socket)

    def refuse(self, reason: OSError | None) -> None:
        """Have it refused as the server's side did; for no reason of its, with a RST."""
        self._leave()
        if isinstance(reason, TimeoutError):
            return  # silence is what the client would have met
        unreachable = reason is not None and reason.errno in _UNREACHABLE
        self._gate.channel.refuse(self.held, Refusal.UNREACHABLE if unreachable else Refusal.RESET)

    def ask_again(self) -> None:
        """The client has sent its SYN once more."""
        if self._is_let_in:
            self._admit()

    def arrive(self, sock: trio.socket.SocketType) -> None:
        """It is in."""
        if self._socket is not None:
            abort(self._socket)
        self._socket = sock
        self._has_arrived.set()

    def _admit(self) -> None:
        try:
            self._ends = self._gate.channel.admit(self.held)
        except OSError:
            log.info("cannot let in %s for %s", self.client, self.destination, exc_info=True)
            return
        self._gate.admitted[self._ends] = self

    def _leave(self) -> None:
        held = self.held.syn
        self._gate.pending.pop((held.client, held.destination), None)
        if self._ends is not None:
            self._gate.admitted.pop(self._ends, None)
