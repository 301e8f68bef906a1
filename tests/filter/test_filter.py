"""Filters: their language, as docs/filter.md describes it, and their values for flows."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.address import Address
from mitml4.filter import parser
from mitml4.filter.parser import FilterError, parse_filter
from mitml4.filter.words import WORDS
from mitml4.model.flow import Exchange, Flow, Layer, Probe, Problem, Request, Response

PAGE = (Path(__file__).parents[2] / "docs/filter.md").read_text()
TIME = datetime(2026, 1, 1, tzinfo=UTC)


def layers(*stack: tuple[str, dict[str, Any]] | str, action: str = "relayed") -> list[Layer]:
    pairs = [(each, {}) if isinstance(each, str) else each for each in stack]
    return [
        Layer(
            depth=depth,
            protocol=protocol,
            action=action if protocol == "tls" else "relayed",
            speaker="client",
            details=details,
            time=TIME,
        )
        for depth, (protocol, details) in enumerate(pairs)
    ]


def exchange(method: str, url: str, *statuses: int, size: int = 0) -> Exchange:
    """One that has ended, if it has a response."""
    request = Request(method=method, url=url, version="1.1", body_bytes=0, time=TIME)
    seen = [Response(status=each, version="1.1", body_bytes=size, time=TIME) for each in statuses]
    return Exchange(
        depth=0,
        stream=1,
        request=request,
        response=seen[-1] if seen else None,
        informational=seen[:-1],
        outcome="complete" if seen else None,
    )


def flow(ip: str, port: int, **given: Any) -> Flow:
    return Flow(
        number=1,
        client=Address("192.0.2.1", 50000),
        destination=Address(ip, port),
        opened_at=TIME,
        **{"reason": "closed", **given},
    )


FLOWS = {
    "A": flow(
        "192.0.2.2",
        443,
        layers=layers(("tls", {"sni": "www.example.com"}), "http/2", action="intercepted"),
        exchanges=[
            exchange("GET", "https://www.example.com/v1/items", 103, 200),
            exchange("POST", "https://www.example.com/v1/items?dry=1", 503),
        ],
    ),
    "B": flow(
        "192.0.2.3",
        1080,
        layers=layers(
            ("socks5", {"target": {"host": "api.example.org", "port": 8443}}),
            ("tls", {"sni": "api.example.org"}),
            "http/1",
            action="intercepted",
        ),
        exchanges=[exchange("GET", "https://api.example.org:8443/login", 302, size=2_000_000)],
    ),
    "C": flow(
        "198.51.100.7",
        443,
        layers=layers(("tls", {"sni": "bank.example", "passthrough": "pinned"}),
                      action="passthrough"),
        bytes_up=500,
        bytes_down=500,
    ),
    "D": flow(
        "198.51.100.8",
        22,
        layers=layers("ssh"),
        reason="reset",
        bytes_up=1000,
        bytes_down=4000,
    ),
    "E": flow(
        "2001:db8::1",
        8080,
        layers=layers(("http/1", {"host": "[2001:db8::1]:8080"})),
        exchanges=[exchange("PUT", "http://[2001:db8::1]:8080/a b", 201)],
        process={"pid": 77, "name": "curl", "uid": 0, "command": ["curl", "-v"]},
    ),
}  # fmt: skip


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def examples() -> list[tuple[str, set[str]]]:
    rows = re.findall(r"^\| `(.*?)` \|([A-E ]*)\|$", section("Examples"), re.MULTILINE)
    return [(text, set(names.split())) for text, names in rows]


def test_the_examples_of_the_page_match_what_it_says() -> None:
    assert len(examples()) > 40
    for text, names in examples():
        found = {name for name, each in FLOWS.items() if parse_filter(text).matches(each)}
        assert found == names, text


def test_every_word_is_in_the_table_and_in_an_example() -> None:
    listed = re.findall(r"^\| `([a-z]+):?` \|", section("Conditions"), re.MULTILINE)
    assert listed == list(WORDS)
    for word in WORDS:
        assert any(re.search(rf"\b{word}[:<>]", text) for text, _ in examples())


def test_every_filter_on_the_page_is_one() -> None:
    quoted = re.findall(r"--filter '(.*?)'", PAGE)
    assert len(quoted) == 3
    for text in quoted:
        parse_filter(text)


def test_the_grammar_of_the_page_is_the_parsers() -> None:
    rules = section("Grammar").split("```")[1].strip().splitlines()
    assert rules == [line.strip() for line in parser.__doc__.splitlines() if " = " in line]


def test_the_error_of_the_page_is_what_is_shown() -> None:
    error, expression, caret, hint = section("A wrong filter").split("```")[1].strip().splitlines()
    with pytest.raises(FilterError) as failure:
        parse_filter(expression.strip())
    assert error == f"error: --filter: {failure.value.message}"
    assert (expression, caret) == failure.value.excerpt
    assert hint == f"hint: {failure.value.hint}"


@pytest.mark.parametrize(
    ("text", "at", "what"),
    [
        ("", 0, "is empty"),
        ("  ", 2, "is empty"),
        ("()", 1, "missing"),
        ("a or", 4, "missing"),
        ("or a", 0, "missing"),
        ("a or or b", 5, "missing"),
        ("a and", 5, "missing"),
        ("not", 3, "missing"),
        ("a (b", 2, "not closed"),
        ("a b)", 3, "closes nothing"),
        ("a 'b", 2, "quote is not closed"),
        ('""', 0, "nothing between"),
        ("a hots:x", 2, "no word hots:"),
        ("localhost:80", 0, "no word localhost:"),
        ("a host:", 7, "no value after host:"),
        ("host: a", 5, "no value after host:"),
        ("size>", 5, "no value after size>"),
        ("host>a", 4, "no order"),
        ("port:a", 5, "a is no number"),
        ("port:65536", 5, "65536 is no port"),
        ("port>70000", 5, "70000 is no port"),
        ("a port!=443", 6, "port is followed by"),
        ("path~x", 4, "path is followed by"),
        ("Host!:x", 4, "Host is followed by"),
        ("a port > 443", 7, "> has no meaning"),
        ("!host:x", 0, "! has no meaning"),
        ("-host:x", 0, "- has no meaning"),
        ("a && b", 2, "& has no meaning"),
        ("a (b || c)", 5, "| has no meaning"),
        ("port:1-", 5, "no range"),
        ("port:1-2-3", 5, "no range"),
        ("port:9-2", 5, "ends before"),
        ("port:1,,2", 5, "beside a comma"),
        ("status:20", 7, "no status"),
        ("status:0xx", 7, "no status"),
        ("size>10q", 5, "10q is no size"),
        ("stack:tls››ssh", 6, "layer is missing"),
        ("host:10.0.0.0/99", 5, "10.0.0.0/99"),
        (f"host:{'ß' * 70}", 5, "no host name"),
        ("(" * 60 + "a" + ")" * 60, 50, "more than 50 brackets"),
    ],
)
def test_an_error_has_its_place(text: str, at: int, what: str) -> None:
    with pytest.raises(FilterError, match=re.escape(what)) as failure:
        parse_filter(text)
    assert failure.value.at == at
    assert failure.value.hint
    expression, caret = failure.value.excerpt
    assert (expression[2:], caret) == (text, f"{' ' * (at + 2)}^")


def test_the_caret_is_below_its_place_whatever_stands_before() -> None:
    for text, column in (("例え hots:x", 5), ("\x1b[31m hots:x", 9), ("e\u0301 hots:x", 2)):
        with pytest.raises(FilterError) as failure:
            parse_filter(text)
        expression, caret = failure.value.excerpt
        assert "\x1b" not in expression
        assert caret.index("^") == column + 2


def test_signs_within_other_words_are_searched_for() -> None:
    for text in ("x=1", "a&b", "-x", "port?", "'&&'", "host'!'x", "!port", "/a?b=c|d"):
        assert not parse_filter(text).matches(FLOWS["A"])


@given(st.text("ab:/*?()\"' ornt›><=-,.1x", max_size=30))
def test_any_text_is_a_filter_or_an_error_with_a_place(text: str) -> None:
    place = None
    try:
        found = parse_filter(text)
    except FilterError as error:
        place = error.at
    if place is None:
        assert {found.matches(each) for each in FLOWS.values()} <= {True, False}
    else:
        assert 0 <= place <= len(text)


def opening() -> Flow:
    return flow("192.0.2.2", 443, reason=None)


def test_a_value_is_none_until_it_is_known() -> None:
    tls = layers(("tls", {"sni": "a.example"}), action="intercepted")
    fresh, layered, closed = opening(), opening(), opening()
    layered.layers = closed.layers = tls
    closed.reason = "closed"
    for text, values in (
        ("protocol:tls", (None, True, True)),
        ("not protocol:tls", (None, False, False)),
        ("protocol:ssh", (None, None, False)),
        ("not protocol:ssh", (None, None, True)),
        ("host:a.example", (None, True, True)),
        ("status:200", (None, None, False)),
        ("protocol:tls or status:200", (None, True, True)),
        ("protocol:tls status:200", (None, None, False)),
        ("port:443", (True, True, True)),
        ("process:curl", (False, False, False)),
        ("process:curl status:200", (False, False, False)),
        ("state:closed", (None, None, True)),
        ("state:open", (None, None, False)),
        ("size<1", (None, None, True)),
    ):
        asked = parse_filter(text)
        assert tuple(asked.decide(each) for each in (fresh, layered, closed)) == values, text


def test_an_exchange_is_decided_when_its_part_is_known() -> None:
    there = opening()
    asked, continued, answered = (
        exchange("POST", "http://b.example:81/x"),
        exchange("POST", "http://me:pw@b.example:81/x", 100),
        exchange("POST", "http://b.example:81/x", 100, 404, size=9),
    )
    continued.outcome = None
    for text, values in (
        ("method:POST", (True, True, True)),
        ("method:GET", (False, False, False)),
        ("host:b.example", (True, True, True)),
        ("host:c.example", (False, False, False)),
        ("port:81", (True, True, True)),
        ("port:82", (False, False, False)),
        ("b.ex*/x", (True, True, True)),
        ("path:/y", (False, False, False)),
        ("status:404", (None, None, True)),
        ("status:1xx", (None, True, True)),
        ("status:5xx", (None, None, False)),
        ("not status:5xx", (None, None, True)),
        ("size>8", (None, None, True)),
        ("protocol:websocket", (None, None, None)),
    ):
        found = parse_filter(text)
        assert (
            tuple(found.decide(there, each) for each in (asked, continued, answered)) == values
        ), text


def test_what_is_asked_of_now_takes_an_open_flow_as_it_is() -> None:
    there = opening()
    for text in ("state:open", "not protocol:ssh", "not state:closed"):
        assert parse_filter(text).matches(there)
    there.problems = [
        Problem(depth=0, side="client", stage="relay", kind="reset", reason="", time=TIME)
    ]
    assert parse_filter("state:failed").decide(there)


def test_the_outcome_of_a_probe_is_a_state() -> None:
    there = opening()
    there.layers = layers("tls", action="answered")
    there.probes = [
        Probe(name="a.example", case="expired", outcome="sent_data", reason=None, time=TIME)
    ]
    assert parse_filter("state:sent_data state:answered").decide(there)
    assert parse_filter("state:refused").decide(there) is None


def test_names_are_compared_as_a_person_writes_them() -> None:
    there = flow("192.0.2.2", 443, name="Resolved.example.", reason=None)
    there.layers = layers(("tls", {"sni": "xn--strae-oqa.example"}))
    for text in ("host:resolved.example", "host:straße.example", "host:STRASSE.example", "solved"):
        assert parse_filter(text).matches(there) is (text != "host:STRASSE.example"), text
    assert not parse_filter('host:"*.example"').matches(there)
