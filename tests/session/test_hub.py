"""Who is given which events."""

from __future__ import annotations

from mitml4.address import Address
from mitml4.events import Event, FlowOpen, HttpEnd, HttpRequest
from mitml4.session.hub import Hub

END = Address("192.0.2.1", 443)


class Sink:
    """Keeps what it is given."""

    def __init__(self, *wants: type) -> None:
        self.wants = wants
        self.given: list[Event] = []
        self.dropped = 0

    def publish(self, event: Event) -> None:
        self.given.append(event)


def request() -> HttpRequest:
    return HttpRequest(flow=1, depth=0, stream=1, method="GET", url="/", version="1.1")


def test_a_sink_is_given_the_types_that_it_wants_and_no_others() -> None:
    everything, requests, nothing = Sink(Event), Sink(HttpRequest), Sink()
    hub = Hub([everything, requests, nothing])
    opened = FlowOpen(flow=1, client=END, destination=END)
    asked = request()
    for event in (opened, asked):
        hub.publish(event)
    assert everything.given == [opened, asked]
    assert requests.given == [asked]
    assert nothing.given == []
    assert hub.totals.flows == 1


def test_it_says_which_types_need_not_be_built() -> None:
    hub = Hub([Sink(HttpRequest)])
    assert hub.wants(HttpRequest)
    assert not hub.wants(HttpEnd)
    assert hub.wants(FlowOpen)  # the totals count flows, whoever else listens
