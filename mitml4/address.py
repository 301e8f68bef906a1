"""An IP address and a port: one end of a connection."""

from __future__ import annotations

from typing import Final

from mitml4.dataclass import dataclass

__all__ = ["CA_PAGE", "CA_PAGE_URL", "Address"]


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address as canonical text (IPv4-mapped addresses become IPv4), and a port."""

    ip: str
    port: int

    @classmethod
    def of(cls, name: tuple[str, int] | tuple[str, int, int, int]) -> Address:
        """From the result of `getsockname` or `getpeername`; scope ids are dropped."""
        host = name[0].partition("%")[0]
        if host.startswith("::ffff:") and "." in host:
            host = host.removeprefix("::ffff:")
        return cls(host, name[1])

    @property
    def is_v6(self) -> bool:
        return ":" in self.ip

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


CA_PAGE: Final = Address("192.0.2.1", 80)
"""Where a session answers intercepted clients itself, with the page of its CA. RFC 5737 reserves
the network for documentation, so that no server has the address."""
CA_PAGE_URL: Final = f"http://{CA_PAGE.ip}/"
