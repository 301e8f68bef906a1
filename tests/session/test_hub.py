"""Who is given which events."""

from __future__ import annotations

import pytest

from mitml4.address import Address
from mitml4.events import Event, FlowOpen, LayerEvent
from mitml4.filter.parser import parse_filter
from mitml4.protocols.http.events import HttpEnd, HttpRequest
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.session.reporting.hub import Hub
from mitml4.sinks.updates import Published

END = Address("192.0.2.1", 443)


class Kept:
    """A sink that keeps what it is given."""

    name = "kept"

    def __init__(self, *wants: type) -> None:
        self.wants = wants
        self.given: list[Published] = []
        self.dropped = 2

    def publish(self, event: Published) -> None:
        self.given.append(event)


def request() -> LayerEvent:
    content = HttpRequest(stream=1, method="GET", url="/", version="1.1")
    return LayerEvent(flow=1, depth=0, content=content)


def test_a_sink_is_given_the_types_that_it_wants_and_no_others() -> None:
    everything = Kept(Event, ProtocolEvent)
    requests, nothing = Kept(HttpRequest), Kept()
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
    hub = Hub([Kept(HttpRequest)])
    assert hub.wants(HttpRequest)
    assert not hub.wants(HttpEnd)
    assert hub.wants(FlowOpen)  # the totals count flows, whoever else listens


def test_a_sink_that_is_removed_is_given_nothing_more() -> None:
    lost, other = Kept(Event, ProtocolEvent), Kept(FlowOpen)
    hub = Hub([lost, other])
    assert hub.wants(HttpRequest)
    hub.remove(lost)
    hub.publish(FlowOpen(flow=1, client=END, destination=END))
    assert not hub.wants(HttpRequest)
    assert (lost.given, len(other.given)) == ([], 1)
    assert hub.dropped_events == 4  # what it had dropped until then is still counted


def test_a_filter_applies_to_sinks_but_not_to_totals_nor_to_what_is_unfiltered() -> None:
    everything, requests, packets = Kept(Event, ProtocolEvent), Kept(HttpRequest), Kept(FlowOpen)
    hub = Hub(
        [everything, requests, packets],
        condition=parse_filter("method:GET"),
        unfiltered=[packets],
    )
    assert hub.wants(HttpEnd)  # a filter may ask about it
    opened, asked = (FlowOpen(flow=1, client=END, destination=END), request())
    other = FlowOpen(flow=2, client=END, destination=END)
    for event in (opened, other, asked):
        hub.publish(event)
    assert everything.given == [opened, asked]
    assert requests.given == [asked]
    assert packets.given == [opened, other]
    assert hub.totals.flows == 2
    hub.remove(everything)
    again = request()
    hub.publish(again)
    assert (everything.given, requests.given) == ([opened, asked], [asked, again])


def test_a_sink_that_raises_is_removed_and_told_of_and_the_others_go_on() -> None:
    class Broken(Kept):
        def publish(self, event: Published) -> None:
            raise LookupError("oh")

    told: list[tuple[object, str]] = []
    for condition in (None, parse_filter("port:443")):
        broken, other = Broken(Event), Kept(Event)
        hub = Hub(
            [broken, other],
            condition=condition,
            on_failure=lambda sink, error: told.append((sink, str(error))),
        )
        opened = FlowOpen(flow=1, client=END, destination=END)
        hub.publish(opened)
        hub.publish(opened)
        assert told.pop() == (broken, "oh")
        assert not told
        assert (hub.sinks, other.given) == ([other], [opened, opened])
    with pytest.raises(LookupError):
        Hub([Broken(Event)]).publish(FlowOpen(flow=1, client=END, destination=END))
