"""Entries that are there before their connections, held against the kernel."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitml4.address import Address
from mitml4.net.gate.conntrack import Conntrack, Entry
from mitml4.net.netns import NetNamespace

CLIENT_PORT, OTHER_PORT = 45001, 45002


@pytest.fixture
def host() -> Iterator[NetNamespace]:
    """A loopback, on which connections are tracked and addresses translated."""
    with NetNamespace() as namespace:
        namespace.run("ip", "link", "set", "lo", "up")
        tracking = "chain c { type filter hook input priority 0; ct state new accept; };"
        nat = "chain n { type nat hook output priority 0; };"
        namespace.run("nft", "-f", "-", input=f"table inet t {{ {tracking} {nat} }}")
        yield namespace


def entry(ip: str, port: int, **settings) -> Entry:
    """A connection from here to port 80, which leads to another one."""
    return Entry(
        source=Address(ip, CLIENT_PORT),
        destination=Address(ip, 80),
        becomes_destination=Address(ip, port),
        mark=0x4D400007,
        lasts_s=30,
        **settings,
    )


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("source", [CLIENT_PORT, OTHER_PORT])
def test_a_connection_goes_where_its_entry_says(host: NetNamespace, ip: str, source: int) -> None:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    conntrack = host.call(Conntrack)
    with host.socket(family) as listener, host.socket(family) as client:
        listener.bind((ip, 0))
        listener.listen()
        port = listener.getsockname()[1]
        becomes = {"becomes_source": Address(ip, source)} if source != CLIENT_PORT else {}
        conntrack.add(entry(ip, port, **becomes))
        client.bind((ip, CLIENT_PORT))
        client.settimeout(10)
        client.connect((ip, 80))
        accepted, peer = listener.accept()
        with accepted:
            assert Address.of(peer) == Address(ip, source)
            accepted.sendall(b"x")
            assert client.recv(1) == b"x"
    (line,) = (each for each in tracked(host) if f"sport={CLIENT_PORT}" in each)
    assert f"mark={0x4D400007}" in line
    conntrack.close()


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_an_entry_is_removed_by_the_ends_of_its_answers(host: NetNamespace, ip: str) -> None:
    conntrack = host.call(Conntrack)
    conntrack.add(entry(ip, 7000, becomes_source=Address(ip, OTHER_PORT)))
    ends = Address(ip, 7000), Address(ip, OTHER_PORT)
    conntrack.remove_answered(*ends)
    assert not tracked(host)
    with pytest.raises(FileNotFoundError):
        conntrack.remove_answered(*ends)
    conntrack.close()


def tracked(host: NetNamespace) -> list[str]:
    return host.call(lambda: Path("/proc/thread-self/net/nf_conntrack").read_text().splitlines())


def test_what_is_there_cannot_be_added_again(host: NetNamespace) -> None:
    conntrack = host.call(Conntrack)
    first = entry("127.0.0.1", 7000)
    conntrack.add(first)
    with pytest.raises(FileExistsError):
        conntrack.add(first)
    conntrack.close()


def test_two_connections_may_not_have_the_same_ends_once_they_are_translated(
    host: NetNamespace,
) -> None:
    conntrack = host.call(Conntrack)
    first = entry("127.0.0.1", 7000)
    second = Entry(
        source=first.source,
        destination=Address("127.0.0.1", 81),
        becomes_destination=first.becomes_destination,
        mark=0,
        lasts_s=30,
    )
    conntrack.add(first)
    with pytest.raises(FileExistsError):
        conntrack.add(second)
    conntrack.close()


def test_without_power_it_is_the_kernel_that_says_so(host: NetNamespace) -> None:
    def work() -> None:
        conntrack = Conntrack()
        try:
            os.seteuid(65534)
            conntrack.add(entry("127.0.0.1", 7000))
        finally:
            os.seteuid(0)
            conntrack.close()

    with pytest.raises(PermissionError):
        host.call(work)
