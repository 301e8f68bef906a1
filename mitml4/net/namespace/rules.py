"""What a command's network namespace is told: addresses, routes, and nft's rules, as text.

Everything leads to `lo`: a default route of type local makes each address of the world one of this
host, and the rules hand what arrives there to our sockets. No mark, no policy rule, no TUN device.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = ["LOG_GROUP", "Mark", "Ports", "Sources", "ip_commands", "nft_table"]


@dataclass(frozen=True, slots=True)
class Sources:
    """The addresses that the command's connections have: the host's own, so that what a resolver
    finds is sorted as it would be on the host. No `v6`: the host has none, nor has the command."""

    v4: str
    v6: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where our sockets in the namespace listen."""

    tcp: int
    udp: int
    dns: int


class Mark(IntEnum):
    """What a packet of ours is (SO_MARK)."""

    EGRESS = 0x4D34
    """Of a connection of ours to a server inside, which is not intercepted again."""
    ADMITTED = 0x4D35
    """A SYN that was held, and may come in."""
    REFUSED = 0x4D36
    """A SYN that was held, and is to be answered as by a closed port."""
    UNREACHABLE = 0x4D37
    """A SYN that was held, and is to be answered as by a router that knows no way."""


LOG_GROUP: Final = 1
"""Where held SYNs are shown (NFLOG)."""


def ip_commands(sources: Sources) -> str:
    """For `ip -batch`."""
    lines = [
        "link set lo up",
        f"address add {sources.v4}/32 dev lo",
        f"route add local default dev lo src {sources.v4}",
    ]
    if sources.v6:
        lines += [
            f"address add {sources.v6}/128 dev lo nodad",
            f"route add local ::/0 dev lo src {sources.v6}",
        ]
    return "".join(f"{line}\n" for line in lines)


def nft_table(sources: Sources, ports: Ports, *, loopback: bool) -> str:
    """The rules. With `loopback`, connections to the namespace's own addresses come to us as well;
    else only those that nothing inside listens for, which are for the host's own services."""
    own_v4 = f"{{ 127.0.0.0/8, {sources.v4} }}"
    own_v6 = f"{{ ::1, {sources.v6} }}" if sources.v6 else "::1"
    # The packets after a SYN find the socket that has taken it by themselves. Without `loopback`,
    # so does each packet for which there is any socket: listening or not, bound to one or to all.
    is_theirs = "tcp flags & (syn | ack) != syn" if loopback else "socket wildcard <= 1"
    is_first = f"tcp dport != {ports.dns} tcp flags & (syn | ack) == syn"
    counted = (
        ""
        if loopback
        else f"""
    ip daddr {own_v4} {is_first} {is_theirs} counter name direct
    ip6 daddr {own_v6} {is_first} {is_theirs} counter name direct"""
    )
    # Dropped only as long as we listen: without us the kernel refuses it.
    held = f"tcp flags & (syn | ack) == syn meta mark != {Mark.ADMITTED:#x}"
    return f"""\
table inet mitml4 {{
  chain intake {{
    type filter hook prerouting priority mangle; policy accept;
    iifname != "lo" accept
    meta mark {{ {Mark.EGRESS:#x}, {Mark.REFUSED:#x}, {Mark.UNREACHABLE:#x} }} accept{counted}
    ip daddr {own_v4} meta l4proto tcp {is_theirs} accept
    ip6 daddr {own_v6} meta l4proto tcp {is_theirs} accept
    {held} tproxy ip to :{ports.tcp} log group {LOG_GROUP} drop
    {held} tproxy ip6 to :{ports.tcp} log group {LOG_GROUP} drop
    meta l4proto tcp tproxy ip to :{ports.tcp} accept
    meta l4proto tcp tproxy ip6 to :{ports.tcp} accept
    ip daddr {own_v4} accept
    ip6 daddr {own_v6} accept
    meta l4proto udp tproxy ip to :{ports.udp} accept
    meta l4proto udp tproxy ip6 to :{ports.udp} accept
    meta l4proto {{ tcp, icmp, icmpv6 }} accept
    drop
  }}
  chain answers {{
    type filter hook input priority filter; policy accept;
    meta l4proto tcp meta mark {Mark.REFUSED:#x} reject with tcp reset
    meta mark {Mark.UNREACHABLE:#x} reject with icmpx type host-unreachable
  }}
  chain names {{
    type nat hook output priority -100; policy accept;
    meta l4proto {{ tcp, udp }} th dport 53 redirect to :{ports.dns}
  }}
  chain refusals {{
    type filter hook output priority filter; policy accept;
    ip daddr {own_v4} accept
    ip6 daddr {own_v6} accept
    udp dport 443 counter name quic reject
    icmp type echo-request drop
    icmpv6 type echo-request drop
  }}
  counter quic {{ }}
  counter direct {{ }}
}}
"""
