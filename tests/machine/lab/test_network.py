"""The lab's network carries both IP families end to end, and leaves nothing."""

import re
import socket

import pytest

from mitml4.lab.network import CLIENT_V4, CLIENT_V6, LAN, SERVER_V4, SERVER_V6, WAN, LabNetwork
from mitml4.lab.snapshot import take_snapshot


@pytest.fixture(scope="module")
def lab():
    with LabNetwork() as network:
        yield network


@pytest.mark.parametrize(
    ("family", "server", "client"),
    [(socket.AF_INET, SERVER_V4, CLIENT_V4), (socket.AF_INET6, SERVER_V6, CLIENT_V6)],
    ids=["ipv4", "ipv6"],
)
def test_a_client_reaches_the_server_through_the_router(lab, family, server, client):
    with lab.server.socket(family) as listener, lab.client.socket(family) as sock:
        listener.settimeout(5)
        sock.settimeout(5)
        listener.bind((server, 0))
        listener.listen()
        sock.connect(listener.getsockname())
        accepted, address = listener.accept()
        with accepted:
            accepted.sendall(b"hello")
            assert sock.recv(5) == b"hello"
        assert address[0] == client


def test_building_a_lab_changes_nothing_on_the_host():
    before = take_snapshot()
    with LabNetwork():
        assert take_snapshot() == before
    assert take_snapshot() == before


def test_an_address_can_be_bound_as_soon_as_it_is_there(lab):
    """Without `nodad` it is tentative until a worker of the kernel's comes by: one lab in twenty
    was used before that."""
    for namespace in (lab.client, lab.router, lab.server):
        addresses = namespace.run("ip", "-6", "-o", "address", "show", "scope", "global").stdout
        assert addresses
        assert all("nodad" in line for line in addresses.splitlines()), addresses


def test_a_lab_that_is_there_changes_no_more():
    """What the kernel does in its own time would be taken for something that mitml4 has left: a
    route loses its mark, a link-local address comes, is no longer tentative, and gets its route."""
    with LabNetwork() as lab:
        for namespace, *links in (
            (lab.client, "eth0"),
            (lab.router, LAN, WAN),
            (lab.server, "eth0"),
        ):
            state = namespace.call(take_snapshot)
            assert "linkdown" not in state
            addresses = namespace.run("ip", "-6", "-o", "address").stdout
            assert "tentative" not in addresses
            for link in links:
                assert f"fe80::/64 dev {link}" in state
                assert re.search(rf"\b{link}\s+inet6 fe80:", addresses)
