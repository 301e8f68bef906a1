"""Which of the open connections are reset."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from mitml4.address import Address
from mitml4.net.attach import reset
from mitml4.net.place import HERE
from mitml4.net.rules.scope import PortRange, Scope

OWN = "192.0.2.9"
NETWORK = ip_network("198.51.100.0/24")


@pytest.mark.parametrize(
    ("scope", "own", "peer", "is_in"),
    [
        (Scope(), OWN, "198.51.100.1", True),
        (Scope(), "127.0.0.1", "127.0.0.1", False),
        (Scope(), OWN, OWN, False),
        (Scope(direction="forwarded"), OWN, "198.51.100.1", False),
        (Scope(ports=(PortRange(443, 443),)), OWN, "198.51.100.1", True),
        (Scope(exclude_ports=(PortRange(443, 443),)), OWN, "198.51.100.1", False),
        (Scope(to=(NETWORK,)), OWN, "198.51.100.1", True),
        (Scope(to=(NETWORK,)), OWN, "203.0.113.1", False),
        (Scope(to=(NETWORK,)), "2001:db8::1", "2001:db8::2", False),
        (Scope(from_=(NETWORK,)), OWN, "198.51.100.1", False),
    ],
)
def test_those_in_scope_are(scope: Scope, own: str, peer: str, is_in: bool) -> None:
    found = reset._Found(socket.AF_INET, Address(own, 40000), Address(peer, 443), b"")
    assert reset._is_in(scope, found) is is_in


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """IPv4 over an IPv6 socket, as many servers and clients have it."""
    listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    with listener, socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
        accepted, _ = listener.accept()
        with accepted:
            yield client, accepted


def test_the_kernel_lists_both_ends_of_a_connection(connection) -> None:
    client, accepted = connection
    ports = client.getsockname()[1], accepted.getsockname()[1]
    with HERE.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as sock:
        ends = {(each.own, each.peer) for each in reset._sockets(sock, reset._OPEN)}
        listening = {each.own.port for each in reset._sockets(sock, 1 << reset._LISTEN)}
    one, other = (Address("127.0.0.1", port) for port in ports)
    assert {(one, other), (other, one)} <= ends
    assert ports[1] in listening
