"""`--filter`, as its users call it."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import programs

MITML4 = ["-m", "mitml4"]
TEXT = b"HTTP/1.1 %d Fine\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"%s HTTP/1.1\r\nHost: %s\r\n\r\n"


@pytest.fixture
def capture(write_capture: Callable[..., Path]) -> Path:
    """Three flows: two requests to a.example, one to b.example, and SSH."""
    return write_capture(
        [
            ("up", HEAD % (b"GET /one", b"a.example")),
            ("down", TEXT % 200),
            ("up", HEAD % (b"POST /two", b"a.example")),
            ("down", TEXT % 503),
        ],
        [("up", HEAD % (b"GET /three", b"b.example")), ("down", TEXT % 200)],
        [("up", b"SSH-2.0-x\r\n"), ("down", b"SSH-2.0-y\r\n")],
    )


def detect(capture: Path, expression: str, *options: str) -> list[dict]:
    argv = [*MITML4, "detect", str(capture), "--filter", expression, *options]
    outcome = programs.run(argv, check=True, text=True)
    assert outcome.stderr == ""
    return [json.loads(line) for line in outcome.stdout.splitlines()]


@pytest.mark.parametrize(
    ("expression", "flows", "urls"),
    [
        ("host:a.example", {1}, ["http://a.example/one", "http://a.example/two"]),
        ("status:5xx", {1}, ["http://a.example/two"]),
        ("method:GET", {1, 2}, ["http://a.example/one", "http://b.example/three"]),
        ("not protocol:http/*", {3}, []),
        ("protocol:ssh or path:/three", {2, 3}, ["http://b.example/three"]),
        ("status:404", set(), []),
    ],
)
def test_detect_writes_what_matches(
    capture: Path, expression: str, flows: set[int], urls: list[str]
) -> None:
    events = detect(capture, expression)
    assert [event["url"] for event in events if event["type"] == "http.request"] == urls
    for kind in ("flow.open", "flow.layer", "flow.close"):
        assert {event["flow"] for event in events if event["type"] == kind} == flows
    for flow in flows:
        of_flow = [event["type"] for event in events if event.get("flow") == flow]
        assert (of_flow[0], of_flow[-1]) == ("flow.open", "flow.close")
    # The totals count all flows.
    assert events[0]["type"] == "session.start"
    assert (events[-1]["type"], events[-1]["flows"]) == ("session.stop", 3)
    assert events[-1]["dropped_events"] == 0


def test_bodies_are_those_of_the_exchanges_that_match(capture: Path) -> None:
    events = detect(capture, "status:5xx", "--payload")
    bodies = [(each["stream"], each["side"]) for each in events if each["type"] == "http.body"]
    assert bodies == [(2, "response")]
    events = detect(capture, "protocol:ssh", "--payload")
    assert {each["flow"] for each in events if each["type"] == "http.body"} == set()


def test_the_table_of_detect_has_the_rows_that_match(capture: Path) -> None:
    parent, child = pty.openpty()
    argv = [*MITML4, "detect", str(capture), "--filter", "status:5xx"]
    process = programs.Program(argv, stdout=child, stderr=child)
    os.close(child)
    shown = b""
    try:
        while data := os.read(parent, 65536):
            shown += data
    except OSError:  # the terminal has no other end any more
        pass
    os.close(parent)
    assert process.wait(timeout=60) == 0
    assert b"a.example" in shown
    assert b"b.example" not in shown
    assert b"ssh" not in shown


def test_a_wrong_filter_is_an_error_with_its_place() -> None:
    for command, rest in (("detect", ["x"]), ("run", ["--", "true"]), ("intercept", [])):
        argv = [*MITML4, command, "--filter", "a (port:x)", *rest]
        outcome = programs.run(argv, text=True)
        assert outcome.returncode == 2
        assert outcome.stderr.splitlines()[:3] == [
            "error: --filter: x is no number",
            "  a (port:x)",
            " " * 10 + "^",
        ]
        assert outcome.stdout == ""


def test_a_filter_of_the_environment_is_named_by_its_variable() -> None:
    environ = os.environ | {"MITML4_DETECT_FILTER": "(a"}
    argv = [*MITML4, "detect", "x"]
    outcome = programs.run(argv, text=True, env=environ)
    assert outcome.returncode == 2
    assert outcome.stderr.splitlines()[0] == (
        "error: MITML4_DETECT_FILTER: this bracket is not closed"
    )
