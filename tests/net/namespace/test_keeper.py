"""What the keeper of a command's namespaces opens."""

import errno
import os
import socket

import pytest

from mitml4.net.namespace import keeper

_DNS = [
    (socket.AF_INET, socket.SOCK_DGRAM),
    (socket.AF_INET, socket.SOCK_STREAM),
    (socket.AF_INET6, socket.SOCK_DGRAM),
    (socket.AF_INET6, socket.SOCK_STREAM),
]


@pytest.mark.parametrize("refused", range(1, 4))
def test_another_port_is_taken_where_one_of_the_sockets_does_not_get_it(monkeypatch, refused):
    """The first socket's port was another's, of the other protocol, once."""
    bound = []

    class Socket(socket.socket):
        def bind(self, address):
            bound.append(address[1])
            if len(bound) == refused + 1:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Socket)
    sockets = keeper._bind_dns(with_v6=True)
    assert [(each.family, each.type) for each in sockets] == _DNS
    assert len({each.getsockname()[1] for each in sockets}) == 1
    assert bound.count(0) >= 2  # others may have taken the second one as well
    for each in sockets:
        each.close()


def test_where_no_port_is_free_the_error_is_the_kernels(monkeypatch):
    class Socket(socket.socket):
        def bind(self, _address):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    monkeypatch.setattr(socket, "socket", Socket)
    with pytest.raises(OSError, match="in use"):
        keeper._bind_dns(with_v6=False)
