"""What the rules say; what they do is in e2e/test_rules.py."""

from __future__ import annotations

import re
from ipaddress import ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.net.identity import SLOTS, Identity
from mitml4.net.rules.ruleset import Port, Ruleset, policy_routes
from mitml4.net.rules.scope import PortRange, Scope

TPROXY, REDIRECT = Port("eth0", "tproxy", 40001), Port("eth0", "redirect", 40002)
ALL = [Identity(slot) for slot in range(SLOTS)]


def rules(*ports: Port, ipv6: bool = True, redirect_bridged: bool = False, **scope) -> Ruleset:
    return Ruleset(
        scope=Scope(interfaces=("eth0",), **scope),
        identity=Identity(5),
        ports=ports or (TPROXY, REDIRECT),
        ipv6=ipv6,
        redirect_bridged=redirect_bridged,
    )


def chains(ruleset: Ruleset) -> dict[str, list[str]]:
    found = re.findall(r"^\tchain (\w+) \{\n(.*?)^\t\}", ruleset.text, re.S | re.M)
    return {name: [line.strip() for line in body.splitlines()] for name, body in found}


port_ranges = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(
    lambda pair: PortRange(min(pair), max(pair))
)


@given(st.lists(port_ranges, min_size=1, max_size=6))
def test_merged_ranges_cover_the_same_ports_and_never_touch(ranges: list[PortRange]) -> None:
    """nft refuses a set whose intervals overlap."""
    (line,) = [
        line for line in chains(rules(ports=tuple(ranges)))["local"] if line.startswith("tcp dport")
    ]
    merged = PortRange.parse_list(line.removeprefix("tcp dport != { ").removesuffix(" } return"))
    for before, after in pairwise(merged):
        assert before.last + 1 < after.first
    edges = {p for r in ranges for p in (r.first - 1, r.first, r.last, r.last + 1)}
    for port in edges:
        assert any(port in item for item in merged) == any(port in item for item in ranges)


def test_networks_that_overlap_are_merged() -> None:
    to = tuple(map(ip_network, ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/25", "192.0.2.128/25")))
    assert "ip daddr != { 10.0.0.0/8, 192.0.2.0/24 } return" in chains(rules(to=to))["intake"]


def test_the_egress_of_every_session_is_skipped() -> None:
    """Else two sessions would hand a connection to each other for ever."""
    skip = re.compile(r"meta mark and (\w+) == (\w+) return")
    first = chains(rules())["local"][1]
    mask, value = (int(text, 16) for text in skip.fullmatch(first).groups())
    for item in ALL:
        assert item.egress_mark & mask == value
        assert item.tproxy_mark & mask != value
        assert item.redirect_mark & mask != value


@pytest.mark.parametrize(
    ("ports", "options", "expected"),
    [
        ((), {}, "intake forwarded local input quic_forwarded quic_local"),
        ((TPROXY,), {"direction": "forwarded"}, "intake forwarded input quic_forwarded"),
        ((REDIRECT,), {"direction": "forwarded"}, "redirected input quic_forwarded"),
        ((REDIRECT,), {"direction": "local"}, "local input quic_local"),
        ((), {"quic": "allow"}, "intake forwarded local input"),
        ((), {"ports": PortRange.parse_list("80")}, "intake forwarded local input"),
        (
            (),
            {"quic": "allow", "redirect_bridged": True},
            "intake forwarded redirected local input",
        ),
        (
            (),
            {"quic": "allow", "spoof_source": True},
            "intake forwarded local spoofed answers input",
        ),
        ((REDIRECT,), {"direction": "local", "spoof_source": True}, "local input quic_local"),
    ],
)
def test_chains_are_those_that_the_scope_needs(ports, options, expected: str) -> None:
    assert list(chains(rules(*ports, **options))) == expected.split()


def test_bridged_packets_take_exactly_one_way() -> None:
    found = chains(rules(redirect_bridged=True))
    assert 'meta iifkind "bridge" return' in found["intake"]
    assert 'meta iifkind != "bridge" return' in found["redirected"]
    assert not any("bridge" in line for line in chains(rules(REDIRECT))["redirected"])


def test_ending_the_intake_keeps_what_open_flows_need() -> None:
    ruleset = rules(spoof_source=True)
    flushed = [line.split()[-1] for line in ruleset.stop_intake.splitlines()]
    assert set(flushed) == set(chains(ruleset)) - {"forwarded", "spoofed", "answers", "input"}


def test_without_ipv6_it_is_left_alone() -> None:
    assert "meta nfproto ipv6 return" in chains(rules(ipv6=False))["intake"]
    assert not any("nfproto" in line for line in chains(rules())["intake"])


def test_policy_routes_are_undone_one_by_one() -> None:
    for add, undo in policy_routes(Identity(9)):
        assert add.replace(" add ", " del ", 1) == undo
        assert " add " in add
