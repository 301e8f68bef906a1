"""How a client takes our certificate, whichever engine does the handshake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio

from mitml4.layers.client_handshake import HANDSHAKE_S, ClientHandshake
from mitml4.layers.layer import HandshakeError
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.net.stream import StreamTruncated, Transport
from mitml4.tls.failure import TlsFailure
from mitml4.tls.opened_stream import OpenedStream
from mitml4.tls.pinning import PINNED, Client, PassthroughCache, Site, Visit

CLIENT = Client("192.0.2.1", "a hello")
SITE = Site("192.0.2.2:443", "a.test")


class Bare(OpenedStream):
    """It reads what the stream below has."""

    def on_certificate_request(self, call: Callable[[], None]) -> None:
        raise AssertionError

    def _read_record(self, buffer: memoryview) -> int | None:
        return self.below.receive_nowait(buffer)

    def _has_unread(self) -> bool:
        return False

    async def _wait_readable(self) -> None:
        await self.below.wait_receivable()

    async def wait_receivable(self) -> None:
        await self.below.wait_receivable()

    async def send_all(self, data: memoryview, *, fed_by: Transport | None = None) -> None:
        await self.below.send_all(data, fed_by=fed_by)

    async def send_eof(self, *, fed_by: Transport | None = None) -> None:
        await self.below.send_eof(fed_by=fed_by)


@dataclass
class Meeting:
    """One handshake between the two far ends."""

    visit: Visit
    errors: list[tuple[str, str]] = field(default_factory=list)
    alerts: list[int | None] = field(default_factory=list)
    """Those that the server's side was ended with."""
    resets: list[bool] = field(default_factory=list)
    """Whether it was reset."""

    def __post_init__(self) -> None:
        self.client_side, self.client = memory_pair()
        self.server_side, self.server = memory_pair()

    async def run(
        self, handshake: Callable[[MemoryStream], Awaitable[Bare]], *, is_resumed: bool = False
    ) -> Bare:
        async def end_server(alert: int | None, is_reset: bool) -> None:
            await trio.lowlevel.checkpoint()
            self.alerts.append(alert)
            self.resets.append(is_reset)

        meeting = ClientHandshake(
            client_side=self.client_side,
            server_side=self.server_side,
            end_server=end_server,
            visit=self.visit,
            error=lambda kind, reason: self.errors.append((kind, reason)),
        )
        stream = await meeting.run(lambda: handshake(self.client_side))
        meeting.watch_opening(stream, is_resumed=is_resumed)
        return stream

    async def fail(self, failure: Exception) -> None:
        with pytest.raises(HandshakeError):
            await self.run(raising(failure))
        assert self.client_side.is_closed


def raising(failure: Exception) -> Callable[[MemoryStream], Awaitable[Bare]]:
    async def handshake(_below: MemoryStream) -> Bare:
        await trio.lowlevel.checkpoint()
        raise failure

    return handshake


async def succeed(below: MemoryStream) -> Bare:
    await trio.sleep(1)
    return Bare(below)


@pytest.fixture
def meet() -> Callable[[], Meeting]:
    cache = PassthroughCache(trio.current_time)
    return lambda: Meeting(cache.visit(CLIENT, SITE))


@pytest.mark.parametrize(
    ("failure", "alert", "error", "reasons"),
    [
        (TlsFailure("…", 48), 48, ("certificate", "unknown_ca"), [PINNED, PINNED]),
        (TlsFailure("…", 40), 40, ("alert", "handshake_failure"), [None, PINNED]),
        (TlsFailure("…", 121), 121, ("alert", "ech_required"), [None, None]),
        (TlsFailure("no shared cipher"), None, ("protocol", "no shared cipher"),
         ["no shared cipher", "no shared cipher"]),
        (StreamTruncated("…"), None, ("certificate", "closed by the client after our certificate"),
         [None, PINNED]),
        (ConnectionResetError(), None, ("certificate", "reset by the client after our certificate"),
         [None, PINNED]),
    ],
)  # fmt: skip
async def test_how_a_client_ends_it_is_told_and_learned(
    meet,
    autojump_clock,
    failure: Exception,
    alert: int | None,
    error: tuple[str, str],
    reasons: list[str | None],
) -> None:
    for reason in reasons:
        meeting = meet()
        await meeting.fail(failure)
        assert (meeting.errors, meeting.alerts) == ([error], [alert])
        is_end = alert is not None or type(failure) is StreamTruncated
        assert meeting.resets == [not is_end]
        assert meeting.visit.passthrough_reason == reason
        await trio.sleep(1)


async def test_a_client_that_ended_before_our_certificate_has_not_refused_it(
    meet, autojump_clock
) -> None:
    for _ in range(3):
        meeting = meet()
        await meeting.client.send_eof()
        await meeting.fail(StreamTruncated("…"))
        assert meeting.errors == [("reset", "closed by the client before our certificate")]
        assert meeting.visit.passthrough_reason is None
        await trio.sleep(1)


async def test_a_client_has_a_limited_time(meet, autojump_clock) -> None:
    async def handshake(_below: MemoryStream) -> Bare:
        await trio.sleep(HANDSHAKE_S + 1)
        raise AssertionError

    meeting = meet()
    with pytest.raises(HandshakeError):
        await meeting.run(handshake)
    assert meeting.errors == [("timeout", "the client does not finish the handshake")]
    assert meeting.client_side.is_closed


async def test_a_reset_by_the_server_ends_it_unless_data_came_first(meet, autojump_clock) -> None:
    meeting = meet()
    meeting.server.abort()
    with pytest.raises(ConnectionResetError):
        await meeting.run(succeed)
    assert meeting.errors == []
    meeting = meet()
    await meeting.server.send_all(memoryview(b"hello"))
    meeting.server.abort()
    assert isinstance(await meeting.run(succeed), Bare)


@pytest.mark.parametrize("first", [b"GET /", b""], ids=["a byte", "an end"])
async def test_what_comes_first_after_it_counts(meet, autojump_clock, first: bytes) -> None:
    for number in range(3):
        meeting = meet()
        stream = await meeting.run(succeed)
        if first:
            await meeting.client.send_all(memoryview(first))
        await meeting.client.send_eof()
        assert await stream.peek(0, 100) == first
        has_left = not first and number >= 1
        told = [("certificate", "ended by the client after the handshake, again")]
        assert meeting.errors == (told if has_left else [])
        assert meeting.visit.passthrough_reason == (PINNED if has_left else None)


async def test_a_client_that_resumes_a_session_refuses_no_certificate(meet, autojump_clock) -> None:
    for _ in range(3):
        meeting = meet()
        stream = await meeting.run(succeed, is_resumed=True)
        await meeting.client.send_eof()
        assert await stream.peek(0, 100) == b""
        assert (meeting.errors, meeting.visit.passthrough_reason) == ([], None)


@pytest.mark.parametrize(
    ("alert", "error", "reason"),
    [
        (42, ("certificate", "bad_certificate"), PINNED),
        (121, ("alert", "ech_required"), None),
    ],
)
async def test_an_alert_after_it_may_be_a_refusal(
    meet, autojump_clock, alert: int, error: tuple[str, str], reason: str | None
) -> None:
    class Refusing(Bare):
        def _read_record(self, buffer: memoryview) -> int | None:
            raise TlsFailure("…", alert)

    async def handshake(below: MemoryStream) -> Bare:
        await trio.lowlevel.checkpoint()
        return Refusing(below)

    for _ in range(2):
        meeting = meet()
        stream = await meeting.run(handshake)
        with pytest.raises(TlsFailure):
            await stream.peek(0, 1)
        assert meeting.errors == [error]
        assert meeting.visit.passthrough_reason == reason
