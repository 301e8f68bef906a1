"""Netlink messages and their attributes: packing, parsing, and acknowledged requests.

linux/netlink.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

__all__ = [
    "NESTED",
    "NETLINK_NETFILTER",
    "NLM_F_CREATE",
    "NLM_F_EXCL",
    "ask",
    "attribute",
    "attributes",
    "dump",
    "messages",
    "nfnetlink_head",
    "receive_answers",
    "receive_nowait",
    "request",
]

NETLINK_NETFILTER: Final = 12
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400

_REQUEST: Final = 1  # NLM_F_REQUEST
_REQUEST_WITH_ACK: Final = 1 | 4  # NLM_F_REQUEST, NLM_F_ACK
_DUMP: Final = 1 | 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
NESTED: Final = 0x8000  # NLA_F_NESTED
_ATTRIBUTE_TYPE: Final = 0x3FFF  # NLA_TYPE_MASK

_MESSAGE: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_GENERIC: Final = struct.Struct("!BBH")  # struct nfgenmsg
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr
_ERROR_CODE: Final = struct.Struct("=i")  # struct nlmsgerr
_MAX_MESSAGE: Final = 1 << 16


def request(sock: socket.socket, kind: int, body: bytes, flags: int = 0) -> None:
    """Send a request to the kernel, and wait for its acknowledgement, which comes at once.

    Raises the kernel's OSError.
    """
    length = _MESSAGE.size + len(body)
    sock.send(_MESSAGE.pack(length, kind, _REQUEST_WITH_ACK | flags, 0, 0) + body)
    for answered, answer in messages(receive_answers(sock)):
        if answered == _ERROR and (code := _ERROR_CODE.unpack_from(answer)[0]):
            raise OSError(-code, os.strerror(-code))


def ask(sock: socket.socket, kind: int, body: bytes) -> bytes:
    """Ask for one thing, and return the body of the answer. Raises the kernel's OSError."""
    sock.send(_MESSAGE.pack(_MESSAGE.size + len(body), kind, _REQUEST, 0, 0) + body)
    answered, answer = next(messages(receive_answers(sock)))
    if answered == _ERROR:
        code = _ERROR_CODE.unpack_from(answer)[0]
        raise OSError(-code, os.strerror(-code))
    return answer


def dump(sock: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    """Request a list, and yield the body of each entry. Raises the kernel's OSError."""
    sock.send(_MESSAGE.pack(_MESSAGE.size + len(body), kind, _DUMP, 0, 0) + body)
    while True:
        for answered, answer in messages(receive_answers(sock)):
            if answered == _DONE:
                return
            if answered == _ERROR:
                code = _ERROR_CODE.unpack_from(answer)[0]
                raise OSError(-code, os.strerror(-code))
            yield answer


def receive_answers(sock: socket.socket) -> bytes:
    """What the kernel answers to a request. Raises OSError. Then what is left of the answer is
    read: the next request would take it for its own."""
    try:
        return sock.recv(_MAX_MESSAGE)
    except OSError:
        with suppress(OSError):
            while sock.recv(_MAX_MESSAGE, socket.MSG_DONTWAIT):
                pass
        raise


def receive_nowait(sock: socket.socket) -> bytes | None:
    """The next of the messages that the kernel sends without a request. None if there is none now;
    nothing if some were lost, or there was no memory for one. Raises OSError."""
    try:
        return sock.recv(_MAX_MESSAGE, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in (errno.ENOBUFS, errno.ENOMEM):
            raise
        return b""


def nfnetlink_head(family: int, resource: int = 0) -> bytes:
    """The start of a netfilter message's body."""
    return _GENERIC.pack(family, 0, resource)


def attribute(kind: int, value: bytes) -> bytes:
    packed = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
    return packed + b"\0" * (-len(packed) % 4)


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and the body of each message in data that was read from a socket."""
    at, end = 0, len(data)
    while at + _MESSAGE.size <= end:
        length, kind, *_ = _MESSAGE.unpack_from(data, at)
        yield kind, data[at + _MESSAGE.size : at + length]
        at += max(_MESSAGE.size, (length + 3) & ~3)


def attributes(data: bytes, *, skip: int = _GENERIC.size) -> Iterator[tuple[int, bytes]]:
    """The type and the value of each attribute after the head of a body."""
    at, end = skip, len(data)
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _ATTRIBUTE_TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, (length + 3) & ~3)
