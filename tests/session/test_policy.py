"""Patterns over names, addresses and ports, and the order in which the options decide."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import UsageError
from mitml4.protocols.conversation import Target, Unreadable
from mitml4.protocols.policy import Blocked, End, FlowPolicy, PolicyDecision
from mitml4.session.destinations.policy import HostPattern, LivePolicy, Policy


def patterns(*texts: str) -> tuple[HostPattern, ...]:
    return tuple(map(HostPattern.parse, texts))


def test_a_pattern_matches() -> None:
    for pattern, host, port in (
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
    ):
        assert HostPattern.parse(pattern).matches(Target(host, port))


SPELLINGS = {
    "blocked.example": (
        "blocked.example",
        "BLOCKED.Example",
        "blocked.example.",
        "Ｂｌｏｃｋｅｄ．example",
        "blocked。example",
        "blocked\N{SOFT HYPHEN}.example",
        "bl%6fcked.example",
        "%62locked%2eexample%2E",
    ),
    "straße.example": (
        "straße.example",
        "STRAßE.EXAMPLE.",
        "xn--strae-oqa.example",
        "XN--STRAE-OQA.Example.",
        "stra%C3%9Fe.example",
        "ｓｔｒａße｡example",
    ),
    "xn--strae-oqa.example": ("straße.example", "xn--STRAE-oqa.example"),
    "*.STRAßE.example": ("www.xn--strae-oqa.example", "www.straße.example"),
    "stra*e.example": ("straße.example", "xn--strae-oqa.example"),
    "strä*.example": ("xn--strnge-dua.example",),
    "xn--*.example": ("straße.example",),
    "10.67.2.3": (
        "10.67.2.3",
        "10.67.2.3.",
        "172163587",
        "10.67.515",
        "10.4391427",
        "0xa430203",
        "0XA.0x43.02.3",
        "012.67.2.3",
        "01220601003",
        "010.67.2.3",
        "１０.67。2。3",
        "10%2e67.2.3",
        "::ffff:10.67.2.3",
        "[::FFFF:a43:203]",
        "0:0:0:0:0:ffff:0a43:0203",
        "64:ff9b::10.67.2.3",
    ),
    "172163587": ("10.67.2.3",),
    "10.67.515": ("10.67.2.3", "::ffff:10.67.2.3"),
    "10.67.2.3/31": ("10.67.514",),
    "::ffff:10.67.2.3": ("10.67.2.3", "172163587"),
    "::ffff:10.0.0.0/104": ("10.67.2.3",),
    "fe80::1": ("fe80::1%eth0", "[fe80::1%25eth0]", "FE80:0::0:1"),
    "127.0.0.1": ("localhost", "LocalHost.", "a.localhost", "0", "0.0.0.0", "127.1", "2130706433"),
    "::1": ("localhost", "::", "[::1]", "0:0:0:0:0:0:0:1"),
    "localhost": ("127.0.0.1", "127.1", "::1", "0.0.0.0"),
}


def test_a_host_is_matched_however_it_is_written() -> None:
    for pattern, spellings in SPELLINGS.items():
        for host in spellings:
            assert HostPattern.parse(pattern).matches(Target(host, 443)), (pattern, host)
            assert HostPattern.parse("*:443").matches(Target(host, 443)), host
            assert not HostPattern.parse("other.example").matches(Target(host, 443)), host


def allows(allowed: tuple[str, ...], *ends: Target | Unreadable) -> bool:
    return Policy(allow=patterns(*allowed)).decide(ends).action != "block"


def test_only_what_is_allowed_may_be_reached() -> None:
    for allowed, host, port in (
        ("ok.test", "OK.test.", 443),
        ("*.ok.test", "a.b.ok.test", 1),
        ("*", "any.test", 1),
        ("ok.test:443", "ok.test", 443),
        ("192.0.2.0/24", "192.0.2.7", 443),
        ("192.0.2.7", "::ffff:192.0.2.7", 443),
        ("192.0.2.7", "64:ff9b::192.0.2.7", 443),
        ("0.0.0.0/0", "192.0.2.7", 443),
        ("::/0", "2001:db8::1", 443),
        ("10.0.0.0/8", "10.9.9.9", 443),
        ("10.1.2.3", "10.1.2.3", 443),
        ("169.254.169.254", "169.254.169.254", 80),
        ("fd00::/8", "fd00:ec2::254", 80),
        ("localhost", "127.0.0.1", 80),
        ("localhost:80", "::1", 80),
        ("8.0.0.1", "8.0.0.1", 1),
    ):
        assert allows((allowed,), Target(host, port)), (allowed, host)
    for allowed, host, port in (
        ("ok.test", "a.ok.test", 443),
        ("*.ok.test", "ok.test", 443),
        ("ok.test:443", "ok.test", 80),
        ("*", "192.0.2.7", 443),
        ("*:443", "2001:db8::1", 443),
        ("192.*", "192.0.2.7", 443),
        ("0.0.0.0/0", "169.254.169.254", 80),
        ("0.0.0.0/0", "127.0.0.1", 80),
        ("0.0.0.0/0", "2001:db8::1", 443),
        ("::/0", "192.0.2.7", 443),
        ("::/0", "::1", 443),
        ("::/0", "fe80::1%eth0", 443),
        ("::/0", "::ffff:10.0.0.1", 443),
        ("64:ff9b::/96", "64:ff9b::10.0.0.1", 443),
        ("10.0.0.1", "010.0.0.1", 443),
        ("8.0.0.1", "010.0.0.1", 443),
        ("*", "a b", 443),
        ("localhost", "10.0.0.1", 443),
    ):
        assert not allows((allowed,), Target(host, port)), (allowed, host)
    assert not allows(("*", "0.0.0.0/0"), Unreadable())


def test_an_address_may_be_reached_by_an_allowed_name_unless_it_is_special() -> None:
    name = Target("ok.test", 443)
    assert allows(("ok.test",), Target("192.0.2.7", 443), name)
    assert not allows(("other.test",), Target("192.0.2.7", 443), name)
    for address in ("10.0.0.1", "127.0.0.1", "169.254.169.254", "100.100.100.200", "fd00::1"):
        assert not allows(("ok.test",), Target(address, 443), name), address
        assert not allows(("*",), Target(f"::ffff:{address}", 443), name) or ":" in address
        assert allows(("ok.test", address), Target(address, 443), name), address
    for address in ("::1", "fe80::1", "2002:a00:1::", "64:ff9b::10.0.0.1", "168.63.129.16"):
        assert not allows(("ok.test",), Target(address, 443), name), address


def test_addresses_of_this_host_have_to_be_named() -> None:
    name, here = Target("ok.test", 443), Target("192.0.2.7", 443)
    for allowed, expected in ((("ok.test",), False), (("0.0.0.0/0",), False), ((here.host,), True)):
        policy = LivePolicy(Policy(allow=patterns(*allowed)))
        policy.protect([here.host, "2001:db8::1"])
        assert (policy.decide([here, name]).action != "block") == expected, allowed
        policy.protect([])
        assert policy.decide([here, name]).action != "block"


def test_a_flow_may_be_for_any_of_its_names_and_for_no_other() -> None:
    decide = Policy(allow=patterns("a.test", "b.test:22", "10.0.0.1")).decide
    there = Target("192.0.2.7", 22)
    names = (Target("a.test", 22), Target("B.test", 22))
    flow = FlowPolicy.of_flow(decide, there, names)
    flow.check_destination()
    assert flow.means("A.test.", "b.test")
    assert not flow.means("a.test", "c.test")
    with pytest.raises(Blocked):
        flow.check_closed(["a.test"], "pinned", is_asked_for=False)
    flow.check_closed(["a.test"], "--passthrough", is_asked_for=True)
    for closed in ([], ["c.test"]):
        with pytest.raises(Blocked):
            flow.check_closed(closed, "--passthrough", is_asked_for=True)
    assert not flow.inside("b.test").means("a.test")
    last = FlowPolicy.of_flow(decide, there, (Target("c.test", 22), *names))
    last.check_destination()
    for refused in (
        FlowPolicy.of_flow(decide, there, ()),
        FlowPolicy.of_flow(decide, there, (Target("c.test", 22),)),
        FlowPolicy.of_flow(decide, Target("192.0.2.7", 23), (Target("b.test", 23),)),
    ):
        with pytest.raises(Blocked):
            refused.check_destination()
    named = FlowPolicy.of_flow(decide, Target("10.0.0.1", 1), ())
    named.check_destination()
    named.check_closed([], "pinned", is_asked_for=False)
    assert named.means("a.test")
    everywhere = FlowPolicy.of_flow(Policy().decide, there, ())
    everywhere.check_destination()
    everywhere.check_closed([], "pinned", is_asked_for=False)
    assert everywhere.inside("a.test").means("b.test")


def test_dns_is_asked_for_names_that_are_allowed_at_some_port() -> None:
    policy = Policy(allow=patterns("ok.test:443", "*.below.test", "10.0.0.0/8"))
    for name, expected in (
        ("OK.test", True),
        ("a.below.test", True),
        ("below.test", False),
        ("other.test", False),
        ("10.0.0.1", False),
        ("", False),
    ):
        assert policy.allows_name(name) == expected, name


def test_what_nobody_takes_for_a_host_matches_no_pattern() -> None:
    texts = ("", ".", "a b", "a..b", ".a", "a\0", "a@b", "a,b", "a\\xff", "1.2.3.4.5", "4294967296")
    more = (
        "[10.0.0.1]",
        "[::1",
        "::1]",
        "a:80",
        "1" * 5000,
        "ä" * 300,
        "%",
        "%ff",
        "%00",
        "\udcff",
    )
    for text in (*texts, *more):
        assert not HostPattern.parse("*").matches(Target(text, 443)), text


def test_a_pattern_does_not_match() -> None:
    for pattern, host, port in (
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
    ):
        assert not HostPattern.parse(pattern).matches(Target(host, port))


def test_what_is_no_pattern_is_refused_with_a_hint() -> None:
    for text in (
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
        "010.0.0.1",
        "1.2.3.4.5",
        "a,b",
        "a..b",
    ):
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
    """Also names that are no UTF-8, which come with surrogates in them: no host can be read."""
    hostile = name + b"\xff".decode("utf-8", "surrogateescape")
    policy = Policy(block=patterns("*.bücher.example", "10.0.0.0/8", "x:1"))
    assert policy.decide([Target(hostile, port)]) == PolicyDecision(
        "block", "--block *.bücher.example"
    )
    assert Policy(only=patterns("*")).decide([Target(hostile, port)]).action == "passthrough"


def test_a_pattern_is_known_to_stand_for_addresses_of_a_network() -> None:
    own = [ip_network("127.0.0.0/8"), ip_network("::1")]
    for text in (
        "127.0.0.1",
        "127.9.9.9:80",
        "0.0.0.0/0",
        "::1",
        "localhost",
        "*",
        "*:25",
        "127.*",
    ):
        assert any(map(HostPattern.parse(text).concerns, own)), text
    for text in ("ads.example", "*.example", "10.0.0.0/8", "::2", "10.*"):
        assert not any(map(HostPattern.parse(text).concerns, own)), text


def test_a_name_of_ascii_letters_is_matched_by_itself() -> None:
    assert HostPattern.parse("a+b(c).example").matches(Target("A+B(C).EXAMPLE", 1))


def test_nothing_asked_for_means_intercept() -> None:
    assert Policy().decide([Target("h", 1), Unreadable()]) == PolicyDecision("intercept")


def test_each_thing_a_connection_is_known_by_can_match() -> None:
    known = (Target("front.example", 443), Target("back.example", 443), Target("192.0.2.1", 1080))
    for text in ("front.example", "back.example", "192.0.2.1", "*:443", "*:1080"):
        policy = Policy(block=patterns("other.example", text))
        assert policy.decide(known) == PolicyDecision("block", f"--block {text}")


def test_what_cannot_be_read_is_blocked_where_a_block_could_concern_it() -> None:
    unreadable: list[End] = [
        Unreadable(),
        Unreadable("why", 443),
        Target("", 443),
        Target("a b", 443),
    ]
    for text, concerned in (
        ("x.example", unreadable),
        ("10.0.0.0/8", unreadable),
        ("*:443", unreadable),
        ("x.example:443", unreadable),
        ("x.example:25", unreadable[:1]),
    ):
        for end in unreadable:
            action = Policy(block=patterns(text)).decide([end]).action
            assert action == ("block" if end in concerned else "intercept"), (text, end)
            relaxed = Policy(passthrough=patterns(text), only=patterns("192.0.2.1:80"))
            assert relaxed.decide([end, Target("192.0.2.1", 80)]).action == "intercept"


def test_block_comes_before_passthrough_and_passthrough_before_only() -> None:
    policy = Policy(
        block=patterns("a.example"),
        passthrough=patterns("a.example", "b.example"),
        only=patterns("a.example", "b.example", "c.example"),
    )
    expected = {
        "a.example": PolicyDecision("block", "--block a.example"),
        "b.example": PolicyDecision("passthrough", "--passthrough b.example"),
        "c.example": PolicyDecision("intercept"),
        "d.example": PolicyDecision("passthrough", "--only"),
    }
    for name, decision in expected.items():
        assert policy.decide([Target(name, 443), Target("192.0.2.1", 443)]) == decision


def test_with_tls_passthrough_nothing_is_opened_but_block_still_blocks() -> None:
    policy = Policy(tls="passthrough", block=patterns("a.example"))
    assert policy.decide([Target("b.example", 443)]) == PolicyDecision(
        "passthrough", "--tls passthrough"
    )
    assert policy.decide([Target("a.example", 443)]).action == "block"


def test_blocked_addresses_are_those_that_need_no_name() -> None:
    patterns = ("10.0.0.0/8", "[2001:db8::1]:443", "*:25", "blocked.example", "*.example:80")
    policy = Policy(block=tuple(map(HostPattern.parse, patterns)))
    assert [(str(network), port) for network, port in policy.blocked_addresses] == [
        ("10.0.0.0/8", None),
        ("2001:db8::1/128", 443),
        ("0.0.0.0/0", 25),
        ("::/0", 25),
    ]


def test_hosts_are_added_while_the_session_runs_and_removed_again() -> None:
    policy = LivePolicy(Policy(block=patterns("a.example")))
    ends = [Target("b.example", 443)]
    for option, action in (("block", "block"), ("passthrough", "passthrough")):
        assert policy.toggle(option, "b.example")  # type: ignore[arg-type]
        assert policy.decide(ends).action == action
        assert not policy.toggle(option, "b.example")  # type: ignore[arg-type]
        assert policy.decide(ends).action == "intercept"
    assert not policy.toggle("block", "a.example")
    assert policy.decide([Target("a.example", 443)]).action == "intercept"
    assert policy.toggle("block", "2001:db8::1")
    assert policy.decide([Target("2001:db8::1", 443)]).action == "block"


def test_a_host_that_a_client_named_stands_for_itself_only() -> None:
    """Neither a wildcard nor a network in it has a meaning."""
    for host, others in (
        ("*", ["a.example", "10.0.0.1"]),
        ("*.example", ["a.example"]),
        ("10.0.0.1", ["10.0.0.2"]),
        ("::ffff:10.0.0.1", ["10.0.0.2"]),
        ("stra\xdfe.example", ["a.example"]),
        ("A.Example.", ["b.example"]),
        ("localhost", ["a.example"]),
    ):
        policy = LivePolicy(Policy())
        assert policy.toggle("block", host)
        assert policy.decide([Target(host, 1)]).action == "block", host
        for other in others:
            assert policy.decide([Target(other, 1)]).action == "intercept", (host, other)
        assert not policy.toggle("block", host)
    for text in ("10.0.0.0/8", "[::]/0", "a b", "", "\\xff\\x1b[2J", "a:b", "010.0.0.1", "x" * 300):
        policy = LivePolicy(Policy())
        with pytest.raises(UsageError):
            policy.toggle("block", text)
        assert policy.decide([Target("a.example", 1)]).action == "intercept"


def test_what_the_authority_may_not_sign_is_passed_through() -> None:
    server = Target("192.0.2.1", 443)
    policy = LivePolicy(Policy(block=patterns("*.test")))
    assert policy.decide([server]) == PolicyDecision("intercept")
    policy.limit(("example.com", "example.org"))
    for host, action in (
        *(("example.com", "intercept"), ("www.Example.COM.", "intercept")),
        *(("a.b.example.org", "intercept"), ("badexample.com", "passthrough")),
        *(("192.0.2.1", "passthrough"), ("a.test", "block")),
    ):
        assert policy.decide([Target(host, 443), server]).action == action, host
    passed = policy.decide([Target("other.example", 443), Target("www.example.com", 443)])
    assert passed == PolicyDecision("passthrough", "--permit-domain")


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        (("api.example",), "10.1.2.3:443"),
        (("other.example", "api.example"), "10.1.2.3:443"),
        (("other.example",), "other.example:443"),
        ((), "10.1.2.3:443"),
    ],
)
def test_the_private_address_of_a_name_that_is_allowed_is_what_is_refused(names, refused) -> None:
    """So that one knows what to name, such as the network of containers."""
    policy = Policy(allow=(HostPattern.parse("api.example"),))
    ends = [Target(each, 443) for each in ("10.1.2.3", *names)]
    flow = FlowPolicy.of_flow(policy.decide, ends[0], ends[1:])
    with pytest.raises(Blocked, match=f"{refused} is not in --allow"):
        flow.check_destination()
