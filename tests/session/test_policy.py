"""Patterns over names, addresses and ports, and the order in which the options decide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import UsageError
from mitml4.protocols.conversation import Target
from mitml4.session.policy import Decision, HostPattern, Policy


def patterns(*texts: str) -> tuple[HostPattern, ...]:
    return tuple(map(HostPattern.parse, texts))


@pytest.mark.parametrize(
    ("pattern", "host", "port"),
    [
        ("example.com", "example.com", 443),
        ("example.com", "EXAMPLE.Com.", 443),
        ("Example.COM.", "example.com", 443),
        ("*.example.com", "www.example.com", 443),
        ("*.example.com", "a.b.example.com", 443),
        ("*", "anything", 1),
        ("*", "192.0.2.1", 1),
        ("www.*", "www.example", 443),
        ("*:8443", "example.com", 8443),
        ("host:443", "host", 443),
        ("192.0.2.1", "192.0.2.1", 80),
        ("10.0.0.0/8", "10.255.0.1", 80),
        ("10.1.2.3/8", "10.9.9.9", 80),
        ("10.0.0.0/8:22", "10.255.0.1", 22),
        ("2001:db8::/32", "2001:db8:1::1", 80),
        ("2001:DB8::1", "2001:db8::1", 80),
        ("[2001:db8::]/32", "2001:db8:1::1", 80),
        ("[2001:db8::]/32:443", "2001:db8:1::1", 443),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
        ("bücher.example", "xn--bcher-kva.example", 443),
        ("xn--bcher-kva.example", "BÜCHER.example", 443),
        ("*.bücher.example", "www.xn--bcher-kva.example", 443),
    ],
)
def test_a_pattern_matches(pattern: str, host: str, port: int) -> None:
    assert HostPattern.parse(pattern).matches(Target(host, port))


@pytest.mark.parametrize(
    ("pattern", "host", "port"),
    [
        ("*.example.com", "example.com", 443),
        ("*.example.com", "badexample.com", 443),
        ("example.com", "www.example.com", 443),
        ("example.com", "examplexcom", 443),
        ("example.com", "example.com.evil", 443),
        ("example.com", "example.com\n", 443),
        ("*:8443", "example.com", 443),
        ("host:443", "host", 80),
        ("10.0.0.0/8", "11.0.0.1", 80),
        ("10.0.0.0/8", "10.example", 80),
        ("10.0.0.0/8", "2001:db8::1", 80),
        ("2001:db8::/32", "2001:db9::1", 80),
        ("[2001:db8::]/32:443", "2001:db8::1", 80),
        ("a.c", "abc", 80),
    ],
)
def test_a_pattern_does_not_match(pattern: str, host: str, port: int) -> None:
    assert not HostPattern.parse(pattern).matches(Target(host, port))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        ":443",
        "host:",
        "host:0",
        "host:65536",
        "host:http",
        "host:-1",
        "host:٤",
        "https://example.com",
        "example.com/path",
        "10.0.0.0/33",
        "[10.0.0.1]:443",
        "[2001:db8::1",
        "2001:db8::zz",
        "user@host",
    ],
)
def test_what_is_no_pattern_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        HostPattern.parse(text)
    assert caught.value.hint


@given(st.text())
def test_any_text_is_a_pattern_or_a_usage_error(text: str) -> None:
    try:
        pattern = HostPattern.parse(text)
    except UsageError:
        return
    assert pattern.text == text


@given(st.text(), st.integers(1, 65535))
def test_any_name_from_the_network_can_be_asked_about(name: str, port: int) -> None:
    """Also names that are no UTF-8, which come with surrogates in them."""
    hostile = name + b"\xff".decode("utf-8", "surrogateescape")
    policy = Policy(block=patterns("*.bücher.example", "10.0.0.0/8", "x:1"))
    assert policy.decide(hostile, Target(hostile, port)).action == "intercept"


def test_a_name_of_ascii_letters_is_matched_by_itself() -> None:
    assert HostPattern.parse("a+b(c).example").matches(Target("A+B(C).EXAMPLE", 1))


def test_nothing_asked_for_means_intercept() -> None:
    assert Policy().decide(None, Target("h", 1), Target("192.0.2.1", 1)) == Decision("intercept")


def test_each_thing_a_connection_is_known_by_can_match() -> None:
    known = {
        "sni": "front.example",
        "target": Target("back.example", 443),
        "destination": Target("192.0.2.1", 1080),
    }
    for text in ("front.example", "back.example", "192.0.2.1", "*:443", "*:1080"):
        decision = Policy(block=patterns(text)).decide(**known)
        assert decision == Decision("block", f"--block {text}")


def test_an_sni_goes_with_the_port_of_the_target() -> None:
    known = {
        "sni": "front.example",
        "target": Target("192.0.2.9", 443),
        "destination": Target("192.0.2.1", 1080),
    }
    assert Policy(block=patterns("front.example:443")).decide(**known).action == "block"
    assert Policy(block=patterns("front.example:1080")).decide(**known).action == "intercept"


def test_block_comes_before_passthrough_and_passthrough_before_only() -> None:
    policy = Policy(
        block=patterns("a.example"),
        passthrough=patterns("a.example", "b.example"),
        only=patterns("a.example", "b.example", "c.example"),
    )
    assert policy.decide("a.example", None, Target("192.0.2.1", 443)).action == "block"
    assert policy.decide("b.example", None, Target("192.0.2.1", 443)) == Decision(
        "passthrough", "--passthrough b.example"
    )
    assert policy.decide("c.example", None, Target("192.0.2.1", 443)).action == "intercept"
    assert policy.decide("d.example", None, Target("192.0.2.1", 443)) == Decision(
        "passthrough", "--only"
    )


def test_with_tls_passthrough_nothing_is_opened_but_block_still_blocks() -> None:
    policy = Policy(tls="passthrough", block=patterns("a.example"))
    assert policy.decide("b.example", None, Target("192.0.2.1", 443)) == Decision(
        "passthrough", "--tls passthrough"
    )
    assert policy.decide("a.example", None, Target("192.0.2.1", 443)).action == "block"
