"""Connections are held at their first packet until we know whether the server takes them.

Had we accepted first, a client would be connected to what refuses it: it would not try the next
address of a name (IPv6 where only IPv4 is served, `localhost`), and be told of a reset, not of a
refusal. So a rule drops each SYN and shows it to us; once the egress has answered, we send it again
with a mark that lets it in, or has it refused by the kernel with what the server's side said.
"""

from __future__ import annotations

import errno
import logging
import socket
from dataclasses import dataclass
from typing import Final

import trio

from mitml4.address import Address
from mitml4.net.listener import Accepted, Arrival, Listener
from mitml4.net.namespace.nflog import logged_packets
from mitml4.net.namespace.rules import Mark
from mitml4.net.namespace.syn import Syn

__all__ = ["Admission", "Gate"]

_MAX_HELD: Final = 4096
_COMES_WITHIN_S: Final = 5.0
_UNREACHABLE: Final = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL)

log = logging.getLogger(__name__)

Ends = tuple[Address, Address]


@dataclass(frozen=True, slots=True)
class Gate:
    """Sockets of a namespace: what shows the packets that are held, and what sends them again."""

    log: socket.socket
    raw_v4: socket.socket
    raw_v6: socket.socket | None

    def send(self, syn: Syn, mark: Mark) -> None:
        """Send it again, marked. Best effort: the client will ask again."""
        self._send(syn.packet, syn.destination, mark)

    def send_unreachable(self, syn: Syn) -> None:
        """Tell the client that there is no way to its destination. Best effort, as above."""
        self._send(syn.unreachable(), syn.client, Mark.EGRESS)

    def _send(self, packet: bytes, destination: Address, mark: Mark) -> None:
        raw = self.raw_v6 if destination.is_v6 else self.raw_v4
        if raw is None:
            return
        try:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            raw.sendto(packet, (destination.ip, 0))
        except OSError:
            log.exception("cannot send a packet to %s", destination)

    def close(self) -> None:
        for sock in (self.log, self.raw_v4, self.raw_v6):
            if sock:
                sock.close()


class Admission:
    """A source of connections that are held, and can be accepted or refused."""

    def __init__(self, listener: Listener, gate: Gate) -> None:
        """Both stay the caller's."""
        self._listener = listener
        self._gate = gate
        self._log = trio.socket.from_stdlib_socket(gate.log.dup())
        self._held: dict[Ends, Held] = {}
        self._send, self._receive = trio.open_memory_channel[Arrival](_MAX_HELD)

    async def run(self) -> None:
        """Until cancelled."""
        with self._log:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_packets)
                nursery.start_soon(self._accept)

    async def accept(self) -> Arrival:
        """The next connection that asks to come in. Checkpoints."""
        return await self._receive.receive()

    async def _read_packets(self) -> None:
        while True:
            try:
                data = await self._log.recv(1 << 16)
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # more than fitted: the clients will ask again
                    continue
                raise
            for packet in logged_packets(data):
                if syn := Syn.parse(packet):
                    self._hold(syn)

    def _hold(self, syn: Syn) -> None:
        ends = syn.client, syn.destination
        if held := self._held.get(ends):
            held.ask_again()
        elif len(self._held) < _MAX_HELD:
            self._held[ends] = held = Held(syn, self._gate, self._held)
            self._send.send_nowait(held)

    async def _accept(self) -> None:
        while True:
            accepted = await self._listener.accept()
            if held := self._held.get((accepted.client, accepted.destination)):
                held.come(accepted)
            else:  # it gave up waiting, or came in by a SYN cookie
                accepted.refuse(None)


class Held:
    """A connection whose client waits."""

    interface = "lo"

    def __init__(self, syn: Syn, gate: Gate, registry: dict[Ends, Held]) -> None:
        self.client = syn.client
        self.destination = syn.destination
        self._syn = syn
        self._gate = gate
        self._registry = registry
        self._is_let_in = False
        self._has_come = trio.Event()
        self._accepted: Accepted | None = None

    async def accept(self) -> trio.socket.SocketType:
        """Let it in. Raises ConnectionResetError if the client has gone. Checkpoints."""
        self._is_let_in = True
        self._gate.send(self._syn, Mark.ADMITTED)
        try:
            with trio.move_on_after(_COMES_WITHIN_S):
                await self._has_come.wait()
        finally:
            self._registry.pop((self.client, self.destination), None)
        if self._accepted is None:
            raise ConnectionResetError(errno.ECONNRESET, "the client has gone")
        return self._accepted.socket

    def until_reset(self) -> trio.CancelScope:
        """A client that gives up waiting does not say so."""
        return trio.CancelScope()

    def refuse(self, reason: OSError | None) -> None:
        """Have it refused as the server's side did; for no reason of its, with a RST."""
        self._registry.pop((self.client, self.destination), None)
        if isinstance(reason, TimeoutError):
            return  # silence is what the client would have met
        if reason is not None and reason.errno in _UNREACHABLE:
            self._gate.send_unreachable(self._syn)
        else:
            self._gate.send(self._syn, Mark.REFUSED)

    def ask_again(self) -> None:
        """The client has sent its SYN once more."""
        if self._is_let_in:
            self._gate.send(self._syn, Mark.ADMITTED)

    def come(self, accepted: Accepted) -> None:
        """It is in."""
        self._accepted = accepted
        self._has_come.set()
