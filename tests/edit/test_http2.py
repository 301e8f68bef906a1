"""HTTP/2 through an editor, between two connections of h2: a client and a server that hold each
other to the RFC. What is changed arrives changed, windows stay right, and all else passes."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hpack import Encoder, NeverIndexedHeaderTuple
from hypothesis import given, settings
from hypothesis import strategies as st

from mitml4.edit.http2.core import Http2Core
from mitml4.edit.http2.state import Job
from mitml4.edit.memory import EditMemory
from mitml4.edit.messages import Response
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http import http2_wire as wire
from mitml4.protocols.http.http2_wire import ErrorCode, frame_bytes

UP, DOWN = Direction.UP, Direction.DOWN
LIMIT = 100_000
GET = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")]
POST = [(":method", "POST"), *GET[1:]]
OK = [(":status", "200"), ("server", "s")]

Edit = Callable[["Lab", Job], None]


def release(lab: Lab, job: Job) -> None:
    lab.core.release(job.stream, job.direction, None)


@dataclass
class Lab:
    """A client, a server, and the core between them."""

    edit: Edit = release
    split: int = 1 << 20
    core: Http2Core = field(default_factory=lambda: Http2Core(LIMIT, EditMemory(LIMIT * 2)))
    client: h2.connection.H2Connection = field(init=False)
    server: h2.connection.H2Connection = field(init=False)
    at_client: list[h2.events.Event] = field(default_factory=list)
    at_server: list[h2.events.Event] = field(default_factory=list)
    acknowledges: bool = True

    def __post_init__(self) -> None:
        config = h2.config.H2Configuration
        self.client = h2.connection.H2Connection(config(client_side=True, header_encoding="utf-8"))
        self.server = h2.connection.H2Connection(config(client_side=False, header_encoding="utf-8"))
        self.client.initiate_connection()
        self.server.initiate_connection()
        self.move()

    def move(self) -> None:
        """Move everything until nothing comes any more."""
        ends = ((UP, self.client, self.server, self.at_server),
                (DOWN, self.server, self.client, self.at_client))  # fmt: skip
        while True:
            moved = 0
            for direction, source, _, _ in ends:
                data = source.data_to_send()
                for at in range(0, len(data), self.split):
                    self.core.receive(direction, data[at : at + self.split])
                    while self.core.jobs:
                        self.edit(self, self.core.jobs.pop(0))
                moved += len(data)
            for direction, _, sink, events in ends:
                data = self.core.take(direction)
                moved += len(data)
                if data:
                    self._arrived(sink, sink.receive_data(data), events)
            if not moved:
                return

    def _arrived(
        self,
        end: h2.connection.H2Connection,
        found: list[h2.events.Event],
        events: list[h2.events.Event],
    ) -> None:
        for event in found:
            events.append(event)
            if isinstance(event, h2.events.DataReceived) and self.acknowledges:
                end.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def send(self, end: h2.connection.H2Connection, stream: int, content: bytes) -> None:
        """Send content as the windows allow, and the end."""
        while content:
            room = min(end.local_flow_control_window(stream), end.max_outbound_frame_size)
            assert room > 0, "the window stays closed"
            end.send_data(stream, content[:room])
            content = content[room:]
            self.move()
        end.end_stream(stream)
        self.move()

    def content(self, events: list[h2.events.Event], stream: int) -> bytes:
        return b"".join(
            event.data
            for event in events
            if isinstance(event, h2.events.DataReceived) and event.stream_id == stream
        )

    def of(self, events: list[h2.events.Event], kind: type) -> list[Any]:
        return [event for event in events if isinstance(event, kind)]


def headers_of(event: Any) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in event.headers]


def exchange(lab: Lab, stream: int, request: bytes, response: bytes) -> None:
    lab.client.send_headers(stream, POST)
    lab.move()
    lab.send(lab.client, stream, request)
    lab.server.send_headers(stream, OK)
    lab.move()
    lab.send(lab.server, stream, response)


def test_what_is_not_changed_passes_as_it_came() -> None:
    lab = Lab()
    sent, got = bytearray(), bytearray()
    receive, take = lab.core.receive, lab.core.take
    lab.core.receive = lambda direction, data: (
        sent.extend(data) if direction is UP else None,
        receive(direction, data),
    )[1]
    lab.core.take = lambda direction: (
        data := take(direction),
        got.extend(data) if direction is UP else None,
    )[0]
    for stream in (1, 3, 5):
        exchange(lab, stream, b"abc" * 9000, b"def" * 9000)
    assert sent == got
    assert lab.content(lab.at_server, 1) == b"abc" * 9000
    assert not lab.core.streams


def collecting(change: Callable[[bytes], bytes]) -> Edit:
    """An editor that changes each body."""

    def edit(lab: Lab, job: Job) -> None:
        direction = job.direction
        half = job.stream.half(direction)
        if not half.was_asked and not lab.core.collect(job.stream, direction):
            return
        message = job.stream.request if direction is UP else job.stream.response
        assert message
        if half.has_ended and not half.is_above and lab.core.hand_over(job.stream, direction):
            assert message.body is not None
            message.body = change(message.body)
        lab.core.release(job.stream, direction, None)

    return edit


@pytest.mark.parametrize("split", [1 << 20, 1, 7])
def test_bodies_are_changed_again_and_again_without_closing_a_window(split: int) -> None:
    """More than the windows of the connection, shrunk and grown."""
    size = 60_000 if split > 1 else 3000
    for change in (lambda body: body[: len(body) // 3], lambda body: body * 2, lambda body: body):
        lab = Lab(collecting(change), split)
        for stream in (1, 3, 5, 7):
            exchange(lab, stream, b"a" * size, b"b" * size)
            assert lab.content(lab.at_server, stream) == change(b"a" * size)
            assert lab.content(lab.at_client, stream) == change(b"b" * size)
        assert not lab.core.streams
        assert lab.client.outbound_flow_control_window == 65535
        assert lab.server.outbound_flow_control_window == 65535


def test_a_receiver_that_closes_its_window_gets_the_rest_later() -> None:
    lab = Lab(collecting(lambda body: body * 3))
    lab.acknowledges = False
    lab.client.send_headers(1, GET, end_stream=True)
    lab.move()
    lab.server.send_headers(1, OK)
    lab.send(lab.server, 1, b"b" * 40_000)
    assert len(lab.content(lab.at_client, 1)) == 65535
    lab.client.increment_flow_control_window(65535)
    lab.client.increment_flow_control_window(65535, 1)
    lab.move()
    assert lab.content(lab.at_client, 1) == b"b" * 120_000


def test_a_receiver_that_shrinks_its_window_gets_no_more_than_that() -> None:
    """h2 raises an error for each byte beyond a window."""
    lab = Lab(collecting(lambda body: body * 3))
    lab.acknowledges = False
    lab.client.send_headers(1, GET, end_stream=True)
    lab.move()
    lab.server.send_headers(1, OK)
    lab.server.send_data(1, b"b" * 10_000)
    lab.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100})
    lab.move()
    lab.server.end_stream(1)
    lab.move()
    assert len(lab.content(lab.at_client, 1)) == 100
    for _ in range(3):
        lab.client.increment_flow_control_window(10_000, 1)
        lab.move()
    assert lab.content(lab.at_client, 1) == b"b" * 30_000


def test_a_body_above_the_limit_streams_by() -> None:
    lab = Lab(collecting(lambda body: b"changed"))
    exchange(lab, 1, b"a" * (LIMIT * 3), b"small")
    assert lab.content(lab.at_server, 1) == b"a" * (LIMIT * 3)
    assert lab.content(lab.at_client, 1) == b"changed"
    exchange(lab, 3, b"small", b"b" * (LIMIT * 3))
    assert lab.content(lab.at_client, 3) == b"b" * (LIMIT * 3)
    assert not lab.core.streams


def test_a_coding_and_a_length_follow_the_body() -> None:
    lab = Lab(collecting(lambda body: body.replace(b"prod", b"development")))
    body = gzip.compress(b"prod")
    lab.client.send_headers(1, GET, end_stream=True)
    lab.move()
    length = ("content-length", str(len(body)))
    lab.server.send_headers(1, [*OK, ("content-encoding", "gzip"), length])
    lab.send(lab.server, 1, body)
    (response,) = lab.of(lab.at_client, h2.events.ResponseReceived)
    got = lab.content(lab.at_client, 1)
    assert dict(headers_of(response))["content-length"] == str(len(got))
    assert gzip.decompress(got) == b"development"


def test_headers_are_encoded_anew_and_keep_their_order_and_secrecy() -> None:
    def edit(lab: Lab, job: Job) -> None:
        if job.direction is UP and job.stream.number == 3:
            assert job.stream.request
            job.stream.request.headers["x-debug"] = "1"
            del job.stream.request.headers["b"]
        release(lab, job)

    lab = Lab(edit)
    fields: list[Any] = [
        *GET,
        ("a", "1"),
        ("b", "2"),
        ("a", "3"),
        NeverIndexedHeaderTuple("k", "secret"),
    ]
    for stream in (1, 3, 5, 7):
        lab.client.send_headers(stream, fields, end_stream=True)
        lab.move()
    requests = lab.of(lab.at_server, h2.events.RequestReceived)
    assert len(requests) == 4
    plain = [(str(name), str(value)) for name, value in fields]
    assert [headers_of(each) for each in requests[:1] + requests[2:]] == [plain] * 3
    changed = [each for each in plain if each[0] != "b"] + [("x-debug", "1")]
    assert headers_of(requests[1]) == changed
    assert all(not each.headers[-1 - (number == 1)].indexable
               for number, each in enumerate(requests))  # fmt: skip


def test_changed_methods_paths_and_statuses_are_sent() -> None:
    def edit(lab: Lab, job: Job) -> None:
        if job.direction is UP and job.stream.number == 3:
            assert job.stream.request
            job.stream.request.method, job.stream.request.target = "PUT", "/b?c"
        elif job.stream.number == 3:
            assert job.stream.response
            job.stream.response.status = 410
        release(lab, job)

    lab = Lab(edit)
    for stream in (1, 3, 5):
        exchange(lab, stream, b"", b"ok")
    requests = list(map(headers_of, lab.of(lab.at_server, h2.events.RequestReceived)))
    responses = list(map(headers_of, lab.of(lab.at_client, h2.events.ResponseReceived)))
    assert requests[0] == requests[2]
    changed = {":method": "PUT", ":path": "/b?c"}
    assert requests[1] == [(name, changed.get(name, value)) for name, value in requests[0]]
    assert [dict(each)[":status"] for each in responses] == ["200", "410", "200"]


def test_a_changed_host_is_the_authority_and_fields_of_http_1_are_left_out() -> None:
    def edit(lab: Lab, job: Job) -> None:
        if job.stream.request and job.direction is UP:
            job.stream.request.headers["Host"] = "b.test"
            job.stream.request.headers["Connection"] = "close"
        release(lab, job)

    lab = Lab(edit)
    lab.client.send_headers(1, GET, end_stream=True)
    lab.move()
    (request,) = lab.of(lab.at_server, h2.events.RequestReceived)
    assert headers_of(request) == [*GET[:2], (":authority", "b.test"), GET[3]]


def test_a_request_is_answered_without_the_server() -> None:
    def edit(lab: Lab, job: Job) -> None:
        if job.direction is UP and job.stream.number != 3:
            lab.core.answer(job.stream, Response(status=503, body=b"x" * 100_000))
        else:
            release(lab, job)

    lab = Lab(edit)
    for stream in (1, 3, 5):
        lab.client.send_headers(stream, POST)
        lab.move()
        lab.send(lab.client, stream, b"a" * 70_000)
    lab.server.send_headers(3, OK, end_stream=True)
    lab.move()
    assert len(lab.of(lab.at_server, h2.events.RequestReceived)) == 1
    statuses = [
        headers_of(each)[0][1] for each in lab.of(lab.at_client, h2.events.ResponseReceived)
    ]
    assert sorted(statuses) == ["200", "503", "503"]
    assert len(lab.content(lab.at_client, 5)) == 100_000
    assert not lab.core.streams
    assert lab.client.outbound_flow_control_window == lab.server.inbound_flow_control_window
    assert lab.server.outbound_flow_control_window == 65535


def test_a_request_that_is_held_back_goes_on_after_later_ones() -> None:
    """Its number at the server is another one then."""
    kept: list[Job] = []

    def edit(lab: Lab, job: Job) -> None:
        if job.direction is UP and job.stream.number == 1:
            kept.append(job)
        else:
            release(lab, job)

    lab = Lab(edit)
    lab.client.send_headers(1, POST)
    lab.client.send_headers(3, [*GET, ("third", "1")], end_stream=True)
    lab.client.increment_flow_control_window(1000, 1)
    lab.move()
    release(lab, kept.pop())
    lab.move()
    lab.send(lab.client, 1, b"a" * 100_000)
    lab.client.send_headers(5, [*GET, ("fifth", "1")], end_stream=True)
    lab.move()
    requests = lab.of(lab.at_server, h2.events.RequestReceived)
    assert [each.stream_id for each in requests] == [3, 5, 7]
    assert headers_of(requests[2])[-1] == ("fifth", "1")
    for each in requests:
        lab.server.send_headers(each.stream_id, [*OK, ("n", str(each.stream_id))])
        lab.send(lab.server, each.stream_id, b"b" * 100_000)
    answers = {
        each.stream_id: headers_of(each)[-1][1]
        for each in lab.of(lab.at_client, h2.events.ResponseReceived)
    }
    assert answers == {1: "5", 3: "3", 5: "7"}
    assert not lab.core.streams


def test_resets_pings_pushes_and_trailers_pass() -> None:
    lab = Lab(collecting(lambda body: body + b"!"))
    lab.client.ping(b"12345678")
    lab.client.send_headers(1, GET, end_stream=True)
    lab.move()
    lab.server.push_stream(1, 2, [*GET[:3], (":path", "/pushed")])
    lab.server.send_headers(2, OK)
    lab.server.send_data(2, b"pushed", end_stream=True)
    lab.server.send_headers(1, [(":status", "103")])
    lab.server.send_headers(1, OK)
    lab.server.send_data(1, b"body")
    lab.server.send_headers(1, [("t", "1")], end_stream=True)
    lab.move()
    assert lab.of(lab.at_client, h2.events.PingAckReceived)
    assert lab.of(lab.at_client, h2.events.PushedStreamReceived)
    assert lab.of(lab.at_client, h2.events.InformationalResponseReceived)
    assert lab.content(lab.at_client, 2) == b"pushed"
    assert lab.content(lab.at_client, 1) == b"body!"
    (trailers,) = lab.of(lab.at_client, h2.events.TrailersReceived)
    assert headers_of(trailers) == [("t", "1")]
    lab.client.send_headers(3, POST)
    lab.client.send_data(3, b"a" * 1000)
    lab.move()
    lab.client.reset_stream(3)
    lab.client.send_headers(5, POST, end_stream=True)
    lab.move()
    lab.server.reset_stream(5, error_code=ErrorCode.CANCEL)
    lab.move()
    assert len(lab.of(lab.at_client, h2.events.StreamReset)) == 1
    assert not lab.core.streams


@pytest.mark.parametrize("ends", [True, False])
def test_a_servers_reset_comes_behind_the_response_that_is_held_back(ends: bool) -> None:
    """A server may answer before the request has ended, and reset the stream (RFC 9113 §8.1)."""
    held: list[Job] = []

    def edit(lab: Lab, job: Job) -> None:
        if job.direction is UP:
            release(lab, job)
        elif lab.core.collect(job.stream, DOWN):
            held.append(job)

    lab = Lab(edit)
    lab.client.send_headers(1, POST)
    lab.move()
    lab.server.send_headers(1, OK)
    lab.server.send_data(1, b"too long", end_stream=ends)
    lab.server.reset_stream(1, error_code=0)
    lab.move()
    assert not lab.of(lab.at_client, h2.events.StreamReset)
    lab.client.send_data(1, b"more")  # it does not know yet
    lab.move()
    release(lab, held.pop())
    lab.move()
    assert lab.content(lab.at_client, 1) == b"too long"
    assert len(lab.of(lab.at_client, h2.events.StreamEnded)) == ends
    assert len(lab.of(lab.at_client, h2.events.StreamReset)) == 1
    assert not lab.core.streams


def test_a_body_that_is_cut_off_is_held_back_no_longer() -> None:
    asked: list[Job] = []

    def edit(lab: Lab, job: Job) -> None:
        asked.append(job)
        if job.direction is UP or lab.core.collect(job.stream, DOWN):
            release(lab, job)

    lab = Lab(edit)
    lab.client.send_headers(1, GET, end_stream=True)
    lab.move()
    lab.server.send_headers(1, OK)
    lab.server.send_data(1, b"part")
    lab.move()
    lab.core.end(DOWN)
    lab.edit(lab, lab.core.jobs.pop())
    lab.move()
    assert lab.content(lab.at_client, 1) == b"part"
    assert [job.direction for job in asked] == [UP, DOWN, DOWN]
    assert lab.core.is_idle(DOWN)


def test_a_stream_is_reset_at_both_sides() -> None:
    def edit(lab: Lab, job: Job) -> None:
        if job.direction is DOWN or job.stream.number == 1:
            lab.core.reset(job.stream, ErrorCode.CANCEL)
        else:
            release(lab, job)

    lab = Lab(edit)
    lab.client.send_headers(1, GET, end_stream=True)
    lab.client.send_headers(3, GET, end_stream=True)
    lab.move()
    lab.server.send_headers(3, OK)
    lab.move()
    assert [each.stream_id for each in lab.of(lab.at_client, h2.events.StreamReset)] == [1, 3]
    assert [each.stream_id for each in lab.of(lab.at_server, h2.events.StreamReset)] == [3]


def test_ten_thousand_streams_are_served_at_once() -> None:
    """Without h2, which looks at all streams for each one."""
    core, encoder = Http2Core(LIMIT, EditMemory(LIMIT)), Encoder()
    core.receive(UP, wire.PREFACE + frame_bytes(4, 0, 0))
    for number in range(1, 20_001, 2):
        core.receive(UP, frame_bytes(1, 4, number, encoder.encode(POST)))
        core.receive(UP, frame_bytes(0, 0, number, b"a"))
    assert len(core.jobs) == 10_000
    for job in core.jobs:
        core.collect(job.stream, UP)
    core.jobs.clear()
    for number in range(1, 20_001, 2):
        core.receive(UP, frame_bytes(0, 1, number, b"b"))
    for job in core.jobs:
        assert core.hand_over(job.stream, UP)
        assert job.stream.request
        assert job.stream.request.body == b"ab"
        job.stream.request.body = b"changed!"
        core.release(job.stream, UP, None)
    sent = core.take(UP)
    assert sent.count(b"changed!") == 65535 // 8  # what the window of the connection takes
    core.receive(DOWN, frame_bytes(4, 0, 0) + frame_bytes(8, 0, 0, (1 << 20).to_bytes(4)))
    assert (sent + core.take(UP)).count(b"changed!") >= 9999  # one of them is in two frames


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 50_000)), min_size=1, max_size=4),
    st.integers(0, 4),
)
def test_any_sizes_and_splits_arrive_whole(
    split: int, bodies: list[tuple[int, int]], factor: int
) -> None:
    lab = Lab(collecting(lambda body: body * factor), split)
    for number, (up, down) in enumerate(bodies):
        stream = 2 * number + 1
        exchange(lab, stream, b"a" * up, b"b" * down)
        times = (factor if up <= LIMIT else 1, factor if down <= LIMIT else 1)
        assert len(lab.content(lab.at_server, stream)) == up * times[0]
        assert len(lab.content(lab.at_client, stream)) == down * times[1]
    assert not lab.core.streams
