"""Packets that an nft rule with `log group N` shows us: as much of netlink as that takes.

linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["logged_packets", "open_log"]

_NETLINK_NETFILTER: Final = 12
_MESSAGE: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_GENERIC: Final = struct.Struct("!BBH")  # struct nfgenmsg
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr

_ULOG: Final = 4 << 8  # NFNL_SUBSYS_ULOG
_PACKET, _CONFIG = _ULOG | 0, _ULOG | 1
_ERROR: Final = 2  # NLMSG_ERROR
_REQUEST_WITH_ACK: Final = 1 | 4  # NLM_F_REQUEST, NLM_F_ACK

_CFG_CMD, _CFG_MODE, _CFG_QTHRESH = 1, 2, 5
_BIND: Final = b"\x01"
_COPY_PACKET: Final = 2
_PAYLOAD: Final = 9
_ATTRIBUTE_TYPE: Final = 0x3FFF  # NLA_TYPE_MASK


def open_log(group: int, *, copy_bytes: int) -> socket.socket:
    """A socket on which the packets of a group arrive at once, cut after so many bytes.

    Needs CAP_NET_ADMIN in the network namespace. Raises OSError.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    try:
        sock.bind((0, 0))
        mode = struct.pack("!IBx", copy_bytes, _COPY_PACKET)
        at_once = struct.pack("!I", 1)
        for kind, value in ((_CFG_CMD, _BIND), (_CFG_MODE, mode), (_CFG_QTHRESH, at_once)):
            _configure(sock, group, kind, value)
    except BaseException:
        sock.close()
        raise
    return sock


def logged_packets(data: bytes) -> Iterator[bytes]:
    """The packets, from the IP header on, in what was read from the socket."""
    for kind, body in _messages(data):
        if kind != _PACKET:
            continue
        for attribute, value in _attributes(body[_GENERIC.size :]):
            if attribute == _PAYLOAD:
                yield value


def _configure(sock: socket.socket, group: int, kind: int, value: bytes) -> None:
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
    body = _GENERIC.pack(socket.AF_UNSPEC, 0, group) + attribute
    body += b"\0" * (-len(body) % 4)
    sock.send(_MESSAGE.pack(_MESSAGE.size + len(body), _CONFIG, _REQUEST_WITH_ACK, 0, 0) + body)
    for answered, answer in _messages(sock.recv(65536)):
        (code,) = struct.unpack_from("=i", answer)
        if answered == _ERROR and code:
            raise OSError(-code, os.strerror(-code))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _MESSAGE.size:
        length, kind, *_ = _MESSAGE.unpack_from(data)
        yield kind, data[_MESSAGE.size : length]
        data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & _ATTRIBUTE_TYPE, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
