"""`--allow` and HTTP/2: a request for another host is answered, and the other streams go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from mitml4.events import LayerEvent
from mitml4.protocols.http.events import HttpResponse
from mitml4.session.destinations.policy import HostPattern, Policy
from tests.layers.conftest import End, FlowLab, Outcomes, Script

ALLOWED = tuple(map(HostPattern.parse, ("a.test", "b.test", "192.0.2.2")))
MISDIRECTED = "421"


def get(host: str, *more: tuple[str, str], method: str = "GET") -> list[tuple[str, str]]:
    line = [(":method", method), (":scheme", "http"), (":authority", host), (":path", "/")]
    return [*line, *more]


@dataclass
class Peer:
    """An end that speaks HTTP/2 by h2."""

    is_client: bool
    begins: bool = True
    events: list[h2.events.Event] = field(default_factory=list)
    connection: h2.connection.H2Connection = field(init=False)

    def __post_init__(self) -> None:
        config = h2.config.H2Configuration(
            client_side=self.is_client,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.connection = h2.connection.H2Connection(config)
        if self.begins:
            self.connection.initiate_connection()

    async def flush(self, end: End) -> None:
        if data := self.connection.data_to_send():
            await end.send(data)

    async def speak(self, end: End, until: Callable[[], bool], *, answers: bool = True) -> None:
        await self.flush(end)
        while not until():
            data = await end.receive_some()
            if not data:
                return
            events = self.connection.receive_data(data)
            self.events += events
            for event in events:
                if isinstance(event, h2.events.DataReceived):
                    size = event.flow_controlled_length
                    self.connection.acknowledge_received_data(size, event.stream_id)
                if answers and isinstance(event, h2.events.RequestReceived):
                    self.connection.send_headers(event.stream_id, [(":status", "200")], True)
            await self.flush(end)

    async def send_body(self, end: End, stream: int, body: bytes) -> None:
        """As the windows allow, with the end."""
        window = self.connection.local_flow_control_window
        while body:
            count = min(16_000, window(stream), len(body))
            if count:
                self.connection.send_data(stream, body[:count])
                body = body[count:]
                await self.flush(end)
            else:
                await self.speak(end, lambda: window(stream) > 0)
        self.connection.end_stream(stream)

    def of(self, kind: type[h2.events.Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def content(self, stream: int) -> bytes:
        found = self.of(h2.events.DataReceived)
        return b"".join(each.data for each in found if each.stream_id == stream)

    @property
    def statuses(self) -> dict[int, str]:
        found = self.of(h2.events.ResponseReceived)
        return {each.stream_id: dict(each.headers)[":status"] for each in found}

    @property
    def asked(self) -> list[str]:
        return [dict(each.headers)[":authority"] for each in self.of(h2.events.RequestReceived)]


def exchange(
    lab: FlowLab,
    *requests: list[tuple[str, str]],
    body: bytes = b"",
    names: tuple[str, ...] = (),
) -> tuple[Peer, Peer, Outcomes]:
    client, server = Peer(True), Peer(False)

    async def ask(end: End) -> None:
        for number, request in enumerate(requests):
            stream = 1 + 2 * number
            client.connection.send_headers(stream, request, end_stream=not body)
            if body:
                client.connection.send_data(stream, body, end_stream=True)
        await client.speak(end, lambda: len(client.of(h2.events.StreamEnded)) == len(requests))

    async def answer(end: End) -> None:
        await server.speak(end, lambda: False)

    scripts: tuple[Script, Script] = (ask, answer)
    allowed = ALLOWED[:2] if names else ALLOWED
    out = lab.run(*scripts, policy=Policy(allow=allowed).decide, names=names)
    out.check()
    return client, server, out


REFUSED = {
    "an authority": get("other.test"),
    "one that cannot be read": get("a.test@other.test@"),
    "a Host beside it": get("a.test", ("host", "other.test")),
    "a URL as its path": [*get("a.test")[:3], (":path", "http://other.test/")],
    "CONNECT": [(":method", "CONNECT"), (":authority", "other.test:443")],
    "a second authority": [*get("a.test"), (":authority", "other.test")],
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_for_another_host_is_answered_and_others_go_on(
    flow_lab: FlowLab, name: str
) -> None:
    requests = (get("a.test"), REFUSED[name], get("b.test"), get("a.test"))
    client, server, out = exchange(flow_lab, *requests)
    assert client.statuses == {1: "200", 3: MISDIRECTED, 5: "200", 7: "200"}
    assert server.asked == ["a.test", "b.test", "a.test"]
    assert out.close.reason == "denied"
    assert [error.kind for error in out.errors] == ["refused"]
    shown = [event.content for event in out.events if isinstance(event, LayerEvent)]
    assert [each.status for each in shown if isinstance(each, HttpResponse)].count(421) == 1


def test_a_tunnel_is_refused_unless_the_address_is_named(flow_lab: FlowLab) -> None:
    """What is in it is not read, so it may be for any host."""
    tunnel = [(":method", "CONNECT"), (":authority", "b.test:443")]
    client, server, out = exchange(flow_lab, tunnel, get("b.test"), names=("a.test",))
    assert client.statuses == {1: MISDIRECTED, 3: "200"}
    assert server.asked == ["b.test"]
    assert "a tunnel" in out.errors[0].reason
    client, _, _ = exchange(flow_lab, tunnel)
    assert client.statuses == {1: "200"}


def test_the_body_of_a_refused_request_goes_nowhere(flow_lab: FlowLab) -> None:
    client, server, _ = exchange(flow_lab, get("other.test", method="POST"), body=b"x" * 16_000)
    assert client.statuses == {1: MISDIRECTED}
    assert not server.of(h2.events.DataReceived)
    assert not server.asked


def test_what_is_allowed_passes_as_it_came(flow_lab: FlowLab) -> None:
    client, server, out = exchange(flow_lab, get("a.test"), get("b.test"), get("a.test:80"))
    assert set(client.statuses.values()) == {"200"}
    assert server.asked == ["a.test", "b.test", "a.test:80"]
    assert (out.close.reason, out.errors) == ("closed", [])


def test_trailers_name_no_host(flow_lab: FlowLab) -> None:
    client, server = Peer(True), Peer(False)

    async def ask(end: End) -> None:
        connection = client.connection
        connection.send_headers(1, get("a.test", method="POST"))
        block = connection.encoder.encode([*get("other.test")])
        await client.flush(end)
        await end.send(len(block).to_bytes(3) + b"\1\5" + (1).to_bytes(4) + block)
        await client.speak(end, lambda: False)

    async def answer(end: End) -> None:
        await server.speak(end, lambda: False)

    out = flow_lab.run(ask, answer, policy=Policy(allow=ALLOWED).decide)
    out.check()
    assert server.asked in ([], ["a.test"])
    assert not server.of(h2.events.TrailersReceived)
