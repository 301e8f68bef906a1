"""What flows need from their session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field

import trio

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.edit.editor import Editor
from mitml4.edit.memory import EditMemory
from mitml4.layers.ca_page import Pages
from mitml4.layers.relay import Relay
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.listener import IncomingConnection
from mitml4.net.stream import Stream
from mitml4.protocols.expected import Expectations
from mitml4.protocols.payload import Shown
from mitml4.protocols.policy import Decide, Target, intercept_all
from mitml4.session.flows.proof import Prover
from mitml4.session.flows.proxied import ProxyServices
from mitml4.sinks.updates import Published

__all__ = ["EditingServices", "Services"]


@dataclass(slots=True, kw_only=True)
class Services:
    """What flows need from their session."""

    publish: Callable[[Published], None]
    wants: Callable[[type], bool] = lambda _kind: True
    """Whether a sink takes events of this type: if not, none is built."""
    connect: Callable[[IncomingConnection, str | None], Awaitable[Stream]]
    """Connects to the server of a connection, whose name is this one, if it is known; raises
    OSError."""
    connect_by_name: Callable[[IncomingConnection, Target], Awaitable[Stream | None]] | None = None
    """Connects to a host by proxies that look its name up; None: it has to be looked up here.
    Raises OSError."""
    relay: Relay
    tls: TlsInterceptor
    policy: Decide = intercept_all
    hold_s: float = 0.5
    shown: Shown = field(default_factory=Shown)
    names_of: Callable[[Address], Sequence[str]] = lambda _destination: ()
    """The names that clients resolved to a destination's address, the last one first."""
    container: str | None = None
    """The container that the connections come from."""
    unseen: str | None = None
    """Why flows are relayed unseen, if they are and no block could match."""
    clock: Callable[[], float] = trio.current_time
    editing: EditingServices | None = None
    """None: nothing is edited."""
    prover: Prover | None = None
    """Finds out who servers are, if no names of their addresses are known and not all hosts are
    allowed."""
    expectations: Expectations = field(default_factory=Expectations)
    """Connections that others have announced."""
    ca_page: Pages | None = None
    """What is answered at `CA_PAGE`; None: that is a server like any other."""
    proxy: ProxyServices | None = None
    """Clients use mitml4 as their proxy; None: they do not know of it."""
    source: int = 0
    """Which of the session's sources the flows come from."""


@dataclass(frozen=True, slots=True)
class EditingServices:
    """What the editing of flows needs from their session."""

    editor: Callable[[], Editor]
    limit: int
    """Bytes of a body that is edited."""
    memory: EditMemory
    """For the bodies of all flows."""
