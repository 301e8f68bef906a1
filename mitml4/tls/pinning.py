"""Which TLS is passed through unopened because of what earlier connections have shown.

What a connection shows counts for the next ones of the same client to the same site. A client is
its address and its kind of ClientHello; a site is the logical target and the SNI. A reason counts
for every client of a site once several clients have shown it.

    shown                                          effect on (client, site)
    an alert about our certificate                 pinned
    it leaves: it ends the connection after our    pinned, if an earlier connection had ended so
      certificate without saying why, or right       before this one began, and none was accepted
      after the handshake without a byte             since
    a byte behind the handshake (accepted)         not pinned; what ended before is forgotten
    OpenSSL cannot do what the two ends do         passed through
    the server offers logins that are bound to     passed through, until the client is let in
      their TLS                                      without
    the client's own certificate on the way        passed through, as the client has one
    an empty one on the way                        opened, and answered with an empty one

Nothing is kept for good, and the tables are bounded: what is not shown again is tried again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, NamedTuple

from cachetools import FIFOCache

__all__ = [
    "CHANNEL_BINDING",
    "CLIENT_CERTIFICATE",
    "PINNED",
    "REFUSALS",
    "Client",
    "PassthroughCache",
    "Site",
    "Visit",
]

REFUSALS: Final = {
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    48: "unknown_ca",
    113: "bad_certificate_status_response",
}
"""The alerts by which a client refuses a certificate (RFC 8446 §6.2; RFC 6066 §8 for the last)."""

PINNED: Final = "pinned"
CLIENT_CERTIFICATE: Final = "client certificate"
CHANNEL_BINDING: Final = "channel binding"

_BYPASS_S: Final = 300.0
_REMEMBERED_S: Final = 3600.0
"""How long it counts that a client has left, that it has no certificate, and what a server offers.
A client that comes every quarter of an hour is to find them."""
_LASTING: Final = frozenset({CHANNEL_BINDING})
_SEVERAL: Final = 3
"""Clients at so many addresses speak for all."""
_HARD_LIMIT: Final = 4096
_LONGEST: Final = 255
_MOST_VOTERS: Final = 8
_NEVER: Final = -math.inf


class Client(NamedTuple):
    """Who connects."""

    address: str
    hello: str
    """The fingerprint of its ClientHello."""


class Site(NamedTuple):
    """What it connects to."""

    target: str
    sni: str | None

    @classmethod
    def of(cls, target: str, sni: str | None) -> Site:
        """No name is longer (RFC 1035 §2.3.4), whatever a client says: they are kept."""
        return cls(target[:_LONGEST], sni and sni[:_LONGEST])


@dataclass(slots=True)
class Record:
    """What is known of a client at a site. Times are the clock's."""

    reason: str = ""
    bypassed_until: float = _NEVER
    left_at: float = _NEVER
    """For the first time since it was accepted or pinned."""
    declines_until: float = _NEVER


class PassthroughCache:
    """What a session has learned."""

    def __init__(self, clock: Callable[[], float], *, learns_pins: bool = True) -> None:
        self.clock = clock
        self.learns_pins = learns_pins
        """False: clients that refuse our certificate are never passed through."""
        self._records: FIFOCache[tuple[Client, Site], Record] = FIFOCache(_HARD_LIMIT)
        self._accepted_at: FIFOCache[Site, float] = FIFOCache(_HARD_LIMIT)
        """When a client last accepted our certificate for a site."""
        self._voters: FIFOCache[Site, FIFOCache[str, Record]] = FIFOCache(_HARD_LIMIT)
        """The last addresses whose clients were passed through to a site, for reasons of their own:
        several programs of one machine speak for that machine alone."""

    def visit(self, client: Client, site: Site) -> Visit:
        """A connection that begins now."""
        return Visit(self, client, site, self.clock())

    def record(self, client: Client, site: Site) -> Record:
        """What is known; empty if nothing is."""
        return self._records.get((client, site)) or Record()

    def renew(self, client: Client, site: Site) -> Record:
        """The same, to be written to."""
        record = self.record(client, site)
        self._records[client, site] = record
        return record

    def reason(self, client: Client, site: Site) -> str | None:
        """Why this client's connections to the site are passed through; None: they are not."""
        now = self.clock()
        record = self.record(client, site)
        if record.bypassed_until > now:
            return record.reason
        agreed = self._agreed(site)
        return None if agreed == CLIENT_CERTIFICATE and record.declines_until > now else agreed

    def _agreed(self, site: Site) -> str | None:
        """The reason that several clients have in common, unless others take our certificate."""
        if site not in self._voters:
            return None
        now = self.clock()
        voters = self._voters[site].values()
        reasons = Counter(record.reason for record in voters if record.bypassed_until > now)
        reason, votes = max(reasons.items(), key=itemgetter(1), default=("", 0))
        accepted_at = self._accepted_at.get(site, _NEVER)
        disputed = reason == PINNED and accepted_at > now - _BYPASS_S
        return reason if votes >= _SEVERAL and not disputed else None

    def add(self, client: Client, site: Site, reason: str) -> None:
        """Pass this client through."""
        record = self.renew(client, site)
        lasts_s = _REMEMBERED_S if reason in _LASTING else _BYPASS_S
        record.reason, record.bypassed_until = reason, self.clock() + lasts_s
        voters = self._voters.get(site) or FIFOCache(_MOST_VOTERS)
        voters[client.address] = record
        self._voters[site] = voters

    def remove(self, client: Client, site: Site, reason: str) -> None:
        """Open this client's connections again."""
        record = self.record(client, site)
        if record.reason == reason:
            record.bypassed_until = _NEVER

    def accept(self, client: Client, site: Site) -> None:
        """The client takes our certificate."""
        self._accepted_at[site] = self.clock()
        self.record(client, site).left_at = _NEVER
        self.remove(client, site, PINNED)


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection of a client to a site: what it shows, and what is known already."""

    passthrough_cache: PassthroughCache
    client: Client
    site: Site
    began: float

    @property
    def passthrough_reason(self) -> str | None:
        """Why it is passed through; None: it is opened."""
        return self.passthrough_cache.reason(self.client, self.site)

    @property
    def declines(self) -> bool:
        """Whether the client is known to have no certificate for this site."""
        record = self.passthrough_cache.record(self.client, self.site)
        return record.declines_until > self.passthrough_cache.clock()

    def refused(self) -> None:
        """The client has sent an alert about our certificate."""
        if self.passthrough_cache.learns_pins:
            self.passthrough_cache.add(self.client, self.site, PINNED)

    def left(self) -> bool:
        """The client has left without saying why. Returns whether that makes it a pinned one.

        Connections that were open side by side count as one: they may have been killed together.
        """
        if not self.passthrough_cache.learns_pins:
            return False
        now = self.passthrough_cache.clock()
        record = self.passthrough_cache.renew(self.client, self.site)
        if record.left_at < now - _REMEMBERED_S:
            record.left_at = now
            return False
        if self.began < record.left_at:
            return False
        record.left_at = now
        self.refused()
        return True

    def accepted(self) -> None:
        """The client has said something behind the handshake."""
        self.passthrough_cache.accept(self.client, self.site)

    def needs(self, reason: str) -> None:
        """The next connection has to be passed through."""
        self.passthrough_cache.add(self.client, self.site, reason)

    def needs_no(self, reason: str) -> None:
        """The next connection may be opened, as far as this reason is concerned."""
        self.passthrough_cache.remove(self.client, self.site, reason)

    def answered_request(self, empty: bool) -> None:
        """The client's own answer to a server that asks for a certificate was seen."""
        if not empty:
            self.needs(CLIENT_CERTIFICATE)
            return
        record = self.passthrough_cache.renew(self.client, self.site)
        record.declines_until = self.passthrough_cache.clock() + _REMEMBERED_S
        self.needs_no(CLIENT_CERTIFICATE)
