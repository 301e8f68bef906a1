"""Connections that the kernel is still making: their clients may think them made already.

One that has sent its ACK, and one that has not even received our SYN-ACK, look the same from here.
They are in no backlog yet, and die with the listener.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

import trio

__all__ = ["any_half_open", "wait_none_half_open"]

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY: Final = 20  # linux/sock_diag.h
_REQUEST_AND_DUMP: Final = 0x01 | 0x300  # NLM_F_REQUEST | NLM_F_DUMP
_TCP_SYN_RECV: Final = 3  # net/tcp_states.h
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST: Final = struct.Struct("=BBxxI48x")  # struct inet_diag_req_v2: family, protocol, states
_REPLY: Final = struct.Struct("=BBBB")  # struct inet_diag_msg: family, state, timer, retransmits
_LOOK_AGAIN_S: Final = 0.02


async def wait_none_half_open(within_s: float) -> None:
    """Wait until there is none in this network namespace, but not for long. Checkpoints."""
    with trio.move_on_after(within_s):
        while any_half_open():  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(_LOOK_AGAIN_S)


def any_half_open() -> bool:
    """Whether there is one whose client may still answer the first SYN-ACK; False if none knows."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as diag:
            diag.setblocking(False)  # the kernel answers before `send` returns
            return any(_has_fresh(diag, family) for family in (socket.AF_INET, socket.AF_INET6))
    except OSError:
        return False


def _has_fresh(diag: socket.socket, family: int) -> bool:
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << _TCP_SYN_RECV)
    length = _HEADER.size + len(request)
    diag.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, 0, 0) + request)
    fresh = False
    while True:
        data = diag.recv(1 << 16)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind != _SOCK_DIAG_BY_FAMILY:  # NLMSG_DONE, NLMSG_ERROR
                return fresh
            *_, retransmits = _REPLY.unpack_from(data, _HEADER.size)
            fresh |= retransmits == 0
            data = data[(length + 3) & ~3 :]
