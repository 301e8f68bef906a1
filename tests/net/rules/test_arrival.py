"""Whether connections still arrive is known only if a test connection can be made."""

import errno
import os

import pytest

from mitml4.net.rules import arrival
from mitml4.net.rules.channel import HostChannel


class Channel(HostChannel):
    def __init__(self) -> None:
        """Of nothing: no test connection is made."""

    def own_ip(self, *, v6: bool) -> str:
        return "::1" if v6 else "127.0.0.1"


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_without_descriptors_or_memory_it_is_asked_again(autojump_clock, monkeypatch, code):
    outcomes = iter([code, code, None])

    async def attempt(*_):
        if code := next(outcomes):
            raise OSError(code, os.strerror(code))
        return True

    monkeypatch.setattr(arrival, "_try", attempt)
    assert await arrival.arrives(Channel(), ipv6=False)
    assert list(outcomes) == []


async def test_where_no_address_is_left_none_arrives(autojump_clock, monkeypatch):
    async def attempt(*_):
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    monkeypatch.setattr(arrival, "_try", attempt)
    assert not await arrival.arrives(Channel(), ipv6=False)
