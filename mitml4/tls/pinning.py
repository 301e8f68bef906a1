"""The TLS connections that are passed through because of what earlier connections have shown.

What a connection shows applies to the next connections of the same client to the same site. A
client is an address and a kind of ClientHello; a site is the logical target and the SNI. A reason
applies to every client of a site after several clients have shown it.

A program that was started before the session may have read its roots before these had the CA. So
what it shows concerns this process alone, and the first connection after its restart is decrypted.

    shown                                          effect on (client, site)
    an alert about our certificate                 pinned
    it leaves: it ends the connection after our    pinned, if an earlier connection ended the same
      certificate without such an alert, or right    way before this one began, and none was
      after the handshake without a byte             accepted since
    a byte after the handshake (accepted)          not pinned; earlier ends are forgotten
    OpenSSL does not support what the two ends     passed through
      agree on
    the server offers logins with channel          passed through, until the client logs in
      binding                                        without it
    the client's own certificate, passed through   passed through, since the client has one
    an empty client certificate, passed through    decrypted, and answered with an empty one
    FTP's control connection is passed through     so are connections to any port of this host that
                                                     resume a session that we do not know

Every entry expires, and the tables are bounded: an expired decision is made again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from cachetools import FIFOCache

from mitml4.dataclass import dataclass
from mitml4.process import RunningProcess

__all__ = [
    "CHANNEL_BINDING",
    "CLIENT_CERTIFICATE",
    "PINNED",
    "REFUSALS",
    "Client",
    "PassthroughCache",
    "Program",
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
"""The alerts with which a client refuses a certificate (RFC 8446 §6.2; RFC 6066 §8 for the
last)."""

PINNED: Final = "pinned"
CLIENT_CERTIFICATE: Final = "client certificate"
CHANNEL_BINDING: Final = "channel binding"

_PASSTHROUGH_S: Final = 300.0
_REMEMBERED_S: Final = 3600.0
"""How long these are remembered: that a client has left, that it has no certificate, and what a
server offers. It should cover a client that connects every quarter of an hour."""
_LASTING: Final = frozenset({CHANNEL_BINDING})
_ACCEPTED_AGAIN_S: Final = 10.0
"""So often is told that a client accepts our certificate, where nothing else changes by it."""
_SEVERAL: Final = 3
"""A reason applies to all clients after this number of addresses has shown it."""
_HARD_LIMIT: Final = 4096
_LONGEST: Final = 255
_MAX_VOTERS: Final = 8
_NEVER: Final = -math.inf


Program: TypeAlias = tuple[int, float]
"""`RunningProcess.key`."""


class Client(NamedTuple):
    """The connecting client."""

    address: str
    hello: str
    """The fingerprint of its ClientHello."""
    program: Program | None = None
    """Which program it is, if that is known, and was started before the session."""


Host: TypeAlias = tuple[str, str | None]
"""An address or name, and the SNI."""


class Site(NamedTuple):
    """The site that it connects to."""

    target: str
    sni: str | None

    @classmethod
    def of(cls, target: str, sni: str | None) -> Site:
        """Cut to the maximum length of a name (RFC 1035 §2.3.4), because names from clients are
        stored."""
        return cls(target[:_LONGEST], sni and sni[:_LONGEST])

    @property
    def host(self) -> Host:
        """The site at any port."""
        return self.target.rpartition(":")[0].strip("[]"), self.sni


@dataclass(slots=True)
class Record:
    """The state of a client at a site. Times are the clock's."""

    reason: str = ""
    passthrough_until: float = _NEVER
    left_at: float = _NEVER
    """The first time that it left since it was accepted or pinned."""
    declines_until: float = _NEVER


class PassthroughCache:
    """The decisions that a session has learned."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        learns_pins: bool = True,
        on_pinned: Callable[[Site], None] | None = None,
    ) -> None:
        """`on_pinned` is told of each site for which a client refuses our certificate."""
        self.clock = clock
        self.on_pinned = on_pinned
        self.learns_pins = learns_pins
        """False: clients that refuse our certificate are never passed through."""
        self.trusted_since_s = _NEVER
        """Since when programs that are started can trust the CA (CLOCK_BOOTTIME)."""
        self.on_change: Callable[..., None] | None = None
        """Is told of each change: the method and its arguments, for `replay`."""
        self._records: FIFOCache[tuple[Client, Site], Record] = FIFOCache(_HARD_LIMIT)
        self._accepted_at: FIFOCache[Site, float] = FIFOCache(_HARD_LIMIT)
        """The last time that a client accepted our certificate for a site."""
        self._closed_sessions: FIFOCache[tuple[str, Host], float] = FIFOCache(_HARD_LIMIT)
        """Until when a client may resume sessions with a host that were passed through."""
        self._voters: FIFOCache[Site, FIFOCache[str, Record]] = FIFOCache(_HARD_LIMIT)
        """The last addresses whose clients were passed through to a site, for their own reasons:
        several programs of one machine count once."""

    def visit(self, client: Client, site: Site) -> Visit:
        """A connection that begins now."""
        return Visit(self, client, site, self.clock())

    def program_of(self, process: RunningProcess | None) -> Program | None:
        """For `Client`."""
        return process.key if process and process.started_s < self.trusted_since_s else None

    def replay(self, change: str, *arguments: Any) -> None:
        """Make a change that was made in another cache."""
        tell, self.on_change = self.on_change, None
        try:
            getattr(self, change)(*arguments)
        finally:
            self.on_change = tell

    @property
    def state(self) -> tuple[object, ...]:
        """All that is known, for another process."""
        return self._records, self._accepted_at, self._closed_sessions, self._voters

    @state.setter
    def state(self, state: tuple[Any, ...]) -> None:
        self._records, self._accepted_at, self._closed_sessions, self._voters = state

    def _changed(self, change: str, *arguments: object) -> None:
        if self.on_change:
            self.on_change(change, *arguments)

    def record(self, client: Client, site: Site) -> Record:
        """The current state; empty if there is none."""
        return self._records.get((client, site)) or Record()

    def renew(self, client: Client, site: Site) -> Record:
        """The same, to be modified."""
        record = self.record(client, site)
        self._records[client, site] = record
        return record

    def reason(self, client: Client, site: Site) -> str | None:
        """Why this client's connections to the site are passed through; None if they are not."""
        now = self.clock()
        record = self.record(client, site)
        if record.passthrough_until > now:
            return record.reason
        agreed = self._agreed(site)
        return None if agreed == CLIENT_CERTIFICATE and record.declines_until > now else agreed

    def _agreed(self, site: Site) -> str | None:
        """The reason that several clients share, unless others accept our certificate."""
        if site not in self._voters:
            return None
        now = self.clock()
        voters = self._voters[site].values()
        reasons = Counter(record.reason for record in voters if record.passthrough_until > now)
        reason, votes = max(reasons.items(), key=itemgetter(1), default=("", 0))
        accepted_at = self._accepted_at.get(site, _NEVER)
        disputed = reason == PINNED and accepted_at > now - _PASSTHROUGH_S
        return reason if votes >= _SEVERAL and not disputed else None

    def add(self, client: Client, site: Site, reason: str) -> None:
        """Pass this client through."""
        record = self.renew(client, site)
        lasts_s = _REMEMBERED_S if reason in _LASTING else _PASSTHROUGH_S
        record.reason, record.passthrough_until = reason, self.clock() + lasts_s
        if reason == PINNED and self.on_pinned:
            self.on_pinned(site)
        voters = self._voters.get(site) or FIFOCache(_MAX_VOTERS)
        voters[client.address] = record
        self._voters[site] = voters
        self._changed("add", client, site, reason)

    def remove(self, client: Client, site: Site, reason: str) -> None:
        """Decrypt this client's connections again."""
        self._remove(client, site, reason)
        self._changed("remove", client, site, reason)

    def _remove(self, client: Client, site: Site, reason: str) -> None:
        record = self.record(client, site)
        if record.reason == reason:
            record.passthrough_until = _NEVER

    def forget_pins(self, host: str) -> None:
        """Decrypt the connections of all clients to a host again, until they refuse again."""
        for (client, site), record in list(self._records.items()):
            if host in site.host:
                record.left_at = _NEVER
                self._remove(client, site, PINNED)
        self._changed("forget_pins", host)

    def leave_sessions(self, address: str, host: Host, closed: bool) -> None:
        """A client has a session with a host that was passed through (`closed`), or opened."""
        self._closed_sessions[address, host] = self.clock() + (_REMEMBERED_S if closed else 0)
        self._changed("leave_sessions", address, host, closed)

    def has_closed_sessions(self, address: str, host: Host) -> bool:
        return self._closed_sessions.get((address, host), _NEVER) > self.clock()

    def accept(self, client: Client, site: Site) -> None:
        """The client has accepted our certificate."""
        now, record = self.clock(), self.record(client, site)
        is_news = self.on_change is not None and (
            record.left_at != _NEVER
            or record.reason == PINNED
            or self._accepted_at.get(site, _NEVER) < now - _ACCEPTED_AGAIN_S
        )
        self._accepted_at[site] = now
        record.left_at = _NEVER
        self._remove(client, site, PINNED)
        if is_news:
            self._changed("accept", client, site)

    def leave(self, client: Client, site: Site, at: float) -> None:
        """The client has left at this time."""
        self.renew(client, site).left_at = at
        self._changed("leave", client, site, at)

    def decline(self, client: Client, site: Site) -> None:
        """The client is known to have no certificate for the site."""
        self.renew(client, site).declines_until = self.clock() + _REMEMBERED_S
        self._changed("decline", client, site)


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection of a client to a site: reports what it shows, and what is known."""

    passthrough_cache: PassthroughCache
    client: Client
    site: Site
    began: float

    @property
    def passthrough_reason(self) -> str | None:
        """Why it is passed through; None if it is decrypted."""
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
        """The client has ended the connection without an alert about our certificate. Returns
        whether it is now pinned.

        Connections that were open at the same time count as one: they may have been killed
        together.
        """
        if not self.passthrough_cache.learns_pins:
            return False
        now = self.passthrough_cache.clock()
        left_at = self.passthrough_cache.record(self.client, self.site).left_at
        if left_at >= now - _REMEMBERED_S and self.began < left_at:
            return False
        self.passthrough_cache.leave(self.client, self.site, now)
        if left_at < now - _REMEMBERED_S:
            return False
        self.refused()
        return True

    def leave_sessions(self, *, closed: bool) -> None:
        """Other connections to the host have to resume this session, which was passed through
        (`closed`), or opened."""
        self.passthrough_cache.leave_sessions(self.client.address, self.site.host, closed)

    @property
    def has_closed_sessions(self) -> bool:
        """Whether the client may have a session with this host that was passed through, and that
        this connection has to resume."""
        return self.passthrough_cache.has_closed_sessions(self.client.address, self.site.host)

    def accepted(self) -> None:
        """The client has sent a byte after the handshake."""
        self.passthrough_cache.accept(self.client, self.site)

    def needs(self, reason: str) -> None:
        """The next connection has to be passed through."""
        self.passthrough_cache.add(self.client, self.site, reason)

    def needs_no(self, reason: str) -> None:
        """The next connection may be decrypted, as far as this reason is concerned."""
        self.passthrough_cache.remove(self.client, self.site, reason)

    def answered_request(self, empty: bool) -> None:
        """The client's own answer to a certificate request was seen."""
        if not empty:
            self.needs(CLIENT_CERTIFICATE)
            return
        self.passthrough_cache.decline(self.client, self.site)
        self.needs_no(CLIENT_CERTIFICATE)
