"""Flows as the objects of their events: the schema's, and the same flow again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from mitml4.encoding import to_line
from mitml4.model.builder import FlowBuilder
from mitml4.model.flow import Body, Data, Flow, Message, OtherEvent
from mitml4.model.objects import objects_of
from mitml4.reading import read
from mitml4.schema import json_schema
from tests.model.test_builder import CLOSED, EVENTS, OPENED, TIME, built, lines

SCHEMA = jsonschema_rs.Draft202012Validator(json_schema())


def written(flow: Flow) -> list[dict[str, Any]]:
    return [json.loads(to_line(said)) for said in objects_of(flow)]


def test_they_give_the_same_flow() -> None:
    (flow,) = built(EVENTS)
    said = written(flow)
    assert built(said) == [flow]
    assert sorted(each["type"] for each in said) == sorted(each["type"] for each in lines(EVENTS))
    (still_open,) = built(EVENTS[:-1])
    assert built(written(still_open)) == [still_open]
    assert built(written(built([OPENED])[0])) == built([OPENED])


def test_so_they_do_with_what_was_said() -> None:
    (flow,) = built(EVENTS)
    exchange = flow.exchanges[0]
    assert exchange.response
    exchange.request.body = Body(size=2, text="h\ud800", truncated=True)
    exchange.response.body = Body(size=3, decoded_size=9, encoding=("gzip",), base64="/w==")
    exchange.request_s = 0.1
    where: dict[str, Any] = {"depth": 2, "time": TIME + timedelta(seconds=2)}
    flow.messages += [
        Message(protocol="websocket", stream=None, direction="up", opcode="ping", size=0, **where),
        Message(protocol="websocket", stream=3, direction="down", opcode="text", size=2, text="hi",
                coding_error="no", truncated=True, **where),
        Message(protocol="grpc", stream=1, direction="up", compressed=True, size=1, base64="AA==",
                decoded_size=1, encoding=("gzip",), **where),
    ]  # fmt: skip
    flow.data.append(Data(direction="down", offset=7, text="+OK", **where))
    said = written(flow)
    for each in said:
        SCHEMA.validate(each)
    flow.others.append(OtherEvent(type="upsd.command", details={"verb": "LIST"}, **where))
    flow.transport, flow.process, flow.container = "udp", {"pid": 1}, "box"
    assert built(written(flow)) == [flow]


def test_clocks_that_jump_do_not_turn_requests_and_responses_round() -> None:
    (flow,) = built(EVENTS)
    exchange = flow.exchanges[0]
    assert exchange.response
    exchange.response.time -= timedelta(days=1)
    exchange.duration_s = 1e15
    assert built(written(flow)) == [flow]


@pytest.mark.parametrize("payload", [True, False])
def test_flows_of_a_capture_are_the_same_again(http_capture: Path, payload: bool) -> None:
    for flow in read(http_capture, payload=payload):
        said = written(flow)
        for each in said:
            SCHEMA.validate(each)
        builder = FlowBuilder()
        assert [again for each in said for again in builder.add(each)] == [flow]


def test_a_flow_that_was_closed_twice_is_closed_once() -> None:
    (flow,) = built([OPENED, replace(CLOSED, reason="reset")])
    assert [each["type"] for each in written(flow)] == ["flow.open", "flow.close"]
