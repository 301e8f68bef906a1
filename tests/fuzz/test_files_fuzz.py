"""Event files that others wrote or changed: any of them is shown, or is an error with its line."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from time import tzset
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import mitml4
from mitml4.filter.parser import parse_filter
from mitml4.filter.words import WORDS
from mitml4.screen.detail import detail
from mitml4.view.index import Index
from mitml4.view.listing import listing
from mitml4.view.report import Report

TIME = "2026-01-02T03:04:05.000000Z"
ADDRESS = {"ip": "192.0.2.1", "port": 443}
CERTIFICATE = {"subject": "CN=a", "issuer": "CN=b", "san": ["a"], "sha256": "ab", "verify": "ok"}


def event(type: str, **fields: Any) -> dict[str, Any]:
    return {"type": type, "time": TIME, "v": 1, "flow": 1, **fields}


def http(type: str, **fields: Any) -> dict[str, Any]:
    return event(f"http.{type}", depth=1, stream=1, **fields)


EVENTS = [
    event("flow.open", client=ADDRESS, destination=ADDRESS, interface="lan", name="a.example",
          process={"pid": 1, "name": "curl", "command": ["curl"]}),
    event("flow.layer", depth=0, protocol="tls", speaker="client", action="intercepted",
          details={"sni": "a.example", "certificate": CERTIFICATE, "mirrored": ["subject"],
                   "not_mirrored": ["key"], "passthrough": None, "target": ADDRESS}),
    event("flow.layer", depth=1, protocol="http/1", speaker="client", action="relayed",
          details={"host": "a.example", "absolute_form": False}),
    http("request", method="POST", url="https://a.example/x", version="1.1",
         content_type="application/json", headers=[["A", "b"]]),
    http("response", status=200, version="1.1", content_type="text/html", headers=[["A", "b"]]),
    http("body", side="response", size=3, decoded_size=9, encoding=["gzip"], coding_error=None,
         charset="utf-8", text='{"a": 1}', base64=None, truncated=True),
    http("body", side="request", size=3, decoded_size=3, encoding=[], coding_error="bad",
         charset=None, text=None, base64="/wAB", truncated=False),
    http("end", request_bytes=1, response_bytes=2, duration_s=0.5, outcome="complete",
         reset_code=None, request_trailers=None, trailers=[["a", "b"]]),
    event("websocket.message", depth=2, direction="up", opcode="text", size=2, stream=None,
          text="hi", base64=None, truncated=False, coding_error=None),
    event("grpc.message", depth=1, stream=3, direction="down", size=2, compressed=True,
          decoded_size=2, encoding=["gzip"], coding_error=None, base64="CAE=", truncated=False),
    event("flow.data", depth=2, direction="down", offset=0, text=None, base64="/w==",
          truncated=False),
    event("flow.error", depth=0, side="client", stage="relay", kind="reset", reason="gone"),
    event("flow.close", stack=["tls", "http/1"], reason="reset", bytes_up=1, bytes_down=2,
          duration_s=1.5),
]  # fmt: skip
FILTERS = [parse_filter(each) for each in (
    "a.example", "host:a.example", "port:1-9", "stack:tls›http/1", "protocol:tls", "method:GET",
    "status:5xx", "path:/x", "state:reset", "process:curl", "size>1",
)]  # fmt: skip

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values within a value."""
    found = [path] if path else []
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, each in items:
        found += places(each, (*path, key))
    return found


PLACES = [path for path in places(EVENTS) if len(path) > 1]


def copied(events: list[Any]) -> list[Any]:
    """With no part in two places, so that a change is one."""
    return [json.loads(json.dumps(each)) for each in events]


def change(events: list[Any], path: tuple[Any, ...], value: Any) -> None:
    place: Any = events
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value


def show(flows: list[mitml4.Flow]) -> None:
    report, index = Report("name"), Index()
    for flow in flows:
        report.add(flow)
        index.add(flow)
        assert all(
            cell_len(line.text) <= 80 and line.text.isprintable() for line in detail(flow, 80)
        )
        for each in FILTERS:
            each.matches(flow)
    assert len(index.entries(0, len(flows) + 1)) == len(flows)
    assert all(line.isprintable() for line in listing(flows, 80))
    "".join(report.page()).encode()
    index.close()


def test_there_is_a_filter_with_each_word() -> None:
    assert all(any(each.text.startswith(word) for each in FILTERS) for word in WORDS)


def test_the_file_is_shown_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in EVENTS))
    (flow,) = flows = list(mitml4.read(path))
    assert (len(flow.exchanges), len(flow.messages), len(flow.data)) == (1, 2, 1)
    show(flows)


def test_the_ends_of_the_calendar_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    for zone, time in (
        ("America/New_York", "0001-01-01T00:00:00Z"),
        ("Asia/Tokyo", "9999-12-31T23:59:59Z"),
    ):
        monkeypatch.setenv("TZ", zone)
        tzset()
        path.write_text("".join(f"{json.dumps(each | {'time': time})}\n" for each in EVENTS))
        show(list(mitml4.read(path)))
    monkeypatch.undo()
    tzset()


def test_details_of_any_type_are_shown(tmp_path: Path) -> None:
    details = [place for place in PLACES if place[:2] == (1, "details") and len(place) > 2]
    values = (None, True, 7, 1.5, "a", [], [["a"]], {}, {"a": [True]})
    path = tmp_path / "events"
    with path.open("w") as file:
        for at, (place, value, action) in enumerate(
            product(details, values, ("intercepted", "passthrough"))
        ):
            events = copied([EVENTS[0], EVENTS[1] | {"action": action}])
            change(events, place, value)
            file.writelines(f"{json.dumps(each | {'flow': at})}\n" for each in events)
    flows = list(mitml4.read(path))
    assert len(flows) == len(details) * len(values) * 2
    show(flows)


@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_any_change_of_a_file_is_shown_or_is_an_error_with_its_line(
    tmp_path_factory: Any, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    events = copied(EVENTS)
    for path, value in changes:
        try:
            change(events, path, value)
        except (LookupError, TypeError):  # an earlier change has removed the place
            continue
    path = tmp_path_factory.getbasetemp() / "changed.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in events))
    flows = []
    try:
        flows.extend(mitml4.read(path))
    except mitml4.MitmError as error:
        assert "line" in error.message  # noqa: PT017 - whether there is an error is not known
    show(flows)
