"""The server of a proxy, over a pair of streams in memory."""

from __future__ import annotations

from base64 import b64encode

import pytest
import trio

from mitml4.errors import UsageError
from mitml4.layers.proxy.credentials import Credentials
from mitml4.layers.proxy.refusal import Refused, Why
from mitml4.layers.proxy.server import ProxyServer
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.protocols.policy import Target

HELLO5 = b"\x05\x01\x00"
ASK5 = b"\x05\x01\x00\x03\x0bexample.org\x01\xbb"
ASK4 = b"\x04\x01\x01\xbb\xc0\x00\x02\x05\x00"
ASK4A = b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00example.org\x00"
GRANTED = b"\x00\x5a" + bytes(6)
REFUSED4 = b"\x00\x5b" + bytes(6)
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
ACCOUNTS = Credentials((b"user:pass", b"other:p:w"))


class Servers:
    """What a proxy connects to: servers that answer each request with its head."""

    def __init__(self, refused: Refused | None = None) -> None:
        self.asked: list[Target | None] = []
        self.refused = refused
        self.ends: list[MemoryStream] = []
        self.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]
        self.heads: list[bytes] = []
        self.close_after_one = False

    async def open(self, target: Target | None) -> MemoryStream:
        self.asked.append(target)
        if self.refused:
            raise self.refused
        near, far = memory_pair()
        self.ends.append(far)
        return near

    async def answer(self, end: MemoryStream) -> None:
        """Answer requests on a connection, the last answer again and again."""
        buffer = memoryview(bytearray(65536))
        while True:
            await end.wait_receivable()
            count = end.receive_nowait(buffer)
            if not count:
                end.close()
                return
            self.heads.append(bytes(buffer[:count]))
            answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
            if not answer:
                end.close()
                return
            await end.send_all(memoryview(answer))
            if self.close_after_one:
                end.close()
                return


async def talk(
    *pieces: bytes,
    credentials: Credentials | None = None,
    servers: Servers | None = None,
    end: bool = True,
) -> bytes:
    """What a client gets that sends these pieces, until the proxy ends or waits."""
    servers = servers or Servers()
    client, far = memory_pair()
    server = ProxyServer(far=far, open=servers.open, credentials=credentials)
    got = bytearray()

    async def answer_all() -> None:
        async with trio.open_nursery() as answering:
            while True:
                await trio.testing.wait_all_tasks_blocked()
                while servers.ends:
                    answering.start_soon(servers.answer, servers.ends.pop(0))
                await trio.sleep(0.01)

    async def receive() -> None:
        buffer = memoryview(bytearray(65536))
        with trio.move_on_after(3600):
            try:
                while True:
                    await client.wait_receivable()
                    count = client.receive_nowait(buffer)
                    if not count:
                        break
                    got.extend(buffer[:count])
            except OSError:
                got.extend(b"<reset>")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        nursery.start_soon(answer_all)
        for piece in pieces:
            await client.send_all(memoryview(piece))
            await trio.testing.wait_all_tasks_blocked(0.005)
        if end and not server.tunnel:
            await trio.sleep(1)
            with trio.move_on_after(0):
                await client.send_eof()
        if not server.tunnel:
            await receive()
        else:
            got.extend(client.peek_nowait(65536))
        nursery.cancel_scope.cancel()
    return bytes(got)


def connect(authority: bytes, *fields: bytes) -> bytes:
    return b"CONNECT %b HTTP/1.1\r\n%b\r\n" % (authority, b"".join(f + b"\r\n" for f in fields))


def basic(pair: bytes) -> bytes:
    return b"Proxy-Authorization: Basic " + b64encode(pair)


@pytest.mark.parametrize(
    ("pieces", "answer", "target"),
    [
        ([HELLO5, ASK5], b"\x05\x00\x05\x00\x00\x01" + bytes(6), Target("example.org", 443)),
        ([HELLO5 + ASK5], b"\x05\x00\x05\x00\x00\x01" + bytes(6), Target("example.org", 443)),
        (
            [b"\x05\x01\x02", b"\x01\x01a\x01b", b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50"],
            b"\x05\x02\x01\x00\x05\x00\x00\x01" + bytes(6),
            Target("::1", 80),
        ),
        ([ASK4], GRANTED, Target("192.0.2.5", 443)),
        ([ASK4A[:5], ASK4A[5:]], GRANTED, Target("example.org", 443)),
        ([connect(b"example.org:443")], CONNECTED, Target("example.org", 443)),
        ([connect(b"[2001:db8::1]:8443")], CONNECTED, Target("2001:db8::1", 8443)),
        ([b"\r\n" + connect(b"example.org:1")], CONNECTED, Target("example.org", 1)),
    ],
)
async def test_a_tunnel_leads_where_the_client_asks(
    pieces: list[bytes], answer: bytes, target: Target, autojump_clock: trio.abc.Clock
) -> None:
    servers = Servers()
    assert await talk(*pieces, servers=servers) == answer
    assert servers.asked == [target]


@pytest.mark.parametrize("pieces", [[connect(b"a:1") + b"hello"], [connect(b"a:1"), b"hello"]])
async def test_what_a_client_sends_and_ends_early_goes_into_its_tunnel(pieces: list[bytes]) -> None:
    client, far = memory_pair()
    server = ProxyServer(far=far, open=Servers().open)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        for piece in pieces:
            await client.send_all(memoryview(piece))
            await trio.testing.wait_all_tasks_blocked()
        await client.send_eof()
        _, sent = server.take_tunnel()
    assert sent == b"hello"


@pytest.mark.parametrize(
    ("pieces", "answer"),
    [
        ([b"\x05\x01\x01"], b"\x05\xff"),  # GSSAPI alone
        ([HELLO5, b"\x05\x03\x00\x01" + bytes(6)], b"\x05\x00\x05\x07\x00\x01" + bytes(6)),
        ([HELLO5, b"\x05\x01\x00\x09" + bytes(6)], b"\x05\x00\x05\x08\x00\x01" + bytes(6)),
        ([HELLO5, b"\x05\x01\x00\x01\x01\x02\x03\x04\x00\x00"], b"\x05\x00\x05\x08\x00\x01"),
        ([b"\x04\x02\x01\xbb\xc0\x00\x02\x05\x00"], REFUSED4),  # BIND
        ([b"\x04\x01\x00\x00\xc0\x00\x02\x05\x00"], REFUSED4),  # port 0
        ([b"\x05"], b""),
        ([b"\x05\x05\x00"], b""),
        ([b"\x16\x03\x01\x00\x10\x01"], b"\x15\x03\x01\x00\x02\x02\x28"),
        ([b"\x00\x01\x02\x03\r\n\r\n"], b"HTTP/1.1 400 "),
        ([b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n\r\n"], b"HTTP/1.1 400 "),
        ([b"PRI * HTTP/2.0\r\n\r\n"], b"HTTP/1.1 400 "),
        ([connect(b"example.org:0")], b"HTTP/1.1 400 "),
        ([connect(b"example.org:65536")], b"HTTP/1.1 400 "),
        ([connect(b"http://example.org/")], b"HTTP/1.1 400 "),
        ([connect(b"")], b"HTTP/1.1 400 "),
        ([connect(b"example.org")], b"HTTP/1.1 400 "),
        ([connect(b"fd14::1:80")], b"HTTP/1.1 400 "),
        ([b"GET http://a/ HTTP/1.1\r\nHost a\r\n\r\n"], b"HTTP/1.1 400 "),
        ([b"GET http://a/ HTTP/1.1\r\nX: y\rHost: b\r\n\r\n"], b"HTTP/1.1 400 "),
        ([b"GET http://a/ HTTP/1.1\r\nX: y\0\r\n\r\n"], b"HTTP/1.1 400 "),
        ([b"GET https://example.org/ HTTP/1.1\r\n\r\n"], b"HTTP/1.1 400 "),
        ([b"GET ftp://example.org/ HTTP/1.1\r\n\r\n"], b"HTTP/1.1 400 "),
        ([b"GET http://a\\@b/ HTTP/1.1\r\n\r\n"], b"HTTP/1.1 400 "),
        ([b"GET http:///x HTTP/1.1\r\n\r\n"], b"HTTP/1.1 400 "),
        ([b"GET example.org HTTP/1.1\r\n\r\n"], b"HTTP/1.1 400 "),
        ([b"GET http://a/ HTTP/1.1\r\n", b"X: " + b"y" * 70_000], b"HTTP/1.1 400 "),
        (
            [b"GET http://a/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"],
            b"HTTP/1.1 400",
        ),
        ([b"GET http://a/ HT"], b"HTTP/1.1 400 "),
    ],
)
async def test_what_is_no_request_is_answered_and_ended(
    pieces: list[bytes], answer: bytes, autojump_clock: trio.abc.Clock
) -> None:
    servers = Servers()
    got = await talk(*pieces, servers=servers)
    assert got[: len(answer) or None] == answer
    assert servers.asked == []


@pytest.mark.parametrize("piece", [b"", b"\x05\x02\x00", b"\x04\x01\x01", b"GET http://a/ HTTP/1"])
async def test_a_client_that_does_not_go_on_is_not_waited_for(
    piece: bytes, autojump_clock: trio.abc.Clock
) -> None:
    began = trio.current_time()
    await talk(piece, end=False) if piece else await talk(end=False)
    assert trio.current_time() - began < 70


@pytest.mark.parametrize(
    ("pieces", "answer"),
    [
        ([b"\x05\x02\x00\x02", b"\x01\x04user\x04pass", ASK5], b"\x05\x02\x01\x00\x05\x00\x00"),
        ([b"\x05\x01\x02", b"\x01\x05other\x03p:w", ASK5], b"\x05\x02\x01\x00\x05\x00\x00"),
        ([b"\x05\x01\x02", b"\x01\x04user\x04nope"], b"\x05\x02\x01\x01"),
        ([b"\x05\x01\x02", b"\x01\x07other:p\x01w"], b"\x05\x02\x01\x01"),
        ([HELLO5], b"\x05\xff"),
        ([ASK4], REFUSED4),
        ([connect(b"a:1", basic(b"user:pass"))], CONNECTED),
        ([connect(b"a:1", basic(b"other:p:w"))], CONNECTED),
        ([connect(b"a:1")], b"HTTP/1.1 407 "),
        ([connect(b"a:1", basic(b"user:nope"))], b"HTTP/1.1 407 "),
        ([connect(b"a:1", b"Proxy-Authorization: Basic !")], b"HTTP/1.1 407 "),
        ([connect(b"a:1", b"Proxy-Authorization: Bearer x")], b"HTTP/1.1 407 "),
        ([connect(b"a:1", b"Authorization: Basic " + b64encode(b"user:pass"))], b"HTTP/1.1 407 "),
        ([b"GET http://a/ HTTP/1.1\r\n\r\n"], b"HTTP/1.1 407 "),
        ([b"GET http://a/ HTTP/1.1\r\n" + basic(b"user:pass") + b"\r\n\r\n"], b"HTTP/1.1 200 "),
    ],
)
async def test_only_clients_with_a_password_are_served(
    pieces: list[bytes], answer: bytes, autojump_clock: trio.abc.Clock
) -> None:
    got = await talk(*pieces, credentials=ACCOUNTS)
    assert got.startswith(answer)
    assert (b'Proxy-Authenticate: Basic realm="mitml4"' in got) == got.startswith(b"HTTP/1.1 407")


@pytest.mark.parametrize(
    ("why", "status", "reply"),
    [
        (Why.POLICY, b"403", 2),
        (Why.NO_NAME, b"502", 4),
        (Why.REFUSED, b"502", 5),
        (Why.TIMEOUT, b"504", 6),
    ],
)
async def test_a_refusal_is_said_in_the_words_of_the_protocol(
    why: Why, status: bytes, reply: int, autojump_clock: trio.abc.Clock
) -> None:
    for ask in (connect(b"example.org:443"), b"GET http://example.org/ HTTP/1.1\r\n\r\n"):
        got = await talk(ask, servers=Servers(Refused(why, 'no "x"\n')))
        assert got.startswith(b"HTTP/1.1 " + status)
        assert f'error={why.value.error}; details="no ?x??"'.encode() in got
    got = await talk(HELLO5, ASK5, servers=Servers(Refused(why, "no")))
    assert got == b"\x05\x00" + bytes((5, reply, 0, 1)) + bytes(6)
    assert await talk(ASK4, servers=Servers(Refused(why, "no"))) == REFUSED4


async def test_each_url_goes_to_its_server_in_origin_form(autojump_clock: trio.abc.Clock) -> None:
    servers = Servers()
    got = await talk(
        b"GET http://u:p@one.example/a?b HTTP/1.1\r\nHost: other\r\nX-Own: 1\r\nX-Hop: 2\r\n"
        b"Connection: x-hop, host\r\nProxy-Connection: keep-alive\r\n"
        b"Proxy-Authorization: x\r\n\r\n",
        b"POST http://one.example HTTP/1.1\r\nHost: one.example\r\nContent-Length: 3\r\n\r\nabc",
        b"OPTIONS http://[2001:db8::1]:81 HTTP/1.1\r\n\r\n",
        servers=servers,
    )
    assert got.count(b"HTTP/1.1 200 OK") == 3
    assert servers.asked == [Target("one.example", 80), Target("2001:db8::1", 81)]
    assert b"".join(servers.heads) == (
        b"GET /a?b HTTP/1.1\r\nHost: one.example\r\nX-Own: 1\r\n\r\n"
        b"POST / HTTP/1.1\r\nHost: one.example\r\nContent-Length: 3\r\n\r\nabc"
        b"OPTIONS * HTTP/1.1\r\nHost: [2001:db8::1]:81\r\n\r\n"
    )


async def test_an_upgrade_through_a_url_is_a_tunnel(autojump_clock: trio.abc.Clock) -> None:
    servers = Servers()
    servers.answers = [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"pong",
    ]
    ask = b"GET http://a/ HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
    got = await talk(ask, b"ping", servers=servers)
    assert got.endswith(b"Upgrade: websocket\r\n\r\npong")
    assert servers.heads[0].endswith(
        b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert servers.heads[1] == b"ping"


async def test_an_upgrade_to_http2_is_not_passed_on(autojump_clock: trio.abc.Clock) -> None:
    servers = Servers()
    ask = (
        b"GET http://a/ HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
    )
    assert b"200 OK" in await talk(ask, servers=servers)
    assert servers.heads == [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]


async def test_a_server_that_ended_a_kept_connection_is_asked_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    servers = Servers()
    servers.answers = [*servers.answers, b"", *servers.answers]
    ask = b"GET http://a/ HTTP/1.1\r\n\r\n"
    got = await talk(ask, ask, servers=servers)
    assert got.count(b"HTTP/1.1 200 OK") == 2
    assert servers.asked == [Target("a", 80)] * 2


@pytest.mark.parametrize(
    ("answer", "begins"),
    [
        (b"", b"HTTP/1.1 502 "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"<reset>"),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 502 "),
    ],
)
async def test_a_server_that_breaks_off(
    answer: bytes, begins: bytes, autojump_clock: trio.abc.Clock
) -> None:
    servers = Servers()
    servers.answers, servers.close_after_one = [answer], True
    got = await talk(b"GET http://a/ HTTP/1.1\r\n\r\n", servers=servers)
    assert got.startswith(begins) or got.endswith(begins)


@pytest.mark.parametrize(
    "text", ["", "secret-alone", ":secret-alone", "secret-user:", "u" * 256 + ":p"]
)
def test_credentials_that_cannot_be_sent_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        Credentials.parse(text)
    assert len(text) < 9 or text not in raised.value.message
