"""The resolver of a namespace, between a client and resolvers on this host's loopback."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
import trio

from mitml4.net.namespace.dns import DnsRelay, Names, Refusals, names_by_file, resolvers_of

QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x01\x00\x01"
ANSWER = (
    QUERY[:2]
    + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
    + QUERY[12:]
    + b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc6\x33\x64\x02"
)
SERVFAIL, REFUSED = 2, 5
RESOLVER = "127.53.0.1"
"""An address that no other program's ports are taken on."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nameserver 192.0.2.1\nnameserver 2001:db8::1\n", ["192.0.2.1", "2001:db8::1"]),
        ("# nameserver 192.0.2.9\noptions edns0\nnameserver 192.0.2.1 # home\n", ["192.0.2.1"]),
        ("nameserver 1\nnameserver 2\nnameserver 3\nnameserver 4\n", ["1", "2", "3"]),
        ("search example\n", ["127.0.0.1"]),
        ("nameserver\n", ["127.0.0.1"]),
        ("", ["127.0.0.1"]),
    ],
)
def test_resolvers_are_those_of_resolv_conf(text: str, expected: list[str]) -> None:
    assert resolvers_of(text) == expected


def test_names_are_bounded_and_the_oldest_go_first() -> None:
    names = Names(limit=2)
    for last in (1, 2, 3):
        names.learn(ANSWER[:-1] + bytes([last]))
    assert [names.of(f"198.51.100.{last}") for last in (1, 2, 3)] == [(), *[("www.example",)] * 2]


def test_a_name_that_is_learned_again_stays() -> None:
    names = Names(limit=2)
    for last in (1, 2, 1, 3):
        names.learn(ANSWER[:-1] + bytes([last]))
    assert [names.of(f"198.51.100.{last}") for last in (1, 2, 3)] == [
        ("www.example",),
        (),
        ("www.example",),
    ]


def test_of_several_names_in_a_file_none_is_likely_and_each_is_possible(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "127.0.0.1 localhost\n198.51.100.2 one.example\n"
        "198.51.100.3 two.example three.example # four.example\n"
        "198.51.100.3 three.example 5.example\nnonsense x\n\n::1 localhost\n"
    )
    names = Names(by_file=names_by_file(hosts))
    several = ("two.example", "three.example", "5.example")
    assert (names.of("198.51.100.2"), names.of("198.51.100.3")) == (("one.example",), ())
    assert names.all_of("198.51.100.3") == several
    assert (names.of("127.0.0.1"), names.all_of("::1"), names.all_of("x")) == ((), (), ())
    names.learn(ANSWER)
    assert names.of("198.51.100.2") == ("www.example",)
    assert names.all_of("198.51.100.2") == ("www.example", "one.example")
    assert names_by_file(tmp_path / "none") == {}


class Lab:
    """A relay, its client's socket, and a resolver that answers as it is told."""

    def __init__(self, nursery: trio.Nursery, tmp_path: Path) -> None:
        self.datagrams = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.inside: list[socket.socket] = [
            socket.socket(type=socket.SOCK_DGRAM),
            socket.create_server(("127.0.0.1", 0)),
        ]
        self.inside[0].bind(("127.0.0.1", 0))
        self.client = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.resolv_conf = tmp_path / "resolv.conf"
        self.resolv_conf.write_text(f"nameserver {RESOLVER}\n")
        self.names = Names()
        self.notes: list[str] = []
        self.refusals: Refusals | None = None
        self.nursery = nursery

    async def start(self) -> None:
        await self.datagrams.bind((RESOLVER, 0))
        port = self.datagrams.getsockname()[1]
        relay = DnsRelay(
            self.inside,
            self.names,
            self.notes.append,
            refusals=self.refusals,
            resolv_conf=self.resolv_conf,
            port=port,
        )
        self.nursery.start_soon(relay.run)

    async def ask(self) -> bytes:
        await self.client.sendto(QUERY, self.inside[0].getsockname())
        with trio.fail_after(5):
            return await self.client.recv(4096)

    def close(self) -> None:
        self.nursery.cancel_scope.cancel()
        self.datagrams.close()
        self.client.close()
        for sock in self.inside:
            sock.close()

    async def answer_with(self, *answers: bytes) -> None:
        """Answer one query, possibly more than once."""
        _, relay = await self.datagrams.recvfrom(4096)
        for each in answers:
            await self.datagrams.sendto(each, relay)


@pytest.fixture
async def lab(nursery, tmp_path: Path):
    lab = Lab(nursery, tmp_path)
    await lab.start()
    yield lab
    lab.close()


async def test_a_query_goes_to_the_hosts_resolver_and_the_name_is_learned(lab) -> None:
    lab.nursery.start_soon(lab.answer_with, ANSWER)
    assert await lab.ask() == ANSWER
    assert lab.names.of("198.51.100.2") == ("www.example",)
    assert lab.notes == []


async def test_names_that_are_not_allowed_are_refused_by_udp_and_tcp(nursery, tmp_path) -> None:
    lab = Lab(nursery, tmp_path)
    refused: list[str | None] = []
    lab.refusals = Refusals(lambda name: name == "ok.test", lambda _, name: refused.append(name))
    await lab.start()
    for query in (QUERY, QUERY[:5] + b"\x02" + QUERY[6:]):
        await lab.client.sendto(query, lab.inside[0].getsockname())
        if query == QUERY:
            with trio.fail_after(5):
                assert (await lab.client.recv(4096))[3] & 15 == REFUSED
    host, port = lab.inside[1].getsockname()
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(struct.pack("!H", len(QUERY)) + QUERY)
        with trio.fail_after(5):
            assert (await stream.receive_some(4096))[5] & 15 == REFUSED
    assert refused == ["www.example", None, "www.example"]
    lab.close()


async def test_where_names_are_refused_only_the_question_reaches_a_resolver(
    nursery, tmp_path
) -> None:
    lab = Lab(nursery, tmp_path)
    lab.refusals = Refusals(lambda _name: True, lambda _client, _name: None)
    await lab.start()
    options = b"\0\0\x29\x04\xd0\0\0\0\0\0\x08\xff\xfe\0\x04told"  # an OPT with an option
    telling = QUERY[:3] + b"\x70" + QUERY[4:11] + b"\x01" + QUERY[12:] + options + b"behind"
    await lab.client.sendto(telling, lab.inside[0].getsockname())
    with trio.fail_after(5):
        asked, _ = await lab.datagrams.recvfrom(4096)
    assert asked == QUERY
    lab.close()


async def test_where_names_are_refused_nobody_is_told_of_other_ways_to_a_service(
    nursery, tmp_path
) -> None:
    lab = Lab(nursery, tmp_path)
    lab.refusals = Refusals(lambda _name: True, lambda _client, _name: None)
    await lab.start()
    https = QUERY[:-4] + b"\x00\x41" + QUERY[-2:]
    await lab.client.sendto(https, lab.inside[0].getsockname())
    with trio.fail_after(5):
        answer = await lab.client.recv(4096)
    assert (answer[3] & 15, answer[6:8]) == (0, b"\0\0")
    lab.close()


async def test_an_answer_to_something_else_is_not_taken(lab) -> None:
    lab.nursery.start_soon(lab.answer_with, b"\x00\x00" + ANSWER[2:], ANSWER)
    assert await lab.ask() == ANSWER


async def test_without_a_resolver_the_client_need_not_wait_and_it_is_said_once(lab) -> None:
    lab.datagrams.close()
    for _ in range(2):
        answer = await lab.ask()
        assert answer[:2] == QUERY[:2]
        assert answer[3] & 15 == SERVFAIL
    assert len(lab.notes) == 1
    assert str(lab.resolv_conf) in lab.notes[0]


async def test_the_next_resolver_is_asked_when_one_refuses(lab) -> None:
    lab.resolv_conf.write_text(f"nameserver 127.0.0.9\nnameserver {RESOLVER}\n")
    lab.nursery.start_soon(lab.answer_with, ANSWER)
    assert await lab.ask() == ANSWER


async def test_a_resolv_conf_that_changes_is_noticed(lab) -> None:
    lab.resolv_conf.write_text("nameserver 127.0.0.9\n")
    assert (await lab.ask())[3] & 15 == SERVFAIL
    lab.resolv_conf.write_text(f"nameserver {RESOLVER}\n")
    lab.nursery.start_soon(lab.answer_with, ANSWER)
    assert await lab.ask() == ANSWER


async def test_queries_over_tcp_go_over_tcp_any_number_of_them(lab) -> None:
    port = lab.datagrams.getsockname()[1]
    (listener,) = await trio.open_tcp_listeners(port, host=RESOLVER)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            asked = await stream.receive_some(4096)
            if asked[2:] == QUERY:
                await stream.send_all(struct.pack("!H", len(ANSWER)) + ANSWER)

    lab.nursery.start_soon(trio.serve_listeners, serve, [listener])
    host, port = lab.inside[1].getsockname()
    async with await trio.open_tcp_stream(host, port) as stream:
        for _ in range(2):
            await stream.send_all(struct.pack("!H", len(QUERY)) + QUERY)
            with trio.fail_after(5):
                received = b""
                while len(received) < 2 + len(ANSWER):
                    received += await stream.receive_some(4096)
            assert received[2:] == ANSWER
    assert lab.names.of("198.51.100.2") == ("www.example",)


OPT = b"\0\0\x29%b\0\0\0\0\0\0"
NO_TCP = ["closed", "silent", "ends"]


@pytest.mark.parametrize("tcp", NO_TCP)
async def test_a_resolver_that_takes_no_tcp_is_asked_by_udp_for_the_whole_answer(
    lab, monkeypatch, tcp: str
) -> None:
    port = lab.datagrams.getsockname()[1]
    if tcp == "ends":
        (listener,) = await trio.open_tcp_listeners(port, host=RESOLVER)
        lab.nursery.start_soon(trio.serve_listeners, trio.SocketStream.aclose, [listener])
    if tcp == "silent":
        open_tcp_stream = trio.open_tcp_stream

        async def silent(host: str, to: int) -> trio.SocketStream:
            if to == port:
                await trio.sleep_forever()
            return await open_tcp_stream(host, to)

        monkeypatch.setattr(trio, "open_tcp_stream", silent)
        monkeypatch.setattr("mitml4.net.namespace.dns._CONNECT_S", 0.01)
    large = ANSWER[:7] + b"\x78" + ANSWER[8:] + ANSWER[-16:] * 119
    with_opt = large[:11] + b"\x01" + large[12:] + OPT % b"\x04\xd0"
    async with await trio.open_tcp_stream(*lab.inside[1].getsockname()) as stream:
        await stream.send_all(struct.pack("!H", len(QUERY)) + QUERY)
        with trio.fail_after(5):
            asked, relay = await lab.datagrams.recvfrom(4096)
            assert asked == QUERY[:11] + b"\x01" + QUERY[12:] + OPT % b"\x10\0"
            await lab.datagrams.sendto(with_opt, relay)
            received = b""
            while len(received) < 2 + len(large):
                received += await stream.receive_some(4096)
    assert received == struct.pack("!H", len(large)) + large
    assert lab.names.of("198.51.100.2") == ("www.example",)


async def test_a_part_of_an_answer_is_not_taken_for_all(lab) -> None:
    lab.nursery.start_soon(lab.answer_with, ANSWER[:2] + b"\x83" + ANSWER[3:])
    async with await trio.open_tcp_stream(*lab.inside[1].getsockname()) as stream:
        await stream.send_all(struct.pack("!H", len(QUERY)) + QUERY)
        with trio.fail_after(5):
            assert (await stream.receive_some(4096))[5] & 15 == SERVFAIL
    assert "does not fit" in lab.notes[0]


async def test_connections_that_ask_nothing_do_not_use_up_the_descriptors(lab, monkeypatch) -> None:
    monkeypatch.setattr("mitml4.net.namespace.dns._MAX_STREAMS", 2)
    streams = [await trio.open_tcp_stream(*lab.inside[1].getsockname()) for _ in range(3)]
    with trio.fail_after(5):
        assert await streams[2].receive_some() == b""
        await streams[0].aclose()
        while True:  # until the relay has heard of that
            another = await trio.open_tcp_stream(*lab.inside[1].getsockname())
            with trio.move_on_after(0.05):
                await another.receive_some()
                await another.aclose()
                continue
            break
    for stream in (*streams, another):
        await stream.aclose()
