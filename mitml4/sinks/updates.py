"""What a session tells its sinks besides the events.

Notices are for displays and files that need more than the events contain. They are not part of the
JSON contract: JSON lines contain events only.
"""

from __future__ import annotations

from typing import TypeAlias

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.engine.plaintext import PlaintextUpdate
from mitml4.events import Event

__all__ = [
    "BytesMoved",
    "ClientAsked",
    "ConnectionRefused",
    "Note",
    "OutputFailed",
    "Published",
    "QuicBlocked",
    "ServerConnected",
    "Stopping",
    "TlsSecret",
    "Update",
]


class Update:
    """The base of all updates."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Note(Update):
    """A line for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class OutputFailed(Update):
    """An output cannot be written any more. The error has been shown on standard error."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopping(Update):
    """The session accepts no new connections; open ones go on for a while."""


@dataclass(frozen=True, slots=True)
class QuicBlocked(Update):
    """The number of QUIC packets refused so far."""

    count: int


@dataclass(frozen=True, slots=True)
class ConnectionRefused(Update):
    """A connection beyond the limits was refused. It is not a flow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAsked(Update):
    """The connection of a coming flow, from `client` to `destination`, was to `asked` before others
    translated that (a port that Docker publishes)."""

    client: Address
    destination: Address
    asked: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConnected(Update):
    """A flow has connected to its server, or to a proxy on the way, from the address `source`."""

    client: Address
    wanted: Address
    """The destination of the flow."""
    source: Address
    destination: Address
    """What it has connected to."""


@dataclass(frozen=True, slots=True)
class TlsSecret(Update):
    """A line of the key log. The only update that any thread may publish."""

    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BytesMoved(Update):
    """The bytes of an open flow so far: the answer to `Measure`."""

    flow: int
    up: int
    down: int
    at_s: float
    """Seconds of trio.current_time."""


Published: TypeAlias = Event | Update | PlaintextUpdate
"""What sinks are given."""
