"""Connects a proxy's client to the host that it names: the lookup, what is forbidden, the race of
the addresses (RFC 8305)."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from typing import Final

import trio

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.layers.proxy.refusal import Refused, Why
from mitml4.net.dial import EXHAUSTED
from mitml4.net.stream import Stream
from mitml4.protocols.policy import Target
from mitml4.tasks import fail_after

__all__ = [
    "CONNECT_S",
    "addresses_of",
    "first_connected",
    "is_elsewhere",
    "is_forbidden",
    "why_not",
]

_LOOKUP_S: Final = 10.0
CONNECT_S: Final = 30.0
"""How long a server may take to accept a connection."""
_NEXT_S: Final = 0.25  # RFC 8305 §5
_MAX_ADDRESSES: Final = 8

_METADATA: Final = tuple(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200")))
"""Where clouds serve credentials, beside link-local addresses: AWS by IPv6, Alibaba."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

_WHY: Final = {
    errno.ECONNREFUSED: Why.REFUSED,
    errno.ECONNRESET: Why.ENDED,
    errno.ETIMEDOUT: Why.TIMEOUT,
    errno.ENETUNREACH: Why.NO_NETWORK,
    errno.EADDRNOTAVAIL: Why.NO_NETWORK,
    errno.EAFNOSUPPORT: Why.NO_NETWORK,
}


async def addresses_of(target: Target) -> list[Address]:
    """The addresses of a host, which may be a literal. Raises Refused."""
    try:
        literal = ipaddress.ip_address(target.host.partition("%")[0])
    except ValueError:
        return await _looked_up(target)
    return [Address.of((str(_unmapped(literal)), target.port))]


async def _looked_up(target: Target) -> list[Address]:
    try:
        with fail_after(_LOOKUP_S):
            found = await trio.socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except trio.TooSlowError:
        raise Refused(Why.NAME_TIMEOUT, f"{target.host}: the name is not answered") from None
    except (OSError, UnicodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a name"
        raise Refused(Why.NO_NAME, f"{target.host}: {why}") from None
    addresses = (Address.of((str(name[0]), int(name[1]))) for _, _, _, _, name in found)
    return list(dict.fromkeys(addresses))[:_MAX_ADDRESSES]


def is_elsewhere(client: Address) -> bool:
    """Whether a client may be on another machine. Then not all addresses are for it."""
    return not ipaddress.ip_address(client.ip).is_loopback


def is_forbidden(address: Address, client: Address, own: Sequence[Address]) -> str:
    """Why a client may not be connected to an address; empty if it may. `own`: where the proxy
    itself listens."""
    if any(_is_at(address, each) for each in own):
        return "the proxy itself"
    if not is_elsewhere(client):
        return ""
    ip = _unmapped(ipaddress.ip_address(address.ip))
    if ip.is_loopback or ip.is_unspecified:
        return "a loopback address"
    if ip.is_link_local or ip in _METADATA:
        return "a link-local address"
    if ip.is_multicast:
        return "a multicast address"
    return ""


def _unmapped(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        return ip.ipv4_mapped or ip
    return ip


def _is_at(address: Address, listener: Address) -> bool:
    """Whether connections to an address come to a listener on this host."""
    if address.port != listener.port:
        return False
    ip = ipaddress.ip_address(address.ip)
    bound = ipaddress.ip_address(listener.ip)
    if ip == bound:
        return True
    if ip.is_unspecified:  # the kernel takes it for its loopback address
        return bound.is_loopback or bound.is_unspecified
    return bound.is_unspecified and _is_of_this_host(address)


def _is_of_this_host(address: Address) -> bool:
    family = socket.AF_INET6 if address.is_v6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((address.ip, 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EINVAL, errno.EAFNOSUPPORT)
    return True


def why_not(error: OSError, target: Target) -> Refused:
    """What the client is told of an error of connecting."""
    if error.errno in EXHAUSTED and error.errno != errno.EADDRNOTAVAIL:
        why = Why.INTERNAL
    elif isinstance(error, TimeoutError):
        why = Why.TIMEOUT
    else:
        why = _WHY.get(error.errno or 0, Why.NO_HOST)
    return Refused(why, f"{target}: {error.strerror or error}")


@dataclass(slots=True)
class _Race:
    winner: tuple[Stream, Address] | None = None
    failure: OSError | None = None


async def first_connected(
    addresses: Sequence[Address], connect: Callable[[Address], Awaitable[Stream]]
) -> tuple[Stream, Address]:
    """The first connection that is made, each address having a head start of 250 ms before the
    next. The others are closed. Raises OSError."""
    race = _Race()

    async def attempt(address: Address, failed: trio.Event) -> None:
        try:
            stream = await connect(address)
        except OSError as error:
            race.failure = race.failure or copy(error)
            failed.set()
            return
        if race.winner:
            stream.abort()
            return
        race.winner = stream, address
        nursery.cancel_scope.cancel()

    try:
        with fail_after(CONNECT_S):
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    failed = trio.Event()
                    nursery.start_soon(attempt, address, failed)
                    with trio.move_on_after(_NEXT_S):
                        await failed.wait()
    except trio.TooSlowError:
        raise TimeoutError(errno.ETIMEDOUT, "no answer") from None
    except BaseException:
        if race.winner:
            race.winner[0].abort()
        raise
    if race.winner is None:
        code = errno.EHOSTUNREACH
        raise race.failure or OSError(code, os.strerror(code))
    return race.winner
