"""Who a client says that its server is, read before there is a connection to the server.

Where all but some hosts are refused, and nobody knows for which name the client uses an address,
its first bytes have to say it: the SNI of a ClientHello, or the host of a request of HTTP/1. None
of them is consumed.
"""

from __future__ import annotations

from typing import Final, NoReturn

import trio

from mitml4.dataclass import dataclass
from mitml4.layers.bridge import Bridge
from mitml4.layers.editing.layer import Kind, first_bytes
from mitml4.layers.tls import read_hello
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import MAX_PEEK, End, Target
from mitml4.protocols.http.asked import of_fields, of_target
from mitml4.protocols.http.http1_heads import HEAD_END, REQUEST_LINE
from mitml4.protocols.policy import NOT_ALLOWED, Blocked, Closed

__all__ = ["Claim", "claimed"]

_SPEAK_S: Final = 10.0
"""How long a client may take to say it. A client that waits for its server says nothing."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What was said."""

    hosts: tuple[str, ...]
    """Names that are allowed; at least one."""
    by_tls: bool
    """Whether the server can show by a certificate that it is one of them."""


async def claimed(bridge: Bridge, context: LayerContext) -> Claim:
    """Wait for what the client says. Raises Blocked for what is not allowed, and for a client that
    names no host."""
    with trio.move_on_after(_SPEAK_S):
        match await first_bytes(bridge):
            case Kind.TLS:
                return await _of_hello(bridge, context)
            case Kind.HTTP1:
                return await _of_request(bridge, context)
    return _refuse("a client that names no host first, to an address that is not allowed")


async def _of_hello(bridge: Bridge, context: LayerContext) -> Claim:
    read = await read_hello(bridge)
    names = tuple(read[0].server_names) if read else ()
    if not names:
        _refuse("TLS without a name, to an address that is not allowed")
    context.policy.check(*(Target(name, context.port or 0) for name in names))
    return Claim(names, by_tls=True)


async def _of_request(bridge: Bridge, context: LayerContext) -> Claim:
    data = bridge.up.glance()
    while (end := HEAD_END.search(data)) is None:
        looked = await bridge.up.look(len(data))
        if len(data) >= MAX_PEEK or len(looked) <= len(data):
            _refuse("HTTP: a request that is not whole")
        data = looked
    line = REQUEST_LINE.match(data)
    if line is None or line.end() > end.end():
        _refuse("a request to a proxy whose address is not allowed")
    asked: list[End] = of_target(line["target"], context)
    asked += of_fields(data[line.end() : end.start()], context)
    context.policy.check(*asked)
    hosts = {end.host.lower().rstrip(".") for end in asked if isinstance(end, Target)}
    if len(hosts) != 1:
        _refuse("HTTP: a request that does not name one host")
    return Claim(tuple(hosts), by_tls=False)


def _refuse(why: str) -> NoReturn:
    raise Blocked(NOT_ALLOWED, Closed(why))
