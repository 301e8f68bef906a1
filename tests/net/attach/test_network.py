"""The sockets that a helper creates in another network."""

from __future__ import annotations

import os
import socket

import pytest

from mitml4.net.attach.network import _Sockets


def test_a_running_session_gets_only_sockets_that_connect() -> None:
    sockets = _Sockets()

    def create(family: int, kind: int) -> None:
        _, created = sockets.answer("sockets", {"wanted": (family, kind, 0), "count": 2}, [])
        assert len(created) == 2
        for descriptor in created:
            os.close(descriptor)

    create(socket.AF_NETLINK, socket.SOCK_RAW)
    sockets.answer("restrict", {}, [])
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        create(socket.AF_INET, kind)
    for family, kind in (
        (socket.AF_NETLINK, socket.SOCK_RAW),
        (socket.AF_INET, socket.SOCK_RAW),
        (socket.AF_PACKET, socket.SOCK_DGRAM),
        (socket.AF_UNIX, socket.SOCK_STREAM),
    ):
        with pytest.raises(PermissionError):
            create(family, kind)
    with pytest.raises(PermissionError):
        sockets.answer("forget", {}, [])
