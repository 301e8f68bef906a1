"""A peer that vanishes without a word is noticed, although nothing is sent to it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from mitml4.net.netns import NetNamespace
from tests.streams import tcp_stream


@pytest.fixture
def host() -> Iterator[NetNamespace]:
    with NetNamespace() as namespace:
        namespace.run("ip", "link", "set", "lo", "up")
        for name in ("time", "intvl", "probes"):
            path = Path(f"/proc/sys/net/ipv4/tcp_keepalive_{name}")
            namespace.call(partial(path.write_text, "1"))
        yield namespace


def test_a_peer_that_has_vanished_ends_its_connection(host: NetNamespace) -> None:
    async def wait() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = socket.create_connection(listener.getsockname())
            near, _ = listener.accept()
        stream = tcp_stream(near)
        with far:
            host.run("ip", "link", "set", "lo", "down")
            with trio.fail_after(60), pytest.raises(TimeoutError):
                await stream.peek(0, 1)
            stream.close()

    host.call(lambda: trio.run(wait))
