"""SYNs of a command: held by the rules of its namespace, and sent again there with a mark."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from typing import Final

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.net.gate.gate import HeldSyn, Refusal
from mitml4.net.gate.nflog import LoggedPacket
from mitml4.net.gate.syn import Syn
from mitml4.net.listener import Ends
from mitml4.net.namespace.rules import Mark

__all__ = ["InjectionSockets", "NamespaceChannel"]

_INTERFACE: Final = "lo"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InjectionSockets:
    """Sockets of a namespace that receive held packets, and send them again."""

    log: socket.socket
    raw_v4: socket.socket
    raw_v6: socket.socket | None

    def send(self, packet: bytes, destination: Address, mark: Mark) -> None:
        """Send a packet from its IP header on. Best effort, as in any network."""
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


class NamespaceChannel:
    """A `SynChannel` (net/gate/gate.py)."""

    def __init__(self, sockets: InjectionSockets) -> None:
        """The caller closes them."""
        self._sockets = sockets

    @property
    def log(self) -> socket.socket:
        return self._sockets.log

    def held(self, packets: Iterator[LoggedPacket]) -> Iterator[HeldSyn]:
        for packet in packets:
            if syn := Syn.parse(packet.payload):
                yield HeldSyn(
                    syn=syn, destination=syn.destination, source=syn.client, interface=_INTERFACE
                )

    def admit(self, held: HeldSyn) -> Ends:
        self._sockets.send(held.syn.packet, held.syn.destination, Mark.ADMITTED)
        return held.syn.client, held.syn.destination

    def repeat(self, held: HeldSyn) -> None:
        self.admit(held)

    def withdraw(self, held: HeldSyn) -> None:
        """Nothing has been kept of it."""

    def disown(self, own: Address, peer: Address) -> None:
        """The same."""

    def refuse(self, held: HeldSyn, refusal: Refusal) -> None:
        syn = held.syn
        if refusal is Refusal.UNREACHABLE:
            self._sockets.send(syn.unreachable(), syn.client, Mark.OWN)
        else:
            self._sockets.send(syn.packet, syn.destination, Mark.REFUSED)
