"""Whether a connection is in the making: with a client that is made of one packet."""

from __future__ import annotations

import os
import select
import socket

import pytest
import trio

from mitml4.net.half_open import any_half_open, wait_none_half_open
from mitml4.net.netns import NetNamespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture
def alone():
    """A namespace with a loopback interface, where nobody answers a SYN-ACK."""
    with NetNamespace() as namespace:
        namespace.run("ip", "link", "set", "lo", "up")
        drop = "table inet t { chain i { type filter hook input priority 0;"
        namespace.run(
            *("nft", "-f", "-"), input=f"{drop} tcp flags & (syn | ack) == (syn | ack) drop; }}; }}"
        )
        yield namespace


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_it_is_seen_until_it_is_made(alone: NetNamespace, family: int) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with alone.socket(family) as listener, alone.socket(family) as client:
        listener.bind((host, 0))
        listener.listen()
        assert not alone.call(any_half_open)
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        assert alone.call(any_half_open)
        alone.run("nft", "flush", "ruleset")
        assert select.select([], [client], [], 5)[1], "it is not made"
        assert not alone.call(any_half_open)


async def test_it_is_not_waited_for_in_vain(
    alone: NetNamespace, autojump_clock, monkeypatch
) -> None:
    monkeypatch.setattr("mitml4.net.half_open.any_half_open", lambda: True)
    started = trio.current_time()
    await wait_none_half_open(3.0)
    assert trio.current_time() - started == pytest.approx(3.0)
