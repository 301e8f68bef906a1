"""All protocols in one list, and detection: which of them do these first bytes belong to?

Detection is one pass over the first bytes of both directions. A table by first byte leaves a few
rows, whatever the number of protocols, and the detector of each gives its verdict on the same
bytes. A rejection is final, and most flows begin like an earlier one. So the registry remembers
which rows did not reject a client's first few bytes, and asks no others when the same bytes come
again.

The order of the rows decides nothing. Where two protocols can begin alike, both return NEED_MORE
until the bytes tell them apart; two MATCHes at once are a bug, which a property test looks for. For
the most common protocols the first MATCH therefore ends the search (`conclusive`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from mitml4.dataclass import dataclass
from mitml4.protocols import (
    adb,
    amqp,
    announced,
    cassandra,
    dns,
    fix,
    ftp,
    git,
    imap,
    irc,
    kafka,
    ldap,
    managesieve,
    memcached,
    mongodb,
    mqtt,
    mysql,
    nats,
    nntp,
    onc_rpc,
    pop3,
    portmap,
    postgresql,
    proxy_protocol,
    rdp,
    redis,
    rsync,
    rtmp,
    rtsp,
    sip,
    smb,
    smtp,
    socks4,
    socks5,
    ssh,
    stomp,
    svn,
    tds,
    telnet,
    thrift,
    vnc,
    xmpp,
)
from mitml4.protocols.conversation import Opening, Protocol, Verdict
from mitml4.protocols.flow_data import FlowData
from mitml4.protocols.http import connect, http1, http2, websocket
from mitml4.protocols.named import (
    administration,
    clusters,
    consumer,
    databases,
    industrial,
    java,
    peer_to_peer,
    queues,
    remote,
    routing,
    telecom,
    vpn,
    windows,
)
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.protocols.tls import protocol as tls
from mitml4.protocols.tls import reversed as reversed_tls

__all__ = [
    "BEGINNING",
    "EVENT_TYPES",
    "MAX_OPENING",
    "PROTOCOLS",
    "Detection",
    "Registry",
    "by_name",
    "detect",
]

MAX_OPENING: Final = 16384
"""After so many bytes in both directions together, the likely answer, or none, is final."""


@dataclass(frozen=True, slots=True)
class Detection:
    """The answer: one protocol (`match`), one of several (`candidates`), or none of them."""

    match: Protocol | None = None
    candidates: tuple[Protocol, ...] = ()
    """The rows that have not rejected it; empty once it is decided."""
    likely: Protocol | None = None
    """The only candidate whose verdict is LIKELY; None if there are several, or none."""

    @property
    def undecided(self) -> bool:
        """Whether more bytes can still change the answer."""
        return bool(self.candidates)

    @property
    def terminating(self) -> bool:
        """Whether a candidate would terminate the client's bytes, so that they must not move
        yet."""
        return any(candidate.terminates for candidate in self.candidates)


NOTHING: Final = Detection()

BEGINNING: Final = 6
"""How many of a client's first bytes are remembered; ClientHellos hardly differ in these."""
_MAX_BEGINNINGS: Final = 4096


class Registry:
    """Rows of protocols, indexed by the first byte of either side."""

    def __init__(self, rows: Iterable[Protocol]) -> None:
        self.rows = tuple(rows)
        self._names = {row.name: row for row in reversed(self.rows)}
        self._matches = {id(row): Detection(match=row) for row in self.rows}
        self._any = tuple(row for row in self.rows if row.detect is not None)
        self._by_first_byte: dict[tuple[str, int], tuple[Protocol, ...]] = {}
        self._narrowed: dict[tuple[bytes, tuple[str, ...]], tuple[Protocol, ...]] = {}

    def _beginning(
        self, side: Literal["client_first", "server_first"], byte: int
    ) -> tuple[Protocol, ...]:
        """The rows that can begin with this byte on this side. Remembers them."""
        rows = self._by_first_byte.get((side, byte))
        if rows is None:
            firsts = ((row, getattr(row, side)) for row in self._any)
            rows = tuple(row for row, first in firsts if first is None or byte in first)
            self._by_first_byte[side, byte] = rows
        return rows

    def by_name(self, name: str) -> Protocol | None:
        """The row of this name; the first of several."""
        return self._names.get(name)

    def detect(self, opening: Opening) -> Detection:
        """The answer for these first bytes. Never raises, whatever they are."""
        remaining: list[Protocol] = []
        matching: list[Protocol] = []
        likely: list[Protocol] = []
        for row in self._candidates(opening):
            verdict = _verdict(row, opening)
            if verdict is Verdict.REJECT:
                continue
            remaining.append(row)
            if verdict is Verdict.MATCH and row.conclusive:
                return self._matches[id(row)]
            if verdict is Verdict.MATCH:
                matching.append(row)
            elif verdict is Verdict.LIKELY:
                likely.append(row)
        if matching:
            # Two at once contradict each other: then unknown is the safe answer.
            return self._matches[id(matching[0])] if len(matching) == 1 else NOTHING
        guess = likely[0] if len(likely) == 1 else None
        if len(opening.up) + len(opening.down) >= MAX_OPENING:
            return Detection(likely=guess)
        # While the client is silent, the server's bytes rule nothing out: a client that had spoken
        # a moment earlier would make them an answer, and the verdict must not depend on that
        # moment.
        silent = not (opening.up or opening.up_ended)
        candidates = self._any if silent else tuple(remaining)
        return Detection(None, candidates, guess)

    def _candidates(self, opening: Opening) -> tuple[Protocol, ...]:
        """The rows to ask. Once the client has spoken, the server's bytes may be an answer."""
        if opening.up:
            beginning = opening.up[:BEGINNING], opening.stack
            rows = self._narrowed.get(beginning)
            return self._narrow(*beginning) if rows is None else rows
        rows = self._any
        if opening.down:
            rows = self._beginning("server_first", opening.down[0])
        return self.possible(rows, opening.stack)

    def possible(self, rows: tuple[Protocol, ...], stack: tuple[str, ...]) -> tuple[Protocol, ...]:
        """These rows, without those that cannot be inside this stack: TLS that began by STARTTLS
        carries the protocol that asked for it, and no other protocol with STARTTLS."""
        outer = self._names.get(stack[-2]) if len(stack) > 1 and stack[-1] == "tls" else None
        if outer is None or not outer.starttls:
            return rows
        return tuple(row for row in rows if not row.starttls or row.name == outer.name)

    def _narrow(self, up: bytes, stack: tuple[str, ...]) -> tuple[Protocol, ...]:
        """The rows that do not reject these first bytes of a client. Remembers them."""
        opening = Opening(up=up, stack=stack)
        rows = self.possible(self._beginning("client_first", up[0]), stack)
        rows = tuple(row for row in rows if _verdict(row, opening) is not Verdict.REJECT)
        if len(self._narrowed) >= _MAX_BEGINNINGS:
            self._narrowed.clear()
        self._narrowed[up, stack] = rows
        return rows


def _verdict(row: Protocol, opening: Opening) -> Verdict:
    assert row.detect is not None
    return row.detect(opening)


PROTOCOLS: Final = (
    tls.PROTOCOL,
    http1.PROTOCOL,
    connect.PROTOCOL,
    http2.PROTOCOL,
    websocket.PROTOCOL,
    socks5.PROTOCOL,
    socks4.PROTOCOL,
    proxy_protocol.PROTOCOL,
    ssh.PROTOCOL,
    smtp.PROTOCOL,
    ftp.PROTOCOL,
    imap.PROTOCOL,
    pop3.PROTOCOL,
    nntp.PROTOCOL,
    managesieve.PROTOCOL,
    irc.PROTOCOL,
    xmpp.PROTOCOL,
    *rtsp.PROTOCOLS,
    sip.PROTOCOL,
    stomp.PROTOCOL,
    rtmp.PROTOCOL,
    git.PROTOCOL,
    svn.PROTOCOL,
    rsync.PROTOCOL,
    vnc.PROTOCOL,
    telnet.PROTOCOL,
    postgresql.PROTOCOL,
    mysql.PROTOCOL,
    tds.PROTOCOL,
    rdp.PROTOCOL,
    ldap.PROTOCOL,
    mongodb.PROTOCOL,
    *smb.PROTOCOLS,
    *windows.PROTOCOLS,
    *onc_rpc.PROTOCOLS,
    portmap.PROTOCOL,
    *industrial.PROTOCOLS,
    *routing.PROTOCOLS,
    *telecom.PROTOCOLS,
    *vpn.PROTOCOLS,
    *databases.PROTOCOLS,
    *peer_to_peer.PROTOCOLS,
    *java.PROTOCOLS,
    adb.PROTOCOL,
    *administration.PROTOCOLS,
    *clusters.PROTOCOLS,
    *consumer.PROTOCOLS,
    *queues.PROTOCOLS,
    *remote.PROTOCOLS,
    *announced.PROTOCOLS,
    fix.PROTOCOL,
    thrift.PROTOCOL,
    redis.PROTOCOL,
    mqtt.PROTOCOL,
    amqp.PROTOCOL,
    dns.PROTOCOL,
    kafka.PROTOCOL,
    nats.PROTOCOL,
    memcached.PROTOCOL,
    cassandra.PROTOCOL,
    reversed_tls.PROTOCOL,
)

EVENT_TYPES: Final[tuple[type[ProtocolEvent], ...]] = tuple(
    dict.fromkeys((*(each for row in PROTOCOLS for each in row.events), FlowData))
)
"""The events of all protocols, each once."""

_registry: Final = Registry(PROTOCOLS)

by_name: Final = _registry.by_name
detect: Final = _registry.detect
