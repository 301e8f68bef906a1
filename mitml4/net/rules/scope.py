"""The scope: which connections a session intercepts.

Options of every command are read with it, so it imports next to nothing.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final, Literal, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.errors import UsageError

__all__ = ["CGROUPS", "Cgroup", "Ends", "Owner", "PortRange", "Scope"]

CGROUPS: Final = Path("/sys/fs/cgroup")
"""Where nft looks for the paths of cgroups that it is given."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A cgroup of version 2."""

    path: str
    """In its hierarchy, with a slash at its beginning."""
    mount: Path = CGROUPS
    """Where the hierarchy is mounted: on hybrid hosts, below `CGROUPS`."""

    @property
    def directory(self) -> Path:
        return self.mount / self.path[1:]

    @property
    def level(self) -> int:
        """How many cgroups it is inside of."""
        return self.path.count("/")

    @property
    def known_to_nft_as(self) -> str:
        return str(self.directory.relative_to(CGROUPS))

    @property
    def inode(self) -> int | None:
        """None: it is not there."""
        try:
            return self.directory.stat().st_ino
        except OSError:
            return None

    def __str__(self) -> str:
        return self.path


Owner: TypeAlias = int | Cgroup
"""A user, by number, or a cgroup."""


@dataclass(frozen=True, slots=True)
class PortRange:
    """TCP ports from `first` to `last`, both included."""

    first: int
    last: int

    @classmethod
    def parse_list(cls, text: str) -> tuple[PortRange, ...]:
        """From `443,8000-8999`. Raises UsageError."""
        return tuple(cls._parse(part.strip()) for part in text.split(","))

    @classmethod
    def _parse(cls, text: str) -> PortRange:
        low, dash, high = text.partition("-")
        digits = (low, high) if dash else (low, low)
        # `isdecimal` alone accepts digits of other scripts; `isascii` alone accepts signs.
        if not all(part.isascii() and part.isdecimal() and len(part) <= 5 for part in digits):
            raise _bad_ports(text)
        first, last = map(int, digits)
        if not 1 <= first <= last <= 65535:
            raise _bad_ports(text)
        return cls(first, last)

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def _bad_ports(text: str) -> UsageError:
    return UsageError(
        f"{text!r} is no port and no range of ports",
        hint="ports are 1 to 65535, as in: --port 443,8000-8999",
    )


@dataclass(frozen=True, slots=True)
class Ends:
    """Destinations of connections: the addresses of a network, at one port or at all."""

    network: IPv4Network | IPv6Network
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The connections that a session intercepts. Empty tuples mean all."""

    interfaces: tuple[str, ...] = ()
    """None: all but `lo`."""
    direction: Literal["forwarded", "local", "both"] = "both"
    ports: tuple[PortRange, ...] = ()
    exclude_ports: tuple[PortRange, ...] = ()
    to: tuple[IPv4Network | IPv6Network, ...] = ()
    from_: tuple[IPv4Network | IPv6Network, ...] = ()
    quic: Literal["block", "allow"] = "block"
    spoof_source: bool = False
    ca_page: bool = False
    """Whether the page of the CA is in scope, whatever the ports and the destinations are."""
    owners: tuple[Owner, ...] = ()
    """Only connections that these users and cgroups of this host start."""
    blocked: tuple[Ends, ...] = ()
    """Destinations to which only packets of connections that were open before are permitted."""

    @property
    def forwarded(self) -> bool:
        return self.direction != "local"

    @property
    def local(self) -> bool:
        return self.direction != "forwarded"

    def covers_port(self, port: int) -> bool:
        return (not self.ports or any(port in item for item in self.ports)) and not any(
            port in item for item in self.exclude_ports
        )
