"""Changes of the rules of a network namespace, as the kernel reports them (nfnetlink).

Rules of nftables and of iptables-nft are reported, and those of iptables-legacy are not.
"""

from __future__ import annotations

import socket
from typing import Final

import trio

from mitml4.net.netlink import NETLINK_NETFILTER, messages, receive_nowait
from mitml4.net.place import HERE, Place

__all__ = ["RulesWatch"]

_SOL_NETLINK: Final = 270  # linux/socket.h
_ADD_MEMBERSHIP: Final = 1  # NETLINK_ADD_MEMBERSHIP
_GROUP: Final = 7  # NFNLGRP_NFTABLES
_SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES
# NFT_MSG_NEWTABLE, DELTABLE, NEWCHAIN, DELCHAIN, NEWRULE, DELRULE. Programs that add addresses to
# sets do so all the time.
_KINDS: Final = {_SUBSYSTEM << 8 | kind for kind in (0, 2, 3, 5, 6, 8)}

_QUIET_S: Final = 0.5
_AT_MOST_S: Final = 3.0


class RulesWatch:
    """Watches the rules of a network namespace."""

    def __init__(self, place: Place = HERE) -> None:
        """Needs CAP_NET_ADMIN. Raises OSError."""
        self._socket = place.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        except OSError:
            self._socket.close()
            raise

    async def changed(self) -> None:
        """Wait until tables, chains or rules have changed, and a script that changes them one after
        the other seems to have ended."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            if self._read():
                break
        with trio.move_on_after(_AT_MOST_S):
            is_quiet = False
            while not is_quiet:
                with trio.move_on_after(_QUIET_S) as quiet:
                    await trio.lowlevel.wait_readable(self._socket)
                    self._read()
                is_quiet = quiet.cancelled_caught

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def _read(self) -> bool:
        """Read all messages; returns whether there may be a change of the rules."""
        has_changed = False
        while (data := receive_nowait(self._socket)) is not None:
            if not data:  # messages were lost
                return True
            has_changed |= any(kind in _KINDS for kind, _ in messages(data))
        return has_changed
