"""What flows of a capture have said of flows that come later: names of addresses, and connections
that are announced."""

from __future__ import annotations

from typing import Final

from cachetools import FIFOCache

from mitml4.address import Address
from mitml4.protocols.datagram import Resolved
from mitml4.protocols.expected import Expectations, Transport

__all__ = ["Known"]

_MAX_NAMES: Final = 20_000


class Known:
    """Of one capture. The oldest names give way when they are too many."""

    def __init__(self) -> None:
        self.expectations = Expectations()
        self._names: FIFOCache[tuple[str | None, str], str] = FIFOCache(_MAX_NAMES)

    def expected(self, transport: Transport, *ends: Address, now_s: float) -> str | None:
        """The protocol that was announced for a flow with one of these ends."""
        for end in ends if self.expectations else ():
            if found := self.expectations.take(transport, end.ip, end.port, now_s):
                return found
        return None

    def add_name(self, client: str, resolved: Resolved) -> None:
        """`client` has been told what an address is called."""
        key = None if resolved.for_everybody else client, resolved.ip
        self._names[key] = resolved.name

    def name_of(self, client: str, ip: str) -> str | None:
        """What this client calls the address; the name that it was given last counts."""
        names = self._names
        if not names:
            return None
        return names.get((client, ip)) or names.get((None, ip))
