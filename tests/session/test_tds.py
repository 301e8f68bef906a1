"""TLS whose handshake travels in the packets of TDS: opened, or passed as its two ends sent it.

Both ends are trio's own TLS over a stream that packs it as drivers and servers do.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import trio

from mitml4.events import FlowError, FlowLayer

ALL, LOGIN_ONLY = 1, 0
NAME = "sql.example.test"
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # RFC 8446 §6: fatal, handshake_failure
LOGIN = b"\x10\x01\x00\x6a\x00\x00\x01\x00\x62\x00\x00\x00\x04\x00\x00\x74" + bytes(32)
LOGIN += b"\x5e\x00\x02\x00" + bytes(50) + "me".encode("utf-16-le")


def packet(kind: int, body: bytes, status: int = 1) -> bytes:
    return bytes([kind, status]) + (8 + len(body)).to_bytes(2, "big") + bytes(4) + body


def prelogin(kind: int, encryption: int) -> bytes:
    table = b"\x00\x00\x0b\x00\x06\x01\x00\x11\x00\x01\xff"
    return packet(kind, table + b"\x10\x00\x03\xe8\x00\x00" + bytes([encryption]))


async def receive_exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            return data
        data += more
    return data


@dataclass
class Packed(trio.abc.Stream):
    """What TLS runs on: TDS packets while `packs`, bare afterwards. It notes what crosses it."""

    wire: trio.SocketStream
    packs: bool = True
    kind: int = 0x12
    most: int = 4088
    """What a packet holds."""
    sip: int = 1 << 20
    """So many bytes are written to the wire at a time."""
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    ends: list[bool] = field(default_factory=list)
    """Of the packets received, whether each says that it is its message's last."""
    _left: int = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        data = bytes(data)
        if self.packs:
            parts = [data[at : at + self.most] for at in range(0, len(data), self.most)]
            last = len(parts) - 1
            data = b"".join(packet(self.kind, part, at == last) for at, part in enumerate(parts))
        self.sent += data
        for at in range(0, len(data), self.sip):
            await self.wire.send_all(data[at : at + self.sip])
            if self.sip < 100:
                await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.packs and not self._left:
            head = await receive_exactly(self.wire, 8)
            self.received += head
            if len(head) < 8:
                return b""
            assert head[0] == 0x12
            self.ends.append(head[1] == 1)
            self._left = int.from_bytes(head[2:4], "big") - 8
            assert 0 < self._left <= 4088
        data = await self.wire.receive_some(self._left or max_bytes)
        self._left -= len(data) if self._left else 0
        self.received += data
        return data

    async def wait_send_all_might_not_block(self) -> None:
        await self.wire.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.wire.aclose()


def server_context(
    authority, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2, names: tuple[str, ...] = (NAME,)
) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    context.maximum_version = version
    context.num_tickets = 0
    return context


@dataclass
class Server:
    """Answers a prelogin, takes TLS in packets, and sends back what it gets inside."""

    context: ssl.SSLContext
    settings: dict[str, Any] = field(default_factory=dict)
    links: list[Packed] = field(default_factory=list)

    async def __call__(self, wire: trio.SocketStream) -> None:
        assert await receive_exactly(wire, 26) == prelogin(0x12, ALL)
        await wire.send_all(prelogin(0x04, ALL))
        link = Packed(wire, **self.settings)
        self.links.append(link)
        tls = trio.SSLStream(link, self.context, server_side=True)
        try:
            await tls.do_handshake()
            link.packs = False
            async for data in tls:
                await tls.send_all(data)
            await tls.aclose()
        except trio.BrokenResourceError:
            with suppress(trio.BrokenResourceError):  # trio sends no alert of its own
                await link.send_all(ALERT)
            await wire.aclose()


async def ask(proxy, answer: int = ALL) -> trio.SocketStream:
    """A connection on which both sides have agreed."""
    wire = await proxy.connect()
    with trio.fail_after(30):
        await wire.send_all(prelogin(0x12, answer))
        assert await receive_exactly(wire, 26) == prelogin(0x04, answer)
    return wire


async def shake_hands(proxy, context: ssl.SSLContext, **settings) -> tuple[trio.SSLStream, Packed]:
    link = Packed(await ask(proxy), **settings)
    tls = trio.SSLStream(link, context, server_hostname=NAME)
    with trio.fail_after(30):
        await tls.do_handshake()
    link.packs = False
    return tls, link


async def log_in(tls: trio.SSLStream, *, payload: bytes = b"") -> None:
    """Send a login and more, and see it come back."""
    data = LOGIN + payload
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls.send_all, data)
            back = b""
            while len(back) < len(data):
                back += await tls.receive_some()
        assert back == data


class ByHand:
    """A client whose last flight, or alert, is left in `outgoing`."""

    def __init__(self, link: Packed, context: ssl.SSLContext) -> None:
        self.link = link
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)

    async def until_done(self, step: Callable[[], Any]) -> Any:
        with trio.fail_after(30):
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    await self.flush()
                    self.incoming.write(await self.link.receive_some(4096))

    async def flush(self) -> None:
        if data := self.outgoing.read():
            await self.link.send_all(data)


async def refusal(proxy, context: ssl.SSLContext) -> str:
    """What OpenSSL says of a handshake that fails, its alert sent, in a packet."""
    client = ByHand(Packed(await ask(proxy)), context)
    with pytest.raises(ssl.SSLError) as caught:
        await client.until_done(client.tls.do_handshake)
    await client.flush()
    await client.link.aclose()
    return str(caught.value)


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "settings", [{}, {"sip": 1}, {"most": 6}, {"most": 1000, "sip": 7}], ids=str
)
async def test_it_is_opened_however_it_is_packed_and_split(
    lab, server_ca, version, settings
) -> None:
    server = Server(server_context(server_ca, version), settings)
    async with lab(server) as proxy:
        tls, _ = await shake_hands(proxy, proxy.client_context(), **settings)
        assert tls.version() == version.name.replace("_", ".")
        await log_in(tls)
        await tls.aclose()
        close = await proxy.wait_closed()
    assert (close.stack, close.reason) == (("tds", "tls", "tds"), "closed")
    outer, opened, inner = proxy.of(FlowLayer)
    assert (outer.details.encryption, outer.details.server_version) == ("all", "16.0.1000")
    assert (opened.action, opened.speaker) == ("intercepted", "client")
    assert (opened.details.sni, opened.details.certificate.verify) == (NAME, "ok")
    assert inner.details.user == b"me"
    assert proxy.of(FlowError) == []


async def test_what_follows_the_handshake_stands_bare_and_moves_in_both_directions(
    lab, server_ca
) -> None:
    server = Server(server_context(server_ca))
    async with lab(server) as proxy:
        tls, link = await shake_hands(proxy, proxy.client_context())
        crossed = len(link.received)
        await log_in(tls, payload=bytes(500_000))
        await tls.aclose()
        await proxy.wait_closed()
    assert link.received[crossed : crossed + 3] == b"\x17\x03\x03"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_flight_longer_than_a_packet_is_one_message(lab, server_ca, version) -> None:
    """A driver reads up to the packet that ends it, and counts on there being one such packet."""
    names = tuple(f"{number}.{NAME}" for number in range(250))
    context = server_context(server_ca, version, (NAME, *names))
    async with lab(Server(context)) as proxy:
        tls, link = await shake_hands(proxy, proxy.client_context())
        await log_in(tls)
        await tls.aclose()
        await proxy.wait_closed()
    first = link.ends[: link.ends.index(True)]
    assert len(first) > 0
    assert int.from_bytes(link.received[2:4], "big") == 4096
    flights = 2 if version is ssl.TLSVersion.TLSv1_2 else 1
    assert link.ends == [*first, *[True] * flights]
    assert proxy.of(FlowLayer)[1].action == "intercepted"


async def test_a_client_may_finish_bare_and_log_in_at_once(lab, server_ca) -> None:
    """In TLS 1.3 its Finished is the last message: it may be taken for what is behind them."""
    async with lab(Server(server_context(server_ca, ssl.TLSVersion.TLSv1_3))) as proxy:
        client = ByHand(Packed(await ask(proxy)), proxy.client_context())
        await client.until_done(client.tls.do_handshake)
        client.link.packs = False
        client.tls.write(LOGIN)
        back = b""
        while len(back) < len(LOGIN):
            back += await client.until_done(client.tls.read)
        assert back == LOGIN
        await client.link.aclose()
        close = await proxy.wait_closed()
    assert close.stack == ("tds", "tls", "tds")


async def test_tickets_that_a_server_packs_are_read(lab, server_ca) -> None:
    context = server_context(server_ca, ssl.TLSVersion.TLSv1_3)
    context.num_tickets = 2
    async with lab(Server(context)) as proxy:
        tls, _ = await shake_hands(proxy, proxy.client_context())
        await log_in(tls)
        await tls.aclose()
        close = await proxy.wait_closed()
    assert close.stack == ("tds", "tls", "tds")


async def test_old_servers_pack_it_in_answers(lab, server_ca) -> None:
    server = Server(server_context(server_ca), {"kind": 0x04})
    async with lab(server) as proxy:
        tls, _ = await shake_hands(proxy, proxy.client_context())
        await log_in(tls)
        await tls.aclose()
        assert (await proxy.wait_closed()).stack == ("tds", "tls", "tds")


@pytest.mark.parametrize("settings", [{}, {"sip": 1}, {"most": 7}], ids=str)
async def test_what_is_not_opened_passes_as_its_ends_packed_it(lab, server_ca, settings) -> None:
    server = Server(server_context(server_ca), settings)
    policy = {"policy": lambda _ends: ("passthrough", "policy")}
    async with lab(server, **policy) as proxy:
        mine = ssl.create_default_context()
        server_ca.configure_trust(mine)
        tls, link = await shake_hands(proxy, mine, **settings)
        await log_in(tls)
        await tls.aclose()
        close = await proxy.wait_closed()
    (far,) = server.links
    assert bytes(link.sent) == bytes(far.received)
    assert bytes(far.sent).startswith(bytes(link.received))
    assert close.stack == ("tds", "tls")
    layer = proxy.of(FlowLayer)[1]
    assert (layer.action, layer.details.passthrough) == ("passthrough", "policy")
    assert (layer.details.sni, layer.details.version) == (NAME, "TLSv1.2")
    assert layer.details.certificate.san == (NAME,)


async def test_who_refuses_our_certificate_is_passed_through_from_then_on(lab, server_ca) -> None:
    server = Server(server_context(server_ca))
    async with lab(server) as proxy:
        pinned = ssl.create_default_context()
        server_ca.configure_trust(pinned)
        assert "certificate verify failed" in await refusal(proxy, pinned)
        assert (await proxy.wait_closed()).reason == "error"
        (error,) = proxy.of(FlowError)
        assert (error.side, error.kind, error.reason) == ("client", "certificate", "unknown_ca")
        tls, link = await shake_hands(proxy, pinned)
        await log_in(tls)
        await tls.aclose()
        await proxy.wait_closed(2)
    assert bytes(link.sent) == bytes(server.links[1].received)
    layer = proxy.of(FlowLayer)[-1]
    assert (layer.action, layer.details.passthrough) == ("passthrough", "pinned")


async def test_who_wants_a_client_certificate_gets_the_clients_own_from_then_on(
    lab, server_ca
) -> None:
    """There is no second connection to retreat to: a prelogin has gone over this one."""
    context = server_context(server_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    server_ca.configure_trust(context)
    async with lab(Server(context)) as proxy:
        mine = ssl.create_default_context()
        server_ca.configure_trust(mine)
        server_ca.issue_cert("me@example.test").configure_cert(mine)
        assert "handshake failure" in (await refusal(proxy, mine)).lower().replace("_", " ")
        await proxy.wait_closed()
        tls, _ = await shake_hands(proxy, mine)
        await log_in(tls)
        await tls.aclose()
        await proxy.wait_closed(2)
    layer = proxy.of(FlowLayer)[-1]
    assert (layer.action, layer.details.passthrough) == ("passthrough", "client certificate")


async def test_the_servers_alert_reaches_the_client_in_a_packet(lab) -> None:
    async def refuse(wire: trio.SocketStream) -> None:
        await receive_exactly(wire, 26)
        await wire.send_all(prelogin(0x04, ALL))
        await wire.receive_some()
        await wire.send_all(packet(0x12, b"\x15\x03\x03\x00\x02\x02\x70"))  # RFC 8446 §6: 112

    async with lab(refuse) as proxy:
        assert "unrecognized name" in (
            await refusal(proxy, proxy.client_context())
        ).lower().replace("_", " ")
        assert (await proxy.wait_closed()).reason == "error"
    assert [error.reason for error in proxy.of(FlowError)] == ["unrecognized_name"]


async def exchange(proxy, hello: bytes, *, answer: int) -> None:
    """Say something behind the prelogin that nobody answers."""
    wire = await ask(proxy, answer)
    await wire.send_all(hello)
    await wire.send_eof()
    with trio.fail_after(30):
        assert await receive_exactly(wire, len(hello)) == hello
    await wire.aclose()


async def echo_behind_prelogin(answer: int, wire: trio.SocketStream) -> None:
    await receive_exactly(wire, 26)
    await wire.send_all(prelogin(0x04, answer))
    async for data in wire:
        await wire.send_all(data)
    await wire.send_eof()


@pytest.mark.parametrize(
    ("answer", "hello", "stack"),
    [
        (LOGIN_ONLY, packet(0x12, b"\x16\x03\x03\x00\x04\x01\x00\x00\x00"), ("tds",)),
        (ALL, packet(0x12, b"\x16\x03\x03\x00\x04\x01\x00\x00\x00"), ("tds", "tls")),
        (ALL, packet(0x12, b"\x16"), ("tds", "tls")),
        (ALL, packet(0x12, b"no TLS at all"), ("tds",)),
        (ALL, packet(0x12, b"\x16\x03\x03")[:8], ("tds",)),
        (ALL, LOGIN, ("tds",)),
    ],
)
async def test_what_cannot_be_opened_passes(lab, answer, hello, stack) -> None:
    async with lab(partial(echo_behind_prelogin, answer)) as proxy:
        await exchange(proxy, hello, answer=answer)
        close = await proxy.wait_closed()
    assert (close.stack, close.reason) == (stack, "closed")
