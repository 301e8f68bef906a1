"""Entries in conntrack of connections that nobody follows any more.

The kernel follows connections only while rules in the network namespace need it. The entries of
those that are open when the last such rule goes stay for up to five days. If the client uses the
port again in a later session, its SYN belongs to an established connection: it passes unseen, or is
translated to a listener that has gone. So a session removes these entries before its rules are
loaded. The connections that are still open lose nothing: nobody translates their addresses, and the
gate passes what is not a SYN.

Where somebody follows connections, nothing may be removed. So all of this must hold:

- A datagram over `lo` leaves no entry, neither when the entries are read nor when they are removed.
- No rule mentions conntrack (`HostRules.mention_conntrack`): one may exempt `lo`, or put it into
  another zone.
- No entry was translated for others: it would be one of a host that translates addresses, or
  sequence numbers, and whose rules are being loaded anew just now.
- No module is there that follows connections without a rule.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from itertools import islice
from typing import Final

from mitml4.address import Address
from mitml4.errors import MachineError
from mitml4.net.firewall.host_rules import HostRules
from mitml4.net.gate.conntrack import Conntrack, FoundEntry
from mitml4.net.identity import ANY_MARK, MAGIC_MASK

__all__ = ["forget_stale", "remove_stale", "stale_entries"]

_LOOPBACK: Final[Mapping[int, str]] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_WITHOUT_RULES: Final = ("act_ct", "openvswitch")

_MAX_ENTRIES: Final = 20_000
"""They take about a second. Further ones stay."""
_ARRIVES_WITHIN_S: Final = 0.25
"""What is sent over `lo` has usually arrived when `send` returns."""


def forget_stale() -> None:
    """Remove them in the current network namespace, if it is certain that nobody follows them."""
    if entries := stale_entries():
        with suppress(MachineError):
            if not HostRules.read().mention_conntrack:
                remove_stale(entries)


def stale_entries() -> list[FoundEntry]:
    """Those of IP versions that nobody follows here; none if that is not certain."""
    if any(os.path.exists(f"/sys/module/{name}") for name in _WITHOUT_RULES):
        return []
    with suppress(OSError), closing(Conntrack()) as conntrack:
        # To list none, the kernel looks through a table, which takes milliseconds.
        if not conntrack.count() or not (families := _not_followed(_LOOPBACK, conntrack)):
            return []
        entries = list(islice(conntrack.entries(), _MAX_ENTRIES))
        if not any(map(_is_translated_by_others, entries)):
            return [entry for entry in entries if entry.family in families]
    return []


def remove_stale(entries: Sequence[FoundEntry]) -> None:
    """Remove those of IP versions that nobody follows now."""
    with suppress(OSError), closing(Conntrack()) as conntrack:
        families = _not_followed({entry.family for entry in entries}, conntrack)
        for entry in entries:
            if entry.family in families:
                with suppress(FileNotFoundError):
                    conntrack.remove_found(entry)


def _not_followed(families: Iterable[int], conntrack: Conntrack) -> set[int]:
    """Those of which it is certain."""
    found = set()
    for family in families:
        with suppress(OSError):
            if not _is_followed(family, conntrack):
                found.add(family)
    return found


def _is_followed(family: int, conntrack: Conntrack) -> bool:
    """Whether a datagram over `lo` has an entry; it is removed. Raises OSError if none arrives."""
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sender,
        socket.socket(family, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.settimeout(_ARRIVES_WITHIN_S)
        for sock in (sender, receiver):
            sock.bind((_LOOPBACK[family], 0))
        receiver.connect(sender.getsockname())  # it takes no datagram of others
        sender.sendto(b"", receiver.getsockname())
        receiver.recv(1)
        ends = Address.of(sender.getsockname()), Address.of(receiver.getsockname())
    try:
        conntrack.remove(*ends, socket.IPPROTO_UDP)
    except FileNotFoundError:
        return False
    return True


def _is_translated_by_others(entry: FoundEntry) -> bool:
    return entry.is_translated and entry.mark & MAGIC_MASK != ANY_MARK
