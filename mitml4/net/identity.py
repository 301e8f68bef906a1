"""Marks, numbers and names that keep the sessions of a host apart, and clear of everybody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = [
    "ANY_EGRESS_MARK",
    "ANY_MARK",
    "FOREIGN_MASK",
    "KIND_MASK",
    "MAGIC_MASK",
    "OUR_MASK",
    "SLOTS",
    "Identity",
]

# A packet or conntrack mark of ours, in the upper half of the 32 bits, whose lower half stays
# whatever others made it (kube-proxy, wg-quick and Docker keep theirs there):
#
#     4d      kind   slot    0000
#     8 bits  2      6       16
#
# No kind is 0, which keeps the second byte at 0x40 or more and so clear of Tailscale's 04 and 08.
ANY_MARK: Final = 0x4D000000
MAGIC_MASK: Final = 0xFF000000
KIND_MASK: Final = 0xFFC00000
OUR_MASK: Final = 0xFFFF0000
FOREIGN_MASK: Final = 0x0000FFFF
_EGRESS, _TPROXY, _REDIRECT = 1, 2, 3
ANY_EGRESS_MARK: Final = ANY_MARK | _EGRESS << 22
SLOTS: Final = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """What keeps the sessions of one host apart: everything follows from a slot (0 to 63).

    The table's name is the lock: who created the table owns the slot's marks, rules and routes.
    """

    slot: int

    @classmethod
    def candidates(cls, start: int | None = None) -> Iterator[Identity]:
        """Every identity once, from one that depends on the process: a slot that has just been
        left, whose guard may still be undoing its rules, is not the next one taken."""
        first = os.getpid() if start is None else start
        return (cls((first + step) % SLOTS) for step in range(SLOTS))

    @property
    def table(self) -> str:
        return f"mitml4_{self.slot}"

    @property
    def egress_mark(self) -> int:
        """SO_MARK of the sockets that face the servers: no session intercepts them."""
        return self._mark(_EGRESS)

    @property
    def tproxy_mark(self) -> int:
        return self._mark(_TPROXY)

    @property
    def redirect_mark(self) -> int:
        return self._mark(_REDIRECT)

    @property
    def route_table(self) -> int:
        return 0x4D340000 + self.slot

    @property
    def rule_priority(self) -> int:
        """Of the first of three policy rules. After `local` (0), before everyone else's."""
        return 300 + 3 * self.slot

    def _mark(self, kind: int) -> int:
        return ANY_MARK | kind << 22 | self.slot << 16
