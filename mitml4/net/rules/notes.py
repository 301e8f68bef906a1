"""What the user is told about rules and interfaces of the host that bear on interception."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mitml4.net.firewall.chains import Chain
from mitml4.net.firewall.host_rules import HostRules
from mitml4.net.rules.scope import Scope
from mitml4.net.sysctl import read_sysctl

__all__ = ["FORWARDING", "belongs", "drops_sent", "notes_on", "remedy_for"]

FORWARDING: Final = {"IPv4": "net/ipv4/ip_forward", "IPv6": "net/ipv6/conf/all/forwarding"}


def belongs(interface: str, master: str) -> str:
    """What the user is told about an interface of a bridge or a bond."""
    return (
        f"{interface} belongs to {master}: connections arrive over {master}, and are not "
        f"intercepted without --iface {master}"
    )


def drops_sent(chain: Chain) -> str:
    """What the user is told about a chain that drops by policy what this host sends."""
    return (
        f"{chain} drops by policy what this host sends. It must accept mitml4's connections to "
        f"servers, or these time out: {chain.opening}"
    )


def notes_on(scope: Scope, rules: HostRules) -> Iterator[str]:
    """Notes about what the user may not expect."""
    for chain in rules.dropping_sent:
        yield drops_sent(chain)
    for chain, rule in rules.drops_of_sent:
        yield (
            f"a rule may drop mitml4's connections to servers, which then time out: {rule}. "
            "If it does, accept before it established connections, and what mitml4 marks: "
            f"{chain.opening}"
        )
    for rule in rules.counts_of_sent:
        yield (
            f"a rule counts connections that this host starts, and counts mitml4's connections to "
            f"servers, too: {rule}"
        )
    if scope.spoof_source and (zoned := next(iter(rules.zones), None)):
        yield (
            "with --spoof-source, connections time out if the server's answers come in another "
            f"conntrack zone than they leave in, as this rule may cause: {zoned}"
        )
    if scope.forwarded and (chains := rules.dropping_answers):
        yield (
            f"what {', '.join(map(str, chains))} would drop of the servers' answers alone does not "
            "hold: only first packets pass it (docs/security.md)"
        )
    if scope.direction == "forwarded":
        for version, setting in FORWARDING.items():
            if read_sysctl(setting) == "0":
                yield f"this host does not forward {version} ({setting.replace('/', '.')} is 0)"


def remedy_for(rules: HostRules) -> str:
    """Name the input chains that drop by policy, and the rule that accepts our connections."""
    dropping = [chain.opening for chain in rules.inputs if chain.policy == "drop"]
    if not dropping:
        return (
            "look for a firewall rule that drops what comes in, or goes out over lo: mitml4 doctor"
        )
    return f"the input policy is drop; let in what mitml4 marks: {'; '.join(dropping)}"
