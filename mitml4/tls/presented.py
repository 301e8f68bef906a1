"""What a server shows of itself in a handshake, whichever library does the handshake."""

from __future__ import annotations

from mitml4.dataclass import dataclass

__all__ = ["Presented"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """A server's certificate chain, and what belongs to it."""

    chain: tuple[bytes, ...] = ()
    """The certificates as they were sent (DER), the leaf first; empty: none."""
    staple: bytes = b""
    """The OCSP response for the leaf (DER), as it was sent; empty: none."""
    faults: tuple[str, ...] = ()
    """What clients may refuse in the handshake, in words, and our handshake has accepted."""

    @property
    def leaf(self) -> bytes | None:
        return self.chain[0] if self.chain else None
