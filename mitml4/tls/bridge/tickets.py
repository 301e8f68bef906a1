"""Tickets of ours, each for a ticket of the server's: where a client resumes a session with us, we
resume its session with the server (RFC 8446 §4.6.1, §2.2). The id of a session of TLS 1.2 is a
ticket, too.

The two have the same length, so that one takes the other's place in a ClientHello.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, TypeVar

from mitml4.crypto.schedule import ticket_psk
from mitml4.crypto.suites import Suite
from mitml4.dataclass import dataclass, replace
from mitml4.protocols.tls.hello import Extension
from mitml4.tls.bridge.extensions import Place, check_answers
from mitml4.tls.bridge.messages import NewSessionTicket
from mitml4.tls.bridge.older_messages import NewSessionTicket12

__all__ = ["MAX_TICKETS", "SiteTickets", "Ticket", "TicketRelay", "Tickets", "keep_latest"]

T = TypeVar("T")

_TLS_1_2: Final = 0x0303
_TLS_1_3: Final = 0x0304
MAX_TICKETS: Final = 4096
_MAX_BYTES: Final = 4096
"""Of a ticket; OpenSSL's and nginx's have about 200, with a client's certificate more."""
_MAX_LIFE_S: Final = 7200
_MIN_BYTES: Final = 16
"""A ticket of ours is random, and must not be guessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A session with both sides. The secrets are PSKs in TLS 1.3, master secrets in TLS 1.2."""

    version: int
    server_ticket: bytes
    server_secret: bytes
    client_secret: bytes
    cipher_suite: int
    suite: Suite
    extended: bool = False
    """Whether the master secret is an extended one (RFC 7627)."""
    site: Hashable
    """Where it belongs: no other site is asked to resume it. Any port of a host is the same: the
    data connection of FTP has to resume the session of its control connection."""
    seen: object
    """What was found of the server when the session began."""
    nonce: bytes | None = None
    """As long as the secrets are resumption secrets, what makes PSKs of them (RFC 8446 §4.6.1)."""

    def with_psks(self) -> Ticket:
        """Few tickets are used, so their PSKs are not derived before that."""
        if self.nonce is None:
            return self
        name = self.suite.hash
        return replace(
            self,
            server_secret=ticket_psk(name, self.server_secret, self.nonce),
            client_secret=ticket_psk(name, self.client_secret, self.nonce),
            nonce=None,
        )


def keep_latest(kept: OrderedDict[bytes, T], ours: bytes, value: T) -> None:
    """Keep something about a ticket, and forget it of the oldest: connections have two each. (A
    plain dict passes over all that it has forgotten to find its oldest, which took as long as the
    rest of a ticket.)"""
    kept[ours] = value
    if len(kept) > MAX_TICKETS:
        kept.popitem(last=False)


class Tickets:
    """The sessions that can be resumed. Bounded: the oldest are forgotten."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.kept: OrderedDict[bytes, tuple[float, Ticket]] = OrderedDict()
        """By the client's ticket: until when, and the session."""

    def issue(self, ticket: Ticket, lifetime_s: int) -> bytes | None:
        """A ticket for the client, in the place of the server's; None: it gets none.

        A lifetime of 0 is none that was told (RFC 5077 §3.3).
        """
        ours = os.urandom(len(ticket.server_ticket))
        return ours if self.keep(ours, ticket, lifetime_s) else None

    def keep(self, ours: bytes, ticket: Ticket, lifetime_s: int = 0) -> bool:
        """The same, if ours has been chosen before; whether it was kept."""
        if not _MIN_BYTES <= len(ours) == len(ticket.server_ticket) <= _MAX_BYTES:
            return False
        expires = self._clock() + min(lifetime_s or _MAX_LIFE_S, _MAX_LIFE_S)
        keep_latest(self.kept, ours, (expires, ticket))
        return True

    def find(self, ours: bytes, site: Hashable) -> Ticket | None:
        """The session of a ticket that a client has sent."""
        expires, ticket = self.kept.get(ours, (0.0, None))
        if ticket is None or ticket.site != site or expires < self._clock():
            return None
        return ticket.with_psks()


@dataclass(slots=True)
class SiteTickets:
    """The tickets of one flow."""

    tickets: Tickets
    site: Hashable
    seen: object = None
    """What was found of the server; goes into new tickets."""

    def find(self, ours: bytes) -> Ticket | None:
        return self.tickets.find(ours, self.site)

    def older(
        self,
        server_ticket: bytes,
        *,
        cipher_suite: int,
        suite: Suite,
        extended: bool,
        server_secret: bytes,
        client_secret: bytes,
    ) -> Ticket:
        """A session of TLS 1.2."""
        return Ticket(
            version=_TLS_1_2,
            server_ticket=server_ticket,
            server_secret=server_secret,
            client_secret=client_secret,
            cipher_suite=cipher_suite,
            suite=suite,
            extended=extended,
            site=self.site,
            seen=self.seen,
        )

    def issue_older(self, message: NewSessionTicket12, ticket: Ticket) -> NewSessionTicket12:
        """What the client gets of a server's ticket, where it expects a message."""
        return replace(message, ticket=self.tickets.issue(ticket, message.lifetime_hint) or b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketRelay:
    """Makes tickets of a TLS 1.3 connection's, as long as it lasts."""

    tickets: SiteTickets
    cipher_suite: int
    suite: Suite
    server_resumption: bytes
    client_resumption: bytes
    """The resumption secrets of both sides (RFC 8446 §7.1)."""

    def relay(self, message: NewSessionTicket) -> bytes | None:
        """The message for the client, made of the server's; None: it gets none. Raises TlsError."""
        check_answers((), message.extensions, Place.NEW_SESSION_TICKET)
        if not message.lifetime:
            return None  # "The value of zero indicates that the ticket should be discarded"
        ticket = Ticket(
            version=_TLS_1_3,
            server_ticket=message.ticket,
            server_secret=self.server_resumption,
            client_secret=self.client_resumption,
            nonce=message.nonce,
            cipher_suite=self.cipher_suite,
            suite=self.suite,
            site=self.tickets.site,
            seen=self.tickets.seen,
        )
        ours = self.tickets.tickets.issue(ticket, message.lifetime)
        if ours is None:
            return None
        told = message.extensions.without(Extension.EARLY_DATA)
        return replace(message, ticket=ours, extensions=told).encode()
