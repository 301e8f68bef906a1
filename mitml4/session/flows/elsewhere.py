"""A client's connection for which another server is connected to."""

from __future__ import annotations

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.net.listener import Ends, IncomingConnection
from mitml4.net.stream import Transport

__all__ = ["Elsewhere"]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A connection as if it were to another server."""

    original: IncomingConnection
    destination: Address
    by_address: bool = False
    """Whether a proxy on the way is asked for this address even where its name is known: the proxy
    might find another address for the name."""

    @property
    def client(self) -> Address:
        return self.original.client

    @property
    def asked(self) -> Address:
        return self.original.asked

    @property
    def source(self) -> Address:
        return self.original.source

    @property
    def interface(self) -> str:
        return self.original.interface

    @property
    def local_ends(self) -> Ends | None:
        return self.original.local_ends

    async def accept(self) -> Transport:
        return await self.original.accept()

    def refuse(self, reason: OSError | None) -> None:
        self.original.refuse(reason)
