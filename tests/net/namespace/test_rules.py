"""What a namespace is told, as text: the kernel's own reading of it is tested end to end."""

from __future__ import annotations

import pytest

from mitml4.net.namespace.rules import Ports, Sources, ip_commands, nft_table

PORTS = Ports(tcp=1001, udp=1002, dns=1003)
BOTH = Sources("192.0.2.2", "2001:db8::2")
ONLY_V4 = Sources("192.0.2.2", None)
MANY = Sources("192.0.2.2", "2001:db8::2", ("192.0.2.3", "2001:db8::3", "10.0.0.1"))


def test_without_ipv6_on_the_host_there_is_no_route_for_it() -> None:
    """A client that found one would be let down by every name that has both addresses."""
    assert "::/0" in ip_commands(BOTH)
    assert "::" not in ip_commands(ONLY_V4)


def rules(sources: Sources, *, loopback: bool) -> list[str]:
    return [line.strip() for line in nft_table(sources, PORTS, loopback=loopback).splitlines()]


@pytest.mark.parametrize("loopback", [True, False])
def test_a_syn_is_held_only_where_we_listen(loopback: bool) -> None:
    """`tproxy` ends a rule whose port nobody listens on, before the `drop`."""
    held = [
        rule for rule in rules(BOTH, loopback=loopback) if rule.endswith("drop") and "syn" in rule
    ]
    assert len(held) == 2
    assert all(rule.index("tproxy") < rule.index("log group") for rule in held)


def test_only_without_loopback_do_sockets_inside_come_first() -> None:
    assert any("socket wildcard" in rule for rule in rules(BOTH, loopback=False))
    assert not any("socket wildcard" in rule for rule in rules(BOTH, loopback=True))


def test_what_is_said_to_sockets_inside_is_counted_where_it_does_not_come_to_us() -> None:
    counted = [rule for rule in rules(BOTH, loopback=False) if "counter name direct" in rule]
    assert len(counted) == 2
    assert all("syn" in rule and f"!= {PORTS.dns}" in rule for rule in counted)
    assert not any("counter name direct" in rule for rule in rules(BOTH, loopback=True))
