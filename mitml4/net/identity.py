"""Marks, numbers and names that keep the sessions of a host apart from each other and from other
programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from mitml4.dataclass import dataclass

__all__ = [
    "ANY_MARK",
    "ANY_OWN_MARK",
    "FOREIGN_MASK",
    "KIND_MASK",
    "MAGIC_MASK",
    "OUR_MASK",
    "SLOTS",
    "Identity",
]

# A packet or conntrack mark of ours, in the upper half of the 32 bits. The lower half keeps the
# value that others have set (kube-proxy, wg-quick and Docker use it):
#
# 4d      kind   slot    0000 8 bits  3      5       16
#
# No kind is 0, so the second byte is at least 0x20 and does not collide with Tailscale's 04 and 08.
ANY_MARK: Final = 0x4D000000
MAGIC_MASK: Final = 0xFF000000
KIND_MASK: Final = 0xFFE00000
OUR_MASK: Final = 0xFFFF0000
FOREIGN_MASK: Final = 0x0000FFFF
_OWN, _ADMITTED, _REFUSED, _UNREACHABLE = 1, 2, 3, 4
_KIND_SHIFT, _SLOT_SHIFT = 21, 16
ANY_OWN_MARK: Final = ANY_MARK | _OWN << _KIND_SHIFT
SLOTS: Final = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a session, derived from its slot (0 to 31).

    The table's name is the lock: the session that creates the table owns the slot's marks and log
    group.
    """

    slot: int

    @classmethod
    def candidates(cls, start: int | None = None) -> Iterator[Identity]:
        """Every identity once. The first depends on the process, so two sessions that start
        together rarely try the same."""
        first = os.getpid() if start is None else start
        return (cls((first + step) % SLOTS) for step in range(SLOTS))

    @property
    def table(self) -> str:
        return f"mitml4_{self.slot}"

    @property
    def log_group(self) -> int:
        """The NFLOG group to which the rules copy held SYNs."""
        return ANY_MARK >> 16 | self.slot

    @property
    def quic_group(self) -> int:
        """The NFLOG group to which the rules copy datagrams of QUIC that are refused."""
        return self.log_group + SLOTS

    @property
    def own_mark(self) -> int:
        """SO_MARK of the sockets towards the servers, which no session intercepts."""
        return self._mark(_OWN)

    @property
    def admitted_mark(self) -> int:
        """The mark of intercepted connections."""
        return self._mark(_ADMITTED)

    @property
    def refused_mark(self) -> int:
        """The mark of SYNs that are answered as by a closed port."""
        return self._mark(_REFUSED)

    @property
    def unreachable_mark(self) -> int:
        """The mark of SYNs that are answered as by a router without a route."""
        return self._mark(_UNREACHABLE)

    def _mark(self, kind: int) -> int:
        return ANY_MARK | kind << _KIND_SHIFT | self.slot << _SLOT_SHIFT
