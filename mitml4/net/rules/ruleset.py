"""The session's nftables table as text: a pure function of what is in scope and who we are.

One `inet` table serves IPv4 and IPv6. It is loaded with the `owner` flag, so it belongs to the
netlink socket of the guard (guard.py) and the kernel removes it with that socket.

    forwarded  prerouting: the SYN of a connection in scope is marked and handed to a listener
               (TPROXY); whatever carries the mark later follows it, and nothing else does
    redirected prerouting, nat: the same where TPROXY cannot work
    local      output, nat: connections that this host starts are redirected
    spoofed    output: with --spoof-source, what leaves in a client's name is marked, and
    answers    prerouting: what comes back for it is delivered here
    input      lets nobody reach a listener who was not sent there by the chains above
    quic_…     refuses QUIC, so that its clients fall back to TCP

Why conntrack marks, and not `socket transparent`: with SYN cookies there is no socket yet when the
third packet of a handshake comes, and a connection that was open before the session has none at
all; the mark says which connections began under our eyes. Why a SYN is asked for besides `ct state
new`: conntrack calls the first packet that it sees of any old connection new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from mitml4.net.identity import (
    ANY_EGRESS_MARK,
    ANY_MARK,
    FOREIGN_MASK,
    KIND_MASK,
    MAGIC_MASK,
    OUR_MASK,
    Identity,
)
from mitml4.net.mechanism import Mechanism
from mitml4.net.rules.scope import PortRange, Scope

__all__ = ["Port", "Ruleset", "policy_routes"]

_QUIC_PORT: Final = 443

# Prerouting comes after the mangle chains of others (-150, firewalld's reverse path check -140),
# which so see the packet unmarked, and after their destination NAT (-100, firewalld's -90): what
# that made of a destination is where the packet would have gone, and may be a service of ours.
_PREROUTING_PRIORITY: Final = -50
# Output comes before it: the egress passes through the same NAT later.
_OUTPUT_NAT_PRIORITY: Final = -101
_FILTER_PRIORITY: Final = -1
# The input chains of others come first, so that they may accept what carries our mark.
_INPUT_PRIORITY: Final = 10


@dataclass(frozen=True, slots=True)
class Port:
    """Where connections over an interface are to be handed to."""

    interface: str
    mechanism: Mechanism
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """A session's table.

    Forwarded connections go through TPROXY where `ports` has a TPROXY port, and through redirect
    otherwise; `redirect_bridged` sends what came in over a bridge through redirect in any case
    (bridge-nf-call-iptables runs prerouting too early for TPROXY).
    """

    scope: Scope
    identity: Identity
    ports: tuple[Port, ...]
    ipv6: bool = True
    redirect_bridged: bool = False

    @property
    def text(self) -> str:
        """The whole table, for `nft -f`."""
        body = "".join(
            f"\n\tchain {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"
            for name, lines in self._chains()
        )
        counter = "\tcounter quic { }\n" if self.blocks_quic else ""
        return f"table inet {self.identity.table} {{\n\tflags owner\n{counter}{body}}}\n"

    @property
    def stop_intake(self) -> str:
        """The statements that end the interception of new connections, and keep the open ones.

        Redirected connections live on by their conntrack entries, TPROXY's by `forwarded`.
        """
        lasting = {"forwarded", "spoofed", "answers", "input"}
        return "".join(
            f"flush chain inet {self.identity.table} {name}\n"
            for name, _ in self._chains()
            if name not in lasting
        )

    @property
    def blocks_quic(self) -> bool:
        return self.scope.quic == "block" and self.scope.covers_port(_QUIC_PORT)

    def _of(self, mechanism: Mechanism) -> list[Port]:
        return [item for item in self.ports if item.mechanism == mechanism]

    def _chains(self) -> Iterator[tuple[str, list[str]]]:
        scope = self.scope
        if scope.forwarded and self._of("tproxy"):
            yield "intake", self._intake()
            yield "forwarded", self._forwarded()
        if scope.forwarded and (self.redirect_bridged or not self._of("tproxy")):
            yield "redirected", self._redirected()
        if scope.local:
            yield "local", self._local()
        if scope.spoof_source and scope.forwarded:
            yield "spoofed", self._spoofed()
            yield "answers", self._answers()
        yield "input", self._input()
        if self.blocks_quic and scope.forwarded:
            yield "quic_forwarded", self._quic("forward", "iifname", "oifname")
        if self.blocks_quic and scope.local:
            yield "quic_local", self._quic("output", "oifname")

    def _intake(self) -> list[str]:
        mark = self.identity.tproxy_mark
        lines = [
            # Another session's.
            f"{_is('ct', ANY_MARK, MAGIC_MASK)} {_is('ct', mark, equal=False)} return",
            *(['meta iifkind "bridge" return'] if self.redirect_bridged else []),
            *self._outside_ports(),
            *self._outside(),
        ]
        for match in ("iifname", _LEAVING):
            lines += [
                f'meta l4proto tcp {match} "{item.interface}" tproxy to :{item.port}'
                f" {_set('ct', mark)} {_set('meta', mark)} accept"
                for item in self._of("tproxy")
            ]
        return lines

    def _forwarded(self) -> list[str]:
        mark = self.identity.tproxy_mark
        deliver = f"{_set('meta', mark)} accept"
        return [
            f"type filter hook prerouting priority {_PREROUTING_PRIORITY}; policy accept",
            # Errors about packets of ours that bear the server's address: path MTU discovery.
            f"meta l4proto {{ icmp, icmpv6 }} ct state related {_is('ct', mark)} {deliver}",
            f"{_FLAGS} == syn ct state new jump intake",
            f"meta l4proto tcp {_is('ct', mark)} tproxy to :{self._of('tproxy')[0].port} {deliver}",
        ]

    def _redirected(self) -> list[str]:
        only_bridged = self.redirect_bridged and bool(self._of("tproxy"))
        return [
            f"type nat hook prerouting priority {_PREROUTING_PRIORITY}; policy accept",
            f"{_is('ct', ANY_MARK, MAGIC_MASK)} return",
            *(['meta iifkind != "bridge" return'] if only_bridged else []),
            *self._first_packets(),
            *self._redirects("iifname", _LEAVING),
        ]

    def _local(self) -> list[str]:
        return [
            f"type nat hook output priority {_OUTPUT_NAT_PRIORITY}; policy accept",
            # Of any session: two of them would hand a connection to each other for ever.
            f"{_is('meta', ANY_EGRESS_MARK, KIND_MASK)} return",
            *self._first_packets(),
            *self._redirects("oifname"),
        ]

    def _first_packets(self) -> list[str]:
        return [
            "meta l4proto != tcp return",
            f"{_FLAGS} != syn return",
            *self._outside_ports(),
            *self._outside(),
        ]

    def _redirects(self, *matches: str) -> list[str]:
        mark = _set("ct", self.identity.redirect_mark)
        return [
            f'meta l4proto tcp {match} "{item.interface}" {mark} redirect to :{item.port}'
            for match in matches
            for item in self._of("redirect")
        ]

    def _spoofed(self) -> list[str]:
        mark = self.identity.egress_mark
        return [
            f"type filter hook output priority {_PREROUTING_PRIORITY}; policy accept",
            f"{_is('meta', mark)} {_set('ct', mark)}",
        ]

    def _answers(self) -> list[str]:
        deliver = _set("meta", self.identity.tproxy_mark)
        return [
            f"type filter hook prerouting priority {_PREROUTING_PRIORITY}; policy accept",
            f"ct direction reply {_is('ct', self.identity.egress_mark)} {deliver}",
        ]

    def _input(self) -> list[str]:
        listening = ", ".join(str(item.port) for item in self.ports)
        return [
            f"type filter hook input priority {_INPUT_PRIORITY}; policy accept",
            f"{_is('ct', self.identity.tproxy_mark)} accept",
            # Not by the mark: a redirected packet passes prerouting again, on lo and still new,
            # where rules of others may set a mark of theirs.
            "ct status dnat accept",
            # As if nobody listened there.
            f"tcp dport {{ {listening} }} reject with tcp reset",
        ]

    def _quic(self, hook: str, *matches: str) -> list[str]:
        interfaces = ", ".join(f'"{name}"' for name in self.scope.interfaces)
        return [
            f"type filter hook {hook} priority {_FILTER_PRIORITY}; policy accept",
            "meta l4proto != udp return",
            f"udp dport != {_QUIC_PORT} return",
            *self._outside(),
            *(
                f"{match} {{ {interfaces} }} ct state new counter name quic reject"
                for match in matches
            ),
        ]

    def _outside_ports(self) -> Iterator[str]:
        if self.scope.ports:
            yield f"tcp dport != {_elements(self.scope.ports)} return"
        if self.scope.exclude_ports:
            yield f"tcp dport {_elements(self.scope.exclude_ports)} return"

    def _outside(self) -> Iterator[str]:
        """Return for hosts that are not in scope, whatever the port."""
        if self.ipv6:
            # Without its interface a link-local destination means nothing to the egress.
            yield "ip6 daddr fe80::/10 return"
        else:
            yield "meta nfproto ipv6 return"
        yield "fib daddr type local return"
        yield from _outside_networks(self.scope.to, "daddr")
        yield from _outside_networks(self.scope.from_, "saddr")


def policy_routes(identity: Identity) -> tuple[tuple[str, str], ...]:
    """What `ip -4` and `ip -6` must each do for TPROXY, and undo: (add, delete), in order.

    Packets with our mark are delivered here, whatever their destination. The reverse path check
    looks a source up as if it came from `lo`, with the packet's mark where `src_valid_mark` is set
    (wg-quick does): `goto` leads it, and anything sent from here, past the rule.
    """
    first = identity.rule_priority
    match = f"fwmark {identity.tproxy_mark:#x}/{OUR_MASK:#x}"
    objects = (
        f"route {{}} local default dev lo table {identity.route_table}",
        f"rule {{}} priority {first + 2} nop",
        f"rule {{}} priority {first} {match} iif lo goto {first + 2}",
        f"rule {{}} priority {first + 1} {match} lookup {identity.route_table}",
    )
    return tuple((item.format("add"), item.format("del")) for item in objects)


_FLAGS: Final = "tcp flags & (fin | syn | rst | ack)"
_LEAVING: Final = "fib daddr . mark oifname"


def _outside_networks(networks: Sequence[IPv4Network | IPv6Network], field: str) -> Iterator[str]:
    if not networks:
        return
    v4 = list(collapse_addresses(item for item in networks if isinstance(item, IPv4Network)))
    v6 = list(collapse_addresses(item for item in networks if isinstance(item, IPv6Network)))
    for family, protocol, members in (("ipv4", "ip", v4), ("ipv6", "ip6", v6)):
        if members:
            yield f"{protocol} {field} != {{ {', '.join(map(str, members))} }} return"
        else:
            yield f"meta nfproto {family} return"


def _elements(ranges: Iterable[PortRange]) -> str:
    """An anonymous set. nft refuses intervals that overlap, so they are merged."""
    merged: list[PortRange] = []
    for item in sorted(ranges):
        if merged and item.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(merged[-1].last, item.last))
        else:
            merged.append(item)
    return f"{{ {', '.join(map(str, merged))} }}"


def _is(what: str, mark: int, mask: int = OUR_MASK, *, equal: bool = True) -> str:
    return f"{what} mark and {mask:#x} {'==' if equal else '!='} {mark:#x}"


def _set(what: str, mark: int) -> str:
    return f"{what} mark set {what} mark and {FOREIGN_MASK:#x} or {mark:#x}"
