"""Publishes which servers clients wanted by QUIC that is refused."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import trio

from mitml4.address import Address
from mitml4.events import QuicRefused
from mitml4.net.gate.nflog import logged_packets
from mitml4.net.gate.quic import RefusedFlows, RefusedQuic
from mitml4.net.netlink import receive_nowait

__all__ = ["tell_of_quic"]

_AT_ONCE: Final = 32


async def tell_of_quic(
    log: socket.socket,
    publish: Callable[[QuicRefused], None],
    names_of: Callable[[Address], Sequence[str]],
) -> None:
    """Until cancelled: read the log (net/gate/nflog.py), and publish each client's flow once."""
    flows = RefusedFlows()

    def tell(refused: RefusedQuic) -> None:
        details = refused.details
        publish(
            QuicRefused(
                client=refused.client,
                destination=refused.destination,
                name=next(iter(names_of(refused.destination)), None),
                sni=details.sni,
                alpn=details.alpn_offered,
                ja4=details.ja4,
            )
        )

    try:
        while True:
            overdue = flows.next_s
            with trio.move_on_at(math.inf if overdue is None else overdue):
                await trio.lowlevel.wait_readable(log)
            await trio.lowlevel.checkpoint()
            for told in _read(log, flows):
                tell(told)
    finally:
        for late in flows.overdue(math.inf):
            tell(late)


def _read(log: socket.socket, flows: RefusedFlows) -> Iterator[RefusedQuic]:
    """What is there, within bounds, and what is overdue."""
    for _ in range(_AT_ONCE):
        data = receive_nowait(log)
        if data is None:
            break
        for packet in logged_packets(data):
            if told := flows.take(packet, trio.current_time()):
                yield told
    yield from flows.overdue(trio.current_time())
