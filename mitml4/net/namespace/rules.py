"""The configuration of a command's network namespace: addresses, routes, and nft rules, as text.

All packets are routed to `lo`: a default route of type local delivers packets to any address
locally, and the rules redirect them to our sockets. This needs no policy routing by mark and no TUN
device.

For IPv4 the route is in a separate table. In the main table, bind(2) would succeed for any address:
it looks into the table `local`, which the kernel merges with `main` until there is a policy rule.
With the separate table, the kernel replies from a foreign address only for transparent sockets, and
for nft's resets.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.net.gate.quic import QUIC_SETS, log_of_quic, refusal_of_quic

__all__ = ["LOG_GROUP", "QUIC_GROUP", "Mark", "Ports", "Sources", "ip_commands", "nft_table"]


@dataclass(frozen=True, slots=True)
class Sources:
    """The addresses of the host, which the namespace has as well. Connections use `v4` or `v6`
    unless the client chooses another address, so that a resolver sorts addresses as on the host. No
    `v6`: the host has no IPv6, and the command has none."""

    v4: str
    v6: str | None
    others: tuple[str, ...] = ()

    @property
    def all_v4(self) -> list[str]:
        return [self.v4, *(each for each in self.others if ":" not in each)]

    @property
    def all_v6(self) -> list[str]:
        return [self.v6, *(each for each in self.others if ":" in each)] if self.v6 else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of our sockets in the namespace."""

    tcp: int
    udp: int
    dns: int


class Mark(IntEnum):
    """Marks of our packets (SO_MARK)."""

    OWN = 0x4D34
    """A connection of ours to a server inside, which is not intercepted again."""
    ADMITTED = 0x4D35
    """A held SYN that is accepted."""
    REFUSED = 0x4D36
    """A held SYN that is answered as by a closed port."""


_TABLE: Final = 0x4D34
_PRIORITY: Final = 100

LOG_GROUP: Final = 1
"""The NFLOG group of held SYNs."""
QUIC_GROUP: Final = 2
"""The NFLOG group of datagrams of QUIC that are refused."""


def ip_commands(sources: Sources) -> str:
    """Input of `ip -batch`."""
    lines = [
        "link set lo up",
        *(f"address add {each}/32 dev lo" for each in sources.all_v4),
        f"route add local default dev lo src {sources.v4} table {_TABLE}",
        f"rule add lookup {_TABLE} priority {_PRIORITY}",
    ]
    if sources.v6:
        lines += [
            *(f"address add {each}/128 dev lo nodad" for each in sources.all_v6),
            f"route add local ::/0 dev lo src {sources.v6}",
        ]
    return "".join(f"{line}\n" for line in lines)


def nft_table(sources: Sources, ports: Ports, *, loopback: bool) -> str:
    """The rules. With `loopback`, connections to the namespace's own addresses are intercepted as
    well; otherwise only those without a listener inside, which are for the host's services."""
    own_v4 = f"{{ {', '.join(('127.0.0.0/8', *sources.all_v4))} }}"
    own_v6 = f"{{ {', '.join(('::1', *sources.all_v6))} }}"
    # After a SYN has been accepted, the kernel delivers further packets to its socket. Without
    # `loopback`, it does so for every packet that has a socket: listening or not, on one address or
    # on all.
    is_theirs = "tcp flags & (syn | ack) != syn" if loopback else "socket wildcard <= 1"
    is_first = f"tcp dport != {ports.dns} tcp flags & (syn | ack) == syn"
    counted = (
        ""
        if loopback
        else f"""
    ip daddr {own_v4} {is_first} {is_theirs} counter name direct
    ip6 daddr {own_v6} {is_first} {is_theirs} counter name direct"""
    )
    # Dropped only while we listen: without us, the kernel refuses it.
    held = f"tcp flags & (syn | ack) == syn meta mark != {Mark.ADMITTED:#x}"
    # The first datagram of QUIC is dropped here: where it is sent, that would be an error too.
    quic_sets = "".join(f"  set {name} {{ {what} }}\n" for name, what in QUIC_SETS)
    quic = "\n    ".join(refusal_of_quic(QUIC_GROUP, dropped=False))
    return f"""\
table inet mitml4 {{
{quic_sets}  chain intercept {{
    type filter hook prerouting priority mangle; policy accept;
    iifname != "lo" accept
    meta mark {{ {Mark.OWN:#x}, {Mark.REFUSED:#x} }} accept
    ip daddr != {own_v4} udp dport 443 goto first_of_quic
    ip6 daddr != {own_v6} udp dport 443 goto first_of_quic{counted}
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
    ip daddr {own_v4} accept
    meta protocol ip meta l4proto tcp socket transparent 1 accept
    meta protocol ip meta l4proto tcp reject with tcp reset
  }}
  chain names {{
    type nat hook output priority -100; policy accept;
    meta l4proto {{ tcp, udp }} th dport 53 redirect to :{ports.dns}
  }}
  chain refusals {{
    type filter hook output priority filter; policy accept;
    ip daddr {own_v4} accept
    ip6 daddr {own_v6} accept
    udp dport 443 counter name quic goto datagrams
    icmp type echo-request drop
    icmpv6 type echo-request drop
  }}
  chain datagrams {{
    {quic}
  }}
  chain first_of_quic {{
    {log_of_quic(QUIC_GROUP)}
    drop
  }}
  counter quic {{ }}
  counter direct {{ }}
}}
"""
