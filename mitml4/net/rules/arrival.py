"""Whether connections still arrive, tested while a session runs.

The test connection goes the way of a SYN that is sent again: over `lo`, translated by a conntrack
entry, to the session's listener. It needs no program and no namespace, which a confined session
cannot have. It does not show what happens to later packets of a client, which arrive over another
interface.
"""

from __future__ import annotations

import errno
import logging
import socket
from contextlib import suppress
from typing import Final

import trio

from mitml4.address import Address
from mitml4.net.dial import EXHAUSTED
from mitml4.net.rules.channel import HostChannel

__all__ = ["arrives"]

_ASKED_PORT: Final = 443
# A SYN that is lost is sent again after a second. The last attempt is for a very busy machine.
_ATTEMPTS_S: Final = (0.1, 0.3, 1.5)

# Without a descriptor or memory, a test would say nothing about the rules. (An address that is not
# available is one that an interface has lost.)
_NOTHING_LEFT: Final = EXHAUSTED - {errno.EADDRNOTAVAIL}
_PAUSE_S: Final = 0.2

log = logging.getLogger(__name__)


async def arrives(channel: HostChannel, *, ipv6: bool) -> bool:
    """Whether a connection arrives at the channel's listener, within two seconds for each IP
    version. Waits while this machine has no descriptor or memory left for it."""
    for v6 in (False, True) if ipv6 else (False,):
        asked = Address(channel.own_ip(v6=v6), _ASKED_PORT)
        for timeout_s in _ATTEMPTS_S:
            if await _try_once_possible(channel, asked, timeout_s):
                break
        else:
            return False
    return True


async def _try_once_possible(channel: HostChannel, asked: Address, timeout_s: float) -> bool:
    while True:
        try:
            return await _try(channel, asked, timeout_s)
        except OSError as error:
            if error.errno not in _NOTHING_LEFT:
                log.info("no test connection to %s", asked, exc_info=True)
                return False
        await trio.sleep(_PAUSE_S)


async def _try(channel: HostChannel, asked: Address, timeout_s: float) -> bool:
    """Raises OSError."""
    family = socket.AF_INET6 if asked.is_v6 else socket.AF_INET
    with channel.place.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, channel.own_mark)
        sock.bind((asked.ip, 0))
        channel.expect(Address.of(sock.getsockname()), asked, own_ip=asked.ip)
        with suppress(BlockingIOError):
            sock.connect((asked.ip, asked.port))
        with trio.move_on_after(timeout_s):
            await trio.lowlevel.wait_writable(sock)
        return _has_arrived(sock)


def _has_arrived(sock: socket.socket) -> bool:
    """Whether it has been accepted, and perhaps reset since. The kernel says so even if this
    process has been too busy to notice it in time."""
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return error == errno.ECONNRESET
    with suppress(OSError):
        sock.getpeername()
        return True
    return False
