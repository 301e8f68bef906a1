"""Tickets of ours, each for a ticket of the server's: where a client resumes a session with us, we
resume its session with the server (RFC 8446 §4.6.1, §2.2).

The two have the same length, so that one takes the other's place in a ClientHello.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from typing import Final

from cachetools import FIFOCache

from mitml4.crypto.suites import Suite
from mitml4.dataclass import dataclass

__all__ = ["Ticket", "Tickets"]

_MAX_TICKETS: Final = 4096
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
    """Where it belongs: no other site is asked to resume it."""
    seen: object
    """What was found of the server when the session began."""


class Tickets:
    """The sessions that can be resumed. Bounded: the oldest are forgotten."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tickets: FIFOCache[bytes, tuple[float, Ticket]] = FIFOCache(_MAX_TICKETS)

    def issue(self, ticket: Ticket, lifetime_s: int) -> bytes | None:
        """A ticket for the client, in the place of the server's; None: it gets none."""
        length = len(ticket.server_ticket)
        if not _MIN_BYTES <= length <= _MAX_BYTES:
            return None
        ours = os.urandom(length)
        self._tickets[ours] = self._clock() + min(lifetime_s, _MAX_LIFE_S), ticket
        return ours

    def find(self, ours: bytes, site: Hashable) -> Ticket | None:
        """The session of a ticket that a client has sent."""
        expires, ticket = self._tickets.get(ours, (0.0, None))
        if ticket is None or ticket.site != site or expires < self._clock():
            return None
        return ticket
