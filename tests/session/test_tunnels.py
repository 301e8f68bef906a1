"""Connections through proxies that break, are silent, or have names."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
import trio

from mitml4.address import Address
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.protocols.policy import Target
from mitml4.session.destinations.routes import Via, routes_of
from mitml4.session.destinations.tunnels import Tunnels

SERVER = Address("192.0.2.7", 443)
PROXIES = {"first": ["192.0.2.1", "192.0.2.2"], "second": ["192.0.2.3"]}


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(host: str, port: int, **_: object) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if host not in PROXIES:
            raise OSError(-2, "Name or service not known")
        return [(2, 1, 6, "", (each, port)) for each in PROXIES[host]]

    monkeypatch.setattr(trio.socket, "getaddrinfo", look_up)


def tunnels(*vias: str) -> Tunnels:
    return Tunnels(routes_of(map(Via.parse, vias), (), {}), tools=None)


async def connect(made: Tunnels, dial: Any) -> MemoryStream:
    return await made.connect(made.routes.everywhere, dial, SERVER, "www.example")  # type: ignore[return-value]


async def test_a_silent_proxy_is_a_timeout_that_names_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = memory_pair()

    async def dial(_address: Address) -> MemoryStream:
        return near

    made = tunnels("http://user:s3cret@first:1")
    with pytest.raises(TimeoutError, match="proxy http://first:1 does not answer"):
        await connect(made, dial)
    assert 10 < trio.current_time() < 30
    assert near.is_closed
    assert far.was_reset


async def test_the_silent_one_of_a_chain_is_named(autojump_clock: trio.testing.MockClock) -> None:
    near, far = memory_pair()

    async def dial(_address: Address) -> MemoryStream:
        await far.send_all(memoryview(b"HTTP/1.1 200 OK\r\n\r\n"))
        return near

    with pytest.raises(TimeoutError, match="proxy socks5://second:2 does not answer"):
        await connect(tunnels("http://first:1", "socks5://second:2"), dial)
    assert far.peek_nowait(999) == b"CONNECT second:2 HTTP/1.1\r\nHost: second:2\r\n\r\n\x05\x01\0"


async def test_each_address_of_a_proxy_is_tried() -> None:
    tried = []

    async def dial(address: Address) -> MemoryStream:
        tried.append(address)
        near, far = memory_pair()
        if len(tried) == 1:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        await far.send_all(memoryview(b"HTTP/1.1 200 OK\r\n\r\nhello"))
        return near

    stream = await connect(tunnels("http://first:1"), dial)
    assert tried == [Address("192.0.2.1", 1), Address("192.0.2.2", 1)]
    assert stream.peek_nowait(9) == b"hello"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ECONNREFUSED, errno.ECONNREFUSED),
        (errno.EHOSTUNREACH, errno.EHOSTUNREACH),
        (errno.ETIMEDOUT, errno.ETIMEDOUT),
        (errno.ECONNRESET, errno.ECONNREFUSED),
    ],
)
async def test_a_proxy_that_cannot_be_reached_is_like_a_server(code: int, expected: int) -> None:
    async def dial(_address: Address) -> MemoryStream:
        raise OSError(code, os.strerror(code))

    with pytest.raises(OSError, match="proxy http://first:1 cannot be reached") as raised:
        await connect(tunnels("http://first:1"), dial)
    assert raised.value.errno == expected


async def test_a_lack_of_ours_is_not_the_proxy_s() -> None:
    async def dial(_address: Address) -> MemoryStream:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.raises(OSError, match="Too many open files") as raised:
        await connect(tunnels("http://first:1"), dial)
    assert "proxy" not in str(raised.value)


async def test_a_proxy_without_an_address_is_unreachable() -> None:
    with pytest.raises(OSError, match=r"cannot be reached \(Name or service") as raised:
        await connect(tunnels("http://nowhere:1"), None)
    assert raised.value.errno == errno.EHOSTUNREACH


async def test_connections_to_a_proxy_itself_are_direct_whatever_names_it() -> None:
    made = tunnels("http://first:1", "http://second:2")
    assert await made.through(SERVER, None)
    for ip in PROXIES["first"]:
        assert not await made.through(Address(ip, 1), None)
        assert await made.through(Address(ip, 2), None)
    assert not await made.through(Address("192.0.2.9", 1), "first")
    assert await made.through(Address("192.0.2.3", 2), None)  # is reached through the first


async def test_a_proxy_that_cannot_be_looked_up_does_not_stop_its_port() -> None:
    made = tunnels("x=http://nowhere:1", "http://first:1")
    assert await made.through(Address("192.0.2.9", 1), None)


@pytest.mark.parametrize(
    ("via", "host", "is_asked_by_name"),
    [
        ("http://p:1", "example.org", True),
        ("socks5h://p:1", "example.org", True),
        ("socks5://p:1", "example.org", False),
        ("http://p:1", "192.0.2.1", False),
        ("http://p:1", "::1", False),
        ("http://p:1", "localhost", False),
        ("http://p:1", "0x7f.1", False),
        ("http://p:1", "a b", False),
        ("other.example=http://p:1", "example.org", False),
    ],
)
def test_proxies_that_look_names_up_are_asked_by_name(
    via: str, host: str, is_asked_by_name: bool
) -> None:
    tunnels = Tunnels(routes_of([Via.parse(via)], [], {}), None)
    assert bool(tunnels.for_name(Target(host, 80))) == is_asked_by_name
