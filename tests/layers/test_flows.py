"""A flow ends well wherever it is cancelled, and whichever end goes first, or breaks.

Flows run on connections in memory, in virtual time. What each script of an end expects is what a
direct connection would bring.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import trio

from mitml4.engine.engine import Engine
from mitml4.engine.plaintext import Plaintext
from mitml4.layers.bridge import Bridge
from mitml4.layers.lane import Lane
from mitml4.net.memory import MemoryStream
from mitml4.net.stream import StreamTruncated
from mitml4.protocols.policy import PolicyDecision, Target
from mitml4.session.flows.flow import Flow
from mitml4.tls.stream import TlsStream

GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
DECODE_ERROR = b"\x15\x03\x03\x00\x02\x02\x32"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Http:
    """What comes before the first request, on either side, and then a request and its answer."""

    stack: tuple[str, ...] = ("http/1",)
    request = GET
    response = OK
    window = 65536
    has_server = True
    shows_payload = False
    copies_plaintext = False

    def policy(self, _ends) -> PolicyDecision:
        return PolicyDecision("intercept")

    async def open_client(self, end) -> None:
        pass

    async def open_server(self, end) -> None:
        pass


class Opaque(Http):
    stack = ("unknown",)
    request = b"\0\xff\0 what is this\0"
    response = b"\xff\0\xff nobody knows\0"


class SmtpStartTls(Http):
    """The server speaks first."""

    stack = ("smtp", "tls", "smtp")
    request = b"EHLO b.test\r\n"
    response = b"250 a.test\r\n"

    async def open_client(self, end) -> None:
        await end.expect(b"220 a.test ESMTP\r\n")
        await end.send(b"EHLO b.test\r\n")
        await end.expect(b"250-a.test\r\n250 STARTTLS\r\n")
        await end.send(b"STARTTLS\r\n")
        await end.expect(b"220 go\r\n")
        await end.start_tls()

    async def open_server(self, end) -> None:
        await end.send(b"220 a.test ESMTP\r\n")
        await end.expect(b"EHLO b.test\r\n")
        await end.send(b"250-a.test\r\n250 STARTTLS\r\n")
        await end.expect(b"STARTTLS\r\n")
        await end.send(b"220 go\r\n")
        await end.start_tls(as_server=True)


class SocksHttp(Http):
    stack = ("socks5", "http/1")

    async def open_client(self, end) -> None:
        await end.send(b"\x05\x01\x00")
        await end.expect(b"\x05\x00")
        await end.send(b"\x05\x01\x00\x03\x06a.test\x00\x50")
        await end.expect(b"\x05\x00\x00\x01\x7f\0\0\x01\x12\x34")

    async def open_server(self, end) -> None:
        await end.expect(b"\x05\x01\x00")
        await end.send(b"\x05\x00")
        await end.expect(b"\x05\x01\x00\x03\x06a.test\x00\x50")
        await end.send(b"\x05\x00\x00\x01\x7f\0\0\x01\x12\x34")


class TlsHttp(Http):
    stack: tuple[str, ...] = ("tls", "http/1")

    async def open_client(self, end) -> None:
        await end.start_tls()

    async def open_server(self, end) -> None:
        await end.start_tls(as_server=True)


class TlsPassthrough(TlsHttp):
    stack = ("tls",)

    def policy(self, _ends) -> PolicyDecision:
        return PolicyDecision("passthrough", "--tls passthrough")


class TlsGivenUp(TlsPassthrough):
    """The server asks for the client's certificate: the flow connects again."""

    def policy(self, _ends) -> PolicyDecision:
        return PolicyDecision("intercept")

    async def open_server(self, end) -> None:
        await end.start_tls(as_server=True, asks=True)


class Bulk(Opaque):
    """More than there is room for."""

    request = bytes(range(256)) * 400
    response = bytes(range(255, -1, -1)) * 200
    window = 8192


class OpaqueShown(Opaque):
    """Its bytes become `flow.data`."""

    shows_payload = True


class TlsHttpCopied(TlsHttp):
    """Bodies are shown, and what moves inside TLS is copied."""

    shows_payload = True
    copies_plaintext = True


TALKS = (
    *(Http, Opaque, Bulk, SmtpStartTls, SocksHttp, TlsHttp, TlsPassthrough, TlsGivenUp),
    *(OpaqueShown, TlsHttpCopied),
)

# What each end does after what comes before the first request: it sends (>), it expects (<).
ORDERS = {
    "the client first": (
        "> request, < response, > end, < end",
        "< request, > response, < end, > end",
    ),
    "the server first": (
        "> request, < response, < end, > end",
        "< request, > response, > end, < end",
    ),
    "both at once": ("> request, < response, > end, < end", "< request, > response, > end, < end"),
    "the request ends": (
        "> request, > end, < response, < end",
        "< request, < end, > response, > end",
    ),
    "an upload goes on": (
        "> request, < response, < end, > request, > end",
        "< request, > response, > end, < request, < end",
    ),
}


@dataclass(frozen=True)
class Conversation:
    """The scripts of both ends."""

    talk: Http
    order: str

    async def client(self, end) -> None:
        await self.talk.open_client(end)
        await self.play(end, ORDERS[self.order][0])

    async def server(self, end) -> None:
        await self.talk.open_server(end)
        await self.play(end, ORDERS[self.order][1])

    async def play(self, end, lines: str) -> None:
        for line in lines.split(", "):
            match line.split():
                case ">", "end":
                    await end.send_eof()
                case "<", "end":
                    await end.expect_eof()
                case ">", what:
                    await end.send(getattr(self.talk, what))
                case "<", what:
                    await end.expect(getattr(self.talk, what))

    def run(self, flow_lab, **disturbed):
        out = flow_lab.run(
            self.client,
            self.server if self.talk.has_server else None,
            policy=self.talk.policy,
            window=self.talk.window,
            shows_payload=self.talk.shows_payload,
            copies_plaintext=self.talk.copies_plaintext,
            **disturbed,
        )
        out.check()
        return out


class Silent(Http):
    """Both ends end without a byte."""

    stack = ()
    request = response = b""


class Refused(Silent):
    """The server takes no connection."""

    has_server = False


class Blocked(Http):
    """The client asks for what it may not."""

    def policy(self, ends) -> PolicyDecision:
        is_named = any(isinstance(end, Target) and end.host == "a.test" for end in ends)
        return PolicyDecision("block" if is_named else "intercept", "--block a.test")


@pytest.fixture(params=TALKS, ids=[each.__name__ for each in TALKS])
def talk(request) -> Http:
    return request.param()


def test_whichever_end_goes_first_both_get_all_that_was_sent(talk, flow_lab) -> None:
    for order in ORDERS:
        out = Conversation(talk, order).run(flow_lab)
        assert out.stack == talk.stack, order
        assert (out.close.reason, out.errors) == ("closed", []), order
        assert out.met == {"client": "all", "server": "all"}, order
        assert out.shows_payload == talk.shows_payload, order
        assert out.copies_plaintext == talk.copies_plaintext, order


@pytest.mark.parametrize("talk", [TlsHttp(), SmtpStartTls()], ids=["tls", "starttls"])
def test_a_client_that_ends_without_close_notify_has_ended_well(flow_lab, talk: Http) -> None:
    """OpenSSL answers it with an alert: that is no fault of the server."""

    async def client(end) -> None:
        await talk.open_client(end)
        await end.send(talk.request)
        await end.expect(talk.response)
        await end.stream.below.send_eof()
        with pytest.raises(StreamTruncated):
            await end.expect_eof()

    async def server(end) -> None:
        await talk.open_server(end)
        await end.expect(talk.request)
        await end.send(talk.response)
        with pytest.raises(StreamTruncated):
            await end.expect_eof()
        await end.stream.below.send_all(memoryview(DECODE_ERROR))

    out = flow_lab.run(client, server)
    assert (out.close.reason, out.errors) == ("closed", [])
    assert out.met == {"client": "all", "server": "all"}


@pytest.mark.parametrize(
    ("talk", "reason", "met"),
    [
        (Silent, "closed", {"client": "all", "server": "all"}),
        (Refused, "refused", {"client": "reset"}),
        (Blocked, "blocked", {"client": "reset", "server": "reset"}),
    ],
)
def test_what_never_begins_ends_well_too(flow_lab, talk, reason: str, met: dict) -> None:
    conversation = Conversation(talk(), "both at once")
    out = conversation.run(flow_lab, at=0)
    assert (out.close.reason, out.met) == (reason, met)
    for at in range(1, out.steps + 1):
        out = conversation.run(flow_lab, at=at, act="cancel")
        assert out.close.reason in ("shutdown", reason)


def test_a_hello_is_looked_at_once(flow_lab, monkeypatch) -> None:
    looks = []
    peek = MemoryStream.peek_nowait

    def counted(stream: MemoryStream, limit: int) -> bytes:
        data = peek(stream, limit)
        if data.startswith(b"\x16\x03\x01"):  # the client's first record
            looks.append(len(data))
        return data

    monkeypatch.setattr(MemoryStream, "peek_nowait", counted)
    Conversation(TlsHttp(), "the client first").run(flow_lab)
    assert len(looks) == 1


def test_each_wait_of_a_flow_can_be_cancelled(talk, flow_lab) -> None:
    """Both ends are told by a reset, since neither may take what it has for all; nothing is left
    that only the garbage collector could find."""
    conversation = Conversation(talk, "the client first")
    last = conversation.run(flow_lab).steps
    with nothing_left():
        for at in range(1, last + 1):
            out = conversation.run(flow_lab, at=at, act="cancel")
            assert set(out.met.values()) <= {"all", "reset"}, at
            assert out.close.reason == "shutdown" or set(out.met.values()) == {"all"}, at


@contextmanager
def nothing_left() -> Iterator[None]:
    """Of what is run, nothing is left that only the garbage collector could find."""
    gc.collect()
    gc.disable()
    try:
        yield
        kinds = Flow | Bridge | Lane | TlsStream | Engine | Plaintext
        assert [type(each) for each in gc.get_objects() if isinstance(each, kinds)] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_at_any_point_is_a_reset_at_the_other_end(talk, flow_lab, side: str) -> None:
    """Unless that one has had all by then."""
    conversation = Conversation(talk, "the client first")
    other = "server" if side == "client" else "client"
    last = conversation.run(flow_lab).steps
    reasons = set()
    with nothing_left():
        for at in range(1, last + 1):
            out = conversation.run(flow_lab, at=at, act=side)
            assert out.met.get(other, "reset") in ("all", "reset"), at
            assert out.close.reason in ("reset", "error") or out.met[other] == "all", at
            reasons.add(out.close.reason)
    assert "reset" in reasons


@pytest.mark.parametrize("talk", [Opaque, Http, TlsHttp])
def test_a_reset_behind_an_end_reaches_an_end_that_is_silent(flow_lab, talk) -> None:
    conversation = Conversation(talk(), "the request ends")

    async def client(end) -> None:
        await conversation.talk.open_client(end)
        await end.send(conversation.talk.request)
        await end.send_eof()
        await trio.sleep(1)
        end.stream.abort()

    async def server(end) -> None:
        await conversation.talk.open_server(end)
        await end.expect(conversation.talk.request)
        await end.expect_eof()
        await end.stream.transport.wait_reset()

    out = flow_lab.run(client, server, at=0)
    out.check()
    assert out.close.reason == "reset"
    assert out.met == {"client": "all", "server": "reset"}


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("talk", [Opaque, Http, TlsHttp, TlsPassthrough])
def test_a_reset_reaches_an_end_that_reads_nothing(flow_lab, talk, side: str) -> None:
    """What is on the way fills all windows before that."""
    conversation = Conversation(talk(), "the client first")

    async def exchange(end, own_side: str) -> None:
        is_client = own_side == "client"
        await (conversation.talk.open_client if is_client else conversation.talk.open_server)(end)
        message = conversation.talk.request if is_client else conversation.talk.response
        if own_side == side:
            with trio.move_on_after(5):
                await end.send(message + bytes(1_000_000))
            end.stream.abort()
        else:
            await end.stream.transport.wait_reset()

    out = flow_lab.run(
        lambda end: exchange(end, "client"),
        lambda end: exchange(end, "server"),
        policy=conversation.talk.policy,
        at=0,
    )
    out.check()
    assert out.close.reason == "reset"
    assert out.met == {side: "all", "server" if side == "client" else "client": "reset"}
