"""What a session tells its sinks beside the events.

Notices are for displays and files that need more than the events say. They are no part of the JSON
contract: JSON lines take events only. A notice is built only if a sink wants its type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mitml4.address import Address
from mitml4.events import Event

__all__ = [
    "BytesMoved",
    "ConnectionRefused",
    "Note",
    "Notice",
    "OutputFailed",
    "Published",
    "QuicBlocked",
    "ServerConnected",
    "Stopping",
    "TlsSecret",
]


class Notice:
    """What every notice is."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Note(Notice):
    """One line that the user should know now."""

    text: str


@dataclass(frozen=True, slots=True)
class OutputFailed(Notice):
    """An output cannot be written any more, and why. Standard error has been told."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopping(Notice):
    """The session accepts no new connections; open ones go on for a while."""


@dataclass(frozen=True, slots=True)
class QuicBlocked(Notice):
    """How many QUIC packets have been refused so far."""

    count: int


@dataclass(frozen=True, slots=True)
class ConnectionRefused(Notice):
    """A connection was refused because there was no room for it. It is no flow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConnected(Notice):
    """A client's flow has a connection to its server, from the address `source`."""

    client: Address
    source: Address
    destination: Address


@dataclass(frozen=True, slots=True)
class TlsSecret(Notice):
    """A line of the key log. The only notice that any thread may publish."""

    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BytesMoved(Notice):
    """What an open flow has moved so far; the answer to `Measure`."""

    flow: int
    up: int
    down: int
    at_s: float
    """On the clock of trio.current_time."""


Published: TypeAlias = Event | Notice
"""What a sink is given."""
