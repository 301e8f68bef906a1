"""Windows of HTTP/2 that change while bodies are replaced, between two connections of h2, which
raise an error for each byte beyond a window.

h2 applies its SETTINGS when their acknowledgement comes, as RFC 9113 §6.5.3 lets it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.settings
import h2.windows
import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from mitml4.edit.http2.core import Http2Core
from mitml4.edit.memory import EditMemory
from mitml4.edit.messages import Response
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http import http2_wire as wire
from mitml4.protocols.http.http2_wire import ErrorCode, Http2Error, frame_bytes
from tests.edit.test_http2 import GET, LIMIT, OK, POST
from tests.edit.test_http2_conduct import head

UP, DOWN = Direction.UP, Direction.DOWN
WINDOW = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
TABLE = h2.settings.SettingCodes.HEADER_TABLE_SIZE
LARGE = 1 << 20


@pytest.fixture(autouse=True)
def _empty_data_needs_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """As RFC 9113 §6.9.1 has it. h2 refuses it while a window is below zero."""
    consumed = h2.windows.WindowManager.window_consumed
    monkeypatch.setattr(
        h2.windows.WindowManager,
        "window_consumed",
        lambda self, size: consumed(self, size) if size else None,
    )


@dataclass
class End:
    """A client or a server."""

    is_client: bool
    body: bytes = field(repr=False)
    """What it sends on each stream."""
    connection: h2.connection.H2Connection = field(init=False)
    left: dict[int, bytes] = field(default_factory=dict)
    """By stream: what it has not sent yet."""
    got: dict[int, bytearray] = field(default_factory=dict)
    taken: list[tuple[int, int]] = field(default_factory=list)
    """Streams, and how many bytes came on them that no WINDOW_UPDATE was sent for."""
    ended: set[int] = field(default_factory=set)
    unacknowledged: int = 1

    def __post_init__(self) -> None:
        config = h2.config.H2Configuration(client_side=self.is_client, header_encoding="utf-8")
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()

    def receive(self, data: bytes) -> None:
        for event in self.connection.receive_data(data) if data else ():
            if isinstance(event, h2.events.RequestReceived):
                assert event.stream_id is not None
                self.connection.send_headers(event.stream_id, OK)
                self.left[event.stream_id] = self.body
            elif isinstance(event, h2.events.DataReceived):
                assert event.stream_id is not None
                assert event.data is not None
                self.got.setdefault(event.stream_id, bytearray()).extend(event.data)
                self.taken.append((event.stream_id, event.flow_controlled_length or 0))
            elif isinstance(event, h2.events.SettingsAcknowledged):
                self.unacknowledged -= 1
            elif isinstance(event, h2.events.StreamEnded):
                assert event.stream_id is not None
                self.ended.add(event.stream_id)

    def set_window(self, size: int) -> None:
        """Not while there are SETTINGS to be acknowledged: h2 would apply these too early."""
        if not self.unacknowledged:
            self.connection.update_settings({WINDOW: size})
            self.unacknowledged += 1

    def send(self) -> None:
        """Send what the windows allow."""
        for stream, left in list(self.left.items()):
            window = self.connection.local_flow_control_window(stream)
            count = max(0, min(window, len(left), self.connection.max_outbound_frame_size))
            self.left[stream] = left[count:]
            if count == len(left):
                self.connection.send_data(stream, left, end_stream=True)
                del self.left[stream]
            elif count:
                self.connection.send_data(stream, left[:count])

    def take(self) -> None:
        """Let the other end send as much again as has come."""
        for stream, count in self.taken:
            if count:
                self.connection.increment_flow_control_window(count)
            if count and stream not in self.ended:
                self.connection.increment_flow_control_window(count, stream)
        self.taken.clear()


@dataclass
class Between:
    """A client, a server, and a core that replaces each body. Each step moves one thing."""

    change: Callable[[bytes], bytes]
    client: End
    server: End
    core: Http2Core = field(default_factory=lambda: Http2Core(LARGE, EditMemory(LARGE)))

    def request(self, *streams: int) -> None:
        for stream in streams:
            self.client.connection.send_headers(stream, POST)
            self.client.left[stream] = self.client.body

    def edit(self) -> None:
        while self.core.jobs:
            job = self.core.jobs.pop(0)
            half = job.stream.half(job.direction)
            if half.was_asked or self.core.collect(job.stream, job.direction):
                if half.has_ended and self.core.hand_over(job.stream, job.direction):
                    message = job.stream.request if job.direction is UP else job.stream.response
                    assert message
                    assert message.body is not None
                    message.body = self.change(message.body)
                self.core.release(job.stream, job.direction, None)

    def steps(self) -> list[Callable[[], None]]:
        def into(direction: Direction, end: End) -> Callable[[], None]:
            def move() -> None:
                self.core.receive(direction, end.connection.data_to_send())
                self.edit()

            return move

        client, server = self.client, self.server
        return [
            into(UP, client),
            into(DOWN, server),
            lambda: client.receive(self.core.take(DOWN)),
            lambda: server.receive(self.core.take(UP)),
            client.send,
            server.send,
            client.take,
            server.take,
        ]


SIZES = st.integers(0, 40_000)
WINDOWS = st.one_of(st.integers(0, 100), st.integers(0, 100_000))


@given(SIZES, SIZES, st.data())
def test_windows_that_shrink_below_zero_and_grow_lose_nothing(
    asked: int, answered: int, data: st.DataObject
) -> None:
    change = data.draw(
        st.sampled_from([lambda body: body * 3, lambda body: body[:10], lambda body: body])
    )
    lab = Between(change, End(True, b"a" * asked), End(False, b"b" * answered))
    ends, steps = (lab.client, lab.server), lab.steps()
    for step in (*steps, *steps):
        step()
    for end in ends:
        end.set_window(data.draw(WINDOWS))
    lab.request(1, 3)
    for left_out in data.draw(st.lists(st.sets(st.sampled_from(range(len(steps)))), max_size=20)):
        for number, step in enumerate(steps):
            if number not in left_out:
                step()
        data.draw(st.sampled_from(ends)).set_window(data.draw(WINDOWS))
    for _ in range(500):
        for step in steps:
            step()
        for end in ends:
            end.set_window(5000)
        if lab.client.ended == lab.server.ended == {1, 3}:
            break
    for stream in (1, 3):
        assert bytes(lab.server.got.get(stream, b"")) == change(b"a" * asked)
        assert bytes(lab.client.got.get(stream, b"")) == change(b"b" * answered)


def test_a_larger_window_is_used_when_its_acknowledgement_has_passed() -> None:
    """A client may hold its peer to the smaller window until then."""
    client, server = End(True, b""), End(False, b"")
    client.connection.update_settings({WINDOW: LARGE})
    client.connection.increment_flow_control_window(LARGE)
    client.connection.send_headers(1, GET, end_stream=True)
    core = Http2Core(LIMIT, EditMemory(LIMIT * 2))
    core.receive(DOWN, server.connection.data_to_send())
    core.receive(UP, client.connection.data_to_send())
    core.answer(core.jobs.pop().stream, Response(status=200, body=b"x" * 90_000))
    client.receive(core.take(DOWN))
    assert len(client.got[1]) == wire.INITIAL_WINDOW
    server.receive(core.take(UP))
    core.receive(DOWN, server.connection.data_to_send())
    client.receive(core.take(DOWN))
    assert bytes(client.got[1]) == b"x" * 90_000
    assert client.ended == {1}


def test_a_larger_table_is_used_when_its_acknowledgement_has_passed() -> None:
    lab = Between(lambda body: body, End(True, b""), End(False, b""))
    client, server, core = lab.client, lab.server, lab.core

    def answer(stream: int) -> None:
        client.connection.send_headers(stream, GET, end_stream=True)
        core.receive(UP, client.connection.data_to_send())
        core.answer(core.jobs.pop().stream, Response(status=200))
        client.receive(core.take(DOWN))

    core.receive(DOWN, server.connection.data_to_send())
    client.connection.update_settings({TABLE: 0})
    answer(1)
    server.receive(core.take(UP))
    core.receive(DOWN, server.connection.data_to_send())
    client.receive(core.take(DOWN))
    client.connection.update_settings({TABLE: 4096})
    answer(3)
    server.receive(core.take(UP))
    core.receive(DOWN, server.connection.data_to_send())
    answer(5)
    assert client.ended == {1, 3, 5}


def test_what_a_source_sends_in_a_larger_window_passes_without_an_acknowledgement() -> None:
    """Some servers send none, and clients take their responses."""
    core = Http2Core(LIMIT, EditMemory(LIMIT * 2))
    setting = wire.SETTING.pack(wire.INITIAL_WINDOW_SIZE, LARGE)
    core.receive(UP, wire.PREFACE + frame_bytes(wire.SETTINGS, 0, 0, setting) + head())
    core.receive(UP, frame_bytes(wire.WINDOW_UPDATE, 0, 0, LARGE.to_bytes(4)))
    core.release(core.jobs.pop().stream, UP, None)
    core.receive(DOWN, frame_bytes(wire.SETTINGS, 0, 0))
    block = Encoder().encode([(":status", "200")])
    core.receive(DOWN, frame_bytes(wire.HEADERS, wire.END_HEADERS, 1, block))
    core.release(core.jobs.pop().stream, DOWN, None)
    data = frame_bytes(wire.DATA, 0, 1, b"x" * 16_000) * 6
    core.receive(DOWN, data)
    assert core.take(DOWN).endswith(data)


def test_settings_that_nobody_acknowledges_are_too_many_some_time() -> None:
    core = Http2Core(LIMIT, EditMemory(LIMIT * 2))
    settings = frame_bytes(wire.SETTINGS, 0, 0)
    core.receive(UP, wire.PREFACE + settings * 1000)
    with pytest.raises(Http2Error) as caught:
        core.receive(UP, settings)
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM
    core.receive(DOWN, settings * 1000)
    with pytest.raises(ProtocolError):
        core.receive(DOWN, settings)
