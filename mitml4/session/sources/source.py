"""Where a session's connections come from, and how they go on to their servers.

A session has one or several sources: rules on interfaces (rules.py), rules in the network
namespace of others (attached.py), a namespace with one command in it (command.py), a
port where clients find a proxy (proxy.py). A source accepts connections and dials for them.
What happens in between is the same for all sources.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.errors import MitmError
from mitml4.events import QuicRefused
from mitml4.net.capabilities import Capability
from mitml4.net.confinement import confine
from mitml4.net.listener import IncomingConnection
from mitml4.net.owner.finder import OwnerFinder
from mitml4.net.tcp import TcpStream
from mitml4.session.flows.proxied import ProxyServices
from mitml4.session.imports import import_all
from mitml4.sinks.updates import Update

__all__ = ["FlowSource", "SessionControl", "SourceStart", "confined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStart:
    """What `session.start` says of a source."""

    interfaces: tuple[str, ...] = ()
    listeners: tuple[Address, ...] = ()
    table: str | None = None
    """The name of its nftables table, where it has one."""
    attached: str | None = None
    """Whose connections these are, in words, where that is not an interface."""


class SessionControl(Protocol):
    """What a source may ask of its session."""

    @property
    def is_stopping(self) -> bool:
        """Whether the session has begun to end."""

    def stop(self, reason: str, failure: MitmError | None = None) -> None:
        """End the session; asked again, at once."""

    def publish(self, update: Update | QuicRefused) -> None:
        """Tell the sinks."""

    def signal_workers(self, number: int) -> None:
        """Send a signal to the processes that carry its flows, if others than this one do."""


class FlowSource(Protocol):
    """Gives incoming connections, and dials for them."""

    @property
    def is_one_client(self) -> bool:
        """Whether all of its connections come from one client, whatever their addresses."""

    @property
    def container(self) -> str | None:
        """The name of the container that its connections come from, if it is one."""

    @property
    def owners(self) -> OwnerFinder | None:
        """What finds the processes that have opened its connections; None if there is nothing."""

    @property
    def proxy(self) -> ProxyServices | None:
        """What its flows need where its clients use mitml4 as their proxy; None: they do not."""

    @property
    def dials_anywhere(self) -> bool:
        """Whether it connects with nothing that only the session's own process has."""

    @property
    def sees_lookups(self) -> bool:
        """Whether it knows for which names its clients use addresses."""

    def start(self) -> SourceStart:
        """What `session.start` says of it."""

    async def accept(self) -> IncomingConnection:
        """The next connection. Raises trio.ClosedResourceError once there can be none."""

    async def connect(self, connection: IncomingConnection) -> TcpStream:
        """The connection to its server. Raises OSError."""

    async def dial(self, address: Address) -> TcpStream:
        """A connection to an address that is not intercepted itself. Raises OSError."""

    def is_here(self, destination: Address) -> bool:
        """Whether no proxy elsewhere can lead to a destination: it is this host, or the command."""

    def source_address(self, connection: IncomingConnection, stream: TcpStream) -> Address:
        """The address that the server of a connection sees."""

    def names_of(self, destination: Address) -> Sequence[str]:
        """What clients call a destination, as far as that is known; the last name first."""

    async def outlive(self, pid: int) -> None:
        """Where this process is killed, keep what open connections need until that process, whose
        children carry some, has ended too."""

    async def watch(self, session: SessionControl) -> None:
        """Monitor what the source depends on, and stop the session when it is lost. Cancelled at
        the end."""

    async def close(self) -> Sequence[IncomingConnection]:
        """Stop accepting; open connections go on. Returns connections that have come and were not
        accepted yet."""


@asynccontextmanager
async def confined(
    *openings: AbstractAsyncContextManager[FlowSource], keep: Sequence[Capability]
) -> AsyncIterator[Sequence[FlowSource]]:
    """Open the sources one after the other, then drop all privileges but `keep` permanently. Raises
    MitmError."""
    async with AsyncExitStack() as stack:
        sources = [await stack.enter_async_context(opening) for opening in openings]
        import_all()
        confine(keep)
        yield sources
