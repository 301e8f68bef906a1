"""All protocols over UDP in one list, and detection: which of them do these datagrams belong to?

Rows whose usual port is one of the flow's are asked first, and a match there is the answer: a port
and a structure that fits are more than a structure alone. The other rows are asked together, and
two that match contradict each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from mitml4.protocols.conversation import Verdict
from mitml4.protocols.datagram import MAX_DATAGRAMS, DatagramProtocol, Exchange, fits
from mitml4.protocols.datagrams import (
    dns,
    dtls,
    hosts,
    media,
    peer_to_peer,
    quic,
    rpc,
    sip,
    tftp,
    tunnels,
)

__all__ = ["PROTOCOLS", "DatagramRegistry", "announced", "by_name", "detect"]


class DatagramRegistry:
    """Rows of protocols, indexed by their usual ports."""

    def __init__(self, rows: Iterable[DatagramProtocol]) -> None:
        self.rows = tuple(rows)
        self._names: dict[str, list[DatagramProtocol]] = defaultdict(list)
        self._by_port: dict[int, list[DatagramProtocol]] = defaultdict(list)
        for row in self.rows:
            self._names[row.name].append(row)
            for port in row.ports:
                self._by_port[port].append(row)

    def by_name(self, name: str) -> DatagramProtocol | None:
        """The first row of this name."""
        rows = self._names.get(name)
        return rows[0] if rows else None

    def detect(self, exchange: Exchange) -> tuple[DatagramProtocol | None, bool]:
        """The protocol, or the only one that is likely, and whether that is final. Never raises,
        whatever the datagrams are."""
        likely: list[DatagramProtocol] = []
        is_open = False
        for port in exchange.ports:
            for row in self._by_port.get(port, ()):
                if row.detect(exchange) is Verdict.MATCH:
                    return row, True
        matching: list[DatagramProtocol] = []
        for row in self.rows:
            match row.detect(exchange):
                case Verdict.MATCH:
                    matching.append(row)
                case Verdict.LIKELY:
                    likely.append(row)
                    is_open = True
                case Verdict.NEED_MORE:
                    is_open = True
        if matching:
            names = {row.name for row in matching}
            return (matching[0] if len(names) == 1 else None), True
        is_open = is_open and len(exchange.up) + len(exchange.down) < MAX_DATAGRAMS
        return (likely[0] if len(likely) == 1 else None), not is_open

    def announced(self, name: str, datagram: bytes) -> DatagramProtocol | None:
        """The row of this name, if the first datagram of a flow that was announced so fits it."""
        for row in self._names.get(name, ()):
            if row.announced and fits(row.announced, datagram):
                return row
        return None


PROTOCOLS: Final = (
    quic.PROTOCOL,
    *dns.PROTOCOLS,
    dtls.PROTOCOL,
    *media.PROTOCOLS,
    sip.PROTOCOL,
    *hosts.PROTOCOLS,
    *rpc.PROTOCOLS,
    tftp.PROTOCOL,
    *tunnels.PROTOCOLS,
    *peer_to_peer.PROTOCOLS,
)

_registry: Final = DatagramRegistry(PROTOCOLS)

by_name: Final = _registry.by_name
detect: Final = _registry.detect
announced: Final = _registry.announced
