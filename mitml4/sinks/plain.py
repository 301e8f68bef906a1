"""The opened bytes of TLS as packets, for tools that know no keys: Suricata, Zeek, tshark.

Each flow whose TLS was opened is a TCP connection that is made up (synthetic.py): its handshake
comes where the TLS handshake has ended, and its addresses are the flow's. The port is the one that
such tools look for the protocol at, since they name many protocols by port. Sequence numbers are
given out before packets may be dropped: what is missing is a gap, and nothing else is wrong.

The format is classic pcap, which all readers of files and of PCAP over IP know.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.engine.plaintext import PlaintextBegun, PlaintextMoved, PlaintextReset
from mitml4.events import FlowClose, FlowOpen
from mitml4.protocols.conversation import Direction
from mitml4.sinks.background import Background
from mitml4.sinks.files import OutputFile, begin_file
from mitml4.sinks.format import Format, Weight
from mitml4.sinks.synthetic import Packet, SyntheticConnection
from mitml4.sinks.tcp_reader import TcpReader
from mitml4.sinks.updates import Published
from mitml4.whole_writes import write_all

__all__ = ["PlainFormat", "PlainPackets"]

_ETHERNET: Final = 1
_HEADER: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, _ETHERNET)
# https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-06.html
_PACKET: Final = struct.Struct("<IIII")
_CAPACITY: Final = 128 << 20
"""Bytes that may wait, of which one flow may have a half."""
_BATCH: Final = 2048, 8 << 20
"""Packets and bytes that are written at a time: a session that moves much is slow to begin with the
next."""
_PACKET_BYTES: Final = 200
"""About what a packet without data occupies while it waits."""

_HTTP: Final = 80
_PLAIN_PORTS: Final[Mapping[int, int]] = {
    443: _HTTP,
    465: 25,
    563: 119,
    636: 389,
    853: 53,
    989: 20,
    990: 21,
    992: 23,
    993: 143,
    994: 6667,
    995: 110,
    3269: 3268,
    5061: 5060,
    5223: 5222,
    5671: 5672,
    6697: 6667,
    8883: 1883,
}
"""Ports of protocols in TLS, and the ports of the same protocols without it (IANA's registry)."""


@dataclass(slots=True)
class _Flow:
    opened: FlowOpen
    connection: SyntheticConnection | None = None


class PlainFormat(Format[Packet]):
    """Packets of what moves in opened TLS."""

    wants = (FlowOpen, FlowClose, PlaintextBegun, PlaintextMoved, PlaintextReset)

    def __init__(self, file: OutputFile) -> None:
        super().__init__(file)
        self._flows: dict[int, _Flow] = {}

    @classmethod
    def to(cls, output: Path | TcpReader) -> PlainFormat:
        """To a file, replacing its content, or to a reader. Raises MitmError."""
        if isinstance(output, Path):
            return cls(OutputFile(begin_file(output, _HEADER), str(output)))
        file = OutputFile(output.connect(), str(output))
        try:
            write_all(file.descriptor, _HEADER)
        except OSError as error:
            raise file.failure(error) from error
        return cls(file)

    def take(self, event: Published) -> Iterable[Packet]:
        match event:
            case PlaintextMoved():
                return self._move(event)
            case PlaintextBegun():
                return self._begin(event)
            case PlaintextReset():
                return self._reset(event)
            case FlowOpen():
                self._flows[event.flow] = _Flow(event)
            case FlowClose():
                return self._close(event)
        return ()

    def weight(self, item: Packet) -> Weight:
        size = len(item.data)
        return item.connection.flow, size + _PACKET_BYTES, not size

    def write(self, batch: Sequence[Packet]) -> None:
        parts = []
        for packet in batch:
            headers = packet.headers()
            length = len(headers) + len(packet.data)
            seconds, rest_ns = divmod(packet.time_ns, 10**9)
            head = _PACKET.pack(seconds, rest_ns // 1000, length, length)
            parts.append(b"".join((head, headers, packet.data)))
        self.file.write(parts)

    def _begin(self, event: PlaintextBegun) -> Iterator[Packet]:
        flow = self._flows[event.flow]
        if flow.connection:
            yield from flow.connection.close(event.time_ns)
        client, destination = flow.opened.client, flow.opened.destination
        server = Address(destination.ip, _port(event, destination))
        flow.connection = SyntheticConnection(event.flow, client, server)
        yield from flow.connection.open(event.time_ns)

    def _move(self, event: PlaintextMoved) -> Iterable[Packet]:
        connection = self._flows[event.flow].connection
        assert connection
        if event.is_end:
            return connection.end(event.direction, event.time_ns)
        connection.skip(event.direction, event.lost)
        return connection.say(event.direction, event.data, event.time_ns)

    def _reset(self, event: PlaintextReset) -> Iterator[Packet]:
        flow = self._flows[event.flow]
        if flow.connection:
            yield from flow.connection.reset(event.direction, event.time_ns)
            flow.connection = None

    def _close(self, event: FlowClose) -> Iterator[Packet]:
        connection = self._flows.pop(event.flow).connection
        if connection:
            time_ns = int(event.time.timestamp() * 10**9)
            if event.reason == "closed":
                yield from connection.close(time_ns)
            else:
                yield from connection.reset(Direction.DOWN, time_ns)


class PlainPackets(Background[Packet]):
    """The sink of a session: flows do not wait for it."""

    def __init__(self, output: PlainFormat) -> None:
        super().__init__(output, capacity=_CAPACITY, batch=_BATCH)

    dropped = 0
    """Packets are not events."""

    @property
    def missing(self) -> int:
        """Packets that came faster than they could be written."""
        return super().dropped


def _port(event: PlaintextBegun, destination: Address) -> int:
    """Wireshark looks for HTTP/2 only at the ports of HTTP."""
    if event.protocol == "http/2":
        return _HTTP
    port = event.port or destination.port
    return _PLAIN_PORTS.get(port, port)
