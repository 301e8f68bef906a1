"""SYNs on the host: held by the session's rules, sent again to its listener, or refused.

To accept a connection, an entry is first added to conntrack. Like `redirect`, it translates the
destination to the listener's, for this and each following packet, whatever the rules say about new
connections. Then the SYN is sent again over `lo`. To refuse a connection, its SYN is sent there
with a mark, for which a rule refuses it.

Changes by others are kept: their marks, and their translation of the destination, to which we
connect.

A conntrack entry also gives a connection to a server the address of its client (`--spoof-source`),
or its translation by others.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Final

import trio
from cachetools import FIFOCache

from mitml4.address import Address
from mitml4.errors import MachineError
from mitml4.net.dial import SourceAddresses, source_towards
from mitml4.net.gate.conntrack import Conntrack, Entry
from mitml4.net.gate.gate import HeldSyn, Refusal
from mitml4.net.gate.nflog import LoggedPacket, open_log
from mitml4.net.gate.syn import LONGEST_SYN, Syn
from mitml4.net.identity import FOREIGN_MASK, Identity
from mitml4.net.listener import Ends, Listener
from mitml4.net.place import HERE, Place
from mitml4.net.rules.ruleset import AS_IT_LEAVES, UNCHANGED
from mitml4.net.rules.scope import Scope

__all__ = ["HostChannel", "holding"]

_IP_UNICAST_IF: Final = 50  # linux/in.h
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_NO_ADDRESSES: Final = bytes(12)  # Ethernet addresses, which `lo` does not have
_LOOPBACK: Final = "lo"
_LOOPBACK_INDEX: Final = 1  # of every network namespace: LOOPBACK_IFINDEX, include/net/flow.h
_SIOCGIFNAME: Final = 0x8910  # linux/sockios.h
_INTERFACE_REQUEST: Final = struct.Struct("16si20x")  # struct ifreq
_LOOPBACK_IPS: Final = {False: "127.0.0.1", True: "::1"}
# Nobody has these addresses (RFC 2544, RFC 3849).
_ELSEWHERE: Final = {False: Address("198.18.0.1", 443), True: Address("2001:db8:4d34::1", 443)}

_MAX_LEAVING: Final = 1024

_HANDSHAKE_S: Final = 60
_PORTS: Final = range(1024, 65536)
_ATTEMPTS: Final = 16


class HostChannel:
    """A `SynChannel` (net/gate/gate.py)."""

    def __init__(
        self,
        identity: Identity,
        port: int,
        interfaces: Collection[str],
        place: Place = HERE,
    ) -> None:
        """`port` is the listener's, in `place`; connections are attributed to one of `interfaces`,
        if there are some.

        Raises MachineError.
        """
        self.interfaces = interfaces
        self.place = place
        self.own_mark = identity.own_mark
        self._identity = identity
        self._port = port
        self._sources = SourceAddresses(place)
        self._own_ips: dict[bool, str] = {}
        self._leaving: FIFOCache[bytes, tuple[Syn, LoggedPacket]] = FIFOCache(_MAX_LEAVING)
        with ExitStack() as undo:
            try:
                self.log = undo.enter_context(
                    open_log(identity.log_group, copy_bytes=LONGEST_SYN, place=place)
                )
                self._raw = undo.enter_context(_open_raw(place))
                self._frames = undo.enter_context(_open_frames(place))
                self._conntrack = Conntrack(place)
            except OSError as error:
                raise MachineError(
                    f"the kernel cannot hold connections: {error.strerror}",
                    hint="modprobe --all nfnetlink_log nf_conntrack_netlink",
                ) from error
            undo.callback(self._conntrack.close)
            self._undo = undo.pop_all()

    def close(self) -> None:
        trio.lowlevel.notify_closing(self.log)
        self._undo.close()

    def held(self, packets: Iterator[LoggedPacket]) -> Iterator[HeldSyn]:
        for packet in packets:
            syn = Syn.parse(packet.payload)
            if syn is None:
                continue
            if packet.prefix == AS_IT_LEAVES.encode():
                self._leaving[syn.untranslated] = syn, packet
            elif packet.prefix == UNCHANGED.encode():
                yield HeldSyn(
                    syn=syn,
                    destination=syn.destination,
                    source=syn.client,
                    interface=self._interface(packet),
                    is_local=not packet.entered_by,
                    packet_mark=packet.mark,
                )
            elif left := self._leaving.pop(syn.untranslated, None):
                leaving, first = left
                yield HeldSyn(
                    syn=syn,
                    destination=leaving.destination,
                    source=leaving.client,
                    interface=self._interface(packet),
                    is_local=not packet.entered_by,
                    packet_mark=first.mark,
                    connection_mark=packet.mark,
                )

    def admit(self, held: HeldSyn) -> Ends:
        client = held.syn.client
        own_ip = self._own_ips[client.is_v6] = self._sources.towards(client)
        ends = self.expect(
            client, held.syn.destination, own_ip=own_ip, connection_mark=held.connection_mark
        )
        self._send(held)
        return ends

    def repeat(self, held: HeldSyn) -> None:
        with suppress(OSError):
            self._send(held)

    def withdraw(self, held: HeldSyn) -> None:
        with suppress(OSError):
            self._conntrack.remove(held.syn.client, held.syn.destination)

    def disown(self, own: Address, peer: Address) -> None:
        with suppress(OSError):
            self._conntrack.remove_answered(own, peer)

    def expect(
        self, client: Address, destination: Address, *, own_ip: str, connection_mark: int = 0
    ) -> Ends:
        """Let a future connection arrive at the listener, whose packets then come from `own_ip`.
        Raises OSError."""
        own = Address(own_ip, self._port)
        entry = Entry(
            source=client,
            destination=destination,
            mark=self._identity.admitted_mark | connection_mark & FOREIGN_MASK,
            lasts_s=_HANDSHAKE_S,
            becomes_destination=own,
        )
        return self._add(entry), own

    def own_ip(self, *, v6: bool) -> str:
        """An address of this host: the one at which connections of this IP version were last
        accepted, unless the interface that had it has lost it or is gone."""
        last = self._own_ips.get(v6)
        for destination in (last and Address(last, self._port), _ELSEWHERE[v6]):
            if destination:
                with suppress(OSError):
                    return source_towards(destination, place=self.place)
        return _LOOPBACK_IPS[v6]

    def refuse(self, held: HeldSyn, refusal: Refusal) -> None:
        identity = self._identity
        unreachable = refusal is Refusal.UNREACHABLE
        with suppress(OSError):
            self._send_frame(
                held.syn, identity.unreachable_mark if unreachable else identity.refused_mark
            )

    def name_source(self, sock: socket.socket, destination: Address, name: Address) -> None:
        """Let a future connection have this source address. Raises OSError."""
        own = Address.of(sock.getsockname())
        entry = Entry(
            source=own,
            destination=destination,
            mark=self._identity.own_mark,
            lasts_s=_HANDSHAKE_S,
            becomes_source=name,
        )
        self._add(entry)

    def _interface(self, packet: LoggedPacket) -> str:
        """The interface in scope; the incoming one if both are, or neither is."""
        names = (self._name(index) for index in (packet.entered_by, packet.leaves_by) if index)
        first = next(names)
        if first in self.interfaces or not self.interfaces:
            return first
        return next((name for name in names if name in self.interfaces), first)

    def _name(self, index: int) -> str:
        """The name of an interface; its index if it has gone."""
        asked = _INTERFACE_REQUEST.pack(b"", index)
        try:
            answer = fcntl.ioctl(self._raw, _SIOCGIFNAME, asked)
        except OSError:
            return str(index)
        name, _ = _INTERFACE_REQUEST.unpack(answer)
        return os.fsdecode(name.rstrip(b"\0"))

    def _add(self, entry: Entry) -> Address:
        """Add an entry, and return the resulting source. If another connection has the same
        addresses after translation, it gets another port."""
        source = entry.becomes_source or entry.source
        with suppress(FileExistsError):
            self._conntrack.add(entry)
            return source
        for _ in range(_ATTEMPTS):
            other = Address(source.ip, random.choice(_PORTS))
            with suppress(FileExistsError):
                self._conntrack.add(replace(entry, becomes_source=other))
                return other
        raise FileExistsError(errno.EEXIST, "the connection is there already")

    def _send(self, held: HeldSyn) -> None:
        """Send over `lo`, where it is translated: IPv4 as a locally generated packet, because an
        incoming one would be subject to the reverse path filter. IPv6 has no such filter, but a raw
        socket cannot send over `lo`."""
        if held.destination.is_v6:
            self._send_frame(held.syn, held.packet_mark & FOREIGN_MASK)
        else:
            _mark(self._raw, held.packet_mark & FOREIGN_MASK)
            self._raw.sendto(held.syn.packet, (held.syn.destination.ip, 0))

    def _send_frame(self, syn: Syn, mark: int) -> None:
        protocol = _ETH_P_IPV6 if syn.destination.is_v6 else _ETH_P_IP
        _mark(self._frames, mark)
        frame = _NO_ADDRESSES + struct.pack("!H", protocol) + syn.packet
        self._frames.sendto(frame, (_LOOPBACK, protocol))


def _mark(sock: socket.socket, mark: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)


def _open_raw(place: Place) -> socket.socket:
    """A socket that sends IPv4 packets with their header (raw(7)), over `lo`."""
    sock = place.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sock.setsockopt(socket.SOL_IP, _IP_UNICAST_IF, struct.pack("!I", _LOOPBACK_INDEX))
    return sock


def _open_frames(place: Place) -> socket.socket:
    """A socket that sends frames (packet(7)), and receives none."""
    return place.socket(socket.AF_PACKET, socket.SOCK_RAW)


@contextmanager
def holding(
    identity: Identity, scope: Scope, place: Place = HERE
) -> Iterator[tuple[Listener, HostChannel]]:
    """What the gate needs: the listener, and the channel for SYNs."""
    listener = Listener(place=place)
    try:
        channel = HostChannel(identity, listener.address.port, scope.interfaces, place)
        try:
            yield listener, channel
        finally:
            channel.close()
    finally:
        listener.close()
