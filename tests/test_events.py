"""Every kind of event as a line of JSON, held against the schema that is made from its class."""

from __future__ import annotations

import builtins
import json
import types
import typing
from collections import abc
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from types import MappingProxyType
from typing import Any, get_args, get_origin, get_type_hints

import jsonschema_rs
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mitml4 import events
from mitml4.address import Address
from mitml4.encoding import encode, renumbered, to_json, to_line
from mitml4.events import EVENTS, VERSION, Event, FlowLayer
from mitml4.payload.text import PayloadText
from mitml4.protocols.conversation import Details, Direction, LayerContext, Target
from mitml4.protocols.http.events import HttpEnd, HttpRequest, HttpResponse
from mitml4.protocols.http.websocket import WebSocketMessage
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.protocols.registry import EVENT_TYPES, PROTOCOLS
from mitml4.protocols.socks5 import Socks5Details
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.protocols.wire_text import CUT, MAX_ITEMS, MAX_TEXT, shorten, text
from mitml4.schema import json_schema

CLIENT = Address("192.0.2.1", 50000)
SERVER = Address("2001:db8::1", 443)
CERTIFICATE = CertificateDetails(
    subject="CN=www.example",
    issuer="CN=CA",
    san=("www.example", "192.0.2.1"),
    not_before=datetime(2026, 1, 1, tzinfo=UTC),
    not_after=datetime(2027, 1, 1, tzinfo=UTC),
    key="EC P-256",
    sha256="ab" * 32,
    verify="ok",
)

CONTENTS: tuple[ProtocolEvent, ...] = (
    HttpRequest(
        stream=1,
        method="GET",
        url="https://www.example/",
        version="2",
        content_type=None,
        headers=(("accept", "*/*"), ("x", "")),
    ),
    HttpRequest(stream=3, method="GET", url="/", version="1.1"),
    HttpResponse(stream=1, status=200, version="2", content_type="text/html"),
    HttpEnd(stream=1, request_bytes=0, response_bytes=1 << 40, duration_s=0.25),
    WebSocketMessage(direction=Direction.UP, opcode="text", size=0),
)

SAMPLES: tuple[Event, ...] = (
    events.SessionStart(
        version="0.1.0",
        mode="intercept",
        interfaces=("eth0", "wg0"),
        listeners=(Address("::", 40000),),
        ca=events.CertificateAuthority("CN=mitml4", "ab" * 32),
        table="mitml4_7",
        pid=1,
    ),
    events.SessionStart(
        version="0.1.0", mode="detect", interfaces=(), listeners=(), ca=None, table=None, pid=1
    ),
    events.FlowOpen(flow=1, client=CLIENT, destination=SERVER, interface="eth0", name="a.example"),
    events.FlowOpen(flow=2, client=CLIENT, destination=SERVER),
    FlowLayer(flow=1, depth=0, protocol="unknown", speaker="client", action="relayed"),
    FlowLayer(
        flow=1,
        depth=0,
        protocol="socks5",
        speaker="client",
        action="relayed",
        details=Socks5Details(
            methods_offered=("none",), username=b"\xffjohn", target=Target("www.example", 443)
        ),
    ),
    FlowLayer(
        flow=1,
        depth=1,
        protocol="tls",
        speaker="client",
        action="intercepted",
        details=TlsDetails(
            sni="www.example",
            alpn_offered=(b"h2", b"\xff"),
            ech="none",
            resumed=False,
            certificate=CERTIFICATE,
            mirrored=("subject",),
        ),
    ),
    *(events.LayerEvent(flow=1, depth=2, content=content) for content in CONTENTS),
    events.FlowError(
        flow=1, depth=0, side="server", stage="connect", kind="refused", reason="refused"
    ),
    events.RuleApplied(
        flow=1,
        depth=0,
        stream=1,
        rule=1,
        file="a.toml",
        match="path:/a",
        what="respond",
        reason=None,
        hook=None,
    ),
    events.ScriptError(
        flow=1, depth=0, stream=1, hook="a.py: request", what="exception", reason="ValueError"
    ),
    events.FlowClose(
        flow=1,
        stack=("socks5", "tls", "http/2"),
        reason="closed",
        bytes_up=1,
        bytes_down=2,
        duration_s=1.0,
    ),
    events.FlowClose(
        flow=2, stack=(), reason="refused", bytes_up=0, bytes_down=0, duration_s=0.000_000_4
    ),
    events.ClientProbe(
        flow=1,
        client=CLIENT,
        name="www.example",
        case="wrong_name",
        outcome="sent_data",
        reason="78 bytes",
    ),
    events.DnsRefused(client=CLIENT, name="other.example"),
    events.QuicRefused(
        client=CLIENT, destination=CLIENT, name=None, sni="a.example", alpn=(b"h3",), ja4=None
    ),
    events.SessionStop(
        flows=2,
        bytes_up=1,
        bytes_down=2,
        stacks=MappingProxyType({"socks5 › tls": 1, "": 1}),
        refused_connections=0,
        dropped_events=0,
        reason="SIGINT",
    ),
)


def type_of(event: Event) -> str:
    return event.content.type if isinstance(event, events.LayerEvent) else event.type


@pytest.fixture(scope="module")
def schema() -> dict:
    return json_schema()


@pytest.fixture(scope="module")
def validator(schema) -> jsonschema_rs.Draft202012Validator:
    jsonschema_rs.meta.validate(schema)
    return jsonschema_rs.Draft202012Validator(schema)


def test_there_is_a_sample_of_every_event_but_the_protocols() -> None:
    """Those are held to the schema in tests/fuzz/test_protocols_fuzz.py, by their sessions."""
    assert {type(sample) for sample in SAMPLES} == {*EVENTS, events.LayerEvent}


def test_a_line_is_what_the_schema_says(validator) -> None:
    for event in SAMPLES:
        validator.validate(json.loads(encode(event)))


@pytest.mark.parametrize("event", SAMPLES, ids=type_of)
def test_a_line_is_compact_and_has_every_field_behind_its_head(event: Event, schema) -> None:
    line = encode(event)
    body = json.loads(line)
    assert line == json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    assert list(body)[:3] == ["type", "time", "v"]
    assert list(body) == schema["$defs"][type_of(event)]["required"]
    assert (body["type"], body["v"]) == (type_of(event), VERSION)


def test_only_the_numbers_of_flows_change_in_renumbered_lines() -> None:
    looks_like_one = events.FlowError(
        flow=1,
        depth=0,
        side="client",
        stage="relay",
        kind="protocol",
        reason='\n{"type":"x","time":"y","v":1,"flow":1,',
    )
    lines = [encode(event).encode() for event in (*SAMPLES, looks_like_one)]
    changed = renumbered(b"\n".join(lines), 41).split(b"\n")
    for before, after in zip(lines, changed, strict=True):
        said = json.loads(before)
        if "flow" in said:
            said["flow"] += 41
        assert json.loads(after) == said
    assert changed != lines


def test_no_field_may_be_absent_or_of_another_type(validator) -> None:
    for event in SAMPLES:
        body = json.loads(encode(event))
        for name in body:
            assert not validator.is_valid({key: body[key] for key in body if key != name})
            assert not validator.is_valid(body | {name: [[[]]]})


def test_a_field_may_be_added_later(validator) -> None:
    for event in SAMPLES:
        assert validator.is_valid(json.loads(encode(event)) | {"added": 1})


def test_texts_and_lists_of_an_event_are_bounded_and_say_so(validator) -> None:
    certificate = replace(CERTIFICATE, san=tuple(f"n{n}.example" for n in range(10_000)))
    pairs = tuple((f"x-{n}", "1") for n in range(1000))
    samples: dict[str, Any] = {
        getattr(event, "protocol", type_of(event)): event for event in SAMPLES
    }
    request = replace(samples["http.request"].content, url="u" * 60_000, headers=pairs)
    long_tls = TlsDetails(sni="n" * 60_000, certificate=certificate)
    cases = [
        (replace(samples["tls"], details=long_tls), 12_000),
        (replace(samples["socks5"], details=Socks5Details(username=b"\xff" * 60_000)), 6_000),
        (replace(samples["http.request"], content=request), 12_000),
    ]
    for event, most in cases:
        body = json.loads(encode(event))
        validator.validate(body)
        assert len(encode(event)) < most
    tls, socks, http = (json.loads(encode(event)) for event, _ in cases)
    assert tls["details"]["sni"] == "n" * MAX_TEXT + CUT
    assert len(tls["details"]["certificate"]["san"]) == MAX_ITEMS + 1
    assert tls["details"]["certificate"]["san"][-1] == CUT
    assert socks["details"]["username"] == "\\xff" * (MAX_TEXT // 4) + CUT
    assert http["url"] == "u" * MAX_TEXT + CUT
    assert http["headers"][MAX_ITEMS - 1 :] == [["x-255", "1"], [CUT, CUT]]


def test_details_are_held_to_their_protocol(validator) -> None:
    body = json.loads(encode(SAMPLES[5]))
    assert validator.is_valid(body)
    assert not validator.is_valid(body | {"protocol": "tls"})
    assert validator.is_valid(body | {"protocol": "tls", "details": None})


def test_details_may_not_lack_a_field(validator) -> None:
    body = json.loads(encode(SAMPLES[6]))
    del body["details"]["certificate"]["verify"]
    assert not validator.is_valid(body)


def test_what_a_fresh_conversation_knows_fits_the_schema(validator) -> None:
    for row in [row for row in PROTOCOLS if row.converse]:
        details = row.converse(LayerContext()).details()
        layer = FlowLayer(
            flow=1, depth=0, protocol=row.name, speaker="client", action="relayed", details=details
        )
        validator.validate(json.loads(encode(layer)))


def classes(of: type, seen: set[type] | None = None) -> Iterator[type]:
    """A dataclass and those that its fields hold."""
    seen = set() if seen is None else seen
    if of in seen:
        return
    seen.add(of)
    yield of
    pending = list(get_type_hints(of).values())
    while pending:
        hint = pending.pop()
        pending += getattr(hint, "__args__", ())
        if isinstance(hint, type) and is_dataclass(hint):
            yield from classes(hint, seen)


def test_no_two_classes_share_a_name_in_the_schema() -> None:
    """They would share a definition."""
    details = [
        get_type_hints(type(row.converse(LayerContext())).details)["return"]
        for row in PROTOCOLS
        if row.converse
    ]
    found = {cls for root in (*EVENTS, *EVENT_TYPES, *details) for cls in classes(root)}
    names = [cls.__name__ for cls in found]
    assert sorted(names) == sorted(set(names))


def test_every_reference_is_defined(schema) -> None:
    references = {part.split('"')[0] for part in json.dumps(schema).split("#/$defs/")[1:]}
    assert references == set(schema["$defs"])


def test_facts_with_defaults_are_immutable_values() -> None:
    """A default that is shared between connections must not be one that can change."""
    for row in PROTOCOLS:
        if row.converse:
            details = get_type_hints(type(row.converse(LayerContext())).details)["return"]
            assert issubclass(details, Details)
            for item in fields(details):
                assert item.default is MISSING or hash(item.default) is not None


def test_times_are_utc_with_microseconds() -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=timezone(timedelta(hours=2)))
    assert to_json(noon) == "2026-01-02T10:00:00.000000Z"


def test_bytes_that_are_no_utf_8_are_escaped() -> None:
    assert text(b"caf\xc3\xa9 \xff") == "café \\xff"


@given(st.binary())
def test_any_bytes_make_a_line_of_utf_8(data: bytes) -> None:
    layer = FlowLayer(
        flow=1,
        depth=0,
        protocol="socks5",
        speaker="client",
        action="relayed",
        details=Socks5Details(username=data),
    )
    line = encode(layer).encode()
    assert b"\n" not in line
    assert json.loads(line)["details"]["username"] == text(data)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """What a field of this type may hold, also what is cut."""
    known = {
        Address: st.builds(Address, st.text(), st.integers()),
        PayloadText: st.text().map(PayloadText),
        datetime: st.datetimes(timezones=st.just(UTC)),
        float: st.floats(allow_nan=False),
        str: st.one_of(st.text(), st.just("é" * (MAX_TEXT + 1))),
    }
    if hint in known:
        return known[hint]
    if hint is Details:
        return st.one_of(instances(TlsDetails), instances(Socks5Details))
    if isinstance(hint, type) and is_dataclass(hint):
        return instances(hint)
    match get_origin(hint), get_args(hint):
        case builtins.tuple, (item, builtins.Ellipsis):
            return st.lists(values(item), max_size=3).map(tuple)
        case builtins.tuple, items:
            return st.tuples(*map(values, items))
        case ((types.UnionType | typing.Union), options):
            return st.one_of(*map(values, options))
        case abc.Mapping, (key, value):
            return st.dictionaries(values(key), values(value)).map(MappingProxyType)
    return st.from_type(hint)


def instances(cls: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    named = {item.name: values(hints[item.name]) for item in fields(cls) if item.init}
    return st.fixed_dictionaries(named).map(lambda given: cls(**given))


def plain(value: Any) -> Any:
    """The same, with nothing but what json knows."""
    match value:
        case Mapping():
            return dict(value)
        case PayloadText() | None | bool() | int():
            return value
        case str():
            return shorten(value)
        case float():
            return round(value, 6)
        case tuple():
            return [plain(each) for each in value]
        case bytes() | datetime() | Enum():
            return to_json(value)
    return {item.name: plain(getattr(value, item.name)) for item in fields(value)}


@settings(max_examples=100, phases=[Phase.generate])
@given(st.data())
def test_a_line_is_what_json_makes_of_its_fields(data: st.DataObject) -> None:
    cls: Any = data.draw(st.sampled_from([*EVENTS, *EVENT_TYPES]))
    content = event = data.draw(instances(cls))
    where = {}
    if not isinstance(event, Event):
        event = events.LayerEvent(flow=7, depth=1, content=content)
        where = {"flow": 7, "depth": 1}
    head = {"type": cls.type, "time": plain(event.time), "v": VERSION}
    expected = to_line({**head, **where, **plain(content), "time": head["time"]})
    assert encode(event) == expected


@pytest.mark.parametrize("char", "\x00\n\x1b\x85\x9b\u2028\u2029\u202e\u2066", ids=ascii)
def test_no_character_moves_the_cursor_or_ends_the_line(char: str) -> None:
    line = encode(events.FlowOpen(flow=1, client=CLIENT, destination=SERVER, name=f"a{char}b"))
    assert char not in line
    assert len(line.splitlines()) == 1
    assert json.loads(line)["name"] == f"a{char}b"


def test_letters_of_any_script_stand_as_they_are() -> None:
    name = "bücher.例え.مثال"
    assert name in encode(events.FlowOpen(flow=1, client=CLIENT, destination=SERVER, name=name))


def test_what_has_no_json_form_is_our_mistake() -> None:
    class Color(Enum):
        RED = "red"

    assert to_json(Color.RED) == "red"
    with pytest.raises(TypeError):
        to_json(object())
