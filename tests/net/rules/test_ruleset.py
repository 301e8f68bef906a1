"""What the rules say; what they do is in e2e/test_rules.py."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.net.identity import SLOTS, Identity
from mitml4.net.rules.ruleset import Ruleset
from mitml4.net.rules.scope import Cgroup, Ends, PortRange, Scope

ALL = [Identity(slot) for slot in range(SLOTS)]


def rules(*, ipv6: bool = True, is_trial: bool = False, **scope) -> Ruleset:
    return Ruleset(
        scope=Scope(interfaces=("eth0", "eth1"), **scope),
        identity=Identity(5),
        port=40001,
        ipv6=ipv6,
        is_trial=is_trial,
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
        line for line in chains(rules(ports=tuple(ranges)))["scope"] if line.startswith("tcp dport")
    ]
    merged = PortRange.parse_list(line.removeprefix("tcp dport != { ").removesuffix(" } return"))
    for before, after in pairwise(merged):
        assert before.last + 1 < after.first
    edges = {p for r in ranges for p in (r.first - 1, r.first, r.last, r.last + 1)}
    for port in edges:
        assert any(port in item for item in merged) == any(port in item for item in ranges)


def test_networks_that_overlap_are_merged() -> None:
    to = tuple(map(ip_network, ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/25", "192.0.2.128/25")))
    assert "ip daddr != { 10.0.0.0/8, 192.0.2.0/24 } return" in chains(rules(to=to))["scope"]


def test_connections_of_every_session_are_skipped() -> None:
    """Else two sessions would hand a connection to each other for ever."""
    remember = re.compile(r".* meta mark and (\w+) == (\w+) update @own_syns { tcp sequence }")
    (found,) = filter(None, map(remember.fullmatch, chains(rules())["own"]))
    mask, value = (int(text, 16) for text in found.groups())
    for item in ALL:
        assert item.own_mark & mask == value
        for other in (item.admitted_mark, item.refused_mark, item.unreachable_mark):
            assert other & mask != value


ALWAYS = "hold scope gate refused own input nat"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, f"{ALWAYS} datagrams quic_forwarded quic_local"),
        ({"direction": "forwarded"}, f"{ALWAYS} datagrams quic_forwarded"),
        ({"direction": "local"}, f"{ALWAYS} datagrams quic_local"),
        ({"quic": "allow"}, ALWAYS),
        ({"ports": PortRange.parse_list("80")}, ALWAYS),
        (
            {"quic": "allow", "is_trial": True},
            "hold scope gate_forwarded gate_local refused own input nat",
        ),
    ],
)
def test_chains_are_those_that_the_scope_needs(options, expected: str) -> None:
    assert list(chains(rules(**options))) == expected.split()


@pytest.mark.parametrize(
    ("direction", "matches"),
    [
        ("both", ["iifname", "oifname"]),
        ("forwarded", ["iifname", "iif != 0 oifname"]),
        ("local", ["iif 0 oifname"]),
    ],
)
def test_a_direction_is_told_by_where_a_packet_enters(direction: str, matches: list[str]) -> None:
    found = [line.partition(" { ")[0] for line in chains(rules(direction=direction))["gate"][4:]]
    assert found == matches


def test_an_interface_is_known_by_its_index_too() -> None:
    """Which it keeps when it is renamed."""
    ruleset = replace(rules(direction="forwarded"), indexes=(7, 8))
    assert chains(ruleset)["gate"][4:] == [
        'iifname { "eth0", "eth1" } goto scope',
        "iif { 7, 8 } goto scope",
        'iif != 0 oifname { "eth0", "eth1" } goto scope',
        "iif != 0 oif { 7, 8 } goto scope",
    ]


def test_nobody_comes_behind_the_gate_but_conntrack() -> None:
    """Which confirms a connection at the last priority that there is."""
    hook = chains(rules())["gate"][0]
    assert hook == f"type filter hook postrouting priority {2**31 - 2}; policy accept"


def test_what_is_blocked_gets_no_packet_behind_the_held_ones() -> None:
    blocked = Ends(ip_network("192.0.2.0/24")), Ends(ip_network("2001:db8::1/128"), 443)
    lines = chains(rules(blocked=blocked))["scope"]
    assert lines[-2:] == [
        "ip daddr 192.0.2.0/24 drop",
        "ip6 daddr 2001:db8::1/128 tcp dport 443 drop",
    ]
    assert any(line.endswith("goto hold") for line in lines[:-2])


def test_ending_interception_keeps_what_open_flows_need() -> None:
    flushed = [line.split()[-1] for line in rules().stop_interception.splitlines()]
    assert flushed == ["gate", "quic_forwarded", "quic_local"]


def test_interception_that_begins_again_has_the_rules_that_it_had() -> None:
    ruleset = rules()
    added: dict[str, list[str]] = {}
    for line in ruleset.resume_interception.removeprefix(ruleset.stop_interception).splitlines():
        name, _, rule = line.removeprefix("add rule inet mitml4_5 ").partition(" ")
        added.setdefault(name, []).append(rule)
    flushed = [line.split()[-1] for line in ruleset.stop_interception.splitlines()]
    assert added == {name: chains(ruleset)[name][1:] for name in flushed}


def test_without_ipv6_it_is_left_alone() -> None:
    assert "meta nfproto ipv6 return" in chains(rules(ipv6=False))["scope"]
    assert not any("nfproto" in line for line in chains(rules())["scope"])


def test_the_ca_page_is_in_scope_whatever_the_ports_and_destinations_are() -> None:
    scope: dict[str, Any] = {"ports": (PortRange(443, 443),), "to": (ip_network("10.0.0.0/8"),)}
    page = [line for line in chains(rules(ca_page=True, **scope))["scope"] if "192.0.2.1" in line]
    assert chains(rules(ca_page=True, **scope))["scope"][:1] == page
    assert page[0].startswith("ip daddr 192.0.2.1 tcp dport 80 ")
    assert page[0].endswith(" goto hold")
    clients = (ip_network("10.9.0.0/16"),)
    lines = chains(rules(ca_page=True, from_=clients, **scope))["scope"]
    outside = next(at for at, line in enumerate(lines) if "10.9.0.0/16 } return" in line)
    assert outside < lines.index(page[0])
    assert not any("192.0.2.1" in line for line in chains(rules(**scope))["scope"])


def test_only_users_and_cgroups_in_scope_pass_the_gate_by_their_first_packets() -> None:
    cgroup = Cgroup("/system.slice/nginx.service", Path("/sys/fs/cgroup/unified"))
    ruleset = rules(owners=(33, cgroup), direction="local")
    found = chains(ruleset)
    assert found["owned_0"] == ["meta skuid 33 goto chosen"]
    path = "unified/system.slice/nginx.service"
    assert found["owned_1"] == [f'socket cgroupv2 level 2 "{path}" goto chosen']
    assert [line.partition(" jump ")[2] for line in found["owned"][1:]] == ["owned_0", "owned_1"]
    assert found["scope"][0] == "tcp sequence != @owned_syns return"
    assert not any("goto datagrams" in line for line in found["quic_local"])
    flush, rule = ruleset.renewal(1).splitlines()
    assert flush.endswith(" owned_1")
    assert rule.endswith(f" owned_1 {found['owned_1'][0]}")
    assert "owned" not in "".join(chains(rules()))
