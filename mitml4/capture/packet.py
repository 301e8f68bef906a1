"""A packet of a capture, as the readers of files yield it and the dissector takes it."""

from __future__ import annotations

from typing import Final, TypeAlias

__all__ = ["MAX_BLOCK", "Packet"]

Packet: TypeAlias = tuple[float, int, bytes, int, int]
"""Time in seconds since the epoch, link type, data, start, end. What was captured is
`data[start:end]`; many packets share one `data`."""

MAX_BLOCK: Final = 16 << 20
"""No packet or block is longer (libpcap's own bound); a longer one is damage."""
