"""Names, resolved by the files of a container and from its network."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
import trio

from mitml4.net.attach import resolver
from mitml4.net.attach.resolver import NameFiles, Resolver
from mitml4.net.namespace.dns_message import question_of
from mitml4.net.place import HERE

HOSTS = "127.0.0.1 localhost\n192.0.2.7 db.internal Db  # the database\n"
ANSWERS = {
    ("web.example", 1): ["192.0.2.1", "192.0.2.2"],
    ("web.example", 28): ["2001:db8::1"],
    ("web.corp.example", 1): ["192.0.2.3"],
}


@pytest.fixture
async def asked(monkeypatch, nursery) -> AsyncIterator[list[str]]:
    """A resolver on this machine; the names that it was asked for."""
    names: list[str] = []

    async def serve() -> None:
        while True:
            query, client = await sock.recvfrom(4096)
            question = question_of(query)
            assert question is not None
            names.append(question.name)
            found = ANSWERS.get((question.name, question.kind), [])
            head = query[:2] + struct.pack("!5H", 0x8180, 1, len(found), 0, 0)
            records = b"".join(
                struct.pack("!HHHIH", 0xC00C, question.kind, 1, 60, len(ip_address(each).packed))
                + ip_address(each).packed
                for each in found
            )
            await sock.sendto(b"??" + head[2:], client)  # an answer to another query
            await sock.sendto(head + query[12:] + records, client)

    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        monkeypatch.setattr(resolver, "_PORT", sock.getsockname()[1])
        nursery.start_soon(serve)
        yield names


async def addresses(name: str, search: str = "") -> list[str]:
    files = NameFiles(HOSTS, f"nameserver 127.0.0.1\n{search}\n")
    found = await Resolver(HERE, files).getaddrinfo(name.encode(), 80)
    assert all(sockaddr[1] == 80 for *_, sockaddr in found)
    return [sockaddr[0] for *_, sockaddr in found]


async def test_names_in_the_hosts_file_are_not_asked_for(asked: list[str]) -> None:
    assert await addresses("db") == ["192.0.2.7"]
    assert await addresses("DB.Internal.") == ["192.0.2.7"]
    assert asked == []


async def test_others_are(asked: list[str]) -> None:
    assert await addresses("web.example") == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]


async def test_a_short_name_is_searched_for(asked: list[str]) -> None:
    assert await addresses("web", "search corp.example example") == ["192.0.2.3"]
    assert asked == ["web.corp.example"] * 2


async def test_a_name_that_nobody_knows_is_an_error(asked: list[str]) -> None:
    for name in ("none.example", f"{'x' * 64}.example"):
        with pytest.raises(socket.gaierror):
            await addresses(name)
