"""A namespace of `mitml4 run`: its sockets, and its rules as nft and the kernel read them."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from mitml4.net.namespace.namespace import Namespace
from mitml4.net.namespace.rules import Ports, Sources, nft_table


def test_its_sockets_are_of_another_network_and_are_not_inherited() -> None:
    with Namespace.open() as made:
        sockets = [
            made.listener_socket,
            made.datagrams,
            *made.dns,
            made.injection.log,
            made.injection.raw_v4,
        ]
        assert not any(os.get_inheritable(each.fileno()) for each in sockets)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", made.listener_socket.getsockname()[1]), 5)


def test_nft_understands_the_rules() -> None:
    argv = ["unshare", "--user", "--map-root-user", "--net", "nft", "--check", "-f", "-"]
    for sources in (
        Sources("192.0.2.2", "2001:db8::2"),
        Sources("192.0.2.2", None),
        Sources("192.0.2.2", "2001:db8::2", ("192.0.2.3", "2001:db8::3", "10.0.0.1")),
    ):
        for loopback in (True, False):
            text = nft_table(sources, Ports(tcp=1001, udp=1002, dns=1003), loopback=loopback)
            done = subprocess.run(argv, input=text, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, ""), text
